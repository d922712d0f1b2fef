"""The common session format of all corpora: readers produce it, and everything else uses it.

A ``Session`` is one conversation over one video: the steps of the plan, the turns, the state events, and the range of
frames. It is plain Python and is validated when it is created, so that later stages need no checks.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from prospect_hf.errors import DataError

SOURCES = ("assembly101", "ego4d", "egoexolearn", "epickitchens", "holoassist", "wtag")
NOT_STARTED, IN_PROGRESS, COMPLETED = 0, 1, 2
IGNORE = -100
REOPEN, MONOTONE = "reopen", "monotone"
FPS = 2.0
# A label beyond a day, or more frames a second than a camera takes, is no fact of a video. The number of rows follows
# from both, so they are checked before anything is made of that size.
LONGEST_S, HIGHEST_FPS = 86_400.0, 120.0

# More states than the frames and steps of any video have; one byte each.
MOST_STATES = 200_000_000
# A file name: not empty, without a path separator, and neither "." nor "..".
_NAME = re.compile(r"(?!\.+$)[^/\\\0]+")
_LONGEST_NAME = 200  # bytes: a file system takes 255, and endings are added to the names
_VIEW = re.compile(r"__view\d+$")
_ASSEMBLY101_PART = re.compile(r"^[^_]+_(?!_)")  # "assembly_" or "disassembly_"; "__" precedes a camera view
_HOLOASSIST_PART = re.compile(r"[-_]part ?\d+$", re.IGNORECASE)
_ASSEMBLY101_CAMERA = re.compile(r"__(HMC_|C\d).*$")


@dataclass(frozen=True)
class Step:
    """One step of the plan; ``id`` is "S1" for the first step."""

    id: str
    text: str


@dataclass(frozen=True)
class Turn:
    """One utterance at ``time`` seconds of the video; ``progress`` is a running summary (assistant turns only)."""

    role: str
    time: float
    text: str
    labels: str = ""
    progress: str = ""


@dataclass(frozen=True)
class DSTEvent:
    """A transition ("start" or "complete") of step ``step`` (0-based) at ``time`` seconds."""

    time: float
    step: int
    transition: str


@dataclass(frozen=True)
class Mistake:
    """Something that was done wrongly from ``start`` to ``end`` (seconds); ``text`` says what."""

    start: float
    end: float
    text: str


def event_order(event: DSTEvent) -> tuple[float, int, int]:
    """Sort key of state events: by time, completions before starts, then by step."""
    return event.time, 0 if event.transition == "complete" else 1, event.step


@dataclass(frozen=True)
class Session:
    """One conversation over one video.

    Frames are absolute: the session covers ``first_frame`` to ``num_frames - 1``, and frame i covers the seconds
    [i / fps, (i + 1) / fps).

    Args:
        session_id, source, video_uid, user_type, goal: as in the corpus; ``source`` is one of ``SOURCES``.
        recording: id of the recording, which several videos and sessions can share (:func:`recording_id`).
        steps: the plan.
        turns: the utterances, in the order of the conversation; a time can be before that of the turn above it.
        events: the state events; None in a session without state labels, empty where no state changes.
        fps: frames per second.
        first_frame: absolute index of the first frame.
        num_frames: absolute index after the last frame.
        frames_file: path of the frame store, relative to the source's folder.
        origin: file and record of the session, for messages.
        mistakes: what was done wrongly, as annotated; empty where a corpus has no such annotation.
        state_rule: "reopen" (a completed step may be in progress again) or "monotone" (a step starts once at most).
        speech: whether the corpus says what was said. Where it does not, a frame without a turn is no silence.

    Raises:
        DataError: a field is invalid, or the labels contradict each other.
    """

    session_id: str
    source: str
    video_uid: str
    recording: str
    user_type: str
    goal: str
    steps: tuple[Step, ...]
    turns: tuple[Turn, ...]
    events: tuple[DSTEvent, ...] | None
    fps: float
    first_frame: int
    num_frames: int
    frames_file: str
    origin: str
    mistakes: tuple[Mistake, ...] = ()
    state_rule: str = REOPEN
    speech: bool = True

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise DataError(f"{self.origin}: source is '{self.source}'; known are {', '.join(SOURCES)}.")
        for key, name in (("session_id", self.session_id), ("video_uid", self.video_uid)):
            check_name(name, f"{self.origin}: {key}")
        if not self.steps:
            raise DataError(f"{self.origin}: steps is empty; a session needs a plan of at least one step.")
        if not 0 < self.fps <= HIGHEST_FPS:  # NaN is neither
            raise DataError(
                f"{self.origin}: fps is {self.fps}; it must be a number of frames per second above 0 and at most "
                f"{HIGHEST_FPS:g}."
            )
        if not 0 <= self.first_frame < self.num_frames:
            raise DataError(
                f"{self.origin}: the session covers no frame: it starts at frame {self.first_frame} and "
                f"num_frames is {self.num_frames}."
            )
        if self.num_frames > LONGEST_S * self.fps:
            raise DataError(
                f"{self.origin}: num_frames is {self.num_frames}, which is more than a day at {self.fps:g} frames per "
                "second; no video is so long."
            )
        frames = self.num_frames - self.first_frame
        if frames * len(self.steps) > MOST_STATES:
            raise DataError(
                f"{self.origin}: the session has {frames} frames and {len(self.steps)} steps, which is more than "
                "any video has; check them."
            )
        if self.state_rule not in (REOPEN, MONOTONE):
            raise DataError(f"{self.origin}: state_rule is '{self.state_rule}'; it must be {REOPEN} or {MONOTONE}.")
        self._check_turns()
        self._check_mistakes()
        if self.events is not None:
            self._check_events(self.events)

    @property
    def turns_back(self) -> int:
        """The number of turns whose time is before that of the turn above them; they keep their place."""
        return sum(turn.time < above.time for above, turn in pairwise(self.turns))

    def _check_turns(self) -> None:
        if self.turns and not self.speech:
            raise DataError(f"{self.origin}: it has {len(self.turns)} turns, but speech is said not to be annotated.")
        for number, turn in enumerate(self.turns):
            where = f"{self.origin}: turns[{number}]"
            if turn.role not in ("user", "assistant"):
                raise DataError(f"{where}.role is '{turn.role}'; it must be user or assistant.")
            check_time(turn.time, f"{where}.time")
            if not turn.text.strip():
                raise DataError(f"{where}.content is empty; a turn needs a text.")

    def _check_mistakes(self) -> None:
        for number, mistake in enumerate(self.mistakes):
            where = f"{self.origin}: mistakes[{number}]"
            check_time(mistake.start, f"{where}.start")
            check_time(mistake.end, f"{where}.end")
            if mistake.end <= mistake.start:
                raise DataError(f"{where}: its end {mistake.end} is not after its start {mistake.start}.")
            if not mistake.text.strip():
                raise DataError(f"{where}.text is empty; say what was done wrongly.")

    def _check_events(self, events: tuple[DSTEvent, ...]) -> None:
        by_step: dict[int, list[DSTEvent]] = defaultdict(list)
        for number, event in enumerate(events):
            where = f"{self.origin}: events[{number}]"
            check_time(event.time, f"{where}.time")
            if not 0 <= event.step < len(self.steps):
                raise DataError(f"{where}.step is {event.step}, but the plan has steps 0 to {len(self.steps) - 1}.")
            if event.transition not in ("start", "complete"):
                raise DataError(f"{where}.transition is '{event.transition}'; it must be start or complete.")
            by_step[event.step].append(event)
        for step, of_step in by_step.items():
            open_since: float | None = None
            name = f"{self.origin}: step {self.steps[step].id}"
            starts = [event.time for event in of_step if event.transition == "start"]
            if self.state_rule == MONOTONE and len(starts) > 1:
                raise DataError(f"{name} starts {len(starts)} times, but state_rule is {MONOTONE}; merge its spans.")
            for event in sorted(of_step, key=event_order):
                if event.transition == "complete":
                    if open_since is None:
                        raise DataError(
                            f"{name} completes at {event.time} s but is not in progress at that time; "
                            "its end is at or before its start."
                        )
                    open_since = None
                else:
                    if open_since is not None:
                        raise DataError(
                            f"{name} starts at {event.time} s but is in progress since {open_since} s; "
                            "spans of one step must not overlap."
                        )
                    open_since = event.time


def check_time(time: float, where: str) -> None:
    """Raise ``DataError`` unless ``time`` (seconds) is finite, not negative and at most a day."""
    if not math.isfinite(time):
        raise DataError(f"{where} is {time}; it must be a finite number of seconds.")
    if time < 0:
        raise DataError(f"{where} is {time}; a time must not be negative.")
    if time > LONGEST_S:
        raise DataError(
            f"{where} is {time:g} s, but no video is so long; give times in seconds of the video, not in milliseconds "
            "or since 1970."
        )


def check_name(name: str, where: str) -> None:
    """Raise ``DataError`` unless files can be named after ``name``: a corpus must not decide where they are written."""
    if not _NAME.fullmatch(name):
        raise DataError(f"{where} is {name!r}; it must be a valid file name, without path separators.")
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise DataError(f"{where} is {name!a}, which is no UTF-8 text; name the file in UTF-8.") from None
    if size > _LONGEST_NAME:
        raise DataError(f"{where} has {size} bytes; files are named after it, so it must have at most {_LONGEST_NAME}.")


def _stem(source: str, uid: str) -> str:
    if source == "ego4d":
        return uid.removeprefix("grp-")
    return _ASSEMBLY101_PART.sub("", uid) if source == "assembly101" else uid


def frames_file(source: str, uid: str) -> str:
    """The path of the frame store of video ``uid``, relative to the source's folder, as ProAssist names it.

    ego4d: without a leading ``grp-``. assembly101: without the text up to the first ``_``, since the assembly and the
    disassembly part of a recording share their frames.
    """
    return f"frames/{_stem(source, uid)}.arrow"


def recording_id(source: str, uid: str) -> str:
    """The id of the recording of video ``uid``, which its camera views and parts share.

    Corpora must be split by recording: its views show the same hands and have the same dialogue.
    """
    stem = _VIEW.sub("", _stem(source, uid))
    if source == "holoassist":
        return _HOLOASSIST_PART.sub("", stem)
    return _ASSEMBLY101_CAMERA.sub("", stem) if source == "assembly101" else stem
