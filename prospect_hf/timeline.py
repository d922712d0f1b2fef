"""Labels per frame: the rules that assign turns and state changes to frames.

Frame i covers the seconds [i / fps, (i + 1) / fps) and is known at its end. An event at time t therefore belongs to the
last frame that ended by t, ``floor(t * fps) - 1``. Training, streaming and evaluation all use this timeline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prospect_hf.sessions import COMPLETED, IGNORE, IN_PROGRESS, NOT_STARTED, DSTEvent, Session, Turn, event_order

# A time closer than this (in frames) below a frame's start counts as its start: the product of a decimal time and fps
# can be slightly too small in binary (0.29 * 100 = 28.999999999999996).
FRAME_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Timeline:
    """Labels of the frames ``first_frame`` to ``num_frames - 1``; row i of an array is frame ``first_frame + i``.

    Args:
        first_frame: absolute index of the first frame.
        num_frames: absolute index after the last frame.
        speaking: int8 ``[frames]``: 1 = assistant turn, -100 = user turn, 0 = silence; -100 on every frame of a session
            whose speech is not annotated.
        dst_update: int8 ``[frames]``: 1 = at least one state event, 0 = none, -100 = session without state labels.
        states_before, states_after: int8 ``[frames, steps]``, before and after the frame's events; -100 in a session
            without state labels.
        turns: absolute frame -> its turn.
        events: absolute frame -> its state events, by time, completions first.
        beyond: turns after the last frame; they are in no array.
    """

    first_frame: int
    num_frames: int
    speaking: NDArray[np.int8]
    dst_update: NDArray[np.int8]
    states_before: NDArray[np.int8]
    states_after: NDArray[np.int8]
    turns: dict[int, Turn]
    events: dict[int, tuple[DSTEvent, ...]]
    beyond: tuple[Turn, ...]


def frame_at(time: float, fps: float) -> int:
    """The absolute frame that covers ``time`` (seconds): floor(time * fps)."""
    return math.floor(time * fps + FRAME_TOLERANCE)


def turn_frames(times: Sequence[float], fps: float, first_frame: int) -> list[int]:
    """The decision frame of each turn; ``times`` are in seconds, in the order of the conversation.

    A frame has at most one turn: a turn takes the last frame that ended by its time, or the next free frame after the
    previous turn. So a turn whose time goes back follows the turn above it, as in ProAssist's prepared rows.
    """
    frames: list[int] = []
    free = first_frame
    for time in times:
        frame = max(frame_at(time, fps) - 1, free)
        frames.append(frame)
        free = frame + 1
    return frames


def event_frame(time: float, fps: float, first_frame: int, num_frames: int) -> int:
    """The decision frame of a state event at ``time`` (seconds); events and a turn can share a frame."""
    return min(max(frame_at(time, fps) - 1, first_frame), num_frames - 1)


def build_timeline(session: Session) -> Timeline:
    """Compute the labels of every frame of ``session``."""
    first, end = session.first_frame, session.num_frames
    frames = end - first
    speaking = np.full(frames, 0 if session.speech else IGNORE, np.int8)
    turns: dict[int, Turn] = {}
    beyond: list[Turn] = []
    placed = turn_frames([turn.time for turn in session.turns], session.fps, first)
    for turn, frame in zip(session.turns, placed, strict=True):
        if frame >= end:
            beyond.append(turn)
            continue
        turns[frame] = turn
        speaking[frame - first] = 1 if turn.role == "assistant" else IGNORE

    shape = (frames, len(session.steps))
    dst_update = np.full(frames, IGNORE, np.int8)
    before = np.full(shape, IGNORE, np.int8)
    after = np.full(shape, IGNORE, np.int8)
    events: dict[int, tuple[DSTEvent, ...]] = {}
    if session.events is not None:
        dst_update[:] = 0
        for event in sorted(session.events, key=event_order):
            frame = event_frame(event.time, session.fps, first, end)
            events[frame] = (*events.get(frame, ()), event)
            dst_update[frame - first] = 1
        after = state_table(session.events, len(session.steps), session.fps, first, end)
        before[0] = NOT_STARTED
        before[1:] = after[:-1]
    return Timeline(first, end, speaking, dst_update, before, after, turns, events, tuple(beyond))


def state_table(
    events: Sequence[DSTEvent], steps: int, fps: float, first_frame: int, num_frames: int
) -> NDArray[np.int8]:
    """The state of every step after every frame, ``[frames, steps]``; row i is frame ``first_frame + i``.

    ``events`` stand in any order; those of a step must be starts and completions in turn.
    """
    frames = num_frames - first_frame
    after = np.full((frames, steps), NOT_STARTED, np.int8)
    until = [frames] * steps  # the row from which a step's state is written already
    for event in sorted(events, key=event_order, reverse=True):
        row = event_frame(event.time, fps, first_frame, num_frames) - first_frame
        after[row : until[event.step], event.step] = IN_PROGRESS if event.transition == "start" else COMPLETED
        until[event.step] = row
    return after
