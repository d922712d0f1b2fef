"""The sequence builder of DST-SmolVLM2: the one place where a stream's tokens are laid out.

Training, evaluation and live streaming all call it, so a live stream has the tokens that the model was trained on. A
stream uses SmolVLM2's own role format and no new vocabulary::

    <|im_start|>System: {instruction}
    Goal: {goal}
    Plan:
    1. {step} [not started]
    2. {step} [in progress]<end_of_utterance>
    <image><image>State: 2 completed, 3 in progress<end_of_utterance>
    Assistant: {text}<end_of_utterance>
    <image>User: {text}<end_of_utterance>
    <image>...

Decisions are read at a frame's last ``<image>``; after the frame come the state text and then the utterance of the user
or of the assistant. Remote code of the Hub: it imports transformers and nothing of the package.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

try:
    from .tracking_dst_smolvlm import STATE_NAMES
except ImportError:  # imported as a top-level module of the installed package
    from tracking_dst_smolvlm import STATE_NAMES

INSTRUCTION = "You watch the user's video, keep track of the plan and speak when it helps."
SUMMARY_REQUEST = "Summarize the progress so far."
IGNORE_INDEX = -100
# Plans and utterances recur in every epoch: the ids of this many texts are kept, except for very long ones.
KNOWN_TEXTS = 50_000
KNOWN_CHARACTERS = 1_000


@dataclass
class FrameItem:
    """What happens on one frame: the state changes, then the user's or the assistant's words.

    Args:
        changes: step index -> state after the frame, for the steps that changed.
        user_text: what the user said, "" if nothing.
        response: what the assistant says, "" if nothing.
        wrong: the state text says something else than happened; it is read, but not to be learned.
    """

    changes: Mapping[int, int] = field(default_factory=dict)
    user_text: str = ""
    response: str = ""
    wrong: bool = False


@dataclass
class Stream:
    """The tokens of one stream.

    Args:
        input_ids: ``[seq]``.
        labels: ``[seq]``, the ids of state texts and responses with their end token, -100 elsewhere.
        frame_positions: ``[frames]``, the index of each frame's last token.
        step_positions: ``[steps, 2]``, the index of the first and of the last token of each step's line.
    """

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    frame_positions: list[int] = field(default_factory=list)
    step_positions: list[tuple[int, int]] = field(default_factory=list)

    def add(self, ids: Sequence[int], supervised: bool = False) -> None:
        """Append tokens, as labels too if they are to be learned."""
        self.input_ids.extend(ids)
        self.labels.extend(ids if supervised else [IGNORE_INDEX] * len(ids))


class DSTSmolVLMProcessor(ProcessorMixin):
    """Plan, frames and turns to the model's inputs.

    Args:
        image_processor: SmolVLM's; frames are resized to its ``max_image_size`` squares, never split into tiles.
        tokenizer: SmolVLM2's, or any with its special tokens.
        tokens_per_frame: stream tokens that one frame takes (a number; ``config.stream_tokens``).
        state_feedback: the state changes of a frame follow it as a state text (``config.state_feedback``).
    """

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        chat_template: str | None = None,
        tokens_per_frame: int = 1,
        state_feedback: bool = True,
    ):
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.tokens_per_frame = tokens_per_frame
        self.state_feedback = state_feedback
        self._known: dict[str, list[int]] = {}
        self.bos_id = self._special("<|im_start|>")
        self.image_id = self._special("<image>")
        self.end_id = self._special("<end_of_utterance>")
        self._newline = self._ids("\n")
        self._roles = {role: self._ids(f"{role}:") for role in ("System", "State", "User", "Assistant")}
        self._frame = [self.image_id] * tokens_per_frame

    def _special(self, token: str) -> int:
        token_id = self.tokenizer.get_vocab().get(token)
        if token_id is None:
            raise ValueError(f"The tokenizer has no {token}: it is not SmolVLM2's.")
        return int(token_id)

    def _ids(self, text: str) -> list[int]:
        """Token ids of plain text; the names of special tokens in it are encoded character by character."""
        ids = self._known.get(text)
        if ids is None:
            ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
            if len(self._known) < KNOWN_TEXTS and len(text) <= KNOWN_CHARACTERS:
                self._known[text] = ids
        return ids

    # -- the pieces of a stream ---------------------------------------------------------------------------------

    def add_prompt(
        self, stream: Stream, goal: str, steps: Sequence[str], states: Sequence[int] | None, progress: str = ""
    ) -> None:
        """Open the stream: instruction, goal and plan, each step with its state before the first frame.

        Args:
            stream: an empty stream.
            goal: what the user wants to achieve.
            steps: the plan's lines.
            states: one of 0, 1, 2 for each step, or None if the states are not known.
            progress: a summary of what came before, "" for none.

        Raises:
            ValueError: no steps, or not as many states as steps.
        """
        if not steps:
            raise ValueError("The plan has no steps.")
        if states is not None and len(states) != len(steps):
            raise ValueError(f"{len(states)} states for {len(steps)} steps.")
        stream.add([self.bos_id])
        stream.add(self._roles["System"])
        stream.add(self._ids(f" {INSTRUCTION}\nGoal: {one_line(goal)}\nPlan:"))
        for number, step in enumerate(steps, start=1):
            state = "" if states is None else f" [{STATE_NAMES[states[number - 1]]}]"
            stream.add(self._newline)
            first = len(stream.input_ids)
            stream.add(self._ids(f"{number}. {one_line(step)}{state}"))
            stream.step_positions.append((first, len(stream.input_ids) - 1))
        if progress:
            stream.add(self._newline)
            stream.add(self._ids(f"Progress: {one_line(progress)}"))
        self.close(stream)

    def add_frame(self, stream: Stream) -> None:
        """The ``<image>`` tokens of one frame; its decisions are read at the last of them."""
        stream.add(self._frame)
        stream.frame_positions.append(len(stream.input_ids) - 1)

    def open(self, stream: Stream, role: str) -> None:
        """``role:``, after which the text of a ``State`` or ``Assistant`` turn is predicted."""
        stream.add(self._roles[role])

    def close(self, stream: Stream, supervised: bool = False) -> None:
        """End a turn: the end token, which the model must learn to write, and a newline."""
        stream.add([self.end_id], supervised)
        stream.add(self._newline)

    def add_turn(self, stream: Stream, role: str, text: str, supervised: bool = False) -> None:
        """Add a whole turn of ``State``, ``User`` or ``Assistant``."""
        self.open(stream, role)
        stream.add(self._ids(f" {one_line(text)}"), supervised)
        self.close(stream, supervised)

    @property
    def decision_tokens(self) -> list[int]:
        """The tokens that can follow a frame, for decisions that are read from the LM head.

        ``<image>`` (nothing happens, the next frame comes) and the first token of ``Assistant:`` and of ``State:``.
        """
        return [self.image_id, self._roles["Assistant"][0], self._roles["State"][0]]

    def turn_lengths(self, role: str, texts: Sequence[str]) -> list[int]:
        """The number of tokens that ``add_turn`` adds for each text, counted for many texts at a time."""
        lines = {text: f" {one_line(text)}" for text in texts}
        if not lines:
            return []
        encoded = self.tokenizer(
            list(lines.values()), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False
        )
        around = Stream()
        self.open(around, role)
        self.close(around)
        counts = dict(zip(lines, map(len, encoded.input_ids), strict=True))
        return [len(around.input_ids) + counts[text] for text in texts]

    def add_item(self, stream: Stream, item: FrameItem) -> None:
        """Add a frame and its turns; state text and response are supervised."""
        self.add_frame(stream)
        self.add_consequences(stream, item)

    def add_consequences(self, stream: Stream, item: FrameItem) -> None:
        """Add the turns after a frame: the state text, then the user's or the assistant's turn."""
        self.add_state(stream, item.changes, supervised=not item.wrong)
        if item.user_text:
            self.add_turn(stream, "User", item.user_text)
        if item.response:
            self.add_turn(stream, "Assistant", item.response, supervised=True)

    def add_state(self, stream: Stream, changes: Mapping[int, int], supervised: bool = False) -> None:
        """Add the state text of ``changes``: nothing where there are none, or without ``state_feedback``."""
        if changes and self.state_feedback:
            self.add_turn(stream, "State", state_text(changes), supervised)

    def build(
        self, goal: str, steps: Sequence[str], states: Sequence[int] | None, items: Iterable[FrameItem]
    ) -> Stream:
        """Lay out a whole stream: the prompt, then every frame with its turns."""
        stream = Stream()
        self.add_prompt(stream, goal, steps, states)
        for item in items:
            self.add_item(stream, item)
        return stream

    # -- frames -------------------------------------------------------------------------------------------------

    @property
    def frame_size(self) -> int:
        """Side of the square that a frame is resized to, in pixels."""
        return int(self.image_processor.max_image_size["longest_edge"])

    def pixel_values(self, frames: Sequence[Any]) -> torch.Tensor:
        """Pictures (PIL, or uint8 RGB arrays ``[height, width, 3]``) to ``[frames, 3, size, size]``, normalised.

        Raises:
            ValueError: any other array, or a picture without a fixed range of values (``rgb_picture``); the range and
                the colour axis would have to be guessed.
        """
        if not len(frames):
            return torch.zeros(0, 3, self.frame_size, self.frame_size)
        for index, frame in enumerate(frames):
            if not isinstance(frame, (Image.Image, np.ndarray)):
                raise ValueError(
                    f"frame {index} is {type(frame).__name__}; give a PIL picture or a uint8 RGB array "
                    "[height, width, 3]."
                )
        arrays = [np.asarray(rgb_picture(frame) if isinstance(frame, Image.Image) else frame) for frame in frames]
        for index, array in enumerate(arrays):
            if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
                raise ValueError(
                    f"frame {index} is an array {array.dtype} {list(array.shape)}; "
                    "give a PIL picture or a uint8 RGB array [height, width, 3]."
                )
        square = (self.frame_size, self.frame_size, 3)
        if all(array.shape == square for array in arrays):
            # Nothing to resize: the same arithmetic as the image processor's, once for all frames.
            mean, std = np.float32(self.image_processor.image_mean), np.float32(self.image_processor.image_std)
            pixels = np.stack(arrays).astype(np.float32) * np.float32(self.image_processor.rescale_factor)
            return torch.from_numpy(((pixels - mean) / std).transpose(0, 3, 1, 2).copy())
        prepared = self.image_processor(
            [[Image.fromarray(array) for array in arrays]],
            size={"longest_edge": self.frame_size},
            do_image_splitting=False,
            do_pad=False,
            return_tensors="pt",
        )
        values: torch.Tensor = prepared["pixel_values"][0]
        return values

    def __call__(
        self,
        goal: str,
        steps: Sequence[str],
        frames: Sequence[Any],
        states: Sequence[int] | None = None,
        items: Sequence[FrameItem] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """One stream as a batch of one, ready for ``model(**inputs)``.

        Args:
            goal: what the user wants to achieve.
            steps: the plan's lines.
            frames: RGB pictures, oldest first.
            states: the steps' states before the first frame; None: all are not started.
            items: what happened on each frame; None: nothing.

        Returns:
            ``input_ids``, ``attention_mask``, ``frame_positions``, ``step_positions`` (each ``[1, ...]``) and
            ``pixel_values`` ``[frames, 3, size, size]``.
        """
        if kwargs:
            raise TypeError(f"DSTSmolVLMProcessor takes no {sorted(kwargs)}; see its docstring.")
        items = [FrameItem() for _ in frames] if items is None else items
        if len(items) != len(frames):
            raise ValueError(f"{len(items)} items for {len(frames)} frames: one item a frame.")
        stream = self.build(goal, steps, [0] * len(steps) if states is None else states, items)
        return BatchFeature(
            {
                "input_ids": torch.tensor([stream.input_ids]),
                "attention_mask": torch.ones(1, len(stream.input_ids), dtype=torch.long),
                "frame_positions": torch.tensor([stream.frame_positions]),
                "step_positions": torch.tensor([stream.step_positions]),
                "pixel_values": self.pixel_values(frames),
            }
        )


def rgb_picture(picture: Image.Image) -> Image.Image:
    """The picture in 8-bit RGB; 16-bit grey is scaled to 8 bits, where Pillow alone would cut it off at 255.

    Raises:
        ValueError: a picture of 32-bit whole or floating-point numbers, which have no fixed range; or one that cannot
            be decoded.
    """
    try:
        picture.load()  # a picture in a file is decoded only now
    except MemoryError:
        raise
    except Exception as error:  # each of Pillow's decoders raises errors of its own, SyntaxError among them
        raise ValueError(f"the picture cannot be decoded ({error})") from error
    if picture.mode.startswith("I;16"):
        grey = (np.asarray(picture).astype(np.uint32) * 255 + 32_767) // 65_535
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"a picture of mode {picture.mode} has no fixed range of values; convert it to 8 bits per channel"
        )
    return picture.convert("RGB")


def one_line(text: str) -> str:
    """Text without control characters and with single spaces, so that no part of it looks like a line of the prompt."""
    if not text.isprintable():  # printable text, which most is, has no control characters
        text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return " ".join(text.split())


def state_text(changes: Mapping[int, int]) -> str:
    """``{1: 2, 2: 1}`` to ``2 completed, 3 in progress``: in the order of the plan, numbered from 1 as there."""
    return ", ".join(f"{step + 1} {STATE_NAMES[state]}" for step, state in sorted(changes.items()))


DSTSmolVLMProcessor.register_for_auto_class()

__all__ = ["DSTSmolVLMProcessor", "FrameItem", "Stream"]
