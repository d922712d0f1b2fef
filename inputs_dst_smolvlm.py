"""The input of a stream: what is refused before anything changes, and frames encoded to features.

Remote code of the Hub: it imports torch and transformers and nothing of the training package.
"""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

try:
    from .context_dst_smolvlm import StreamError
    from .decoding_dst_smolvlm import LARGEST_SEED
    from .events_dst_smolvlm import StreamInput, StreamRow
    from .processing_dst_smolvlm import DSTSmolVLMProcessor, Stream, one_line
    from .tracking_dst_smolvlm import Tracking
except ImportError:  # imported as a top-level module of the installed package
    from context_dst_smolvlm import StreamError
    from decoding_dst_smolvlm import LARGEST_SEED
    from events_dst_smolvlm import StreamInput, StreamRow
    from processing_dst_smolvlm import DSTSmolVLMProcessor, Stream, one_line
    from tracking_dst_smolvlm import Tracking

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
    if item.time is not None:
        order = "the frames of a stream come in order of time"
        seconds = number_of(item.time, f"{where}: time", order)
        if not seconds > row.time:
            raise StreamError(f"{where}: time is {seconds} s after {row.time} s; {order}.")
    if torch.is_tensor(item.frame):
        _check_features(item.frame, [processor.tokens_per_frame, hidden], where)
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


def _check_features(features: torch.Tensor, expected: list[int], where: str) -> None:
    wide = features.is_floating_point() and features.dtype.itemsize > 1  # 8-bit floats know no arithmetic
    if list(features.shape) != expected or not wide or features.layout != torch.strided or features.is_meta:
        kind = f"{features.layout} " if features.layout != torch.strided else "empty " if features.is_meta else ""
        raise StreamError(
            f"{where}: features are {kind}{features.dtype} {list(features.shape)}; this model takes a dense tensor "
            f"{expected} of float32, float16 or bfloat16."
        )
    # The sum of squares, as a norm in the model computes it: values near the largest number end as NaN there.
    if not bool(features.float().square().sum().isfinite()):
        raise StreamError(f"{where}: features hold a value that is not finite, or too large to compute with.")


def number_of(value: Any, what: str, advice: str = "give a finite number") -> float:
    """``value`` as a finite float; ``what`` names it in messages.

    Raises:
        StreamError: it is no number of Python or numpy, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise StreamError(f"{what} is {type(value).__name__}: give a number.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise StreamError(f"{what} is {number}; {advice}.")
    return number


def listed(values: Any, what: str) -> list[Any]:
    """``values`` as a list. Raises ``StreamError`` where they are one text or nothing that can be listed."""
    try:
        if not isinstance(values, (str, bytes, Mapping)):
            return list(values)
    except TypeError:
        pass
    raise StreamError(f"{what} are {type(values).__name__}: give a list, with an entry for each stream.")


def frames_of(source: Any) -> Iterator[Any]:
    """The frames of a source, one by one. Raises ``StreamError`` where it cannot be iterated."""
    try:
        return iter(source)
    except TypeError:
        raise StreamError(f"The frames are {type(source).__name__}: give a list or a generator of frames.") from None


def check_model(model: DSTSmolVLMForConditionalGeneration, processor: DSTSmolVLMProcessor, tracking: Tracking) -> None:
    """Raise ``StreamError`` where a model cannot follow a video, its processor is another's, or it writes no states."""
    if model.training:
        raise StreamError("The model is in training mode; call model.eval() before it follows a video.")
    if processor.tokens_per_frame != model.config.stream_tokens:
        raise StreamError(
            f"The processor lays out {processor.tokens_per_frame} tokens a frame, the model reads "
            f"{model.config.stream_tokens}; load both from one folder."
        )
    if processor.state_feedback != model.config.state_feedback:
        raise StreamError(
            f"The processor has state_feedback={processor.state_feedback}, the model was trained with "
            f"{model.config.state_feedback}; load both from one folder."
        )
    attention = model.config.text_config._attn_implementation
    if attention not in ("sdpa", "eager"):
        raise StreamError(
            f"Streams run on sdpa or eager attention, not on {attention}: load the model with "
            'attn_implementation="sdpa".'
        )
    if tracking.source == "text" and not processor.state_feedback:
        raise StreamError(
            "tracking source text reads the state texts, and this model was trained without them "
            "(state_feedback=false): use tracking source head."
        )


def check_task(task: Any) -> list[int]:
    """Check what a stream is about, and return its states before the first frame.

    Raises:
        StreamError: no plan, texts that cannot be used, or invalid states or seed.
    """
    plan, states = task.plan, task.states
    if isinstance(plan, str):
        raise StreamError("The plan is one text: give a list with a text for each step.")
    if isinstance(plan, bytes) or not isinstance(plan, Sequence):
        raise StreamError(f"The plan is {type(plan).__name__}: give a list with a text for each step.")
    if not plan:
        raise StreamError("The plan is empty: give at least one step.")
    check_text(task.goal, "The goal")
    for step, text in enumerate(plan, start=1):
        check_text(text, f"Step {step} of the plan")
        if not one_line(text):
            raise StreamError(f"Step {step} of the plan is empty: write what is to be done, or leave it out.")
    if task.seed is not None and (type(task.seed) is not int or abs(task.seed) > LARGEST_SEED):
        raise StreamError(f"The seed must be a whole number of 62 bits, not {task.seed!r}.")
    if states is None:
        return [0] * len(plan)
    given = listed(states, "The states of the plan")
    if len(given) != len(plan):
        raise StreamError(f"{len(given)} states for {len(plan)} steps.")
    # numpy's whole numbers become Python's, which JSON can hold.
    return [s if isinstance(s, bool) or not isinstance(s, numbers.Integral) else int(s) for s in given]


def check_settings(**given: Any) -> None:
    """Check the values behind a stream's keywords ``context``, ``tracking``, ``decoding``, ``task`` and ``on_text``.

    Classes are compared by name: a checkpoint brings its own copy of this code, whose classes are others.

    Raises:
        StreamError: a value is not of the class of its name, or ``on_text`` is neither None nor a function.
    """
    for name, value in given.items():
        if name == "on_text":
            if value is not None and not callable(value):
                raise StreamError(f"on_text is {type(value).__name__}: give a function.")
        elif type(value).__name__ != name.capitalize():
            raise StreamError(f"{name} is {type(value).__name__}: give a {name.capitalize()}.")


def check_text(text: Any, what: str) -> None:
    """Raise ``StreamError`` unless ``text`` is a text that a tokenizer can read; ``what`` names it in the message."""
    if not isinstance(text, str):
        raise StreamError(f"{what} is {type(text).__name__} {reprlib.repr(text)}: give a str.")
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
    features: dict[int, torch.Tensor] = {
        number: frame.to(model.device, model.dtype) for number, frame in frames.items() if torch.is_tensor(frame)
    }
    if any(not bool(feature.isfinite().all()) for feature in features.values()):
        raise StreamError(f"The features hold a value that {model.dtype} cannot hold.")
    if pictures:
        try:
            # One by one: pictures of several sizes do not stack.
            pixels = torch.cat([processor.pixel_values([picture]) for picture in pictures.values()])
        except (AttributeError, TypeError, ValueError, OSError) as error:
            raise StreamError(f"A frame of streams {sorted(pictures)} cannot be used: {error}") from error
        features |= dict(zip(pictures, model.encode_frames(pixels.to(model.device)), strict=True))
    return features


__all__ = [
    "check_input",
    "check_model",
    "check_settings",
    "check_task",
    "check_text",
    "encode_frames",
    "frames_of",
    "listed",
    "number_of",
]
