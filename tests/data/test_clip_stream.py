"""Clips of a streaming dataset: every clip once in each epoch, and the same batches however they are read."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from model_fixtures import NoiseReader, collate, make_session, small_processor
from stored_fixtures import assert_equal, dataset, published, rows_of
from torch.utils.data import DataLoader

from prospect_hf.data import clip_stream
from prospect_hf.data.clip_stream import ClipStream, SessionStream
from prospect_hf.data.clips import ClipInputs
from prospect_hf.data.packing import pack
from prospect_hf.errors import DataError

SESSIONS = [make_session(seed, 5 + 4 * seed, 2 + seed % 3) for seed in range(9)]
LIMIT = 180


@pytest.fixture()
def sessions(tmp_path: Path) -> SessionStream:
    manifest = published([SESSIONS[:3], SESSIONS[3:5], SESSIONS[5:]], tmp_path / "rows")
    return SessionStream(tuple(tmp_path / "rows" / shard.path for shard in manifest.shards), "hash")


def stream(rows: datasets.IterableDataset, batch_size: int = 3, seed: int = 1) -> ClipStream:
    return ClipStream(rows, ClipInputs(small_processor(), NoiseReader(), 0.5, 1, 0.5), LIMIT, batch_size, seed)


def place(clip: Any) -> tuple[str, int, int]:
    return clip.session.session_id, clip.begin, clip.end


def test_streamed_sessions_are_those_of_the_files(sessions: SessionStream) -> None:
    for _ in range(2):
        for ours, theirs in zip(sessions, SESSIONS, strict=True):
            assert_equal(ours, theirs)


@pytest.mark.parametrize("bucket", [1, 2, 64])
def test_every_clip_comes_once_in_an_epoch(
    sessions: SessionStream, bucket: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_stream, "BATCHES_IN_BUCKET", bucket)
    expected = {place(clip) for session in SESSIONS for clip in pack(session, small_processor(), LIMIT)}
    batches = list(islice(stream(sessions.rows).batches(), len(expected)))  # three epochs of batches of three
    assert all(len(batch) == 3 for batch in batches)
    of_epoch: dict[int, list[tuple[str, int, int]]] = {}
    for epoch, _, clip in (one for batch in batches for one in batch):
        of_epoch.setdefault(epoch, []).append(place(clip))
    for epoch in (0, 1):
        assert len(of_epoch[epoch]) == len(expected) and set(of_epoch[epoch]) == expected
    assert of_epoch[0] != of_epoch[1]
    if bucket == 64:  # clips of similar length are together
        spread = [max(clip.tokens for *_, clip in one) - min(clip.tokens for *_, clip in one) for one in batches]
        assert sum(spread) / len(spread) < 40
        assert [place(batch[0][2]) for batch in batches] != [
            place(batch[0][2]) for batch in islice(stream(sessions.rows, seed=2).batches(), len(batches))
        ]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_same_batches(sessions: SessionStream, workers: int) -> None:
    def batches(workers: int) -> list[dict[str, torch.Tensor]]:
        loader = DataLoader(stream(sessions.rows), 3, collate_fn=collate, num_workers=workers)
        return list(islice(loader, 17))

    for ours, theirs in zip(batches(workers), batches(0), strict=True):
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_any_dataset_of_rows_can_be_streamed() -> None:
    rows = dataset([row for session in SESSIONS for row in rows_of(session)]).to_iterable_dataset()
    clips = [place(clip) for batch in islice(stream(rows).batches(), 5) for *_, clip in batch]
    assert max(Counter(clips).values()) == 1 and len(clips) == 15


def test_a_session_in_two_shards_is_refused(tmp_path: Path) -> None:
    manifest = published([SESSIONS[:3], SESSIONS[2:4]], tmp_path / "rows")
    twice = SessionStream(tuple(tmp_path / "rows" / shard.path for shard in manifest.shards), "hash")
    with pytest.raises(DataError, match=f"session {SESSIONS[2].session_id}: it is in two shards"):
        list(islice(stream(twice.rows).batches(), 9))


def test_a_clip_that_is_too_long_is_named(sessions: SessionStream) -> None:
    short = stream(sessions.rows)
    short.max_seq_len = 30
    with pytest.raises(DataError, match="raise max_seq_len"):
        next(short.batches())


def test_the_draws_of_a_clip_depend_on_the_epoch() -> None:
    inputs = ClipInputs(small_processor(), NoiseReader(), 0.9, 1, 0.9)
    (clip,) = pack(SESSIONS[8], small_processor(), 2000)
    drawn = [inputs(clip, epoch, index)["input_ids"].tolist() for epoch, index in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert drawn[0] == drawn[1] and drawn[2] != drawn[0] != drawn[3]
    assert (
        inputs(clip, 0, 0)["input_ids"].tolist()
        != dataclasses.replace(inputs, seed=2)(clip, 0, 0)["input_ids"].tolist()
    )
