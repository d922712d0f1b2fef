"""The report next to the rows: what was read from each source and split, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from prospect_hf.checked_json import load_json
from prospect_hf.dataset.layout import SPLITS
from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.segments import reasons
from prospect_hf.sources.report import SessionsReport
from prospect_hf.sources.splits import SplitCheck

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
        "mistakes": sum(len(session.mistakes) for session in report.sessions),
        "beyond_turns": report.beyond_turns,
        "unlabelled": report.unlabelled,
        "turns_back": report.turns_back,
        "labelled_by": dict(sorted(report.labelled_by.items())),
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


def whole_report(
    sources: Sequence[str], summaries: Mapping[tuple[str, str], dict[str, Any]], check: SplitCheck
) -> dict[str, Any]:
    """The report of a build: ``summaries`` by (split, source), sources without a session, recordings in two splits.

    ``leaks`` lists the recordings whose sessions were taken out of a split, see ``SplitCheck``. ``recordings`` lists
    those of each split, so that several builds can be compared.
    """
    read = {source for _, source in summaries}
    return {
        "absent": [source for source in sources if source not in read],
        "splits": by_split(summaries),
        "leaks": {recording: check.taken_out[recording] for recording in sorted(check.taken_out)},
        "recordings": {split: sorted(check.recordings[split]) for split in SPLITS if check.recordings.get(split)},
    }


def by_split(facts: Mapping[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """{(split, source): x} as {split: {source: x}}, in the order of the splits."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for split, source in sorted(facts, key=lambda part: SPLITS.index(part[0])):
        found.setdefault(split, {})[source] = facts[split, source]
    return found


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
    lines = [f"no session of {', '.join(report['absent'])}."] if report["absent"] else []
    for split, of_split in report["splits"].items():
        for source, counts in of_split.items():
            if found := left_out(counts):
                lines.append(f"{source}, {split}: sessions read: {counts['sessions']}; {'; '.join(found)}.")
            if counts["skipped"]:
                lines.append(f"  the first skipped record: {counts['skipped'][0]['reason']}")
    return lines + leak_lines(report["leaks"])


def leak_lines(leaks: dict[str, dict[str, Any]]) -> list[str]:
    """What recordings in two splits cost, a line for each source and split that sessions were taken out of."""
    parts: dict[tuple[str, str, str], list[dict[str, int]]] = {}
    for facts in leaks.values():
        for split, counts in facts["taken_out"].items():
            parts.setdefault((facts["source"], split, facts["kept_in"]), []).append(counts)
    return [
        f"{source}, {split}: {len(costs)} recordings are in {kept_in} too: {sum(one['sessions'] for one in costs)} "
        f"sessions with {sum(one['rows'] for one in costs)} rows were taken out."
        for (source, split, kept_in), costs in sorted(parts.items())
    ]


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
        found.append(f"annotation lines that are no segment: {total} ({reasons(counts['left_out_lines'])})")
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
