"""Room in a full context: an error, a restart, a cut in the middle, or a restart with a summary.

``plan_room`` decides; the batch of streams carries its plan out. Remote code of the Hub: it imports torch and
transformers and nothing of the training package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

try:
    from .context_dst_smolvlm import Context, ContextFull
    from .events_dst_smolvlm import StreamRow
    from .processing_dst_smolvlm import SUMMARY_REQUEST, DSTSmolVLMProcessor, Stream, state_text
except ImportError:  # imported as a top-level module of the installed package
    from context_dst_smolvlm import Context, ContextFull
    from events_dst_smolvlm import StreamRow
    from processing_dst_smolvlm import SUMMARY_REQUEST, DSTSmolVLMProcessor, Stream, state_text


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


__all__ = ["Cut", "Restart", "check_room", "plan_room"]
