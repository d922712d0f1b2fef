"""What happens when a stream's context is full: nothing, a restart, a cut in the middle, or a restart with a summary.

Remote code of the Hub: it imports torch and transformers and nothing of the training package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

try:
    from .cache_dst_smolvlm import cut
    from .processing_dst_smolvlm import SUMMARY_REQUEST, Stream, state_text
except ImportError:  # imported as a top-level module of the installed package
    from cache_dst_smolvlm import cut
    from processing_dst_smolvlm import SUMMARY_REQUEST, Stream, state_text

if TYPE_CHECKING:
    from .events_dst_smolvlm import StreamRow
    from .streaming_dst_smolvlm import StreamBatch

STRATEGIES = ("none", "drop_all", "drop_middle", "summarize_and_drop", "summarize_with_dst")
# Tokens of a context where neither the strategy's settings nor the model say less.
MOST_TOKENS = 4096


class StreamError(ValueError):
    """An input or a setting that a stream cannot use; the stream is as it was and goes on."""


class ContextFull(StreamError):
    """There is no room for the next frame, and the strategy makes none."""


@dataclass(frozen=True)
class Context:
    """What happens when the context is full.

    Args:
        strategy: ``none``: an error that says so. ``drop_all``: the stream begins anew with the prompt it began with.
            ``drop_middle``: the head (the prompt, and the first turn where one came with the first frame) and the last
            ``keep_tokens`` stay, what lies between is cut out. ``summarize_and_drop``: the model writes a summary, the
            stream begins anew with the prompt and the summary. ``summarize_with_dst``: the stream begins anew with the
            plan in its tracked state, the form in which a training clip opens that starts inside a video.
        max_tokens: the context in tokens; none: 4096, or what the model can hold if that is less.
        keep_tokens: for drop_middle.
        summary_tokens: a written summary's length at most, for summarize_and_drop.

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
            StreamError: more than that is asked for.
        """
        if self.max_tokens is not None and self.max_tokens > model_limit:
            raise StreamError(f"context max_tokens={self.max_tokens} is more than the model's {model_limit} positions.")
        return min(model_limit, MOST_TOKENS) if self.max_tokens is None else self.max_tokens


@dataclass(frozen=True)
class ContextEvent:
    """How room was made before a frame.

    Args:
        strategy: which one.
        tokens_before, tokens_after: of the stream, before and after.
        summary: what the new context knows of the old one beside the kept tokens: the written summary, or the plan's
            states.
    """

    strategy: str
    tokens_before: int
    tokens_after: int
    summary: str = ""


def make_room(batch: StreamBatch, row: StreamRow, coming: int) -> ContextEvent | None:
    """See to it that ``coming`` tokens fit into a stream; None where they do anyway.

    Raises:
        ContextFull: the strategy makes no room, or not enough; the stream is as it was.
    """
    context, held = batch.context, batch.held(row)
    # A summary is written before anything is dropped, so its tokens must fit too.
    reserve = _summary_cost(batch) if context.strategy == "summarize_and_drop" else 0
    if held + coming + reserve <= batch.max_tokens:
        return None
    if context.strategy == "none":
        raise ContextFull(
            f"The context is full at frame {row.frame + 1}: {held} tokens, the next frame with its texts takes up to "
            f"{coming}, max_tokens is {batch.max_tokens}; start a new stream or choose another context strategy."
        )
    summary = ""
    if context.strategy == "drop_middle":
        _drop_middle(batch, row, coming)
    else:
        prompt = batch.prompt(row, row.first_states)
        batch.check_room(len(prompt.input_ids) + reserve + len(row.user_turn), coming)
        if context.strategy == "summarize_and_drop":
            summary = batch.write_summary(row, context.summary_tokens)
            prompt = batch.prompt(row, row.first_states, summary)
            batch.check_room(len(prompt.input_ids) + len(row.user_turn), coming)
        elif context.strategy == "summarize_with_dst":
            # The plan with its states is the summary: what is completed, what goes on, what is still to come.
            summary = state_text(dict(enumerate(row.table.states)))
            prompt = batch.prompt(row, row.table.states)
            batch.check_room(len(prompt.input_ids) + len(row.user_turn), coming)
        # What waits is the rest of turns that are dropped, but for the user's words: they were not heard yet.
        row.pending = list(row.user_turn)
        batch.cache.truncate(row.number, 0)
        batch.enter({row.number: prompt})
    return ContextEvent(context.strategy, held, batch.held(row), summary)


def _summary_cost(batch: StreamBatch) -> int:
    """Tokens that asking for a summary and writing it take at most; as the new prompt's line it takes fewer."""
    asked = Stream()
    batch.processor.add_turn(asked, "User", SUMMARY_REQUEST)
    batch.processor.open(asked, "Assistant")
    batch.processor.close(asked)
    return len(asked.input_ids) + batch.context.summary_tokens


def _drop_middle(batch: StreamBatch, row: StreamRow, coming: int) -> None:
    """Cut from the head's end to the first frame among the last ``keep_tokens``."""
    length, keep = batch.cache.lengths[row.number], batch.context.keep_tokens
    # Whole frames: a tail that began inside a turn would be a text nobody said.
    tail = next((place for place in row.frame_starts if place >= length - keep), length)
    batch.check_room(row.head_length + length - tail + len(row.pending), coming)
    removed = tail - row.head_length
    cut(batch.cache, row.head_length, tail, batch.model.model.text_model.rotary_emb, row.number)
    while row.frame_starts and row.frame_starts[0] < tail:
        row.frame_starts.popleft()
    for number, place in enumerate(row.frame_starts):
        row.frame_starts[number] = place - removed


__all__ = ["STRATEGIES", "Context", "ContextEvent", "ContextFull", "StreamError", "make_room"]
