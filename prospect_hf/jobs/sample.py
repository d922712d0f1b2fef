"""Sample: a folder of videos becomes the frame files of a source, by several processes, resumable."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Any

from prospect_hf.errors import DataError
from prospect_hf.extras import missing
from prospect_hf.files import remove_stale, write_json
from prospect_hf.frames.arguments import SampleArguments
from prospect_hf.frames.sampling import Sampled, Sampling, sample_into
from prospect_hf.frames.videos import VideoTask, find_videos
from prospect_hf.progress import Progress
from prospect_hf.terminal import complain, say
from prospect_hf.workers import worker_pool

logger = logging.getLogger(__name__)


def run(sample: SampleArguments) -> int:
    """Sample the videos of one shard, write the report, and say what is there now; 1 where a video cannot be read.

    Raises:
        UsageError: no videos, or PyAV is missing.
        DataError: a video cannot be read, with ``on_error=raise``; or two videos have one name.
    """
    if find_spec("av") is None:
        raise missing("Reading video", "PyAV", "stream")
    folder, sampling = sample.folder(), sample.sampling()
    names = None if sample.names is None else Path(sample.names)
    number, count = sample.part()
    every = find_videos(Path(str(sample.videos)), str(sample.source), names)
    tasks = every[number::count]
    remove_stale(folder / "frames")
    sampled: dict[str, Sampled] = {}
    failed: dict[str, str] = {}
    processes = min(sample.processes or os.cpu_count() or 1, max(len(tasks), 1))
    with Progress(len(tasks), "sampling frames", "video") as bar, _results(tasks, folder, sampling, processes) as done:
        for task, result in done:
            if isinstance(result, DataError):
                if sample.on_error == "raise":
                    raise result
                complain(f"left out: {result}")
                failed[task.store] = str(result)
            else:
                sampled[task.store] = result
                for note in result.notes:
                    logger.warning("%s", note)
            bar.update()
    report = folder / ("sampled.json" if count == 1 else f"sampled-{number + 1}-of-{count}.json")
    write_json(report, _report(sampled, failed, sampling))
    say(_summary(list(sampled.values()), len(failed), sampling, report))
    return 1 if failed else 0


@contextmanager
def _results(
    tasks: list[VideoTask], folder: Path, sampling: Sampling, processes: int
) -> Iterator[Iterator[tuple[VideoTask, Sampled | DataError]]]:
    """The tasks' results as they come; the error of a video that cannot be read is a result too."""
    if processes == 1:
        yield ((task, _sample(folder, task, sampling)) for task in tasks)
        return
    workers: list[BaseProcess] = []
    try:
        with worker_pool(processes) as pool:
            asked: dict[Future[Sampled | DataError], VideoTask] = {
                pool.submit(_sample, folder, task, sampling): task for task in tasks
            }
            workers += active_children()
            yield ((asked[future], future.result()) for future in as_completed(asked))
    finally:
        # Of a run that ends early: what its workers were writing would fill the disk that may be full already.
        for worker in workers:
            worker.join()
            for path in (folder / "frames").glob(f"*.{worker.pid}-*.partial"):
                path.unlink(missing_ok=True)


def _sample(folder: Path, task: VideoTask, sampling: Sampling) -> Sampled | DataError:
    try:
        return sample_into(folder, task, sampling)
    except DataError as error:
        return error


def _report(sampled: dict[str, Sampled], failed: dict[str, str], sampling: Sampling) -> dict[str, Any]:
    """What the frame files hold; the same for the same videos, whatever was there before."""
    videos = {
        store: {"frames": one.frames, "seconds": one.frames / sampling.fps, "bytes": one.size}
        for store, one in sorted(sampled.items())
    }
    return {"settings": asdict(sampling), "videos": videos, "failed": dict(sorted(failed.items()))}


def _summary(sampled: list[Sampled], failed: int, sampling: Sampling, report: Path) -> str:
    new = sum(one.new for one in sampled)
    lines = [f"Sampled {new} videos; {len(sampled) - new} were sampled already, {failed} cannot be read."]
    if sampled:
        frames = [one.frames for one in sampled]
        hours, size = sum(frames) / sampling.fps / 3600, sum(one.size for one in sampled)
        lines.append(
            f"{sum(frames):,} frames ({hours:.2f} hours, {size / 1e6:,.1f} MB); a video has {min(frames):,} to "
            f"{max(frames):,}, the median is {median(frames):,.0f}."
        )
    return "\n".join([*lines, f"Report: {report}"])
