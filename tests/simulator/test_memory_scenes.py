"""Scenes with a past: what was done leaves the picture, and the labels follow from what was seen when it happened."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import write_json
from prospect_hf.simulator import FLAVOURS, Episode, SceneConfig, render, simulate, write_corpus
from prospect_hf.simulator.corpus import telling_shares, telling_text
from prospect_hf.simulator.flavours import FIXTURES
from prospect_hf.simulator.scene import DRAWER, FIXTURE, PLAIN, UNITS, Point

SOURCES = tuple(FLAVOURS)
# The camera fixed, the light even, no noise: equal scenes give equal pixels.
STILL = SceneConfig(jitter=0, lighting=0, noise=0, p_mistake=0, distractors=(0, 0))
MEMORY = SceneConfig(
    p_drawer=0.4, p_fixture=0.4, p_twin=0.4, p_pan=0.3, p_long_pause=0.2, p_out_of_order=0.5, p_reopen=0.3
)


def episodes(count: int, scene: SceneConfig) -> list[Episode]:
    return [simulate(SOURCES[i % len(SOURCES)], 7, "train", i, scene) for i in range(count)]


def around(picture: npt.NDArray[np.uint8], at: Point) -> npt.NDArray[np.uint8]:
    """The pixels of a slot."""
    x, y = round(at[0]), round(at[1])
    return picture[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5]


@pytest.mark.parametrize("option", ["p_drawer", "p_fixture"])
def test_a_completed_step_looks_as_before_it_began(option: str) -> None:
    compared = 0
    for episode in episodes(24, replace(STILL, **{option: 1.0})):
        pictures = [np.asarray(picture) for picture in render(episode)]
        slots = [part.slot for part in episode.parts if part.slot is not None]
        for step, slot in enumerate(slots):
            clear = [
                f
                for f, state in enumerate(episode.frames)
                if state.hand is None or (state.hand[1] - slot[1] > 14 and state.hand[1] > 30)
            ]
            shown = {state: [f for f in clear if episode.frames[f].states[step] == state] for state in (0, 1, 2)}
            if shown[0] and shown[2]:
                before, after = pictures[shown[0][0]], pictures[shown[2][-1]]
                assert (around(before, slot) == around(after, slot)).all(), (episode.source, episode.index, step)
                compared += 1
            for frame in shown[1]:
                assert (around(pictures[frame], slot) != around(pictures[0], slot)).any()
    assert compared > 20


def test_a_stock_looks_the_same_however_much_was_taken() -> None:
    for episode in episodes(6, replace(STILL, p_drawer=1.0)):
        pictures = [np.asarray(picture) for picture in render(episode)]
        last = max(f for f, state in enumerate(episode.frames) if state.hand is None or f == len(episode.frames) - 1)
        for part in episode.parts:
            hand = episode.frames[last].hand
            if hand is None or math.dist(hand, part.home) > 16:
                assert np.abs(around(pictures[last], part.home).astype(int) - around(pictures[0], part.home)).max() < 8


def test_where_a_picture_tells_the_state_it_is_the_label() -> None:
    hidden = told = 0
    for episode in episodes(60, MEMORY):
        states = [0] * episode.num_steps
        for frame, scene in enumerate(episode.frames):
            for event in episode.events:
                if event.frame == frame:
                    states[event.step] = 1 if event.transition == "start" else 2
            assert scene.states == tuple(states)
            for shown, state in zip(episode.visible_states(frame), states, strict=True):
                hidden += shown is None
                told += shown is not None
                assert shown in (None, state)
            if scene.pan:
                assert set(episode.visible_states(frame)) == {None}
    assert hidden > told > 1000


def test_nothing_happens_while_the_camera_looks_away_and_nothing_of_the_scene_is_seen() -> None:
    away = 0
    for episode in episodes(24, replace(MEMORY, jitter=0, lighting=0, noise=0)):
        assert not any(episode.frames[event.frame].pan for event in episode.events)
        pictures = render(episode)
        for frame, scene in enumerate(episode.frames):
            if abs(scene.pan) >= UNITS:
                away += 1
                assert np.abs(np.asarray(pictures[frame]).astype(int) - episode.flavour.bench).mean() < 45
    assert away > 30


def test_of_two_parts_that_look_alike_the_first_to_be_begun_is_the_first() -> None:
    pairs = 0
    for episode in episodes(60, replace(MEMORY, p_twin=1.0)):
        starts = [event.step for event in episode.events if event.transition == "start"]
        for step, part in enumerate(episode.parts):
            if part.twin is None:
                continue
            other = episode.parts[part.twin]
            kind = episode.flavour.part_name(part.colour, part.shape, part.kind == FIXTURE)
            assert (other.name, part.name) == (f"first {kind}", f"second {kind}")
            pairs += 1
            assert (part.colour, part.shape, part.kind) == (other.colour, other.shape, other.kind)
            assert part.name.removeprefix("second ") == other.name.removeprefix("first ")
            assert part.slot != other.slot
            if step in starts:
                assert starts.index(part.twin) < starts.index(step)
        assert len({part.name for part in episode.parts}) == len(episode.parts)
    assert pairs > 40


def test_recordings_of_one_scene_differ_in_their_course() -> None:
    shared = replace(MEMORY, orders=2)
    for index in range(0, 12, 2):
        first, second = (simulate("wtag", 3, "train", i, shared) for i in (index, index + 1))
        assert first.parts == second.parts and first.plan == second.plan
        assert [e.step for e in first.events] != [e.step for e in second.events] or first.events != second.events
    alone = simulate("wtag", 3, "train", 4, MEMORY)
    assert replace(simulate("wtag", 3, "train", 4, shared), scene=MEMORY) == alone


def test_drawers_are_the_same_parts_on_the_same_board() -> None:
    plain, drawers = (
        simulate("ego4d", 5, "train", 2, replace(MEMORY, p_drawer=p, p_fixture=0, p_twin=0)) for p in (0, 1)
    )
    assert plain.plan == drawers.plan
    assert {part.kind for part in drawers.parts[: drawers.num_steps]} == {DRAWER}
    assert [replace(part, kind=PLAIN) for part in drawers.parts] == list(plain.parts)


def test_the_words_of_a_fixture_are_those_of_no_part() -> None:
    assert not {noun for flavour in FLAVOURS.values() for noun in flavour.nouns.values()} & set(FIXTURES.values())
    episode = simulate("wtag", 7, "train", 1, replace(MEMORY, p_fixture=1, p_drawer=0, p_twin=0))
    assert all(step.startswith("Press the ") and step.endswith(".") for step in episode.plan)
    assert {part.kind for part in episode.parts} <= {FIXTURE, PLAIN}


def test_a_question_is_answered_from_what_was_seen() -> None:
    asked_blind = 0
    for episode in episodes(150, replace(MEMORY, p_pan=1.0)):
        for question, answer in itertools.pairwise(episode.turns):
            if question.role == "user" and question.frame > 20 and question.content.startswith("Which"):
                states = episode.frames[answer.frame].states
                names = [part.name for part in episode.parts[: episode.num_steps]]
                assert answer.content == episode.flavour.answer_done(names, states)
                asked_blind += episode.frames[answer.frame].pan != 0
    assert asked_blind > 5


def test_the_corpus_counts_the_frames_that_tell(tmp_path: Path) -> None:
    shares = {}
    for name, scene in {"seen": SceneConfig(), "memory": MEMORY}.items():
        report = write_corpus(tmp_path / name, ["wtag"], {"train": 4}, 0, scene, progress=False)
        counts = report.counts["wtag"]["train"]
        expected = sum(
            None not in episode.visible_states(frame)
            for episode in (simulate("wtag", 0, "train", i, scene) for i in range(4))
            for frame in range(len(episode.frames))
        )
        assert counts.telling == expected
        shares[name] = counts.telling / counts.frames
        assert telling_shares(tmp_path / name) == {"train": pytest.approx(shares[name])}
    assert shares["seen"] == 1.0 and shares["memory"] < 0.3
    assert telling_text({"train": 1.0, "test": 0.017}).endswith(": 100.0 % (train), 1.7 % (test).")


@pytest.mark.parametrize(
    "counts",
    [
        None,
        {},
        [],
        {"wtag": 5},
        {"wtag": {}},
        {"wtag": {"train": 3}},
        {"wtag": {"train": {"frames": 9}}},
        {"wtag": {"train": {"frames": 0, "telling": 0}}},
        {"wtag": {"train": {"frames": 9, "telling": 10}}},
        {"wtag": {"train": {"frames": 9, "telling": -1}}},
        {"wtag": {"train": {"frames": "9", "telling": 1}}},
    ],
)
def test_counts_that_are_none_are_named(tmp_path: Path, counts: object) -> None:
    write_json(tmp_path / "simulator.json", {"finished": True} | ({} if counts is None else {"counts": counts}))
    with pytest.raises(DataError, match=r"simulator\.json"):
        telling_shares(tmp_path)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"p_drawer": 0.6, "p_fixture": 0.6}, "together they are at most 1"),
        ({"p_pan": 1.5}, "scene.p_pan=1.5"),
        ({"orders": 0}, "scene.orders=0"),
        ({"long_pause": (9, 3)}, "scene.long_pause"),
    ],
)
def test_a_scene_that_cannot_be_is_refused(changed: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        SceneConfig(**changed)  # type: ignore[arg-type]
