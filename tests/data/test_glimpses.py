"""Glimpses: pairs of consecutive frames with the labels that can be told from them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_fixtures import NoiseReader, make_session, picture, small_processor

from prospect_hf.data.glimpses import GlimpseDataset
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.sessions import IGNORE


def glimpses_of(sessions: list[SessionRows], pairs: int) -> GlimpseDataset:
    return GlimpseDataset(sessions, small_processor(), NoiseReader(), pairs)


def shown_frames(session: SessionRows, pixels: torch.Tensor) -> list[int]:
    """Which frames of ``session`` the pictures are (positions in the session)."""
    made = [
        small_processor().pixel_values([picture(session.video_uid, session.first_frame + frame)])[0]
        for frame in range(len(session))
    ]
    return [next(frame for frame, one in enumerate(made) if torch.equal(one, shown)) for shown in pixels]


def test_a_glimpse_is_pairs_of_frames_with_the_labels_that_they_tell() -> None:
    session, processor = make_session(5, frames=40, event_rate=0.3, turn_rate=0.8), small_processor()
    glimpses = glimpses_of([session], pairs=3)
    chosen, orders, asked = set(), set(), 0
    for epoch in range(12):
        glimpses.set_epoch(epoch)
        item = glimpses[0]
        frames = shown_frames(session, item["pixel_values"])
        first, second = frames[::2], frames[1::2]
        assert len(frames) == 6 and frames == sorted(set(frames))
        assert [frame + 1 for frame in first] == second
        text = processor.tokenizer.decode(item["input_ids"])
        assert "[" not in text and "State:" not in text and "Assistant:" not in text
        # What the user said is told between the two frames, or an answer to it could not be.
        questions = [session.item(frame).user_text for frame in first]
        asked += sum(map(bool, questions))
        said = [f"User: {question}<end_of_utterance>\n" if question else "" for question in questions]
        assert text.endswith("".join(f"<image>{words}<image>" for words in said))
        assert (item["labels"] == IGNORE).all()
        for name, labels in (("speaking_labels", session.speaking), ("dst_update_labels", session.dst_update)):
            assert (item[name][::2] == IGNORE).all() and np.array_equal(item[name][1::2], labels[second]), name
        plan = [line.split(". ", 1)[1] for line in text.split("Plan:\n")[1].split("<end_of_utterance>")[0].split("\n")]
        order = [session.steps.index(step) for step in plan]
        assert sorted(order) == list(range(len(session.steps)))
        assert np.array_equal(item["dst_state_labels"], session.states_after[frames][:, order])
        orders.add(tuple(order))
        chosen.add(tuple(frames))
    assert len(chosen) > 10 and len(orders) > 1 and asked
    glimpses.set_epoch(0)
    assert torch.equal(glimpses[0]["pixel_values"], glimpses[0]["pixel_values"])


def test_a_glimpse_that_ends_with_an_utterance_teaches_its_words_and_no_states() -> None:
    session, processor = make_session(5, frames=40, event_rate=0.3, turn_rate=0.8), small_processor()
    glimpses = GlimpseDataset([session], processor, NoiseReader(), 3, utterances=1.0)
    last = set()
    for epoch in range(12):
        glimpses.set_epoch(epoch)
        item = glimpses[0]
        frames = shown_frames(session, item["pixel_values"])
        response = session.item(frames[-1]).response
        assert response and 2 <= len(frames) <= 6 and frames == sorted(set(frames))
        text = processor.tokenizer.decode(item["input_ids"])
        assert text.endswith(f"<image>Assistant: {response}<end_of_utterance>\n") and text.count("Assistant:") == 1
        learned = item["labels"][item["labels"] != IGNORE]
        assert processor.tokenizer.decode(learned) == f" {response}<end_of_utterance>"
        # What is said follows the plan's order, which would give the states away.
        plan = [line.split(". ", 1)[1] for line in text.split("Plan:\n")[1].split("<end_of_utterance>")[0].split("\n")]
        assert plan == list(session.steps) and (item["dst_state_labels"] == IGNORE).all()
        assert item["dst_state_labels"].shape == (len(frames), len(session.steps))
        assert item["speaking_labels"][-1] == 1
        last.add(frames[-1])
    assert len(last) > 4


def test_a_share_of_the_glimpses_ends_with_an_utterance() -> None:
    sessions = [make_session(seed, frames=12, event_rate=0.3, turn_rate=0.8) for seed in range(100)]
    glimpses = GlimpseDataset(sessions, small_processor(), NoiseReader(), 2, utterances=0.3)
    spoken = sum(bool((glimpses[number]["labels"] != IGNORE).any()) for number in range(100))
    assert 18 <= spoken <= 42
    # Without an utterance in the session, a glimpse is like any other.
    silent = GlimpseDataset([make_session(3, frames=12, turn_rate=0.0)], small_processor(), NoiseReader(), 2, 0, 1.0)
    assert (silent[0]["labels"] == IGNORE).all() and (silent[0]["dst_state_labels"] != IGNORE).all()


def test_utterances_without_a_change_are_drawn_as_often_as_changes() -> None:
    """Few of the events are such utterances, and what they answer to is the hardest to see."""
    frames, events = 60, {5: (1, 0), **dict.fromkeys(range(10, 58, 3), (0, 1))}
    session = make_session(1, frames=frames, event_rate=0.0, turn_rate=0.0)
    speaking, update = (np.array([events.get(frame, (0, 0))[k] for frame in range(frames)], np.int8) for k in (0, 1))
    session = replace(session, speaking=speaking, dst_update=update)
    glimpses = glimpses_of([session], pairs=1)
    drawn = Counter[int]()
    for epoch in range(400):
        glimpses.set_epoch(epoch)
        (end,) = glimpses._pair_ends(session, random.Random(epoch), None)
        drawn[end] += 1
    share = drawn[5] / 400
    changes = sum(drawn[frame] for frame in events if frame != 5) / 400
    assert share == pytest.approx(0.2, abs=0.06) and changes == pytest.approx(0.2 + 0.6 * 16 / 59, abs=0.08)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 30), st.integers(1, 8))
def test_pairs_never_overlap_and_short_sessions_have_fewer(seed: int, frames: int, pairs: int) -> None:
    session = make_session(seed, frames=frames, turn_rate=0.0)
    seen = shown_frames(session, glimpses_of([session], pairs)[0]["pixel_values"])
    assert len(set(seen)) == len(seen) and 2 <= len(seen) <= 2 * pairs
    assert all(b == a + 1 for a, b in zip(seen[::2], seen[1::2], strict=True))


def test_glimpses_need_two_frames_with_state_labels() -> None:
    bare, single, short = make_session(1, 9, labelled=False), make_session(2, 1), make_session(3, 3)
    glimpses = glimpses_of([bare, single, short], 4)
    assert [glimpses.sessions[number] for number in glimpses.usable] == [short] and len(glimpses) == 1
    with pytest.raises(DataError, match=r"training\.look_steps=0"):
        glimpses_of([bare, single], 4)
