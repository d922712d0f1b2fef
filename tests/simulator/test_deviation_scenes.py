"""Scenes in which people skip, swap, repeat and leave steps; what is said about it follows from what was seen."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import replace

import pytest

from prospect_hf.errors import UsageError
from prospect_hf.simulator import FLAVOURS, Episode, SceneConfig, simulate
from prospect_hf.simulator.scene import DRAWER, FIXTURE
from tracking_dst_smolvlm import Deviations, session_deviations

SOURCES = tuple(FLAVOURS)
# Nobody deviates, and nothing is cut.
PLAIN = SceneConfig(steps=(3, 5), p_out_of_order=0, p_reopen=0, p_truncated=0, corrections=True)
BUSY = replace(
    PLAIN, p_skip=0.3, p_repeat=0.3, p_unfinished=0.25, p_out_of_order=0.4, p_reopen=0.2, p_truncated=0.2, p_twin=0.2,
    p_drawer=0.3, p_fixture=0.2, p_pan=0.1,
)  # fmt: skip


def episodes(count: int, scene: SceneConfig, seed: int = 7) -> list[Episode]:
    return [simulate(SOURCES[i % len(SOURCES)], seed, "train", i, scene) for i in range(count)]


def kinds(episode: Episode) -> Counter[str]:
    """How often the labels of an episode deviate from its plan, by kind."""
    tables = [frame.states for frame in episode.frames]
    return Counter(one.kind for _, one in session_deviations(tables, episode.num_steps))


def test_scenes_without_these_options_are_what_they_were() -> None:
    digest = hashlib.sha256()
    for episode in episodes(24, SceneConfig(), 3):
        digest.update(repr((episode.events, episode.turns, episode.plan, len(episode.frames))).encode())
    assert digest.hexdigest() == "83b1bb6ee4c9c89da46d029c217ed0ef1871c485048b3993206236abe55a3fe3"


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({}, set()),
        ({"p_skip": 0.4}, {"skipped", "out_of_order"}),
        ({"p_repeat": 0.4}, {"repeated"}),
        ({"p_reopen": 0.6}, {"repeated"}),
        ({"p_unfinished": 0.4}, {"unfinished"}),
        ({"p_out_of_order": 0.6}, {"skipped", "out_of_order"}),
    ],
)
def test_each_option_makes_its_kind_of_deviation(option: dict[str, float], expected: set[str]) -> None:
    found = [kinds(episode) for episode in episodes(30, replace(PLAIN, **option))]  # type: ignore[arg-type]
    assert set().union(*found) == expected
    assert sum(map(bool, found)) > (10 if expected else -1)


def test_what_is_left_out_or_unfinished_stays_so_and_the_last_step_is_done() -> None:
    skipped = unfinished = 0
    for episode in episodes(60, replace(PLAIN, p_skip=0.4, p_unfinished=0.3)):
        last = episode.frames[-1].states
        assert last[-1] != 0
        skipped += last.count(0)
        unfinished += last.count(1)
        assert [span[0] for span in episode.spans() if span[2] is None] == [k for k, s in enumerate(last) if s == 1]
    assert skipped > 20 and unfinished > 20


def test_labels_are_what_is_seen() -> None:
    """Where a picture tells a state it is the label, and starts and completions of a step alternate."""
    for episode in episodes(60, BUSY):
        states = [0] * episode.num_steps
        for frame, scene in enumerate(episode.frames):
            for event in [event for event in episode.events if event.frame == frame]:
                assert (event.transition == "start") == (states[event.step] != 1)
                states[event.step] = 1 if event.transition == "start" else 2
            assert scene.states == tuple(states)
            assert all(
                shown in (None, state) for shown, state in zip(episode.visible_states(frame), states, strict=True)
            )


def test_every_deviation_is_corrected_when_it_is_seen_and_nothing_else_is() -> None:
    """The corrections, said from the labels and the plan alone, are those of the script; but for a wrong part."""
    said = Counter[str]()
    for episode in episodes(120, BUSY):
        flavour, names = episode.flavour, [part.name for part in episode.parts[: episode.num_steps]]
        turns = {turn.frame: turn for turn in episode.turns if turn.role == "assistant"}
        wrong = [part.name for part in episode.parts[episode.num_steps :]]
        rule, seen = Deviations([0] * episode.num_steps), set()
        for frame, scene in enumerate(episode.frames):
            known = set(rule.skipped)
            for one in rule.see(scene.states):
                text = turns[frame].content if frame in turns else None
                name = names[one.step]
                if one.kind == "out_of_order":
                    missing = [k for k in range(one.step) if scene.states[k] == 0 and k not in known]
                    if not missing:
                        continue
                    assert text == flavour.too_early(name, names[missing[0]])
                elif one.kind == "skipped":
                    assert text is not None and f"the {name}" in text and text.startswith("You left out ")
                else:
                    fixture = episode.parts[one.step].kind == FIXTURE
                    assert text in (flavour.again(name), flavour.loosening(name, fixture))
                said[one.kind] += 1
                seen.add(frame)
        for frame, turn in turns.items():
            if "correction" not in turn.labels or frame in seen:
                continue
            if turn.content.startswith("The ") and turn.content.endswith("Finish it."):
                (step,) = (k for k, name in enumerate(names) if turn.content == flavour.unfinished(name))
                assert episode.frames[frame].states[step] == episode.frames[-1].states[step] == 1
                said["unfinished"] += 1
            else:
                assert any(name in turn.content for name in wrong)
    assert min(said[kind] for kind in ("out_of_order", "skipped", "repeated", "unfinished")) > 15


def test_a_step_is_repeated_where_it_was_done_and_never_one_of_two_that_look_alike() -> None:
    again = 0
    for episode in episodes(60, replace(BUSY, p_repeat=0.6, p_reopen=0, p_twin=0.6)):
        twins = {k for step, part in enumerate(episode.parts) if part.twin is not None for k in (step, part.twin)}
        tables = [frame.states for frame in episode.frames]
        for frame, one in session_deviations(tables, episode.num_steps):
            if one.kind == "repeated":
                assert one.step not in twins
                part, hand, before = (episode.parts[one.step], episode.frames[frame].hand, episode.frames[frame - 1])
                # A fastened part is taken up from its slot, a drawer's from the stock: the hand was there before.
                assert hand is not None and before.hand is not None and part.slot is not None
                assert math.dist(before.hand, part.home if part.kind == DRAWER else part.slot) < 2
                again += 1
    assert again > 20


def test_a_step_that_is_left_last_is_asked_for_when_no_pause_is_so_long() -> None:
    late = 0
    for episode in episodes(60, replace(PLAIN, p_unfinished=0.5)):
        step, start = max((event.frame, event.step) for event in episode.events if event.transition == "start")[::-1]
        if episode.frames[-1].states[step] == 1:
            (turn,) = (t for t in episode.turns if t.content == episode.flavour.unfinished(episode.parts[step].name))
            assert turn.frame - start > 6
            assert len(episode.frames) - 1 - turn.frame <= PLAIN.trailing[1]
            late += 1
    assert late > 10


def test_without_corrections_the_same_is_done_and_no_word_is_said_about_it() -> None:
    for spoken, silent in zip(episodes(24, BUSY), episodes(24, replace(BUSY, corrections=False)), strict=True):
        wrong = [part.name for part in silent.parts[silent.num_steps :]]
        assert all(any(n in turn.content for n in wrong) for turn in silent.turns if "correction" in turn.labels)
        if not any("Finish it." in turn.content for turn in spoken.turns):
            assert spoken.events == silent.events


@pytest.mark.parametrize("option", ["p_skip", "p_repeat", "p_unfinished"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_chance_that_is_none_is_refused(option: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"scene.{option}="):
        replace(PLAIN, **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "scene", [replace(BUSY, p_skip=1.0, p_repeat=1.0, p_unfinished=1.0), replace(BUSY, steps=(1, 1))]
)
def test_the_most_extreme_people_still_make_a_recording(scene: SceneConfig) -> None:
    for episode in episodes(24, scene):
        assert episode.events and len(episode.frames) < 600
