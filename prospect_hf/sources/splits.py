"""Proves that no recording stands in two splits, and repairs a corpus where one does.

Camera views and parts of a recording show the same hands and have the same dialogue, so a recording in two splits lets
training see what is evaluated. ProAssist divides its validation list into validation and test by video, and Assembly101
has several views of a sequence: its own validation and test splits share recordings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from prospect_hf.errors import DataError
from prospect_hf.sessions import Session
from prospect_hf.sources.report import SessionsReport

SplitLeaks = Literal["raise", "keep_in_evaluation"]
SPLIT_LEAKS: tuple[SplitLeaks, ...] = ("raise", "keep_in_evaluation")
# A recording in several splits stays in the first of these, so reports are checked in this order.
CHECKED_ORDER = ("test", "validation", "train")
_NAMED = 3
_REMEDY = (
    "split the corpus by recording, or set split_leaks=keep_in_evaluation, which leaves a recording in test before "
    "validation before train and takes its other sessions out"
)


@dataclass
class SplitCheck:
    """Checks reports one by one, in ``CHECKED_ORDER``: each recording of a source must be in one split.

    A recording is named ``{source}/{recording}``: equal ids of two sources are two recordings.

    Args:
        leaks: "raise" at a recording in two splits; "keep_in_evaluation" takes its sessions out of the later split of
            ``CHECKED_ORDER``, and lists them in ``taken_out``.
        taken_out: what was taken out: recording -> {"source", "kept_in": split, "taken_out": {split: {"sessions",
            "rows"}}}.
        recordings: split -> the recordings that stand in it.
    """

    leaks: SplitLeaks = "raise"
    taken_out: dict[str, dict[str, Any]] = field(default_factory=dict)
    recordings: dict[str, set[str]] = field(default_factory=dict)
    _seen: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, report: SessionsReport) -> None:
        """Check the sessions of ``report`` against the reports before.

        Raises ``DataError`` where a recording is in two splits and ``leaks`` is "raise".
        """
        here = self.recordings.setdefault(report.split, set())
        leaking: list[Session] = []
        for session in report.sessions:
            split, _ = self._seen.setdefault(_name(session), (report.split, session.origin))
            if split == report.split:
                here.add(_name(session))
            else:
                leaking.append(session)
        if not leaking:
            return
        if self.leaks == "raise":
            raise DataError(self._message(report, leaking))
        report.take_out(leaking)
        for session in leaking:
            kept_in, _ = self._seen[_name(session)]
            facts = {"source": session.source, "kept_in": kept_in, "taken_out": {}}
            taken = self.taken_out.setdefault(_name(session), facts)["taken_out"]
            counts = taken.setdefault(report.split, {"sessions": 0, "rows": 0})
            counts["sessions"] += 1
            counts["rows"] += session.num_frames - session.first_frame

    def _message(self, report: SessionsReport, leaking: Sequence[Session]) -> str:
        first = leaking[0]
        split, origin = self._seen[_name(first)]
        names = sorted({session.recording for session in leaking})
        rows = sum(session.num_frames - session.first_frame for session in leaking)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return (
            f"{first.origin}: recording '{first.recording}' is in split {report.split}, but {origin} has it in split "
            f"{split}; in all, {len(leaking)} sessions ({rows} rows) of {report.source}, {report.split} are of "
            f"recordings in another split ({', '.join(names[:_NAMED])}{more}); {_REMEDY}."
        )


def _name(session: Session) -> str:
    return f"{session.source}/{session.recording}"


def check_splits(reports: Iterable[SessionsReport]) -> None:
    """Raise ``DataError`` where a recording is in two splits of the reports."""
    check = SplitCheck()
    for report in reports:
        check.add(report)


def check_forms(recordings: Mapping[str, Mapping[str, Iterable[str]]]) -> None:
    """Raise ``DataError`` where a recording is in one split of one form and in another split of another form.

    ``recordings`` is form -> split -> recordings, as the reports of rows have them.
    """
    seen: dict[str, tuple[str, str]] = {}
    shared: dict[tuple[str, str, str, str], list[str]] = {}
    for form, by_split in recordings.items():
        for split, names in by_split.items():
            for name in sorted(names):
                other_split, other_form = seen.setdefault(name, (split, form))
                if other_split != split:
                    shared.setdefault((form, split, other_form, other_split), []).append(name)
    for (form, split, other_form, other_split), names in shared.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise DataError(
            f"the {form} have {', '.join(names[:_NAMED])}{more} in split {split}, but the {other_form} have them in "
            f"split {other_split}; read one form alone, or split both by recording."
        )
