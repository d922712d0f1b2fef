"""The report next to the rows: what was read from each source and split, and what was left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from prospect_hf.checked_json import load_json
from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.segments import reasons
from prospect_hf.sources.report import SessionsReport

REPORT_FILE = "report.json"


def summary(report: SessionsReport) -> dict[str, Any]:
    """The JSON form of a reader's report: counts, and the skipped records with their reasons."""
    return {
        "sessions": len(report.sessions),
        "videos": len({session.video_uid for session in report.sessions}),
        "recordings": len({session.recording for session in report.sessions}),
        "state_rules": sorted({session.state_rule for session in report.sessions}),
        "rows": sum(session.num_frames - session.first_frame for session in report.sessions),
        "turns": sum(len(session.turns) for session in report.sessions),
        "beyond_turns": report.beyond_turns,
        "unlabelled": report.unlabelled,
        "turns_back": report.turns_back,
        "segments": report.segments,
        "abstained": dict(report.abstained),
        "left_out_lines": dict(report.left_out_lines),
        "repairs": dict(report.repairs),
        "unusable_segments": report.unusable_segments,
        "unused_labels": report.unused_labels,
        "steps": report.steps,
        "labelled_steps": report.labelled_steps,
        "skipped": [{"origin": origin, "reason": reason} for origin, reason in report.skipped],
    }


def load_report(path: Path) -> dict[str, Any]:
    """Load a ``report.json``. Raises ``UsageError`` where it does not exist, ``DataError`` where it is no report."""
    if not path.is_file():
        raise UsageError(f"{path}: no such report; build the rows first, or check cache_dir.")
    loaded = load_json(path)
    if not isinstance(loaded, dict) or not isinstance(loaded.get("splits"), dict):
        raise DataError(f"{path}: not a report of rows; delete its folder, and the rows are built again.")
    return loaded


def report_lines(report: dict[str, Any]) -> list[str]:
    """What ``DstFrames.report`` says was left out or moved, one line per split and source; none where nothing was."""
    lines = [f"no files of {', '.join(report['absent'])}."] if report["absent"] else []
    for split, of_split in report["splits"].items():
        for source, counts in of_split.items():
            if found := left_out(counts):
                lines.append(f"{source}, {split}: sessions read: {counts['sessions']}; {'; '.join(found)}.")
            if counts["skipped"]:
                lines.append(f"  the first skipped record: {counts['skipped'][0]['reason']}")
    return lines


def left_out(counts: dict[str, Any]) -> list[str]:
    """What one split of one source left out or moved, with its number: "skipped records: 2"."""
    notes = {
        "skipped records": len(counts["skipped"]),
        "turns that go back in time and keep their place": counts["turns_back"],
        "turns after the last frame, which are in no row": counts["beyond_turns"],
        "sessions without state labels": counts["unlabelled"],
        "labels of other videos, not used": counts["unused_labels"],
        "plan steps without a label": counts["steps"] - counts["labelled_steps"],
    }
    found = [f"{what}: {count}" for what, count in notes.items() if count]
    if counts["abstained"]:
        total = f"{sum(counts['abstained'].values())} of {counts['segments']}"
        found.append(f"annotated segments without a step: {total} ({reasons(counts['abstained'])})")
    if counts["left_out_lines"]:
        total = str(sum(counts["left_out_lines"].values()))
        found.append(f"annotation lines with a time that are no segment: {total} ({reasons(counts['left_out_lines'])})")
    if counts["repairs"]:
        found.append(f"repairs: {sum(counts['repairs'].values())} ({reasons(counts['repairs'])})")
    return found


def read_report(rows: datasets.Dataset | datasets.DatasetDict) -> dict[str, Any]:
    """Load the builder's ``report`` from the folder of the rows' cache files.

    Raises ``UsageError`` where the rows come from several builds, or have no cache files.
    """
    folders = {
        folder for split in (rows.values() if isinstance(rows, dict) else [rows]) for folder in report_folders(split)
    }
    if len(folders) != 1:
        raise UsageError(
            f"the rows come from {len(folders)} builds; call read_report on each build before combining their rows."
        )
    return load_report(folders.pop() / REPORT_FILE)


def report_folders(rows: datasets.Dataset) -> list[Path]:
    """The sorted folders that contain the rows' cache files, and so the reports."""
    return sorted({Path(file["filename"]).parent for file in rows.cache_files})
