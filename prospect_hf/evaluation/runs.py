"""Computes the missing predictions of a run, in one process or several; each session is saved when it is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from context_dst_smolvlm import Context, StreamError
from decoding_dst_smolvlm import Decoding
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checkpoints import load_trained
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.evaluation.free_running import chunks, follow_batch
from prospect_hf.evaluation.predictions import Prediction, PredictionStore
from prospect_hf.evaluation.teacher_forced import teacher_forced
from prospect_hf.evaluation.windowed import windowed
from prospect_hf.progress import Progress
from prospect_hf.workers import worker_pool
from tracking_dst_smolvlm import Tracking


@dataclass(frozen=True)
class Run:
    """One way of evaluating sessions: teacher-forced, as streams with one context strategy, or each frame from the last
    frames alone.

    Args:
        name: name of the run.
        store: store of its predictions.
        frames: the encoded frames.
        thresholds: of the speaking and of the DST-update decision.
        batch_size: number of sessions in a batch.
        max_seq_len: largest length of a teacher-forced clip, in tokens.
        context, decoding: settings of a stream; None otherwise.
        tracking: rules of the table; None when teacher-forced.
        window: number of frames that each frame is judged from; None: a stream or teacher-forced.
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
    window: int | None = None

    def predict(
        self,
        model: DSTSmolVLMForConditionalGeneration,
        processor: DSTSmolVLMProcessor,
        sessions: Sequence[SessionRows],
        done: Callable[[], object],
    ) -> None:
        """Evaluate ``sessions`` as one batch; each is saved when it is finished, and then ``done`` is called."""
        made: Iterable[tuple[int, Prediction]]
        if self.window is not None:
            made = windowed(
                model, processor, self.frames, sessions, self.window, self.tracking or Tracking(), self.thresholds
            )
        elif self.context is None:
            made = teacher_forced(model, processor, self.frames, sessions, self.max_seq_len)
        else:
            made = follow_batch(
                model, processor, self.frames, sessions, self.context, self.tracking, self.decoding, *self.thresholds
            )
        try:
            for index, prediction in made:
                self.store.save(sessions[index], prediction)
                done()
        except StreamError as error:
            raise DataError(f"{self.name}: {error}") from error


@contextmanager
def workers(model_folder: Path, processes: int) -> Iterator[ProcessPoolExecutor | None]:
    """A pool of processes that each load the model; None for one process, which then evaluates in this process.

    The processes share the cores evenly. If the block raises, the workers are terminated: a batch may take hours, and
    finished sessions are already on disk.
    """
    if processes == 1:
        yield None
        return
    threads = max(torch.get_num_threads() // processes, 1)
    with worker_pool(processes, _begin, model_folder, threads) as pool:
        yield pool


def predict_missing(
    run: Run,
    sessions: Sequence[SessionRows],
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    pool: ProcessPoolExecutor | None = None,
    progress: bool = True,
) -> int:
    """Evaluate the sessions that ``run.store`` lacks; returns their number.

    The batches do not depend on the number of processes. As in any batched evaluation, a session's figures may differ
    in the last digits with the other sessions of its batch (floating-point order of additions).

    Args:
        run: the run.
        sessions: its sessions.
        model, processor: used in this process, where there is no pool.
        pool: the pool of ``workers``.
        progress: show a progress bar.

    Raises:
        DataError: a session cannot be evaluated, or a worker process died.
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
            # The longest batches start first, so that no process ends long after the others.
            try:
                for finished in as_completed([pool.submit(_work, run, part) for part in reversed(parts)]):
                    bar.update(finished.result())
            except BrokenProcessPool:
                raise DataError(
                    f"{run.name}: a worker process was killed, perhaps for lack of memory; run again with a smaller "
                    "evaluate.processes or evaluate.batch_size (finished sessions are kept)."
                ) from None
    return missing


_loaded: list[tuple[DSTSmolVLMForConditionalGeneration, DSTSmolVLMProcessor]] = []  # model of this worker process


def _begin(model_folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    transformers.logging.disable_progress_bar()
    _loaded.append(load_trained(model_folder))


def _work(run: Run, sessions: list[SessionRows]) -> int:
    model, processor = _loaded[0]
    run.predict(model, processor, sessions, lambda: None)
    return len(sessions)
