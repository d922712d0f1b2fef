"""The data of streams: tasks, inputs and events, and what a running stream keeps between two passes.

Remote code of the Hub: it imports torch and transformers and nothing of the training package.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

try:
    from .processing_dst_smolvlm import DSTSmolVLMProcessor, Stream, one_line
    from .tracking_dst_smolvlm import Deviation, StateTable, Transition
except ImportError:  # imported as a top-level module of the installed package
    from processing_dst_smolvlm import DSTSmolVLMProcessor, Stream, one_line
    from tracking_dst_smolvlm import Deviation, StateTable, Transition


@dataclass(frozen=True)
class ContextEvent:
    """How room was made before a frame.

    Args:
        strategy: the context strategy.
        tokens_before, tokens_after: tokens of the stream before and after.
        summary: what the new prompt tells of the old context: the written summary, or the states of the plan.
    """

    strategy: str
    tokens_before: int
    tokens_after: int
    summary: str = ""


@dataclass(frozen=True)
class PlanChange:
    """How the plan was changed before a frame.

    Args:
        before: the steps until then.
        plan: the steps from this frame on.
        goal: what the user wants to achieve from then on.
        kept: ``[steps]``, for each step of ``plan`` its index in ``before``, None where it is new.
    """

    before: tuple[str, ...]
    plan: tuple[str, ...]
    goal: str
    kept: tuple[int | None, ...]

    @classmethod
    def between(cls, before: Sequence[str], plan: Sequence[str], goal: str) -> PlanChange:
        """The change from the steps ``before`` to ``plan``.

        A step is kept where its text is, read as the prompt writes it. Of a text that occurs several times, the first
        occurrence is the first one before, the second the second, and so on.
        """
        places: dict[str, deque[int]] = {}
        for place, step in enumerate(before):
            places.setdefault(one_line(step), deque()).append(place)
        found = (places.get(one_line(step)) for step in plan)
        return cls(tuple(before), tuple(plan), goal, tuple(waiting.popleft() if waiting else None for waiting in found))

    def after(self, earlier: PlanChange) -> PlanChange:
        """This change and the ``earlier`` one before it, as one."""
        kept = tuple(None if place is None else earlier.kept[place] for place in self.kept)
        return PlanChange(earlier.before, self.plan, self.goal, kept)


@dataclass(frozen=True)
class StreamEvent:
    """What the model decided and wrote on one frame.

    Args:
        frame: index of the frame in the stream, from 0.
        time: seconds of the video at which its picture is shown.
        p_speak: probability that the assistant speaks on it.
        p_update: probability that the state changed.
        text: what the assistant said, None if it stayed silent.
        user_text: what the user said, "" if nothing.
        transitions: changes of the tracked table.
        states: ``[steps]``, the tracked table after the frame.
        probabilities: ``[steps][3]``, the state head's probabilities of not started, in progress, completed.
        rejected: number of proposals that the table refused as illegal.
        cache_length: tokens in the KV cache; the end of a turn enters the cache with the next frame.
        latency: seconds by part: vision (encoding the picture), decide (the passes up to the decisions), write (texts),
            context (making room). In a batch they are those of the whole batch.
        context: how room was made before the frame, None if there was room.
        deviations: from the plan, which the table shows on this frame for the first time; those that only the end of
            the video shows are in ``DSTStream.deviations_at_end``.
        plan_change: how the plan was changed before the frame, None if it stayed; ``transitions``, ``states`` and
            ``probabilities`` are of the plan from this frame on.
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
    deviations: tuple[Deviation, ...]
    plan_change: PlanChange | None = None


