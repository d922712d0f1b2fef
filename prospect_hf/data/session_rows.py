"""Groups frame rows by session, as label arrays and texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from processing_dst_smolvlm import FrameItem
from prospect_hf.errors import DataError
from prospect_hf.sessions import COMPLETED, IGNORE, IN_PROGRESS


@dataclass
class SessionRows:
    """The rows of one session, frames in order.

    Args:
        session_id, source, video_uid, user_type, goal, steps, frames_file: as in the rows.
        first_frame: absolute index of the first row's frame.
        speaking, dst_update: ``[frames]`` labels 0 and 1; -100 is ignored.
        states_before, states_after: ``[frames, steps]`` states before and after the frame's events, -100 in a session
            without DST labels.
        items: position in the session -> the frame's texts and state changes; frames without any have no entry.
    """

    session_id: str
    source: str
    video_uid: str
    user_type: str
    goal: str
    steps: list[str]
    frames_file: str
    first_frame: int
    speaking: np.ndarray
    dst_update: np.ndarray
    states_before: np.ndarray
    states_after: np.ndarray
    items: dict[int, FrameItem] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.speaking)

    @property
    def labelled(self) -> bool:
        """Whether the session has DST labels."""
        return bool((self.states_before[0] != IGNORE).all())

    def states_at(self, frame: int) -> list[int] | None:
        """The state of each step before the events at position ``frame``; None in a session without DST labels."""
        return [int(state) for state in self.states_before[frame]] if self.labelled else None

    def item(self, frame: int) -> FrameItem:
        """The texts and state changes at position ``frame``; empty where there are none."""
        return self.items.get(frame) or FrameItem()


def iter_sessions(rows: datasets.Dataset) -> Iterator[SessionRows]:
    """The sessions of a split of ``dst_frames``, in the rows' order.

    Raises:
        DataError: there are no rows, or a session's rows are not one run of consecutive frames.
    """
    tables = rows.with_format("arrow")
    ids = tables["session_id"][:].to_numpy(zero_copy_only=False) if len(rows) else np.array([])
    if not len(ids):
        raise DataError("The split has no frame rows to train or evaluate on; check data.sources and data.root.")
    bounds = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1), len(ids)]
    seen: set[str] = set()
    for begin, end in pairwise(bounds):
        if ids[begin] in seen:
            raise DataError(
                f"session {ids[begin]}: its rows are not contiguous (do not shuffle), or two sessions have this id."
            )
        seen.add(ids[begin])
        yield _session(tables[int(begin) : int(end)].combine_chunks())


def _session(rows: pa.Table) -> SessionRows:
    """The rows of one session. Columns are converted as arrays; only frames with a text or a change become objects."""

    def first(name: str) -> Any:
        return rows[name][0].as_py()

    def column(name: str) -> NDArray[np.int64]:
        return rows[name].to_numpy().astype(np.int64)

    def table(name: str) -> NDArray[np.int64]:
        cells = pc.list_flatten(rows[name]).to_numpy().astype(np.int64)
        return cells.reshape(rows.num_rows, len(first("steps")))

    frames = column("frame_index")
    session_id = first("session_id")
    if (np.diff(frames) != 1).any():
        raise DataError(f"session {session_id}: its rows are not consecutive frames; do not shuffle or filter rows.")
    has_text = pc.or_(pc.not_equal(rows["user_text"], ""), pc.not_equal(rows["response"], ""))
    has_change = pc.greater(pc.list_value_length(rows["transitions"]), 0)
    positions = np.flatnonzero(pc.or_(has_text, has_change).to_numpy())
    event_rows = rows.select(["transitions", "user_text", "response"]).take(positions).to_pylist()
    items = {}
    for frame, row in zip(positions.tolist(), event_rows, strict=True):
        changes = {t["step"]: IN_PROGRESS if t["transition"] == "start" else COMPLETED for t in row["transitions"]}
        items[frame] = FrameItem(changes, row["user_text"], row["response"])
    return SessionRows(
        session_id=session_id,
        source=first("source"),
        video_uid=first("video_uid"),
        user_type=first("user_type"),
        goal=first("goal"),
        steps=first("steps"),
        frames_file=first("frames_file"),
        first_frame=int(frames[0]),
        speaking=column("speaking"),
        dst_update=column("dst_update"),
        states_before=table("states_before"),
        states_after=table("states_after"),
        items=items,
    )
