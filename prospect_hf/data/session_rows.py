"""Frame rows to sessions: the rows of one session side by side, as arrays and texts."""

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
        speaking, dst_update: ``[frames]`` labels, -100 is ignored.
        states_before, states_after: ``[frames, steps]``, -100 where the session has no DST labels.
        items: position in the session -> what happens on that frame, for the frames on which something does.
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
        """The state of each step before frame ``frame`` (position in the session), None without DST labels."""
        return [int(state) for state in self.states_before[frame]] if self.labelled else None

    def item(self, frame: int) -> FrameItem:
        """What happens on frame ``frame`` (position in the session)."""
        return self.items.get(frame) or FrameItem()


def iter_sessions(rows: datasets.Dataset) -> Iterator[SessionRows]:
    """The sessions of a split of ``dst_frames``, in the rows' order.

    Raises:
        DataError: there are no rows, or a session's rows are not one run of consecutive frames.
    """
    tables = rows.with_format("arrow")
    ids = tables["session_id"][:].to_numpy(zero_copy_only=False) if len(rows) else np.array([])
    if not len(ids):
        raise DataError("The split holds no frame rows: nothing to train or evaluate on.")
    bounds = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1), len(ids)]
    seen: set[str] = set()
    for begin, end in pairwise(bounds):
        if ids[begin] in seen:
            raise DataError(f"session {ids[begin]}: its rows lie apart (do not shuffle), or two share its name.")
        seen.add(ids[begin])
        yield _session(tables[int(begin) : int(end)].combine_chunks())


def _session(rows: pa.Table) -> SessionRows:
    """The rows of one session; nothing is done frame by frame but where something happens."""

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
    happens = pc.or_(pc.not_equal(rows["user_text"], ""), pc.not_equal(rows["response"], ""))
    happens = pc.or_(happens, pc.greater(pc.list_value_length(rows["transitions"]), 0)).to_numpy()
    at = np.flatnonzero(happens)
    told = rows.select(["transitions", "user_text", "response"]).take(at).to_pylist()
    items = {}
    for frame, row in zip(at.tolist(), told, strict=True):
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
