"""Clips of a streaming dataset: rows are read as they come, and nothing is written to the disk.

The shards come in another order in each epoch. Clips are collected in buckets of many batches, sorted by length there,
and the batches of a bucket are shuffled. Everything follows from the seed, so a run that is resumed, and a run with
another number of worker processes, get the same batches.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import datasets
from torch.utils.data import IterableDataset, get_worker_info

from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.clips import ClipInputs
from prospect_hf.data.packing import Clip, pack
from prospect_hf.data.session_rows import COLUMNS, SessionRows, iter_sessions
from prospect_hf.errors import DataError

BATCHES_IN_BUCKET = 64


@dataclass(frozen=True)
class SessionStream(Iterable[SessionRows]):
    """The sessions of Parquet files of frame rows, read anew by ``load_dataset(..., streaming=True)`` in each pass.

    Args:
        files: the shards, in order.
        hash: of their content.
    """

    files: tuple[Path, ...]
    hash: str

    @property
    def rows(self) -> datasets.IterableDataset:
        """The frame rows."""
        paths = [str(path) for path in self.files]
        return datasets.load_dataset(
            "parquet", data_files={"train": paths}, split="train", streaming=True, columns=list(COLUMNS)
        )

    def __iter__(self) -> Iterator[SessionRows]:
        return iter_sessions(self.rows)


class ClipStream(IterableDataset[dict[str, Any]]):
    """Clips of a streaming dataset as model inputs, without end: after an epoch the next one begins.

    The batches are those of ``DataLoader(stream, batch_size)``; they are all full. With worker processes, each reads
    all rows and makes the inputs of its own batches.

    Args:
        rows: frame rows, ``load_dataset(..., streaming=True)``; a session must not be cut between two shards.
        inputs: makes the inputs of a clip.
        max_seq_len: largest length of a clip, in tokens.
        batch_size: clips in a batch of the data loader.
        seed: random seed of the order.
    """

    def __init__(
        self, rows: datasets.IterableDataset, inputs: ClipInputs, max_seq_len: int, batch_size: int, seed: int = 0
    ) -> None:
        super().__init__()
        self.rows, self.inputs, self.max_seq_len = rows, inputs, max_seq_len
        self.batch_size, self.seed = batch_size, seed

    @property
    def processor(self) -> DSTSmolVLMProcessor:
        """The sequence builder."""
        return self.inputs.processor

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        number, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        # A data loader takes whole batches from its workers in turn.
        for batch in islice(self.batches(), number, None, step):
            for epoch, index, clip in batch:
                yield self.inputs(clip, epoch, index)

    def batches(self) -> Iterator[list[tuple[int, int, Clip]]]:
        """Batches of (epoch, number in the epoch, clip), without end.

        Raises:
            DataError: as :func:`iter_sessions` and :func:`pack`, or a session is in two shards.
        """
        waiting: list[tuple[int, int, Clip]] = []
        for epoch in count():
            numbers = count()
            for session in self._sessions(epoch):
                clips = pack(session, self.processor, self.max_seq_len)
                waiting += [(epoch, next(numbers), clip) for clip in clips]
                while len(waiting) >= BATCHES_IN_BUCKET * self.batch_size:
                    yield from self._bucket(waiting, BATCHES_IN_BUCKET)
            # Clips that fill no batch wait for the next epoch.
            yield from self._bucket(waiting, len(waiting) // self.batch_size)

    def _bucket(self, waiting: list[tuple[int, int, Clip]], count: int) -> list[list[tuple[int, int, Clip]]]:
        """Take ``count`` batches off ``waiting``: clips of similar length, in random order of the batches."""
        size = count * self.batch_size
        taken, waiting[:] = sorted(waiting[:size], key=lambda one: -one[2].tokens), waiting[size:]
        batches = [taken[begin : begin + self.batch_size] for begin in range(0, size, self.batch_size)]
        if batches:
            epoch, index, _ = min(taken, key=lambda one: one[:2])
            random.Random(f"bucket {self.seed} {epoch} {index}").shuffle(batches)
        return batches

    def _sessions(self, epoch: int) -> Iterator[SessionRows]:
        shards = list(range(self.rows.num_shards))
        random.Random(f"shards {self.seed} {epoch}").shuffle(shards)
        seen: set[str] = set()
        for shard in shards:
            for session in iter_sessions(self.rows.shard(len(shards), shard)):
                if session.session_id in seen:
                    raise DataError(f"session {session.session_id}: it is in two shards; build the rows again.")
                seen.add(session.session_id)
                yield session
