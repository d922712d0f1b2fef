"""The context of a stream: its length, and what happens when it is full.

Remote code of the Hub: plain Python. ``room_dst_smolvlm`` carries the strategies out.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        StreamError: a value of another type or outside its range.
    """

    strategy: str = "summarize_with_dst"
    max_tokens: int | None = None
    keep_tokens: int = 512
    summary_tokens: int = 256

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, str) or self.strategy not in STRATEGIES:
            raise StreamError(f"context strategy must be one of {', '.join(STRATEGIES)}, not {self.strategy!r}.")
        for name in ("max_tokens", "keep_tokens", "summary_tokens"):
            value = getattr(self, name)
            if value is None and name == "max_tokens":
                continue
            if type(value) is not int or value < 1:
                raise StreamError(f"context {name} must be a whole number of 1 or more, not {value!r}.")

    def limit(self, model_limit: int) -> int:
        """Tokens of the context on a model that can hold ``model_limit``.

        Raises:
            StreamError: ``max_tokens`` is more than that.
        """
        if self.max_tokens is not None and self.max_tokens > model_limit:
            raise StreamError(f"context max_tokens={self.max_tokens} is more than the model's {model_limit} positions.")
        return min(model_limit, MOST_TOKENS) if self.max_tokens is None else self.max_tokens


__all__ = ["STRATEGIES", "Context", "ContextFull", "StreamError"]
