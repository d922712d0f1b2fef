"""Writes simulated recordings as a corpus in ProAssist's ``processed_data`` format.

The reader of real records reads these too. ``simulator.json`` at the root says whether the corpus is finished, and
holds the arguments that it was made from, so that a corpus of the same arguments is reused.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import as_dict, get_dict, get_index, load_json
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import sole_writer, write_json
from prospect_hf.frames.store import write_frames
from prospect_hf.progress import Progress
from prospect_hf.simulator.flavours import FLAVOURS
from prospect_hf.simulator.render import encode_jpeg, render
from prospect_hf.simulator.scene import FIXTURE, FPS, GENERATOR_VERSION, Episode, SceneConfig, seconds
from prospect_hf.simulator.script import simulate
from prospect_hf.workers import worker_pool

SPLITS = ("train", "val", "test")
MARKER = "simulator.json"
# Starting worker processes takes about as long as writing this many recordings.
POOL_PAYS_FROM = 24


@dataclass
class SplitCounts:
    """Counts of one split of one source.

    Args:
        recordings, videos: a recording has one video a view.
        frames: of all videos.
        telling: frames whose picture alone tells the state of every step.
        turns: of both speakers.
        events: step starts and completions.
    """

    recordings: int = 0
    videos: int = 0
    frames: int = 0
    telling: int = 0
    turns: int = 0
    events: int = 0


@dataclass(frozen=True)
class CorpusReport:
    """The corpus that was written, with ``counts[source][split]``."""

    root: Path
    counts: dict[str, dict[str, SplitCounts]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Job:
    source: str
    split: str
    index: int


@dataclass(frozen=True)
class _Written:
    records: list[dict[str, Any]]
    frames: int
    telling: int
    turns: int
    events: int


def write_corpus(
    root: Path,
    sources: Sequence[str],
    recordings: Mapping[str, int],
    seed: int,
    scene: SceneConfig,
    views: int = 1,
    progress: bool = True,
) -> CorpusReport:
    """Write ``recordings[split]`` recordings of every source, each from ``views`` cameras, under ``root``.

    The same arguments give the same bytes, whatever the number of processors. Recording i of a split does not depend
    on how many follow it, and all views of a recording lie in its split.

    Raises ``UsageError`` for unknown sources or splits, counts below 1, a folder that another process is writing, and
    one that holds a corpus of another origin, which would be overwritten.
    """
    with sole_writer(root):
        return _write_corpus(root, sources, recordings, seed, scene, views, progress)


def ensure_corpus(
    root: Path, sources: Sequence[str], recordings: Mapping[str, int], seed: int, scene: SceneConfig
) -> None:
    """Write the corpus of these arguments unless it is there; of several processes, one writes and the others wait.

    Raises ``UsageError`` like ``write_corpus``.
    """
    if corpus_is_current(root, sources, recordings, seed, scene):
        return
    with sole_writer(root, wait=True):
        if not corpus_is_current(root, sources, recordings, seed, scene):
            _write_corpus(root, sources, recordings, seed, scene, views=1, progress=True)


def _write_corpus(
    root: Path,
    sources: Sequence[str],
    recordings: Mapping[str, int],
    seed: int,
    scene: SceneConfig,
    views: int,
    progress: bool,
) -> CorpusReport:
    recipe = _recipe(sources, recordings, seed, scene, views)
    _check_folder(root, sources)
    write_json(root / MARKER, {**recipe, "finished": False})
    jobs = [_Job(source, split, i) for source in sources for split, count in recordings.items() for i in range(count)]
    for source in sources:
        (root / "processed_data" / source / "frames").mkdir(parents=True, exist_ok=True)
        (root / "processed_data" / source / "generated_dialogs").mkdir(parents=True, exist_ok=True)
    report = CorpusReport(root, {source: {split: SplitCounts() for split in recordings} for source in sources})
    records: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with (
        _written(jobs, partial(_write_recording, root=root, seed=seed, scene=scene, views=views)) as results,
        Progress(len(jobs), "simulating", "video", show=progress) as bar,
    ):
        # Results come in the order of the jobs.
        for job, written in zip(jobs, results, strict=True):
            records.setdefault((job.source, job.split), []).extend(written.records)
            counts = report.counts[job.source][job.split]
            counts.recordings += 1
            counts.videos += len(written.records)
            counts.frames += written.frames
            counts.telling += written.telling
            counts.turns += written.turns
            counts.events += written.events
            bar.update()
    for (source, split), split_records in records.items():
        write_json(_dialogs_path(root, source, split), split_records)
    counted = {
        source: {split: asdict(c) for split, c in by_split.items()} for source, by_split in report.counts.items()
    }
    write_json(root / MARKER, {**recipe, "finished": True, "counts": counted})
    return report


def corpus_is_current(
    root: Path,
    sources: Sequence[str],
    recordings: Mapping[str, int],
    seed: int,
    scene: SceneConfig,
    views: int = 1,
) -> bool:
    """Whether ``root`` holds a finished corpus of these arguments.

    Raises ``UsageError`` like ``write_corpus`` for arguments that it would refuse.
    """
    recipe = _recipe(sources, recordings, seed, scene, views)
    marker = root / MARKER
    if not marker.is_file():
        return False
    try:
        found = as_dict(load_json(marker), str(marker))
    except DataError:
        return False
    return bool(found.pop("finished", False)) and found.pop("counts", None) is not None and found == recipe


def telling_shares(root: Path) -> dict[str, float]:
    """Share of each split's frames whose picture alone tells the state of every step, 0 to 1.

    Raises ``DataError`` where ``simulator.json`` in ``root`` does not hold the counts of a corpus.
    """
    path = root / MARKER
    frames, telling = Counter[str](), Counter[str]()
    counts = get_dict(as_dict(load_json(path), str(path)), "counts", str(path))
    for source in counts:
        where = f"{path}: counts.{source}"
        for split, of_split in get_dict(counts, source, f"{path}: counts").items():
            frames[split] += get_index(as_dict(of_split, f"{where}.{split}"), "frames", f"{where}.{split}")
            telling[split] += get_index(of_split, "telling", f"{where}.{split}")
    if not frames or not min(frames.values()) or any(telling[split] > frames[split] for split in frames):
        raise DataError(f"{path}: 'counts' are not those of a corpus; remove the folder, and it is simulated again.")
    return {split: telling[split] / frames[split] for split in frames}


def telling_text(shares: Mapping[str, float]) -> str:
    """The shares of :func:`telling_shares` as a sentence."""
    said = ", ".join(f"{100 * share:.1f} % ({split})" for split, share in shares.items())
    return f"Frames whose picture alone tells the state of every step: {said}."


def _recipe(
    sources: Sequence[str], recordings: Mapping[str, int], seed: int, scene: SceneConfig, views: int
) -> dict[str, Any]:
    """The arguments that determine the corpus, as JSON returns them (lists for tuples)."""
    unknown = [source for source in sources if source not in FLAVOURS]
    if unknown or not sources or len(set(sources)) != len(sources):
        raise UsageError(f"simulator sources {list(sources)}: give one or more of {', '.join(FLAVOURS)}, each once.")
    if not recordings or any(split not in SPLITS or count < 1 for split, count in recordings.items()):
        raise UsageError(f"simulator recordings {dict(recordings)}: give {', '.join(SPLITS)} a count of 1 or more.")
    if views < 1:
        raise UsageError(f"simulator views={views}: at least 1 is needed.")
    recipe = {
        "generator": GENERATOR_VERSION,
        "seed": seed,
        "sources": list(sources),
        "recordings": dict(recordings),
        "views": views,
        "scene": asdict(scene),
    }
    parsed: dict[str, Any] = json.loads(json.dumps(recipe))
    return parsed


def _check_folder(root: Path, sources: Sequence[str]) -> None:
    if (root / MARKER).is_file():
        return
    for source in sources:
        for split in SPLITS:
            path = _dialogs_path(root, source, split)
            if path.exists():
                raise UsageError(f"{path} belongs to a corpus that the simulator did not write; give another folder.")


@contextmanager
def _written(jobs: Sequence[_Job], write: partial[_Written]) -> Iterator[Iterator[_Written]]:
    """The jobs' results in order, from as many processes as there are processors."""
    workers = os.cpu_count() or 1
    if workers == 1 or len(jobs) < POOL_PAYS_FROM:
        yield map(write, jobs)
        return
    with worker_pool(workers) as pool:
        yield pool.map(write, jobs, chunksize=4)


