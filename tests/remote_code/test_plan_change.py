"""A plan that changes in mid-stream: afterwards the stream is one that was opened with that plan in these states."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_fixtures import picture, small_processor
from stream_fixtures import FIVE, PLAN, SpiedBatch, assert_same_events, talkative_model

from context_dst_smolvlm import STRATEGIES, Context
from events_dst_smolvlm import PlanChange, StreamEvent
from processing_dst_smolvlm import Stream, one_line
from streaming_dst_smolvlm import DSTStream, StreamBatch, StreamError, Task
from tracking_dst_smolvlm import StateTable, Tracking

GOAL, NEW_GOAL = "the red wheel", "the blue wheel"
# The kept steps stand in another order, between new ones, and one of the old ones is gone.
NEW = ["now please", "two", "attach the wheel", "now"]
WINDOW = 240  # tokens
FIRST = 26  # the first frame after the change; the user speaks on it
HEAD, TEXT = Tracking("monotone", debounce=2), Tracking(source="text")


def batch_of(tasks: list[Task], strategy: str = "summarize_with_dst", tracking: Tracking = HEAD) -> SpiedBatch:
    context = Context(strategy, 2048 if strategy == "none" else WINDOW, 60, 10)
    return SpiedBatch(talkative_model(), small_processor(), tasks, context, tracking, FIVE)


def follow(batch: StreamBatch, row: int, frames: range) -> list[StreamEvent]:
    """Show one stream of a batch some frames, on every ninth of them with words of the user."""
    events = []
    for frame in frames:
        given: list[Any] = [None] * len(batch.rows)
        texts, times = list(given), list(given)
        given[row], times[row] = picture(f"v{row}", frame), frame / 2
        texts[row] = "where does the two" if frame % 9 == 8 else None
        event = batch.step(given, texts, times)[row]
        assert event is not None
        events.append(event)
    return events


def as_opened(events: list[StreamEvent], first: int) -> list[StreamEvent]:
    """The events as those of a stream that begins with frame ``first``."""
    return [replace(event, frame=event.frame - first, plan_change=None) for event in events]


@pytest.mark.parametrize(
    ("strategy", "tracking"),
    [*((strategy, HEAD) for strategy in STRATEGIES), ("summarize_and_drop", TEXT)],
    ids=lambda value: value if isinstance(value, str) else value.source,
)
def test_after_a_change_the_stream_is_one_that_was_opened_there(strategy: str, tracking: Tracking) -> None:
    """Ids, positions, logits, decisions, texts and the overflows; in a batch of three, of which one is changed."""
    tasks = [Task(PLAN, GOAL, [2, 0, 1]), Task(PLAN[:1]), Task([*PLAN, "the two"], GOAL)]
    batch, calm = batch_of(tasks, strategy, tracking), batch_of(tasks, strategy, tracking)
    for row in (1, 2):
        assert_same_events(follow(batch, row, range(4)), follow(calm, row, range(4)), 0.0)
    follow(batch, 0, range(FIRST))
    row = batch.rows[0]
    before, fed = tuple(row.table.states), len(batch.fed[0])
    batch.change_plan(0, NEW, NEW_GOAL)
    fresh = batch_of([Task(NEW, NEW_GOAL, (0, before[2], before[0], 0))], strategy, tracking)
    fresh.rows[0].table._waiting = dict(row.table._waiting)
    events = follow(batch, 0, range(FIRST, FIRST + 24))
    expected = follow(fresh, 0, range(FIRST, FIRST + 24))
    assert events[0].plan_change == PlanChange(tuple(PLAN), tuple(NEW), NEW_GOAL, (None, 2, 0, None))
    assert before[0] and not any(event.plan_change for event in events[1:])
    assert_same_events(as_opened(events, FIRST), expected)
    assert batch.fed[0][fed:] == fresh.fed[0] and batch.positions[0][fed:] == fresh.positions[0]
    assert float((torch.stack(batch.logits[0][fed:]) - torch.stack(fresh.logits[0])).abs().max()) <= 1e-4
    assert strategy == "none" or any(event.context for event in events)
    for other in (1, 2):  # the streams beside it have not noticed
        assert_same_events(follow(batch, other, range(4, 7)), follow(calm, other, range(4, 7)))


def test_words_that_were_not_read_stay_and_nothing_else() -> None:
    batch = batch_of([Task(PLAN, GOAL)])
    follow(batch, 0, range(9))  # the user speaks on the last of them
    fed, words = len(batch.fed[0]), list(batch.rows[0].user_turn)
    batch.change_plan(0, NEW)
    states = batch.rows[0].table.states
    follow(batch, 0, range(9, 10))
    prompt, image = Task(NEW, GOAL).prompt(small_processor(), states).input_ids, small_processor().image_id
    assert words and batch.fed[0][fed : fed + len(prompt) + len(words) + 1] == [*prompt, *words, image]
    asked = Stream()
    small_processor().add_turn(asked, "User", "where does the two")
    assert words == asked.input_ids
    frame = 10
    while not follow(batch, 0, range(frame, frame + 1))[0].text:
        frame += 1
    fed, row = len(batch.fed[0]), batch.rows[0]
    assert row.pending and not row.user_turn  # the end of the assistant's turn
    batch.change_plan(0, PLAN)
    follow(batch, 0, range(frame + 1, frame + 2))
    prompt = Task(PLAN, GOAL).prompt(small_processor(), row.first_states).input_ids
    assert batch.fed[0][fed : fed + len(prompt) + 1] == [*prompt, image]


def test_before_the_first_frame_a_change_is_another_opening() -> None:
    stream = DSTStream(talkative_model(), small_processor(), PLAN, GOAL, [1, 2, 0], tracking=HEAD, decoding=FIVE)
    stream.change_plan(["a", "b", PLAN[2]], "")
    stream.change_plan([*NEW, PLAN[2]], NEW_GOAL)  # of two changes before a frame, the event tells what both did
    assert stream.states == (0, 0, 0, 0, 0) and stream.cache_length == 0
    fresh = DSTStream(talkative_model(), small_processor(), [*NEW, PLAN[2]], NEW_GOAL, tracking=HEAD, decoding=FIVE)
    events = [stream.step(picture("v", frame)) for frame in range(3)]
    assert events[0].plan_change == PlanChange(tuple(PLAN), (*NEW, PLAN[2]), NEW_GOAL, (None, 2, None, None, None))
    assert_same_events(as_opened(events, 0), [fresh.step(picture("v", frame)) for frame in range(3)], 0.0)


def test_a_plan_can_grow_and_shrink_between_the_events_of_running_streams() -> None:
    batch, seen = batch_of([Task(PLAN[:1]), Task(PLAN[:2])]), []
    plans = {2: [*PLAN, "now"], 4: PLAN[:1], 6: [*NEW, *PLAN, "the two"]}
    for row, event in batch.run([[picture(f"v{row}", frame) for frame in range(9)] for row in range(2)]):
        seen.append((row, event.frame))
        if row == 1 and event.frame in plans:
            batch.change_plan(1, plans[event.frame], f"goal {event.frame}")
            assert batch.rows[1].task.goal == f"goal {event.frame}"
        steps = (
            1
            if row == 0
            else len(plans[max((f for f in plans if f < event.frame), default=0) or 2])
            if event.frame > 2
            else 2
        )
        assert len(event.states) == len(event.probabilities) == steps
    assert Counter(row for row, _ in seen) == {0: 9, 1: 9} and batch.step_hidden.shape[1] == 8


BAD = [
    ([], None, "plan is empty"),
    ("attach the wheel", None, "The plan is one text"),
    (None, None, "The plan is NoneType"),
    ((step for step in PLAN), None, "The plan is generator"),
    (["two", ""], None, "Step 2 of the plan is empty"),
    ([" \n\x00"], None, "Step 1 of the plan is empty"),
    (["two", 5], None, "Step 2 of the plan is int 5"),
    (["two \ud83d"], None, "Step 1 of the plan holds half a character"),
    (["two"], 3, "The goal is int 3"),
    (["two"], "\ud83d", "The goal holds half a character"),
    (["wheel"] * 60, None, "more than max_tokens=240"),
    (["two"], "wheel " * 300, "more than max_tokens=240"),
]


@pytest.mark.parametrize("frames", [0, 2])
def test_a_change_that_cannot_be_is_one_sentence_and_the_stream_goes_on(frames: int) -> None:
    batch, calm = batch_of([Task(PLAN, GOAL)]), batch_of([Task(PLAN, GOAL)])
    assert_same_events(follow(batch, 0, range(frames)), follow(calm, 0, range(frames)), 0.0)
    for steps, goal, message in BAD:
        with pytest.raises(StreamError, match=message) as refused:
            batch.change_plan(0, steps if not hasattr(steps, "send") else (step for step in PLAN), goal)
        assert "\n" not in str(refused.value)
    for number in (1, -1, True, "0", None):
        with pytest.raises(StreamError, match=r"There is no stream .*: the streams are 0 to 0"):
            batch.change_plan(number, PLAN)  # type: ignore[arg-type]
    assert_same_events(follow(batch, 0, range(frames, 5)), follow(calm, 0, range(frames, 5)), 0.0)


def test_no_change_in_the_middle_of_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither between a decision and its text, nor after a frame that broke off."""
    refused: list[str] = []

    def on_text(frame: int, piece: str) -> None:
        with pytest.raises(StreamError, match=f"middle of frame {frame}: change the plan between two frames") as error:
            stream.change_plan(NEW)
        refused.append(str(error.value))

    options: dict[str, Any] = {"decoding": FIVE, "speaking_threshold": 0.0}
    stream = DSTStream(talkative_model(), small_processor(), PLAN, GOAL, on_text=on_text, **options)
    calm = DSTStream(talkative_model(), small_processor(), PLAN, GOAL, **options)
    for frame in range(2):
        assert_same_events([stream.step(picture("v", frame))], [calm.step(picture("v", frame))], 0.0)
    assert refused and stream.batch.rows[0].task.plan == PLAN
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):
        patch.setattr(stream.batch, "_forward", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of memory")))
        stream.step(picture("v", 2))
    with pytest.raises(StreamError, match="start a new stream where it broke off"):
        stream.change_plan(NEW)


def test_a_kept_step_keeps_what_its_table_knows() -> None:
    table = StateTable([0, 1, 2], Tracking("monotone", debounce=3))
    table.propose({0: 1, 1: 2, 2: 0}, update=True)
    other = table.replanned([None, 1, 0])
    assert other.states == [0, 1, 0] and other.rejected == table.rejected == 1
    assert other._waiting == {1: (2, 1), 2: (1, 1)} and table._waiting == {0: (1, 1), 1: (2, 1)}
    other.propose({1: 2, 2: 1}, update=False)
    assert [(move.step, move.after) for move in other.propose({1: 2, 2: 1}, update=False)] == [(1, 2), (2, 1)]


def test_what_is_believed_of_a_kept_step_stays_and_a_new_one_is_believed_not_started() -> None:
    """A head that is half sure of a start for some frames; after the change it goes on from there."""
    table = StateTable([0, 0], Tracking(filter="bayes"))
    for _ in range(3):
        table.propose(table.read_head([[0.55, 0.4, 0.05], [0.9, 0.05, 0.05]]), update=True)
    other = table.replanned([None, 1, 0])
    assert other.beliefs == [[1.0, 0.0, 0.0], table.beliefs[1], table.beliefs[0]]
    assert other.beliefs[2] != [1.0, 0.0, 0.0]


def test_deviations_that_the_kept_states_show_are_not_found_again() -> None:
    table = StateTable([0, 0, 0], Tracking())
    table.propose({2: 2}, update=True)
    assert [(one.kind, one.step) for one in table.deviations.see(table.states)][-1] == ("out_of_order", 2)
    other = table.replanned([0, 2, None])
    assert other.states == [0, 2, 0] and other.deviations.see(other.states) == () == other.deviations.at_end()


STEPS = st.lists(st.sampled_from(["a", "b", " a", "a\n", "c  d", "c d"]), min_size=1, max_size=7)


@given(STEPS, STEPS, STEPS)
def test_steps_are_matched_by_text_and_occurrence(first: list[str], second: list[str], third: list[str]) -> None:
    lines = [[one_line(step) for step in plan] for plan in (first, second, third)]
    change = PlanChange.between(first, second, "g")
    kept = [(new, old) for new, old in enumerate(change.kept) if old is not None]
    assert len({old for _, old in kept}) == len(kept)
    assert all(lines[1][new] == lines[0][old] for new, old in kept)
    assert Counter(lines[1][new] for new, _ in kept) == Counter(lines[0]) & Counter(lines[1])
    for text in set(lines[1]):  # the first occurrences, in their order
        places = [old for new, old in kept if lines[1][new] == text]
        assert places == [old for old, line in enumerate(lines[0]) if line == text][: len(places)]
    assert PlanChange.between(first, first, "g").kept == tuple(range(len(first)))
    both = PlanChange.between(second, third, "h").after(change)
    assert (both.before, both.plan, both.goal) == (tuple(first), tuple(third), "h")
    assert all(old is None or lines[2][new] == lines[0][old] for new, old in enumerate(both.kept))
