"""The real annotation releases: every video loads, and the report gives what is wrong in them, in numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from prospect_hf.dataset.report import report_lines, summary
from prospect_hf.labels.segments import (
    ABOUT_RECORDING,
    BELOW_SEGMENT,
    CORRECTION,
    IRRELEVANT,
    NOT_AFTER_START,
    SUMMARY,
    WITHOUT_WORDS,
)
from prospect_hf.labels.spans import JOINED, ONE_SPAN, REOPENED
from prospect_hf.sessions import REOPEN
from prospect_hf.sources.annotations import assembly101, ego4d, egoexolearn, holoassist, wtag
from prospect_hf.sources.annotations.read import read_annotations
from prospect_hf.sources.annotations.video import BEFORE_START, BEYOND_END, OVERLAP, UNSORTED
from prospect_hf.sources.proassist import read_sessions
from prospect_hf.sources.report import FILE_SPLITS, SessionsReport
from prospect_hf.sources.splits import check_splits
from prospect_hf.timeline import build_timeline

# Counts over all splits: sessions, segments, steps, turns, mistakes; then the repairs and what is left out.
REAL: dict[str, tuple[tuple[int, ...], dict[str, int], dict[str, int]]] = {
    "assembly101": (
        (164, 1440, 1259, 0, 330),
        {REOPENED: 180, assembly101.NO_REMARK: 26, OVERLAP: 1, JOINED: 1},
        {CORRECTION: 148, NOT_AFTER_START: 1},
    ),
    "ego4d": (
        (67, 1373, 871, 0, 0),
        {
            ONE_SPAN: 468,
            ego4d.CONTINUED: 112,
            ego4d.CONTINUES_NOTHING: 49,
            JOINED: 34,
            OVERLAP: 31,
            BEFORE_START: 8,
            BEYOND_END: 4,
            UNSORTED: 1,
        },
        {BELOW_SEGMENT: 1888, IRRELEVANT: 217},
    ),
    "egoexolearn": (
        (316, 6689, 6676, 0, 0),
        {
            UNSORTED: 476,
            OVERLAP: 421,
            egoexolearn.DURATIONS: 15,
            REOPENED: 13,
            BEYOND_END: 8,
            egoexolearn.NO_DURATION: 2,
        },
        {NOT_AFTER_START: 2},
    ),
    "epickitchens": (
        (70, 5397, 3352, 0, 0),
        {REOPENED: 1770, OVERLAP: 1328, UNSORTED: 471, JOINED: 275, BEYOND_END: 1},
        {},
    ),
    "holoassist": (
        (41, 307, 304, 853, 232),
        {holoassist.SPEECH_OVERLAP: 32, ONE_SPAN: 2, JOINED: 1},
        {BELOW_SEGMENT: 2719, SUMMARY: 41, ABOUT_RECORDING: 41, WITHOUT_WORDS: 4},
    ),
}


def read_all(shared_data: Path, source: str) -> list[SessionsReport]:
    return [read_annotations(shared_data / "annotations", source, split) for split in FILE_SPLITS]


@pytest.mark.parametrize("source", REAL)
def test_every_real_video_loads_and_what_is_wrong_is_counted(shared_data: Path, source: str) -> None:
    reports = read_all(shared_data, source)
    sessions = [session for report in reports for session in report.sessions]
    totals, repairs, left_out = REAL[source]
    assert totals == (
        len(sessions),
        sum(report.segments for report in reports),
        sum(report.steps for report in reports),
        sum(len(session.turns) for session in sessions),
        sum(len(session.mistakes) for session in sessions),
    )
    assert sum((report.repairs for report in reports), Counter()) == repairs
    assert sum((report.left_out_lines for report in reports), Counter()) == left_out
    assert not any(report.skipped or report.beyond_turns for report in reports)
    assert len({session.session_id for session in sessions}) == len(sessions)
    check_splits(reports)  # no recording is in two splits


def test_real_repairs_are_told_in_the_report(shared_data: Path) -> None:
    (report,) = [report for report in read_all(shared_data, "ego4d") if report.sessions]
    told = summary(report)
    assert told["repairs"] == REAL["ego4d"][1] and told["left_out_lines"] == REAL["ego4d"][2]
    (line,) = report_lines({"absent": [], "leaks": {}, "splits": {"validation": {"ego4d": told}}})
    assert "repairs: 707 (step is taken up again: in progress from its first start to its last end: 468, " in line
    assert "starts before the segment above it: sorted by time: 1)" in line


@pytest.mark.parametrize("source", REAL)
def test_real_rows_keep_the_state_rule(shared_data: Path, source: str) -> None:
    back = 0
    reports = read_all(shared_data, source)
    for session in [one for report in reports for one in report.sessions][:20]:
        states = build_timeline(session).states_after
        back += int((states[1:] < states[:-1]).sum())
    assert (back > 0) == (session.state_rule == REOPEN)


def test_real_speech_has_both_roles_and_the_annotated_intents(shared_data: Path) -> None:
    sessions = [session for report in read_all(shared_data, "holoassist") for session in report.sessions]
    labels = Counter(turn.labels for session in sessions for turn in session.turns if turn.role == "assistant")
    assert labels["initiative|instruction"] == 367 and labels["initiative|correction"] == 66
    assert sum(labels.values()) == 678
    assert sum(session.turns_back for session in sessions) == 14


def test_the_real_recipes_are_the_plans_of_wtag(shared_data: Path) -> None:
    """A recipe has no times, so a folder of recipes has no video; ProAssist's plan is the recipe, word for word."""
    found = wtag.recipes(shared_data / "annotations/wtag")
    assert [(recipe.title, len(recipe.steps)) for recipe in found] == [
        ("Mug Cake", 12),
        ("Pour-over Coffee", 8),
        ("Pinwheels", 12),
    ]
    assert not any(report.sessions for report in read_all(shared_data, "wtag"))
    (session,) = read_sessions(shared_data / "proassist", "wtag", "train").sessions
    assert session.steps == found[2].steps
