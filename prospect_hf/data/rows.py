"""Frame rows to sessions: the rows of one session side by side, as arrays and texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import datasets
import numpy as np

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
    ids = rows.with_format("numpy")["session_id"][:]
    if not len(ids):
        raise DataError("The split holds no frame rows: nothing to train or evaluate on.")
    bounds = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1), len(ids)]
    seen: set[str] = set()
    for begin, end in pairwise(bounds):
        if ids[begin] in seen:
            raise DataError(f"session {ids[begin]}: its rows lie apart (do not shuffle), or two share its name.")
        seen.add(ids[begin])
        yield _session(rows[int(begin) : int(end)])


def _session(rows: dict[str, list[Any]]) -> SessionRows:
    frames = np.asarray(rows["frame_index"])
    session_id = rows["session_id"][0]
    if (np.diff(frames) != 1).any():
        raise DataError(f"session {session_id}: its rows are not consecutive frames; do not shuffle or filter rows.")
    items = {}
    for frame, (transitions, user_text, response) in enumerate(
        zip(rows["transitions"], rows["user_text"], rows["response"], strict=True)
    ):
        if transitions or user_text or response:
            changes = {t["step"]: IN_PROGRESS if t["transition"] == "start" else COMPLETED for t in transitions}
            items[frame] = FrameItem(changes, user_text, response)
    return SessionRows(
        session_id=session_id,
        source=rows["source"][0],
        video_uid=rows["video_uid"][0],
        user_type=rows["user_type"][0],
        goal=rows["goal"][0],
        steps=list(rows["steps"][0]),
        frames_file=rows["frames_file"][0],
        first_frame=int(frames[0]),
        speaking=np.asarray(rows["speaking"], np.int64),
        dst_update=np.asarray(rows["dst_update"], np.int64),
        states_before=np.asarray(rows["states_before"], np.int64),
        states_after=np.asarray(rows["states_after"], np.int64),
        items=items,
    )
