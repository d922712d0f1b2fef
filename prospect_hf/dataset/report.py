"""The report next to the rows: what was read from each source and split, and what was left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from prospect_hf.checked_json import as_dict, load_json
from prospect_hf.errors import UsageError
from prospect_hf.sources.report import SessionsReport

REPORT_FILE = "report.json"


def summary(report: SessionsReport) -> dict[str, Any]:
    """The JSON form of a reader's report: counts, and the skipped records with their reasons."""
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
    """Load a ``report.json``. Raises ``UsageError`` where it does not exist, ``DataError`` where it is damaged."""
    if not path.is_file():
        raise UsageError(f"{path}: no such report; build the rows first, or check cache_dir.")
    return as_dict(load_json(path), str(path))


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
