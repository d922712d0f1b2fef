"""What happens when a stream's context is full: an error, a restart, a cut in the middle, or a restart with a summary.

``plan_room`` decides; the batch of streams carries its plan out. Remote code of the Hub: it imports torch and
transformers and nothing of the training package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

try:
    from .events_dst_smolvlm import ContextEvent, StreamRow
    from .processing_dst_smolvlm import SUMMARY_REQUEST, DSTSmolVLMProcessor, Stream, state_text
except ImportError:  # imported as a top-level module of the installed package
    from events_dst_smolvlm import ContextEvent, StreamRow
    from processing_dst_smolvlm import SUMMARY_REQUEST, DSTSmolVLMProcessor, Stream, state_text

STRATEGIES = ("none", "drop_all", "drop_middle", "summarize_and_drop", "summarize_with_dst")
# Tokens of a context if neither the strategy's settings nor the model allow fewer.
MOST_TOKENS = 4096


class StreamError(ValueError):
    """An input or a setting that a stream cannot use; the stream is unchanged and can go on."""


class ContextFull(StreamError):
    """There is no room for the next frame, and the strategy makes none."""


@dataclass(frozen=True)
class Context:
    """What happens when the context is full.

    Args:
        strategy: ``none``: an error. ``drop_all``: the stream starts again with the prompt that it started with.
            ``drop_middle``: the head (the prompt, and the first turn if one came with the first frame) and the last
            ``keep_tokens`` stay; what lies between is cut out. ``summarize_and_drop``: the model writes a summary, and
            the stream starts again with the prompt and the summary. ``summarize_with_dst``: the stream starts again
            with the plan in its tracked state, as a training clip starts that begins in the middle of a video.
        max_tokens: the context in tokens; None: 4096, or what the model can hold if that is less.
        keep_tokens: for drop_middle.
        summary_tokens: for summarize_and_drop, the longest summary in tokens.

    Raises:
        ValueError: a value outside its range.
    """

    strategy: str = "summarize_with_dst"
    max_tokens: int | None = None
    keep_tokens: int = 512
    summary_tokens: int = 256

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(f"context strategy must be one of {', '.join(STRATEGIES)}, not {self.strategy!r}.")
        for name in ("max_tokens", "keep_tokens", "summary_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"context {name} must be 1 or more, not {value}.")

    def limit(self, model_limit: int) -> int:
        """Tokens of the context on a model that can hold ``model_limit``.

        Raises:
            StreamError: ``max_tokens`` is more than that.
        """
        if self.max_tokens is not None and self.max_tokens > model_limit:
            raise StreamError(f"context max_tokens={self.max_tokens} is more than the model's {model_limit} positions.")
        return min(model_limit, MOST_TOKENS) if self.max_tokens is None else self.max_tokens


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


__all__ = [
    "STRATEGIES",
    "Context",
    "ContextEvent",
    "ContextFull",
    "Cut",
    "Restart",
    "StreamError",
    "check_room",
    "plan_room",
]
