"""Context strategies: room is made, what must stay stays, nothing grows, and what cannot shrink says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_fixtures import picture, small_processor
from stream_fixtures import FIVE, PLAN, SpiedBatch, assert_same_events, talkative_model

from context_dst_smolvlm import STRATEGIES, Context, ContextFull
from processing_dst_smolvlm import SUMMARY_REQUEST, Stream, state_text
from streaming_dst_smolvlm import DSTStream, StreamBatch, StreamError, StreamEvent, Task

GOAL = "the red wheel"
WINDOW = 330  # tokens; the prompt takes 101, a frame with its texts up to 90
SHRINKING = [strategy for strategy in STRATEGIES if strategy != "none"]


def context(strategy: str, **options: Any) -> Context:
    return Context(strategy, **{"max_tokens": WINDOW, "keep_tokens": 60, "summary_tokens": 20, **options})


def batch_of(strategy: str, **options: Any) -> SpiedBatch:
    thresholds = {name: options.pop(name) for name in ("speaking_threshold", "dst_update_threshold") if name in options}
    settings = context(strategy, **options)
    return SpiedBatch(
        talkative_model(), small_processor(), [Task(PLAN, GOAL)], context=settings, decoding=FIVE, **thresholds
    )


def follow(batch: StreamBatch, frames: int, first: int = 0) -> list[StreamEvent]:
    events = []
    for frame in range(first, first + frames):
        (event,) = batch.step([picture("v", frame)])
        assert event is not None
        events.append(event)
    return events


@pytest.mark.parametrize("strategy", SHRINKING)
def test_fifty_overflows_leave_nothing_growing(strategy: str) -> None:
    window = 250
    batch = batch_of(strategy, max_tokens=window)
    overflows: list[StreamEvent] = []
    frame, sizes = 0, []
    while len(overflows) < 50:
        (event,) = follow(batch, 1, frame)
        assert event.cache_length <= window and batch.held(batch.rows[0]) <= window
        if event.context is not None:
            overflows.append(event)
            row = batch.rows[0]
            sizes.append((batch.cache.nbytes(), len(row.frame_starts)))
            assert event.context.strategy == strategy
            assert event.context.tokens_after < event.context.tokens_before <= window
        frame += 1
        assert frame < 50 * window
    assert max(batch.positions[0]) < window  # while a summary is written, too
    assert len({nbytes for nbytes, _ in sizes[2:]}) == 1
    assert max(starts for _, starts in sizes) <= window
    # At most the written tokens of one frame stand between the last overflow's size and the first's.
    after = [event.context.tokens_after for event in overflows if event.context]
    assert max(after[25:]) <= max(after[:25]) + batch.context.summary_tokens


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_before_the_first_overflow_all_strategies_are_one(strategy: str) -> None:
    events = follow(batch_of(strategy), 12)
    assert not any(event.context for event in events)
    assert_same_events(events, follow(batch_of("none"), 12), 0.0)


@pytest.mark.parametrize("strategy", SHRINKING)
def test_streams_of_a_batch_overflow_each_at_its_own_frame(strategy: str) -> None:
    model, processor = talkative_model(), small_processor()
    tasks = [Task(PLAN, GOAL), Task([*PLAN, "now please"], GOAL), Task(PLAN[:1])]
    batch = StreamBatch(model, processor, tasks, context=context(strategy), decoding=FIVE)
    events: list[list[StreamEvent]] = [[], [], []]
    for row, event in batch.run([[picture(f"v{row}", frame) for frame in range(220)] for row in range(3)]):
        events[row].append(event)
    overflown = [tuple(event.frame for event in row if event.context) for row in events]
    assert all(overflown) and len(set(overflown)) > 1
    for row, task in enumerate(tasks):
        alone = DSTStream(model, processor, task.plan, task.goal, context=context(strategy), decoding=FIVE)
        assert_same_events(events[row], list(alone.run(picture(f"v{row}", frame) for frame in range(220))))


def after_overflow(strategy: str, **options: Any) -> tuple[SpiedBatch, StreamEvent, list[int]]:
    """A batch just after its first overflow, that frame's event, and the ids that were fed since."""
    batch = batch_of(strategy, **options)
    for frame in range(500):
        before = len(batch.fed[0])
        (event,) = follow(batch, 1, frame)
        if event.context is not None:
            return batch, event, batch.fed[0][before:]
    raise AssertionError("the context was never full")


def prompt_ids(states: tuple[int, ...] | list[int], progress: str = "") -> list[int]:
    stream = Stream()
    small_processor().add_prompt(stream, GOAL, PLAN, states, progress)
    return stream.input_ids


def test_summarize_with_dst_begins_with_the_tracked_state() -> None:
    """The summary enters the context: the plan's lines carry the tracked states, as a training clip's do."""
    batch = batch_of("summarize_with_dst")
    states: tuple[int, ...] = (0, 0, 0)
    seen = set()
    for frame in range(250):
        before = len(batch.fed[0])
        (event,) = follow(batch, 1, frame)
        if event.context is not None:
            fed = batch.fed[0][before:]
            prompt = prompt_ids(states)
            assert fed[: len(prompt)] == prompt and fed[len(prompt)] == small_processor().image_id
            assert event.context.summary == state_text(dict(enumerate(states)))
            assert event.context.tokens_after == len(prompt)
            seen.add(states)
        states = event.states
    assert any(any(states) for states in seen)


