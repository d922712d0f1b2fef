"""From frame rows to batches: every frame once and in order, nothing too long or dropped, nothing from the future."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_fixtures import NoiseReader, clip_dataset, collate, make_session, picture, small_processor

from processing_dst_smolvlm import FrameItem
from prospect_hf.data.clip_index import clips_of
from prospect_hf.data.clips import ClipCollator, ClipDataset, ClipInputs
from prospect_hf.data.packing import Clip, pack
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.sessions import IGNORE
from tracking_dst_smolvlm import STATE_NAMES

SESSIONS = st.builds(
    make_session,
    seed=st.integers(0, 10_000),
    frames=st.integers(1, 60),
    steps=st.integers(1, 6),
    first_frame=st.sampled_from([0, 7, 1000]),
    labelled=st.booleans(),
    event_rate=st.sampled_from([0.0, 0.3, 1.0]),
    turn_rate=st.sampled_from([0.0, 0.3, 1.0]),
)


def shortest_fit(session: SessionRows, tokens_per_frame: int) -> int:
    """Tokens of the longest clip of one frame: no smaller ``max_seq_len`` can do."""
    processor = small_processor(tokens_per_frame)
    return max(
        len(processor.build(session.goal, session.steps, session.states_at(frame), [session.item(frame)]).input_ids)
        for frame in range(len(session))
    )


# -- pack ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(session=SESSIONS, spare=st.integers(0, 120), tokens=st.sampled_from([1, 4]))
def test_clips_cover_every_frame_once_in_order(session: SessionRows, spare: int, tokens: int) -> None:
    processor = small_processor(tokens)
    limit = shortest_fit(session, tokens) + spare
    clips = pack(session, processor, limit)
    assert [frame for clip in clips for frame in range(clip.begin, clip.end)] == list(range(len(session)))
    state = [0] * len(session.steps)
    for number, clip in enumerate(clips):
        stream = clip.stream(processor)
        assert clip.tokens == len(stream.input_ids) == len(stream.labels) <= limit
        assert len(stream.frame_positions) == clip.end - clip.begin > 0
        assert stream.input_ids.count(processor.image_id) == tokens * (clip.end - clip.begin)
        assert len(stream.step_positions) == len(session.steps)
        # The plan shows what the frames before the clip left behind, never what comes in it.
        plan = processor.tokenizer.decode(stream.input_ids[: stream.step_positions[-1][1] + 1]).split("Plan:\n")[1]
        for step, line in enumerate(plan.split("\n")):
            shown = f" [{STATE_NAMES[state[step]]}]" if session.labelled else ""
            assert line == f"{step + 1}. {session.steps[step]}{shown}"
        # Replaying the clips gives the states of the whole session.
        for frame in range(clip.begin, clip.end):
            for step, new in session.item(frame).changes.items():
                state[step] = new
            if session.labelled:
                assert state == session.states_after[frame].tolist()
        # As long as fits: with its next frame the clip would be too long.
        if number + 1 < len(clips):
            assert len(dataclasses.replace(clip, end=clip.end + 1).stream(processor).input_ids) > limit


def test_the_text_of_a_clip_is_the_text_of_its_frames() -> None:
    session, processor = make_session(3, frames=30), small_processor()
    clips = pack(session, processor, shortest_fit(session, 1) + 40)
    assert len(clips) > 2
    text = "".join(processor.tokenizer.decode(clip.stream(processor).input_ids) for clip in clips)
    said = [
        part for frame in range(30) for part in (session.item(frame).user_text, session.item(frame).response) if part
    ]
    assert said and all(any(f"{role}: {part}<end" in text for role in ("User", "Assistant")) for part in said)
    assert text.count("User:") + text.count("Assistant:") == len(said)
    assert text.count("State:") == int((session.dst_update == 1).sum())


@settings(max_examples=20, deadline=None)
@given(session=SESSIONS)
def test_a_frame_that_does_not_fit_is_named(session: SessionRows) -> None:
    processor = small_processor()
    lengths = [
        len(processor.build(session.goal, session.steps, session.states_at(frame), [session.item(frame)]).input_ids)
        for frame in range(len(session))
    ]
    first = lengths.index(max(lengths))
    with pytest.raises(DataError) as caught:
        pack(session, processor, max(lengths) - 1)
    # Of several frames as long as the longest, the first is met first.
    assert f"session {session.session_id}, frame {session.first_frame + first}:" in str(caught.value)
    assert f"max_seq_len={max(lengths) - 1}" in str(caught.value)


# -- clips as tensors ---------------------------------------------------------------------------------------------


def test_labels_and_pictures_of_a_clip_are_its_frames() -> None:
    session, processor = make_session(4, frames=30, first_frame=11), small_processor()
    clips = clip_dataset([session], max_seq_len=shortest_fit(session, 1) + 40)
    assert len(clips) > 2
    for index, clip in enumerate(clips.clips):
        item, span = clips[index], slice(clip.begin, clip.end)
        assert item["input_ids"].tolist() == clip.stream(processor).input_ids
        assert item["labels"].tolist() == clip.stream(processor).labels
        assert item["speaking_labels"].tolist() == session.speaking[span].tolist()
        assert item["dst_update_labels"].tolist() == session.dst_update[span].tolist()
        # The target is the state after the frame; the state before it is in the prompt and the texts.
        assert item["dst_state_labels"].tolist() == session.states_after[span].tolist()
        pictures = [picture(session.video_uid, 11 + frame) for frame in range(clip.begin, clip.end)]
        assert torch.equal(item["pixel_values"], processor.pixel_values(pictures))


def test_text_dropout_leaves_out_only_what_the_model_says() -> None:
    session, processor = make_session(5, frames=60, event_rate=0.6, turn_rate=0.8), small_processor()
    clips = clip_dataset([session], dropout=1.0)
    plain = clip_dataset([session])[0]
    texts = []
    for epoch in range(20):
        clips.set_epoch(epoch)
        item = clips[0]
        text = processor.tokenizer.decode(item["input_ids"])
        texts.append(text)
        for name in ("speaking_labels", "dst_update_labels", "dst_state_labels", "pixel_values"):
            assert torch.equal(item[name], plain[name]), name
        assert text.count("User:") == sum(bool(session.item(frame).user_text) for frame in range(60))
        assert len(item["frame_positions"]) == 60 and len(item["input_ids"]) <= clips.clips[0].tokens
    whole = processor.tokenizer.decode(plain["input_ids"])
    for role in ("State:", "Assistant:"):
        counts = [text.count(role) for text in texts]
        assert len(set(counts)) > 5 and max(counts) <= whole.count(role) and min(counts) < whole.count(role) / 2


def test_text_dropout_follows_from_seed_epoch_and_clip() -> None:
    """A resumed run reads ahead another way and draws the same; another seed, epoch or clip draws otherwise."""
    sessions = [make_session(5, frames=60, event_rate=0.6, turn_rate=0.8)] * 2

    def draws(seed: int, epoch: int, index: int) -> list[int]:
        clips = ClipDataset(
            clips_of(sessions, small_processor(), 2048), ClipInputs(small_processor(), NoiseReader(), 0.5, seed)
        )
        clips.set_epoch(epoch)
        ids: list[int] = clips[index]["input_ids"].tolist()
        return ids

    torch.manual_seed(0)
    first = draws(0, 0, 0)
    assert draws(0, 0, 0) == first
    assert all(draws(*other) != first for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))


# -- the collator -------------------------------------------------------------------------------------------------


def test_batches_are_padded_on_the_right_from_lengths() -> None:
    pad = small_processor().tokenizer.pad_token_id
    clips = [
        clip_dataset([make_session(seed, frames, steps)])[0]
        for seed, frames, steps in ((0, 4, 2), (1, 9, 5), (2, 1, 1))
    ]
    clips[1]["input_ids"][7] = pad  # the pad token in the middle of a text, and at its end
    clips[1]["input_ids"][-1] = pad
    batch = collate(clips)
    width = max(len(clip["input_ids"]) for clip in clips)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape == (3, width)
    assert batch["dst_state_labels"].shape == (3, 9, 5) and batch["step_positions"].shape == (3, 5, 2)
    frames = 0
    for row, clip in enumerate(clips):
        length, n_frames, n_steps = len(clip["input_ids"]), len(clip["frame_positions"]), len(clip["step_positions"])
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (width - length)
        for name, value, size in (
            ("input_ids", pad, length),
            ("labels", IGNORE, length),
            ("frame_positions", -1, n_frames),
            ("step_positions", -1, n_steps),
            ("speaking_labels", IGNORE, n_frames),
            ("dst_update_labels", IGNORE, n_frames),
        ):
            assert torch.equal(batch[name][row, :size], clip[name]), name
            assert (batch[name][row, size:] == value).all(), name
        states = batch["dst_state_labels"][row]
        assert torch.equal(states[:n_frames, :n_steps], clip["dst_state_labels"])
        assert (states[n_frames:] == IGNORE).all() and (states[:, n_steps:] == IGNORE).all()
        # Frames side by side, in the order of their places over the rows.
        assert torch.equal(batch["pixel_values"][frames : frames + n_frames], clip["pixel_values"])
        frames += n_frames
    assert len(batch["pixel_values"]) == frames
    for row in range(3):
        supervised = batch["labels"][row] != IGNORE
        assert torch.equal(batch["labels"][row][supervised], batch["input_ids"][row][supervised]), row
        assert small_processor().end_id in batch["labels"][row] or not supervised.any(), row
    assert (batch["labels"] == small_processor().end_id).any()  # the end token is learned


def test_an_end_token_equal_to_the_pad_token_stays_a_label() -> None:
    end = small_processor().end_id
    clip = clip_dataset([make_session(1, 9, event_rate=1.0)])[0]
    batch = ClipCollator(end)([clip, clip_dataset([make_session(2, 20)])[0]])
    wanted = int((clip["labels"] == end).sum())
    assert wanted > 0 and int((batch["labels"][0] == end).sum()) == wanted
    assert int(batch["attention_mask"][0].sum()) == len(clip["input_ids"])


def test_a_clip_does_not_see_texts_beyond_its_frames() -> None:
    """What follows a clip can be replaced by anything: its stream stays the same."""
    session, processor = make_session(6, frames=20), small_processor()
    other = dataclasses.replace(
        session,
        items={
            frame: item if frame < 10 else FrameItem({0: 2}, "", "garbage") for frame, item in session.items.items()
        },
        states_before=np.where(np.arange(20)[:, None] < 10, session.states_before, 2),
        states_after=np.where(np.arange(20)[:, None] < 10, session.states_after, 2),
    )
    assert Clip(session, 4, 10, 0).stream(processor) == Clip(other, 4, 10, 0).stream(processor)
    assert NoiseReader().read(session, 4, 10)[0].tobytes() == NoiseReader().read(other, 4, 10)[0].tobytes()


# -- clips that begin late ------------------------------------------------------------------------------------------


def test_a_late_clip_begins_in_the_state_reached_by_then() -> None:
    """What it holds is the rest of the clip, under a prompt with the states before its first frame."""
    sessions = [make_session(seed, 12, 3) for seed in range(12)]
    dataset = ClipDataset(
        clips_of(sessions, small_processor(), 2048), ClipInputs(small_processor(), NoiseReader(), late_start=0.5)
    )
    late = 0
    for epoch in range(3):
        dataset.set_epoch(epoch)
        for index, session in enumerate(sessions):
            clip, item = dataset.clip(index), dataset[index]
            assert clip == dataset.clip(index) and clip.end == 12
            late += clip.begin > 0
            items = [session.item(frame) for frame in range(clip.begin, 12)]
            expected = small_processor().build(session.goal, session.steps, session.states_at(clip.begin), items)
            assert item["input_ids"].tolist() == expected.input_ids
            assert torch.equal(item["speaking_labels"], torch.from_numpy(session.speaking[clip.begin :]))
            assert torch.equal(item["dst_state_labels"], torch.from_numpy(session.states_after[clip.begin :]))
            assert len(item["pixel_values"]) == 12 - clip.begin == len(item["frame_positions"])
    assert 10 <= late <= 26  # of 36
    begins = dict.fromkeys(range(3))
    for epoch in begins:
        dataset.set_epoch(epoch)
        begins[epoch] = tuple(dataset.clip(index).begin for index in range(12))  # type: ignore[assignment]
    assert len(set(begins.values())) == 3


def test_half_of_the_late_clips_begin_right_after_a_response() -> None:
    """A stream starts again when its context is full, and it is words that fill it."""
    session = make_session(3, 200, 3, turn_rate=0.05)
    spoken = {frame + 1 for frame, item in session.items.items() if item.response}
    assert 0 < len(spoken) < 20
    inputs = ClipInputs(small_processor(), NoiseReader(), late_start=1.0)
    dataset = ClipDataset(clips_of([session], small_processor(), 1 << 20), inputs)
    begins = []
    for epoch in range(200):
        dataset.set_epoch(epoch)
        begins.append(dataset.clip(0).begin)
    assert 80 <= sum(begin in spoken for begin in begins) <= 130
    assert spoken <= set(begins) and len(set(begins) - spoken) > 50


def test_without_late_starts_every_clip_is_whole() -> None:
    sessions = [make_session(seed, 1 + seed, 3) for seed in range(4)]
    for late_start in (0.0, 1.0):
        inputs = ClipInputs(small_processor(), NoiseReader(), late_start=late_start)
        dataset = ClipDataset(clips_of(sessions, small_processor(), 2048), inputs)
        for index in range(4):
            assert (dataset.clip(index).begin > 0) == (late_start == 1.0 and index > 0)
