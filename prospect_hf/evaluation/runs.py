"""Making the predictions of a run: the sessions that are missing, in one process or several, each kept as it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

import torch
import transformers

from context_dst_smolvlm import Context, StreamError
from modeling_dst_smolvlm import Decoding, DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checkpoints import load_trained
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.evaluation.free_running import chunks, follow_batch
from prospect_hf.evaluation.predictions import Prediction, PredictionStore
from prospect_hf.evaluation.teacher_forced import teacher_forced
from prospect_hf.progress import Progress
from tracking_dst_smolvlm import Tracking


@dataclass(frozen=True)
class Run:
    """How sessions are evaluated once.

    Args:
        name: of the run.
        store: where its predictions are kept.
        frames: the encoded frames.
        thresholds: of the speaking and of the DST-update decision.
        batch_size: sessions that are followed together.
        max_seq_len: tokens of a clip, offline.
        context, tracking, decoding: of a stream; None offline.
    """

    name: str
    store: PredictionStore
    frames: FrameFeatures
    thresholds: tuple[float, float]
    batch_size: int
    max_seq_len: int
    context: Context | None = None
    tracking: Tracking | None = None
    decoding: Decoding | None = None

    def predict(
        self,
        model: DSTSmolVLMForConditionalGeneration,
        processor: DSTSmolVLMProcessor,
        sessions: Sequence[SessionRows],
        done: Callable[[], object],
    ) -> None:
        """Evaluate ``sessions`` together and keep each as it ends; ``done`` is called after each."""
        model.config.speaking_threshold, model.config.dst_update_threshold = self.thresholds
        made: Iterable[tuple[int, Prediction]]
        if self.context is None:
            made = teacher_forced(model, processor, self.frames, sessions, self.max_seq_len)
        else:
            made = follow_batch(model, processor, self.frames, sessions, self.context, self.tracking, self.decoding)
        try:
            for index, prediction in made:
                self.store.save(sessions[index], prediction)
                done()
        except StreamError as error:
            raise DataError(f"{self.name}: {error}") from error


@contextmanager
def workers(model_folder: Path, processes: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes that evaluate side by side, each with the model of its own; None for one, which needs no other.

    The machine's cores are shared among them. Work that has not begun is dropped where the block is left by an error.
    """
    if processes == 1:
        yield None
        return
    threads = max(torch.get_num_threads() // processes, 1)
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(model_folder, threads)
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in active_children():  # a batch under way may take hours, and every finished session is on disk
            worker.terminate()
        raise
    pool.shutdown()


def predict_missing(
    run: Run,
    sessions: Sequence[SessionRows],
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    pool: ProcessPoolExecutor | None = None,
    progress: bool = True,
) -> int:
    """Evaluate the sessions that ``run.store`` does not hold yet; returns how many those were.

    Which sessions run together does not depend on the number of processes. A session's figures may differ in the last
    digits with the sessions beside it (another order of additions), as in any batched evaluation.

    Args:
        model, processor: for this process, where there is no pool.
        pool: of ``workers``.

    Raises:
        DataError: a session that cannot be evaluated.
    """
    parts = [
        [sessions[index] for index in chosen if not run.store.has(sessions[index])]
        for chosen in chunks(sessions, run.batch_size)
    ]
    parts = [part for part in parts if part]
    missing = sum(map(len, parts))
    done = len(sessions) - missing
    with Progress(len(sessions), run.name, "session", initial=done, show=progress) as bar:
        if pool is None:
            for part in parts:
                run.predict(model, processor, part, bar.update)
        else:
            # Long sessions first: the last part to end is then a short one.
            try:
                for finished in as_completed([pool.submit(_work, run, part) for part in reversed(parts)]):
                    bar.update(finished.result())
            except BrokenProcessPool:
                raise DataError(
                    f"{run.name}: a worker process was ended from outside, perhaps for want of memory; run again with "
                    "a smaller evaluate.processes or evaluate.batch_size: what is done is kept."
                ) from None
    return missing


_loaded: list[tuple[DSTSmolVLMForConditionalGeneration, DSTSmolVLMProcessor]] = []  # of a worker process


def _begin(model_folder: Path, threads: int) -> None:
    # A worker whose parent was killed would work on for nobody.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    torch.set_num_threads(threads)
    transformers.logging.disable_progress_bar()
    _loaded.append(load_trained(model_folder))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(run: Run, sessions: list[SessionRows]) -> int:
    model, processor = _loaded[0]
    run.predict(model, processor, sessions, lambda: None)
    return len(sessions)
