"""How often each label occurs in the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prospect_hf.dataset.report import REPORT_FILE, load_report, report_folders
from prospect_hf.errors import UsageError
from prospect_hf.sessions import COMPLETED, IGNORE, IN_PROGRESS, NOT_STARTED, SOURCES


def _turns_beyond(rows: datasets.Dataset) -> int:
    """Turns after the last frame of their video, summed over the sources in ``rows``."""
    beyond = 0
    for folder in report_folders(rows):
        splits = load_report(folder / REPORT_FILE)["splits"]
        if str(rows.split) not in splits:
            raise UsageError(
                f"the rows have split {rows.split}, but the report in {folder} has {', '.join(splits)}; "
                "pass split= to concatenate_datasets, which otherwise drops the name."
            )
        report = splits[str(rows.split)]
        beyond += sum(report[source]["beyond_turns"] for source in rows.unique("source") if source in report)
    return beyond


def label_balance(rows: datasets.Dataset) -> dict[str, int]:
    """Count the rows, sessions, videos and labels of one split as loaded.

    States are counted per step and frame, after the frame's events. ``turns_beyond_frames`` comes from the
    ``report.json`` next to the rows' files, since such turns are in no row. Raises ``UsageError`` without that report.
    """
    columns = ["session_id", "video_uid", "speaking", "dst_update", "states_after"]
    counts: dict[str, Counter[Any]] = {column: Counter() for column in columns}
    for batch in rows.select_columns(columns).with_format("arrow").iter(batch_size=100_000):
        for column in columns:
            values = batch.column(column).combine_chunks()
            flat = values.flatten() if pa.types.is_list(values.type) else values
            for entry in pc.value_counts(flat).to_pylist():
                counts[column][entry["values"]] += entry["counts"]
    return balance_of(counts, len(rows), len(counts["session_id"]), len(counts["video_uid"]), _turns_beyond(rows))


def balance_of(
    labels: Mapping[str, Counter[Any]], rows: int, sessions: int, videos: int, turns_beyond: int
) -> dict[str, int]:
    """The label balance from how often each value of ``speaking``, ``dst_update`` and ``states_after`` occurs."""
    speaking, update, states = labels["speaking"], labels["dst_update"], labels["states_after"]
    return {
        "rows": rows,
        "sessions": sessions,
        "videos": videos,
        "speaking_1": speaking[1],
        "speaking_0": speaking[0],
        "speaking_ignored": speaking[IGNORE],
        "dst_update_1": update[1],
        "dst_update_0": update[0],
        "dst_update_ignored": update[IGNORE],
        "states_not_started": states[NOT_STARTED],
        "states_in_progress": states[IN_PROGRESS],
        "states_completed": states[COMPLETED],
        "states_ignored": states[IGNORE],
        "turns_beyond_frames": turns_beyond,
    }


def balance_by_source(rows: datasets.Dataset) -> dict[str, dict[str, int]]:
    """``label_balance`` of each source in one split."""
    source = np.asarray(rows["source"][:])
    return {
        name: label_balance(rows.select(np.flatnonzero(source == name))) for name in SOURCES if (source == name).any()
    }
