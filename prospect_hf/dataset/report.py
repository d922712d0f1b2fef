"""The report beside the rows: what was read of each source and split, and what was left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets

from prospect_hf.errors import UsageError
from prospect_hf.sources.report import SessionsReport

REPORT_FILE = "report.json"


def summary(report: SessionsReport) -> dict[str, Any]:
    return {
        "sessions": len(report.sessions),
        "videos": len({session.video_uid for session in report.sessions}),
        "recordings": len({session.recording for session in report.sessions}),
        "rows": sum(session.num_frames - session.first_frame for session in report.sessions),
        "turns": sum(len(session.turns) for session in report.sessions),
        "beyond_turns": report.beyond_turns,
        "unlabelled": report.unlabelled,
        "reordered": report.reordered,
        "unusable_segments": report.unusable_segments,
        "steps": report.steps,
        "labelled_steps": report.labelled_steps,
        "skipped": [{"origin": origin, "reason": reason} for origin, reason in report.skipped],
    }


def load_report(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"{path}: no such report; the rows are not made yet, or lie elsewhere.")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def read_report(rows: datasets.Dataset | datasets.DatasetDict) -> dict[str, Any]:
    """The ``report`` of the rows' builder, found beside their files.

    Raises ``UsageError`` where rows were put together from several builds, or are no longer the files' own.
    """
    folders = {
        folder for split in (rows.values() if isinstance(rows, dict) else [rows]) for folder in report_folders(split)
    }
    if len(folders) != 1:
        raise UsageError(f"rows of {len(folders)} builds; ask for the report of each before they are put together.")
    return load_report(folders.pop() / REPORT_FILE)


def report_folders(rows: datasets.Dataset) -> list[Path]:
    return sorted({Path(file["filename"]).parent for file in rows.cache_files})