def _write_recording(job: _Job, root: Path, seed: int, scene: SceneConfig, views: int) -> _Written:
    """Write one recording's frames and return its records, one a view."""
    episode = simulate(job.source, seed, job.split, job.index, scene)
    flavour = episode.flavour
    records = []
    for view in range(views):
        key = f"{job.split}-{job.index:05d}__view{view}"
        path = root / "processed_data" / job.source / "frames" / f"{flavour.frame_name.format(key=key)}.arrow"
        write_frames(path, map(encode_jpeg, render(episode, view)))
        records.append(_record(episode, flavour.uid.format(key=key)))
    telling = sum(None not in episode.visible_states(frame) for frame in range(len(episode.frames)))
    return _Written(
        records,
        frames=views * len(episode.frames),
        telling=views * telling,
        turns=views * len(episode.turns),
        events=views * len(episode.events),
    )


def _record(episode: Episode, video_uid: str) -> dict[str, Any]:
    """One video as ProAssist's ``generated_dialogs`` hold it, with its DST labels."""
    flavour = episode.flavour
    duration = len(episode.frames) / FPS
    spans = episode.spans()
    described = "\n".join(
        f"[{start:.1f}s-{duration if end is None else end:.1f}s] "
        f"{'press' if episode.parts[step].kind == FIXTURE else flavour.verb} {episode.parts[step].name}"
        for step, start, end in spans
    )
    conversation = [
        {"role": turn.role, "time": seconds(turn.frame), "content": turn.content, "labels": turn.labels}
        | ({"progress": turn.progress} if turn.role == "assistant" else {})
        for turn in episode.turns
    ]
    knowledge = "\n".join([flavour.title, *(f"{k}. {text}" for k, text in enumerate(episode.plan, start=1))])
    return {
        "video_uid": video_uid,
        "inferred_goal": flavour.title,
        "inferred_knowledge": knowledge,
        "video_labels": {},
        "conversations": [{"conversation": conversation, "user_type": episode.user_type, "user_id": 0}],
        "parsed_video_anns": {
            "dataset": flavour.dataset,
            "domain": flavour.domain,
            "knowedge_type": flavour.knowledge_type,
            "video_uid": video_uid,
            "goal_description": flavour.goal,
            "all_step_descriptions": described,
            "clips": [[0.0, duration, described]],
            "duration": duration,
            "ann_ratio": 1.0,
            "num_steps": len(spans),
            "num_substeps": 0,
            "video_start_time": 0.0,
            "has_mistake": episode.has_mistake,
            "fps": FPS,
            "original_ann": {},
        },
        "dst": [
            {"type": "step", "id": f"S{step + 1}", "start_ts": start, "end_ts": end, "name": episode.plan[step]}
            for step, start, end in spans
        ],
    }


def _dialogs_path(root: Path, source: str, split: str) -> Path:
    return root / "processed_data" / source / "generated_dialogs" / f"{split}_filtered.json"
