"""What a stream's context opens with, and room in a full one: an error, a restart, a cut, or a restart with a summary.

``plan_room`` decides; the batch of streams carries its plan out. ``replan`` prepares a stream to be opened with another
plan. Remote code of the Hub: it imports torch and transformers and nothing of the training package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

try:
    from .context_dst_smolvlm import Context, ContextFull, StreamError
    from .events_dst_smolvlm import PlanChange, StreamRow, Task
    from .inputs_dst_smolvlm import check_settings, check_task
    from .processing_dst_smolvlm import SUMMARY_REQUEST, DSTSmolVLMProcessor, Stream, state_text
    from .tracking_dst_smolvlm import StateTable, Tracking
except ImportError:  # imported as a top-level module of the installed package
    from context_dst_smolvlm import Context, ContextFull, StreamError
    from events_dst_smolvlm import PlanChange, StreamRow, Task
    from inputs_dst_smolvlm import check_settings, check_task
    from processing_dst_smolvlm import SUMMARY_REQUEST, DSTSmolVLMProcessor, Stream, state_text
    from tracking_dst_smolvlm import StateTable, Tracking


@dataclass(frozen=True)
class Cut:
    """Make room by taking the places ``begin`` to ``end`` (exclusive) out of the cache."""

    begin: int
    end: int


@dataclass(frozen=True)
class Restart:
    """Make room by emptying the cache and feeding ``prompt``; ``summary`` is what it tells of the old context."""

    prompt: Stream
    summary: str = ""


def first_table(task: Task, tracking: Tracking) -> StateTable:
    """The table before the first frame. Raises ``StreamError`` where the task cannot be used."""
    check_settings(task=task)
    states = check_task(task)
    try:
        return StateTable(states, tracking)
    except ValueError as error:
        raise StreamError(str(error)) from error


def replan(
    row: StreamRow,
    steps: Sequence[str],
    goal: str | None,
    processor: DSTSmolVLMProcessor,
    most: Callable[[int], tuple[int, int]],
    max_tokens: int,
) -> None:
    """Give a stream another plan between two frames; kept steps keep their state. Its cache has to be emptied then.

    Args:
        row: the stream.
        steps: the new plan.
        goal: the new goal; None: it stays.
        processor: lays out the new prompt.
        most: upper bounds in tokens for a number of steps, as ``StreamRow.most``.
        max_tokens: the context in tokens.

    Raises:
        StreamError: what cannot be used, or a plan that leaves no room for a frame; the stream is unchanged.
    """
    if row.phase:
        raise StreamError(
            f"stream {row.number} is in the middle of frame {row.frame}: change the plan between two frames, or start "
            "a new stream where it broke off."
        )
    task = replace(row.task, plan=steps, goal=row.task.goal if goal is None else goal, states=None)
    check_task(task)
    change = PlanChange.between(row.task.plan, steps, task.goal)
    table, bounds = row.table.replanned(change.kept), most(len(steps))
    # Of the pending tokens only the user's words belong into the new context: the model has not read them yet.
    kept = len(task.prompt(processor, table.states).input_ids) + len(row.user_turn)
    check_room(kept, sum(bounds), max_tokens)
    row.task = replace(task, plan=list(steps), states=list(table.states))
    row.table, row.most, row.first_states = table, bounds, list(table.states)
    row.pending, row.opened = list(row.user_turn), row.frame + 1
    row.plan_change = change if row.plan_change is None else change.after(row.plan_change)


def check_room(kept: int, coming: int, max_tokens: int) -> None:
    """Raise ``ContextFull`` if ``coming`` tokens do not fit after ``kept`` tokens that cannot be dropped."""
    if kept + coming > max_tokens:
        raise ContextFull(
            f"What must be kept takes {kept} tokens and a frame with its texts up to {coming}, more than "
            f"max_tokens={max_tokens}: raise it, or shorten the plan, the texts or keep_tokens."
        )


def plan_room(
    context: Context,
    max_tokens: int,
    processor: DSTSmolVLMProcessor,
    row: StreamRow,
    cached: int,
    coming: int,
    write_summary: Callable[[], str],
) -> Cut | Restart | None:
    """Decide how room for ``coming`` tokens is made in a stream; None if they fit as it is.

    Args:
        context: the strategy and its settings.
        max_tokens: the context in tokens.
        processor: lays out the new prompt.
        row: the stream, which is only read.
        cached: its tokens in the cache.
        coming: upper bound in tokens of the next frame and its texts.
        write_summary: lets the model summarise the stream, which it leaves unchanged (``summarize_and_drop``).

    Raises:
        ContextFull: the strategy makes no room, or not enough.
    """
    held = cached + len(row.pending)
    # A summary is written before anything is dropped, so its tokens must fit too.
    reserve = summary_cost(processor, context.summary_tokens) if context.strategy == "summarize_and_drop" else 0
    if held + coming + reserve <= max_tokens:
        return None
    if context.strategy == "none":
        raise ContextFull(
            f"The context is full at frame {row.frame + 1}: {held} tokens, the next frame with its texts takes up to "
            f"{coming}, max_tokens is {max_tokens}; start a new stream or choose another context strategy."
        )
    if context.strategy == "drop_middle":
        # The kept part begins with a whole frame: one that began inside a turn would be a text that nobody said.
        tail = next((place for place in row.frame_starts if place >= cached - context.keep_tokens), cached)
        check_room(row.head_length + cached - tail + len(row.pending), coming, max_tokens)
        return Cut(row.head_length, tail)
    # A restart drops the pending tokens too, except the user's words, which the model has not read yet.
    words = len(row.user_turn)
    plan = Restart(row.task.prompt(processor, row.first_states))
    check_room(len(plan.prompt.input_ids) + reserve + words, coming, max_tokens)
    if context.strategy == "summarize_and_drop":
        summary = write_summary()
        plan = Restart(row.task.prompt(processor, row.first_states, summary), summary)
    elif context.strategy == "summarize_with_dst":
        # The plan with its states is the summary: what is completed, what is in progress, what is still to come.
        states = row.table.states
        plan = Restart(row.task.prompt(processor, states), state_text(dict(enumerate(states))))
    check_room(len(plan.prompt.input_ids) + words, coming, max_tokens)
    return plan


def summary_cost(processor: DSTSmolVLMProcessor, summary_tokens: int) -> int:
    """Upper bound in tokens of asking for a summary and writing it; in the new prompt the summary takes fewer."""
    asked = Stream()
    processor.add_turn(asked, "User", SUMMARY_REQUEST)
    processor.open(asked, "Assistant")
    processor.close(asked)
    return len(asked.input_ids) + summary_tokens


__all__ = ["Cut", "Restart", "check_room", "first_table", "plan_room", "replan"]