@dataclass(frozen=True)
class Task:
    """What a stream is about.

    Args:
        plan: the steps.
        goal: what the user wants to achieve.
        states: each step's state before the first frame (0, 1 or 2); None: all are not started.
        say_states: whether the prompt tells the states; False suits a model that was trained without DST labels.
        seed: of the sampling of its texts, added to ``Decoding.seed``; None: the stream's number in the batch.
    """

    plan: Sequence[str]
    goal: str = ""
    states: Sequence[int] | None = None
    say_states: bool = True
    seed: int | None = None

    def prompt(self, processor: DSTSmolVLMProcessor, states: Sequence[int], progress: str = "") -> Stream:
        """The opening of a stream, with the plan in ``states`` and a summary of what came before (``progress``)."""
        stream = Stream()
        processor.add_prompt(stream, self.goal, self.plan, states if self.say_states else None, progress)
        return stream


@dataclass(frozen=True)
class StreamInput:
    """One frame with what belongs to it.

    Args:
        frame: a picture (PIL, or a uint8 RGB array ``[height, width, 3]``), or features ``[tokens, hidden]``.
        user_text: what the user says on it.
        time: seconds of the video; None: ``frame index / config.fps``.
    """

    frame: Any
    user_text: str | None = None
    time: float | None = None


def _no_latency() -> dict[str, float]:
    return {"vision": 0.0, "decide": 0.0, "write": 0.0, "context": 0.0}


@dataclass
class FrameFacts:
    """What is known so far of the frame that a stream is working on; ``StreamEvent`` is made from it.

    Args:
        user_text: what the user says on it, on one line.
        user_turn: token ids of the user's turn, empty if the user says nothing.
        rejected_before: proposals that the table had refused before this frame.
        latency, context, plan_change: as in ``StreamEvent``.
        p_speak, p_update, probabilities: the heads' answers, as in ``StreamEvent``.
        transitions: changes of the table.
        text: what was written, None if nothing.
        talked: whether the user or the assistant spoke on it.
    """

    user_text: str = ""
    user_turn: Sequence[int] = ()
    rejected_before: int = 0
    latency: dict[str, float] = field(default_factory=_no_latency)
    context: ContextEvent | None = None
    plan_change: PlanChange | None = None
    p_speak: float = math.nan
    p_update: float = math.nan
    probabilities: tuple[tuple[float, ...], ...] = ()
    transitions: tuple[Transition, ...] = ()
    text: str | None = None
    talked: bool = False


@dataclass
class StreamRow:
    """One stream of a batch: the tokens to be fed, the text that is being written, and the facts of the frame.

    Args:
        number: its row in the cache.
        task: what it is about.
        table: the tracked states.
        generator: of the sampling of its texts.
        first_states: the states with which the prompt opens: before the first frame, or at the last change of the plan.
        most: upper bounds in tokens: of a frame with its state text, and of an utterance.
        pending: ids to be fed, which are not in the cache yet.
        features: ``[hidden]`` each, for the ``<image>`` tokens among ``pending``.
        user_turn: the user's words among ``pending``; no context strategy may drop them.
        head_length: tokens at the beginning that ``drop_middle`` keeps.
        frame_starts: place in the cache of each frame's first token.
        frame, time: index and seconds of the last frame; -1 and -inf before the first one.
        opened: index of the first frame that follows the prompt: 0, or the one after the last change of the plan.
        plan_change: a change that the next frame's event will tell.
        phase: "" between frames, "frame" until the heads have answered, then the role whose text is being written.
        words: ids of that text so far.
        limit: how many there may be.
        turn_start: place in the cache where the turn of that text begins.
        shown: the part of the text that ``on_text`` was given.
        facts: of the frame.
        event: of the last frame, until it is taken.
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
    opened: int = 0
    plan_change: PlanChange | None = None
    phase: str = ""
    words: list[int] = field(default_factory=list)
    limit: int = 0
    turn_start: int = 0
    shown: str = ""
    facts: FrameFacts = field(default_factory=FrameFacts)
    event: StreamEvent | None = None

    def coming(self, user_turn: Sequence[int]) -> int:
        """Upper bound in tokens of the next frame and its texts; ``user_turn`` are the ids of the user's."""
        frame, written = self.most
        return frame + max(written, len(user_turn))


__all__ = ["ContextEvent", "FrameFacts", "PlanChange", "StreamEvent", "StreamInput", "StreamRow", "Task"]
