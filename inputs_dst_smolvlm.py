"""The input of a stream: what is refused before anything changes, and frames encoded to features.

Remote code of the Hub: it imports torch and transformers and nothing of the training package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

try:
    from .context_dst_smolvlm import StreamError
    from .events_dst_smolvlm import StreamInput, StreamRow
    from .processing_dst_smolvlm import DSTSmolVLMProcessor, Stream, one_line
except ImportError:  # imported as a top-level module of the installed package
    from context_dst_smolvlm import StreamError
    from events_dst_smolvlm import StreamInput, StreamRow
    from processing_dst_smolvlm import DSTSmolVLMProcessor, Stream, one_line

if TYPE_CHECKING:
    from .modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration


def check_input(
    row: StreamRow, item: StreamInput, processor: DSTSmolVLMProcessor, hidden: int, max_tokens: int
) -> list[int]:
    """Check the next frame of a stream and return the token ids of the user's turn, [] if the user says nothing.

    Args:
        row: the stream.
        item: its next frame.
        processor: lays out the turn.
        hidden: width of the model.
        max_tokens: the context in tokens.

    Raises:
        StreamError: an input that cannot be used.
    """
    where = f"stream {row.number}, frame {row.frame + 1}"
    if row.phase:
        raise StreamError(
            f"stream {row.number} broke off in the middle of frame {row.frame}; start a new stream, or restore a saved "
            "one."
        )
    if item.time is not None and not (math.isfinite(item.time) and item.time > row.time):
        raise StreamError(
            f"{where}: time is {item.time} s after {row.time} s; the frames of a stream come in order of time."
        )
    if torch.is_tensor(item.frame):
        expected = [processor.tokens_per_frame, hidden]
        if list(item.frame.shape) != expected or not item.frame.is_floating_point():
            raise StreamError(
                f"{where}: features are {item.frame.dtype} {list(item.frame.shape)}; this model takes {expected}."
            )
        if not bool(item.frame.isfinite().all()):
            raise StreamError(f"{where}: features hold a value that is not finite.")
    if item.user_text is not None:
        check_text(item.user_text, f"{where}: the user's text")
    if not item.user_text or not one_line(item.user_text):
        return []
    turn = Stream()
    processor.add_turn(turn, "User", item.user_text)
    prompt = len(row.task.prompt(processor, row.table.states).input_ids)
    if prompt + len(turn.input_ids) + row.coming(turn.input_ids) > max_tokens:
        raise StreamError(
            f"{where}: the user's text of {len(item.user_text)} characters takes {len(turn.input_ids)} tokens; "
            f"beside the plan a context of {max_tokens} has no room for it: shorten it."
        )
    return turn.input_ids


def check_text(text: Any, what: str) -> None:
    """Raise ``StreamError`` unless ``text`` is a text that a tokenizer can read; ``what`` names it in the message."""
    if not isinstance(text, str):
        raise StreamError(f"{what} is {type(text).__name__} {text!r}: give a str.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X} at place {error.start}"
        raise StreamError(
            f"{what} holds half a character ({half}): it was cut in the middle of an emoji; remove that place."
        ) from None


def encode_frames(
    model: DSTSmolVLMForConditionalGeneration, processor: DSTSmolVLMProcessor, frames: Mapping[int, Any]
) -> dict[int, torch.Tensor]:
    """Each stream's frame (a picture, or its features) to features ``[tokens, hidden]``; pictures are encoded together.

    Raises:
        StreamError: a picture that cannot be used.
    """
    pictures = {number: frame for number, frame in frames.items() if not torch.is_tensor(frame)}
    features: dict[int, torch.Tensor] = {number: frame for number, frame in frames.items() if torch.is_tensor(frame)}
    if pictures:
        try:
            # One by one: pictures of several sizes do not stack.
            pixels = torch.cat([processor.pixel_values([picture]) for picture in pictures.values()])
        except (AttributeError, TypeError, ValueError, OSError) as error:
            raise StreamError(f"A frame of streams {sorted(pictures)} cannot be used: {error}") from error
        features |= dict(zip(pictures, model.encode_frames(pixels.to(model.device)), strict=True))
    return features


__all__ = ["check_input", "check_text", "encode_frames"]
