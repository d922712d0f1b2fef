"""The report of a reader: its sessions, the records it skipped, and counts of what it dropped or repaired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.segments import EXPECTED
from prospect_hf.sessions import SOURCES, Session
from prospect_hf.timeline import turn_frames

OnError = Literal["raise", "skip"]
# The package's split names -> ProAssist's names in file names.
FILE_SPLITS = {"train": "train", "validation": "val", "test": "test"}


@dataclass
class SessionsReport:
    """The sessions of one source and split, and what was left out.

    Args:
        source: name of the source.
        split: train, validation or test.
        on_error: "raise" or "skip" on a bad record.
        sessions: the sessions read.
        skipped: (origin, reason) of each skipped record or conversation.
        unlabelled: number of sessions without state labels.
        beyond_turns: number of turns after the last frame of their video, which are in no row.
        turns_back: number of turns whose time is before that of the turn above them. They keep their place in the
            conversation and take the next free frame.
        labelled_by: how many records have state labels, by the aligner that made them, its version and encoder.
        segments: number of annotated segments that were matched with a plan.
        abstained: how many of them are assigned to no step, by reason.
        left_out_lines: how many annotation lines are no segment, by reason.
        repairs: how many faults of annotations were repaired, by kind; the kind names the rule.
        unused_labels: number of records in label files whose video no record asked for.
        steps: number of plan steps of the records with state labels.
        labelled_steps: number of those steps that have a state span.
    """

    source: str
    split: str
    on_error: OnError
    sessions: list[Session] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    unlabelled: int = 0
    beyond_turns: int = 0
    turns_back: int = 0
    labelled_by: Counter[str] = field(default_factory=Counter)
    segments: int = 0
    abstained: Counter[str] = field(default_factory=Counter)
    left_out_lines: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    unused_labels: int = 0
    steps: int = 0
    labelled_steps: int = 0
    _origins: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def unusable_segments(self) -> int:
        """The annotation lines whose time cannot be used, without the child lines and the like that are expected."""
        return sum(count for reason, count in self.left_out_lines.items() if reason not in EXPECTED)

    def refuse(self, origin: str, error: DataError) -> None:
        """Raise ``error``; with ``on_error="skip"``, list it in ``skipped``."""
        if self.on_error == "raise":
            raise error
        self.skipped.append((origin, str(error)))

    def add(self, session: Session) -> None:
        """Add ``session`` and count its turns that go back in time or are after the last frame.

        Raises:
            DataError: another session has its id; their rows could not be told apart.
        """
        if session.session_id in self._origins:
            raise DataError(
                f"{session.origin}: session id '{session.session_id}' belongs to {self._origins[session.session_id]} "
                "too; give two records of one video different values of video_uid."
            )
        self._origins[session.session_id] = session.origin
        self._count(session, 1)
        self.sessions.append(session)

    def take_out(self, sessions: Sequence[Session]) -> None:
        """Remove ``sessions``, and what was counted of them; counts of their records and videos stay."""
        taken = {session.session_id for session in sessions}
        self.sessions = [session for session in self.sessions if session.session_id not in taken]
        for session in sessions:
            self._count(session, -1)

    def _count(self, session: Session, times: int) -> None:
        frames = turn_frames([turn.time for turn in session.turns], session.fps, session.first_frame)
        self.beyond_turns += times * sum(frame >= session.num_frames for frame in frames)
        self.turns_back += times * session.turns_back
        self.unlabelled += times * (session.events is None)

    def closed(self, path: str) -> SessionsReport:
        """Return this report; raises ``DataError`` where it has no session. ``path`` is named in the message."""
        if not self.sessions:
            first = f" The first reason: {self.skipped[0][1]}" if self.skipped else ""
            raise DataError(f"{path}: no usable session ({len(self.skipped)} skipped).{first}")
        return self


def start_report(source: str, split: str, on_error: OnError) -> SessionsReport:
    """An empty report. Raises ``UsageError`` for an unknown source, split or ``on_error``."""
    if source not in SOURCES:
        raise UsageError(f"source '{source}' is unknown; known are {', '.join(SOURCES)}.")
    if split not in FILE_SPLITS:
        raise UsageError(f"split '{split}' is unknown; known are {', '.join(FILE_SPLITS)}.")
    if on_error not in ("raise", "skip"):
        raise UsageError(f"on_error is '{on_error}'; it must be raise or skip.")
    return SessionsReport(source, split, on_error)