def test_after_a_restart_the_stream_is_a_clip_that_begins_there() -> None:
    """With the tracked state kept, what follows equals a new stream that starts with these states."""
    batch, event, _ = after_overflow("summarize_with_dst")
    again = SpiedBatch(talkative_model(), small_processor(), [Task(PLAN, GOAL, [0, 0, 0])], decoding=FIVE)
    states = [0, 0, 0]
    for move in range(len(states)):
        states[move] = event.states[move]
    for transition in event.transitions:
        states[transition.step] = transition.before
    again = SpiedBatch(talkative_model(), small_processor(), [Task(PLAN, GOAL, states)], decoding=FIVE)
    (first,) = follow(again, 1, event.frame)
    assert first.p_speak == pytest.approx(event.p_speak, abs=1e-5) and first.states == event.states
    for ours, theirs in zip(follow(batch, 10, event.frame + 1), follow(again, 10, event.frame + 1), strict=True):
        assert ours.p_speak == pytest.approx(theirs.p_speak, abs=1e-5)
        assert (ours.text, ours.states, ours.cache_length) == (theirs.text, theirs.states, theirs.cache_length)


def test_drop_all_begins_anew() -> None:
    batch, event, fed = after_overflow("drop_all")
    prompt = prompt_ids([0, 0, 0])
    assert fed[: len(prompt)] == prompt and event.context is not None and event.context.summary == ""
    assert event.context.tokens_after == len(prompt)
    assert batch.rows[0].table.states == list(event.states)  # the table is not part of the context


def test_a_written_summary_enters_the_new_context() -> None:
    batch, event, fed = after_overflow("summarize_and_drop")
    assert event.context is not None and event.context.summary
    asked = Stream()
    small_processor().add_turn(asked, "User", SUMMARY_REQUEST)
    small_processor().open(asked, "Assistant")
    place = next(n for n in range(len(fed)) if fed[n : n + len(asked.input_ids)] == asked.input_ids)
    prompt = prompt_ids([0, 0, 0], event.context.summary)
    begin = next(n for n in range(place, len(fed)) if fed[n : n + len(prompt)] == prompt)
    written = fed[place + len(asked.input_ids) : begin]
    assert 0 < len(written) <= 20
    text = small_processor().tokenizer.decode(written).replace("\ufffd", "").strip()
    assert text == event.context.summary
    assert batch.cache.lengths[0] < WINDOW and event.context.tokens_after == len(prompt)


def test_drop_middle_keeps_the_head_and_the_last_frames() -> None:
    batch = batch_of("drop_middle")
    row = batch.rows[0]
    prompt = len(prompt_ids([0, 0, 0]))
    for frame in range(500):
        kept = batch.cache.read(0)
        starts, fed = list(row.frame_starts), batch.cache.lengths[0]
        cut_before = len(batch.fed[0])
        (event,) = follow(batch, 1, frame)
        if event.context is not None:
            break
    assert event.context is not None and row.head_length >= prompt
    # The new first frame of the tail is the first one that began within the last 60 tokens.
    tail = next(place for place in starts if place >= fed - 60)
    assert event.context.tokens_after == row.head_length + event.context.tokens_before - tail
    assert row.frame_starts[0] == (starts[0] if starts[0] < row.head_length else row.head_length)
    now = batch.cache.read(0)
    assert torch.equal(now["values.0"][:, : row.head_length], kept["values.0"][:, : row.head_length])
    length = fed - tail
    assert torch.equal(now["values.0"][:, row.head_length : row.head_length + length], kept["values.0"][:, tail:fed])
    assert batch.positions[0][cut_before] == row.head_length + length  # true positions, no gap


def test_drop_middle_keeps_a_first_turn_that_came_with_the_first_frame() -> None:
    batch = batch_of("drop_middle", speaking_threshold=2.0)
    batch.step([picture("v", 0)], ["where does the wheel"])
    follow(batch, 1, 1)
    assert batch.rows[0].head_length > len(prompt_ids([0, 0, 0])) + 1
    silent = batch_of("drop_middle", speaking_threshold=2.0)
    follow(silent, 3)
    assert silent.rows[0].head_length == len(prompt_ids([0, 0, 0]))


