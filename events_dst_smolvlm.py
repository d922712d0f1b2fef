"""What a stream is told and what it tells: tasks, inputs, events, and what is known of a running stream.

Remote code of the Hub: it imports torch and nothing of the training package.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

try:
    from .context_dst_smolvlm import ContextEvent
    from .tracking_dst_smolvlm import StateTable, Transition
except ImportError:  # imported as a top-level module of the installed package
    from context_dst_smolvlm import ContextEvent
    from tracking_dst_smolvlm import StateTable, Transition


@dataclass(frozen=True)
class StreamEvent:
    """What came of one frame.

    Args:
        frame: index of the frame in the stream, from 0.
        time: seconds of the video at which its picture is shown.
        p_speak: probability that the assistant speaks on it.
        p_update: probability that the state changed.
        text: what the assistant said, None where it stayed silent.
        user_text: what the user said, "" if nothing.
        transitions: moves of the tracked table.
        states: ``[steps]``, the tracked table after the frame.
        probabilities: ``[steps][3]``, the state head's probabilities of not started, in progress, completed.
        rejected: proposals that the table refused as illegal.
        cache_length: tokens in the KV cache; the close of a turn enters it with the next frame.
        latency: seconds by part: vision (the picture encoded), decide (the passes up to the decisions), write (texts),
            context (making room). In a batch they are those of the whole batch.
        context: how room was made before the frame, None where there was room.
    """

    frame: int
    time: float
    p_speak: float
    p_update: float
    text: str | None
    user_text: str
    transitions: tuple[Transition, ...]
    states: tuple[int, ...]
    probabilities: tuple[tuple[float, ...], ...]
    rejected: int
    cache_length: int
    latency: dict[str, float]
    context: ContextEvent | None


@dataclass(frozen=True)
class Task:
    """What a stream is about.

    Args:
        plan: the steps.
        goal: what the user is after.
        states: the steps' states before the first frame, 0, 1 or 2 each; all not started where not given.
        say_states: whether the prompt tells the states; False suits a model that was trained without DST labels.
        seed: of the draws of its texts, added to ``Decoding.seed``; its number in the batch where not given.
    """

    plan: Sequence[str]
    goal: str = ""
    states: Sequence[int] | None = None
    say_states: bool = True
    seed: int | None = None


@dataclass(frozen=True)
class StreamInput:
    """One frame as a stream takes it.

    Args:
        frame: a picture (PIL, or a uint8 RGB array ``[height, width, 3]``), or features ``[tokens, hidden]``.
        user_text: what the user says on it.
        time: seconds of the video; ``frame index / config.fps`` where not given.
    """

    frame: Any
    user_text: str | None = None
    time: float | None = None


@dataclass
class StreamRow:
    """One stream of a batch: what waits to be fed, what is being written, and what is known so far.

    Args:
        number: its row in the cache.
        first_states: the states before the first frame.
        most: tokens at most of a frame with its state text, and of an utterance.
        pending: ids that are not in the cache yet; ``features`` are those of the ``<image>`` places among them.
        user_turn: those of them that are the user's words, which no strategy may drop.
        head_length: tokens that ``drop_middle`` keeps at the beginning.
        frame_starts: place in the cache of each frame's first token.
        phase: what the stream waits for: "" (a frame), "frame" (the heads), or the role whose text is being written.
        words, limit, turn_start: ids written so far, how many there may be, where their turn begins in the cache.
        shown: the part of the text that ``on_text`` has.
    """

    number: int
    task: Task
    table: StateTable
    generator: torch.Generator
    first_states: list[int]
    most: tuple[int, int]
    pending: list[int] = field(default_factory=list)
    features: deque[torch.Tensor] = field(default_factory=deque)
    user_turn: list[int] = field(default_factory=list)
    head_length: int = 0
    frame_starts: deque[int] = field(default_factory=deque)
    frame: int = -1
    time: float = -math.inf
    phase: str = ""
    words: list[int] = field(default_factory=list)
    limit: int = 0
    turn_start: int = 0
    shown: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    event: StreamEvent | None = None


__all__ = ["StreamEvent", "StreamInput", "StreamRow", "Task"]
