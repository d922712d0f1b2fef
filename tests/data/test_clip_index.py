"""Clips on disk: those that packing gives, read by position; anything that could change them makes another file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_fixtures import NoiseReader, collate, make_session, small_processor, small_shape
from stored_fixtures import assert_equal, published, stored
from torch.utils.data import DataLoader
from worker_fixtures import as_a_worker_gets_it

from processing_dst_smolvlm import DSTSmolVLMProcessor, Stream
from prospect_hf.data import kept_files, packing
from prospect_hf.data.clip_index import clips_of, open_clips
from prospect_hf.data.clips import ClipDataset, ClipInputs
from prospect_hf.data.packing import Clip, pack, pack_sessions
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.data.session_store import SessionStore, open_sessions
from prospect_hf.errors import DataError
from prospect_hf.training.tiny import tiny_processor

SESSIONS = [make_session(seed, 5 + 7 * seed, 2 + seed % 3, labelled=seed != 3) for seed in range(8)]
LIMIT = 180


def pack_by_building(session: SessionRows, processor: DSTSmolVLMProcessor, max_seq_len: int) -> list[Clip]:
    """The definition: streams are built frame by frame, and cut where the next frame does not fit."""

    def open_clip(frame: int) -> Stream:
        stream = Stream()
        processor.add_prompt(stream, session.goal, session.steps, session.states_at(frame))
        return stream

    clips = []
    begin, stream = 0, open_clip(0)
    for frame in range(len(session)):
        length = len(stream.input_ids)
        processor.add_item(stream, session.item(frame))
        if len(stream.input_ids) > max_seq_len and frame > begin:
            clips.append(Clip(session, begin, frame, length))
            begin, stream = frame, open_clip(frame)
            processor.add_item(stream, session.item(frame))
        if len(stream.input_ids) > max_seq_len:
            raise DataError(f"frame {session.first_frame + frame}: {len(stream.input_ids)} tokens")
    clips.append(Clip(session, begin, len(session), len(stream.input_ids)))
    return clips


@settings(max_examples=60, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=4, unique=True),
    frames=st.integers(1, 60),
    rates=st.sampled_from([(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)]),
    tokens=st.sampled_from([1, 4]),
    limit=st.integers(60, 400),
    at_a_time=st.sampled_from([1, 20, 4096]),
)
def test_clips_are_those_of_streams_that_are_built_frame_by_frame(
    seeds: list[int], frames: int, rates: tuple[float, float], tokens: int, limit: int, at_a_time: int
) -> None:
    processor = small_processor(tokens)
    sessions = [
        make_session(seed, frames, 1 + seed % 5, first_frame=7, event_rate=rates[0], turn_rate=rates[1])
        for seed in seeds
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "ITEMS_AT_A_TIME", at_a_time)
        try:
            expected = [pack_by_building(session, processor, limit) for session in sessions]
        except DataError as error:
            with pytest.raises(DataError) as caught:
                list(pack_sessions(sessions, processor, limit))
            frame, _, length = str(error).removesuffix(" tokens").partition(": ")
            assert f"{frame}: the plan" in str(caught.value) and f"take {length} tokens" in str(caught.value)
        else:
            found = [spans.tolist() for spans in pack_sessions(sessions, processor, limit)]
            assert found == [[[clip.begin, clip.end, clip.tokens] for clip in of_one] for of_one in expected]


def test_turns_are_counted_as_they_are_added() -> None:
    processor = small_processor()
    texts = ["attach the wheel", "", "two  spaces\nand a line", "<image> <end_of_utterance>", "ä€𝄞", "attach the wheel"]
    for role in ("State", "User", "Assistant"):
        streams = [Stream() for _ in texts]
        for stream, text in zip(streams, texts, strict=True):
            processor.add_turn(stream, role, text)
        assert processor.turn_lengths(role, texts) == [len(stream.input_ids) for stream in streams]
    assert processor.turn_lengths("User", []) == []


def test_clips_on_disk_are_the_clips_of_the_sessions(tmp_path: Path) -> None:
    parts = [stored(SESSIONS[:3], tmp_path, "a"), stored([], tmp_path, "b"), stored(SESSIONS[3:], tmp_path, "c")]
    store = SessionStore([file for part in parts for file in part.files])
    expected = [clip for session in SESSIONS for clip in pack(session, small_processor(), LIMIT)]
    for _ in range(2):
        clips = open_clips(store, small_processor(), LIMIT, tmp_path / "cache")
        assert len(clips) == len(expected) > 12
        assert clips.lengths == [clip.tokens for clip in expected]
        for ours, theirs in zip(clips, expected, strict=True):
            assert (ours.begin, ours.end, ours.tokens) == (theirs.begin, theirs.end, theirs.tokens)
            assert_equal(ours.session, theirs.session)
    assert_equal(clips[-1].session, SESSIONS[-1])
    with pytest.raises(IndexError):
        clips[len(clips)]
    assert len(open_clips(SessionStore([]), small_processor(), LIMIT, tmp_path / "cache")) == 0


def test_what_is_made_sooner_than_workers_start_is_made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = published([SESSIONS[:4], SESSIONS[4:]], tmp_path / "rows")
    monkeypatch.setattr(kept_files, "worker_pool", None)  # starting any would be an error
    assert len(open_sessions(tmp_path / "rows", manifest, manifest.shards, tmp_path, processes=8)) == len(SESSIONS)


@pytest.mark.slow  # worker processes take seconds to start
def test_worker_processes_make_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_files, "ROWS_A_WORKER", 1)
    manifest = published([SESSIONS[:3], SESSIONS[3:5], SESSIONS[5:]], tmp_path / "rows")
    made = []
    for processes in (1, 2):
        cache = tmp_path / str(processes)
        sessions = open_sessions(tmp_path / "rows", manifest, manifest.shards, cache, processes)
        clips = open_clips(sessions, small_processor(), LIMIT, cache, processes)
        files = {path.relative_to(cache): path.read_bytes() for path in cache.rglob("*.*") if path.suffix != ".lock"}
        made.append((files, clips.lengths))
    assert made[0] == made[1] and len(made[0][0]) == 12


def test_clips_are_packed_once_for_each_tokenizer_length_and_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[int] = []

    def recording(*given: Any) -> Any:
        packed.append(1)
        return pack_sessions(*given)

    monkeypatch.setattr("prospect_hf.data.clip_index.pack_sessions", recording)
    store = stored(SESSIONS, tmp_path)

    def times(processor: DSTSmolVLMProcessor, limit: int, sessions: SessionStore = store) -> int:
        packed.clear()
        open_clips(sessions, processor, limit, tmp_path / "cache")
        return len(packed)

    other_words = tiny_processor(["other words altogether"] * 9, dataclasses.replace(small_shape(), vocab_size=330))
    without_states = small_processor(1, False)
    layouts = [
        (small_processor(), LIMIT),
        (small_processor(), 190),
        (small_processor(4), LIMIT),
        (without_states, LIMIT),
    ]
    for processor, limit in layouts:
        assert [times(processor, limit) for _ in range(2)] == [1, 0]
    assert times(as_a_worker_gets_it(small_processor())[0], LIMIT) == 0
    assert [times(other_words, 900) for _ in range(2)] == [1, 0]
    assert times(small_processor(), LIMIT, stored(SESSIONS[:4], tmp_path / "other", "some")) == 1
    (tmp_path / "cache" / "clips").rename(tmp_path / "cache" / "away")
    assert times(small_processor(), LIMIT) == 1


def test_a_damaged_index_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = stored(SESSIONS, tmp_path)
    lengths = open_clips(store, small_processor(), LIMIT, tmp_path / "cache").lengths
    (file,) = (tmp_path / "cache" / "clips").glob("*.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()
    file.write_bytes(content)
    assert open_clips(store, small_processor(), LIMIT, tmp_path / "cache").lengths == lengths
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(tmp_path: Path, workers: int) -> None:
    clips = open_clips(stored(SESSIONS, tmp_path), small_processor(), LIMIT, tmp_path / "cache")
    dataset = ClipDataset(clips, ClipInputs(small_processor(), NoiseReader(), 0.5, seed=1, late_start=0.5))
    in_memory = ClipDataset(clips_of(SESSIONS, small_processor(), LIMIT), dataset.inputs)
    alone = [in_memory[index] for index in range(len(clips))]
    found = list(DataLoader(dataset, 3, collate_fn=collate, num_workers=workers))
    for ours, theirs in zip(found, [collate(alone[at : at + 3]) for at in range(0, len(alone), 3)], strict=True):
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    # A worker process that is not forked gets the clips' places, and no sessions.
    received, size = as_a_worker_gets_it(clips)
    assert size < 16 * len(clips) + 1000
    assert_equal(received[-1].session, SESSIONS[-1])
