"""Sessions to what the model reads: clips of at most ``max_seq_len`` tokens, padded batches.

A clip is a run of consecutive frames of one session as one causal stream. It opens with the plan and the state that the
frames before it left behind, so that the clips of a session, one after the other, cover each of its frames once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.utils.data import Dataset

from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem, Stream
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.sessions import IGNORE


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


class ClipDataset(Dataset[dict[str, torch.Tensor]]):
    """Clips as model inputs, frames included.

    Args:
        sessions: the sessions of a split.
        processor: the sequence builder.
        frames: the pictures, or their features where the vision tower does not change.
        max_seq_len: tokens of a clip at most.
        text_dropout: each clip is built without a share of the model's own texts (state texts and responses), drawn
            between 0 and this, as if it had missed what they tell. Reference texts give the state away: with all of
            them in the stream the heads learn to read instead of to look. Labels of decisions stay. 0 for evaluation.
        late_start: share of the clips, drawn anew in each epoch, that begin at a later frame of theirs, with the state
            that the frames before left behind: so begins a stream whose context was full. 0 for evaluation.
        seed: of these draws.
    """

    def __init__(
        self,
        sessions: Sequence[SessionRows],
        processor: DSTSmolVLMProcessor,
        frames: FrameReader | FrameFeatures,
        max_seq_len: int,
        text_dropout: float = 0.0,
        seed: int = 0,
        late_start: float = 0.0,
    ) -> None:
        self.processor, self.frames, self.late_start = processor, frames, late_start
        self.text_dropout, self.seed, self.epoch = text_dropout, seed, 0
        self.clips = [clip for session in sessions for clip in pack(session, processor, max_seq_len)]

    def __len__(self) -> int:
        return len(self.clips)

    def set_epoch(self, epoch: int) -> None:
        """Draw other texts and beginnings than in another epoch; the trainer says when one begins."""
        self.epoch = epoch

    def clip(self, index: int) -> Clip:
        """Clip ``index`` as this epoch shows it: whole, or from a later frame on."""
        clip = self.clips[index]
        rng = random.Random(f"late start {self.seed} {self.epoch} {index}")
        if clip.end - clip.begin < 2 or rng.random() >= self.late_start:
            return clip
        return replace(clip, begin=rng.randrange(clip.begin + 1, clip.end))

    def stream(self, index: int) -> Stream:
        """The stream of clip ``index`` in this epoch."""
        clip = self.clip(index)
        if not self.text_dropout:
            return clip.stream(self.processor)
        # From seed, epoch and clip alone: a resumed run draws what an uninterrupted one would, although data loaders
        # read ahead, and so does a run with any number of workers.
        rng = random.Random(f"{self.seed} {self.epoch} {index}")
        share = rng.random() * self.text_dropout
        return clip.stream(self.processor, lambda: rng.random() < share)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        clip = self.clip(index)
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
            **self.frames.inputs(session, clip.begin, clip.end),
        }


@dataclass
class ClipCollator:
    """Clips to one padded batch: ids with ``pad_token_id``, labels with -100, positions with -1; frames side by side.

    Returns tensors ``input_ids``, ``attention_mask``, ``labels`` ``[batch, seq]``; ``frame_positions``,
    ``speaking_labels``, ``dst_update_labels`` ``[batch, frames]``; ``step_positions`` ``[batch, steps, 2]``;
    ``dst_state_labels`` ``[batch, frames, steps]``; ``pixel_values`` ``[all frames, 3, size, size]``, or
    ``frame_features`` ``[all frames, tokens, hidden]``.
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
        name = "pixel_values" if "pixel_values" in clips[0] else "frame_features"
        batch[name] = torch.cat([clip[name] for clip in clips])
        return batch
