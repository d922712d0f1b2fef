"""Frame rows to what the model reads: sessions, clips of at most ``max_seq_len`` tokens, padded batches.

A clip is a run of consecutive frames of one session as one causal stream. It opens with the plan and the state that the
frames before it left behind, so that the clips of a session, one after the other, cover each of its frames once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset

from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem, Stream
from prospect_hf.data.frames import FrameStore
from prospect_hf.data.rendered import render_timeline_frame
from prospect_hf.errors import DataError
from prospect_hf.sessions import COMPLETED, IGNORE, IN_PROGRESS

FRAME_SOURCES = ("store", "rendered", "blank")
# Decoded pictures that a reader keeps: a second epoch over small videos decodes nothing.
KEPT_BYTES = 2**30


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


@dataclass(frozen=True)
class Clip:
    """Frames ``begin`` to ``end`` (exclusive, positions in the session) as one stream of ``tokens`` tokens."""

    session: SessionRows
    begin: int
    end: int
    tokens: int

    def stream(self, processor: DSTSmolVLMProcessor, drop: Callable[[], bool] | None = None) -> Stream:
        """The clip's stream; ``drop`` says for each of the model's own texts whether it is left out."""
        items = [self.session.item(frame) for frame in range(self.begin, self.end)]
        if drop is not None:
            items = [
                FrameItem(
                    {} if item.changes and drop() else item.changes,
                    item.user_text,
                    "" if item.response and drop() else item.response,
                )
                for item in items
            ]
        return processor.build(self.session.goal, self.session.steps, self.session.states_at(self.begin), items)


def pack(session: SessionRows, processor: DSTSmolVLMProcessor, max_seq_len: int) -> list[Clip]:
    """Cut a session into clips of at most ``max_seq_len`` tokens, each as long as fits; every frame is in one clip.

    Raises:
        DataError: one frame and its texts do not fit beside the plan.
    """

    def open_clip(frame: int) -> Stream:
        stream = Stream()
        processor.add_prompt(stream, session.goal, session.steps, session.states_at(frame))
        return stream

    clips = []
    begin, stream = 0, open_clip(0)
    for frame in range(len(session)):
        length = len(stream.input_ids)
        processor.add_item(stream, session.item(frame))
        if len(stream.input_ids) > max_seq_len and frame > begin:
            clips.append(Clip(session, begin, frame, length))
            begin, stream = frame, open_clip(frame)
            processor.add_item(stream, session.item(frame))
        if len(stream.input_ids) > max_seq_len:
            raise DataError(
                f"session {session.session_id}, frame {session.first_frame + frame}: the plan, this frame and its "
                f"texts take {len(stream.input_ids)} tokens, over max_seq_len={max_seq_len}; raise max_seq_len."
            )
    clips.append(Clip(session, begin, len(session), len(stream.input_ids)))
    return clips


class FrameReader:
    """The pictures of a session's frames.

    Args:
        root: the folder that holds ``processed_data``.
        frames: ``store`` reads the sources' frame files; ``rendered`` draws a simple picture of each frame's labels
            for a timeline whose video is not there; ``blank`` shows one grey picture, the control that sees nothing.
        size: side of drawn pictures, in pixels.
    """

    def __init__(self, root: Path, frames: str, size: int) -> None:
        if frames not in FRAME_SOURCES:
            raise DataError(f"data.frames must be one of {FRAME_SOURCES}, not {frames!r}.")
        self.root, self.frames, self.size = root, frames, size
        self._blank = np.full((size, size, 3), 128, np.uint8)
        self._open: dict[Path, FrameStore] = {}
        self._kept: dict[tuple[Path, int], np.ndarray] = {}
        self._kept_bytes = 0

    def read(self, session: SessionRows, begin: int, end: int) -> list[np.ndarray]:
        """Frames ``begin`` to ``end`` (positions in the session), uint8 ``[height, width, 3]`` each."""
        if self.frames == "blank":
            return [self._blank] * (end - begin)
        if self.frames == "rendered":
            return [
                np.asarray(
                    render_timeline_frame(
                        session.video_uid, session.first_frame + frame, session.states_after[frame], self.size
                    )
                )
                for frame in range(begin, end)
            ]
        path = self.root / "processed_data" / session.source / session.frames_file
        return [self._picture(path, session.first_frame + frame) for frame in range(begin, end)]

    def _picture(self, path: Path, index: int) -> np.ndarray:
        picture = self._kept.get((path, index))
        if picture is None:
            store = self._open.get(path)
            if store is None:
                if len(self._open) >= 256:  # keeps the number of open files far from the system's limit
                    self._open.clear()
                store = self._open[path] = FrameStore(path)
            picture = np.asarray(store[index])
            if self._kept_bytes + picture.nbytes <= KEPT_BYTES:
                self._kept[path, index] = picture
                self._kept_bytes += picture.nbytes
        return picture


class ClipDataset(Dataset[dict[str, torch.Tensor]]):
    """Clips as model inputs, frames included.

    Args:
        sessions: the sessions of a split.
        processor: the sequence builder.
        reader: where the pictures come from.
        max_seq_len: tokens of a clip at most.
        text_dropout: each clip is built without a share of the model's own texts (state texts and responses), drawn
            between 0 and this, as if it had missed what they tell. Reference texts give the state away: with all of
            them in the stream the heads learn to read instead of to look. Labels of decisions stay. 0 for evaluation.
        seed: of these draws.
    """

    def __init__(
        self,
        sessions: Sequence[SessionRows],
        processor: DSTSmolVLMProcessor,
        reader: FrameReader,
        max_seq_len: int,
        text_dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.processor, self.reader = processor, reader
        self.text_dropout, self.seed, self.epoch = text_dropout, seed, 0
        self.clips = [clip for session in sessions for clip in pack(session, processor, max_seq_len)]

    def __len__(self) -> int:
        return len(self.clips)

    def set_epoch(self, epoch: int) -> None:
        """Leave out other texts than in another epoch; the trainer says when one begins."""
        self.epoch = epoch

    def stream(self, index: int) -> Stream:
        """The stream of clip ``index`` in this epoch."""
        clip = self.clips[index]
        if not self.text_dropout:
            return clip.stream(self.processor)
        # From seed, epoch and clip alone: a resumed run draws what an uninterrupted one would, although data loaders
        # read ahead, and so does a run with any number of workers.
        rng = random.Random(f"{self.seed} {self.epoch} {index}")
        share = rng.random() * self.text_dropout
        return clip.stream(self.processor, lambda: rng.random() < share)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        clip = self.clips[index]
        session, span = clip.session, slice(clip.begin, clip.end)
        stream = self.stream(index)
        return {
            "input_ids": torch.tensor(stream.input_ids),
            "labels": torch.tensor(stream.labels),
            "frame_positions": torch.tensor(stream.frame_positions),
            "step_positions": torch.tensor(stream.step_positions),
            "speaking_labels": torch.from_numpy(session.speaking[span]),
            "dst_update_labels": torch.from_numpy(session.dst_update[span]),
            "dst_state_labels": torch.from_numpy(session.states_after[span]),
            "pixel_values": self.processor.pixel_values(self.reader.read(session, clip.begin, clip.end)),
        }


@dataclass
class ClipCollator:
    """Clips to one padded batch: ids with ``pad_token_id``, labels with -100, positions with -1; frames side by side.

    Returns tensors ``input_ids``, ``attention_mask``, ``labels`` ``[batch, seq]``; ``frame_positions``,
    ``speaking_labels``, ``dst_update_labels`` ``[batch, frames]``; ``step_positions`` ``[batch, steps, 2]``;
    ``dst_state_labels`` ``[batch, frames, steps]``; ``pixel_values`` ``[all frames, 3, size, size]``.
    """

    pad_token_id: int

    def __call__(self, clips: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        fill = {
            "input_ids": self.pad_token_id,
            "labels": IGNORE,
            "frame_positions": -1,
            "step_positions": -1,
            "speaking_labels": IGNORE,
            "dst_update_labels": IGNORE,
        }
        batch = {
            key: torch.nn.utils.rnn.pad_sequence([clip[key] for clip in clips], batch_first=True, padding_value=value)
            for key, value in fill.items()
        }
        lengths = torch.tensor([len(clip["input_ids"]) for clip in clips])
        # From lengths and not from ids: the pad token may stand in a text.
        batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
        frames, steps = batch["frame_positions"].shape[1], batch["step_positions"].shape[1]
        states = torch.full((len(clips), frames, steps), IGNORE)
        for row, clip in enumerate(clips):
            labels = clip["dst_state_labels"]
            states[row, : labels.shape[0], : labels.shape[1]] = labels
        batch["dst_state_labels"] = states
        batch["pixel_values"] = torch.cat([clip["pixel_values"] for clip in clips])
        return batch