@pytest.mark.parametrize("strategy", SHRINKING)
def test_words_of_the_user_that_were_not_heard_survive(strategy: str) -> None:
    """A turn that waits when the context is emptied is fed into the new one."""
    turn = Stream()
    small_processor().add_turn(turn, "User", "where does the two")
    batch = batch_of(strategy, speaking_threshold=2.0, dst_update_threshold=2.0)
    for frame in range(500):
        before = len(batch.fed[0])
        (event,) = batch.step([picture("v", frame)], ["where does the two"])
        assert event is not None
        if event.context is not None:
            fed = batch.fed[0][before:]
            count = sum(fed[n : n + len(turn.input_ids)] == turn.input_ids for n in range(len(fed)))
            # For a summary it is heard before, too.
            assert count == (2 if strategy == "summarize_and_drop" else 1)
            at = max(n for n in range(len(fed)) if fed[n : n + len(turn.input_ids)] == turn.input_ids)
            assert fed[at + len(turn.input_ids)] == small_processor().image_id  # then the frame, in the new context
            return
    raise AssertionError("the context was never full")


def test_words_of_the_user_that_were_heard_are_not_said_again() -> None:
    turn = Stream()
    small_processor().add_turn(turn, "User", "where does the two")
    batch = batch_of("drop_all")
    batch.step([picture("v", 0)])
    batch.step([picture("v", 1)], ["where does the two"])
    for frame in range(2, 500):
        (event,) = follow(batch, 1, frame)
        if event.context is not None:
            break
    fed = batch.fed[0]
    assert sum(fed[n : n + len(turn.input_ids)] == turn.input_ids for n in range(len(fed))) == 1


def test_writing_a_summary_leaves_the_stream_as_it_was() -> None:
    batch = batch_of("summarize_and_drop")
    follow(batch, 6)
    row = batch.rows[0]
    held, user_turn = batch.held(row), list(row.user_turn)
    with torch.inference_mode():
        batch.write_summary(row, 12)
    assert batch.cache.lengths[0] == batch.held(row) == held and row.user_turn == user_turn and row.phase == ""
    untouched = batch_of("summarize_and_drop")
    follow(untouched, 6)
    for ours, theirs in zip(follow(batch, 6, 6), follow(untouched, 6, 6), strict=True):
        assert ours.p_speak == pytest.approx(theirs.p_speak, abs=1e-5) and ours.states == theirs.states


def test_none_says_so_and_the_stream_is_as_it_was() -> None:
    batch = batch_of("none")
    with pytest.raises(ContextFull, match="The context is full at frame"):
        follow(batch, 500)
    row = batch.rows[0]
    frame, held, states = row.frame, batch.held(row), list(row.table.states)
    with pytest.raises(ContextFull, match=f"max_tokens is {WINDOW}"):
        follow(batch, 1, 499)
    assert (row.frame, batch.held(row), row.table.states) == (frame, held, states) and row.phase == ""


def test_a_context_that_cannot_shrink_says_so() -> None:
    with pytest.raises(StreamError, match="max_tokens=100"):
        batch_of("summarize_with_dst", max_tokens=100)
    batch = batch_of("drop_middle", keep_tokens=200)
    with pytest.raises(ContextFull, match="keep_tokens"):
        follow(batch, 500)
    frame = batch.rows[0].frame
    with pytest.raises(ContextFull):
        follow(batch, 1)
    assert batch.rows[0].frame == frame
    batch = batch_of("summarize_and_drop", summary_tokens=200)
    with pytest.raises(ContextFull):
        follow(batch, 500)


def test_a_stream_that_was_refused_can_be_followed_by_another() -> None:
    """Room that is lacking for a long text is no reason to end: a shorter one goes in."""
    batch = batch_of("summarize_with_dst")
    with pytest.raises(StreamError, match="characters"):
        batch.step([picture("v", 0)], ["x " * 300])
    assert follow(batch, 3)[2].frame == 2


def test_where_one_stream_is_refused_no_other_loses_its_context() -> None:
    """Two streams that are both full: one could make room, the other cannot."""
    batch = SpiedBatch(
        talkative_model(),
        small_processor(),
        [Task(PLAN, GOAL), Task(PLAN * 2, GOAL)],
        context=context("drop_middle", keep_tokens=160),
        decoding=FIVE,
    )
    refused = 0
    for frame in range(500):  # the second stream, until it is refused
        try:
            batch.step([None, picture("v", frame)])
        except ContextFull:
            refused = frame
            break
    assert refused
    for frame in range(500):  # the first, until both are refused because of the second
        held = batch.held(batch.rows[0])
        try:
            batch.step([picture("v", frame), picture("v", refused)])
        except ContextFull:
            assert batch.held(batch.rows[0]) == held
        event, _ = batch.step([picture("v", frame), None])
        assert event is not None and event.frame == frame
        if event.context is not None:
            assert event.context.tokens_before == held
            return
    raise AssertionError("the first stream was never full")


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("strategy", {"strategy": "forget"}),
        ("max_tokens", {"max_tokens": 0}),
        ("keep_tokens", {"keep_tokens": -1}),
        ("summary_tokens", {"summary_tokens": 0}),
    ],
)
def test_settings_that_cannot_be(message: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        Context(**options)


def test_the_limit_of_the_model() -> None:
    assert Context().limit(2048) == 2048 and Context().limit(10_000) == 4096
    assert Context(max_tokens=8192).limit(8192) == 8192
    with pytest.raises(StreamError, match="2048 positions"):
        Context(max_tokens=4096).limit(2048)
