"""Streams for tests: loud models that speak and update often, and a batch that writes down all that it feeds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from model_fixtures import new_model, picture, small_processor

from events_dst_smolvlm import StreamRow
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.data.session_rows import SessionRows
from streaming_dst_smolvlm import Decoding, StreamBatch, StreamEvent, StreamInput, Task

PLAN = ["attach the wheel", "tighten the bolt", "two"]
FIVE = Decoding(max_new_tokens=5)


@functools.cache
def talkative_model(tokens_per_frame: int = 1) -> DSTSmolVLMForConditionalGeneration:
    """A loud model that speaks and updates on about half of the frames, and that ends some of its utterances."""
    model = new_model(tokens_per_frame)
    processor = small_processor(tokens_per_frame)
    with torch.no_grad():
        model.get_input_embeddings().weight[processor.end_id] *= 4.0
        # A random head over gelu's positive outputs always prefers one class.
        model.dst_state_head.weight -= model.dst_state_head.weight.mean(1, keepdim=True)
    model.config.speaking_threshold = model.config.dst_update_threshold = 0.0
    batch = StreamBatch(model, processor, [Task(PLAN, "the red wheel")], decoding=Decoding(max_new_tokens=1))
    events = [batch.step([picture("probe", frame)])[0] for frame in range(40)]
    model.config.speaking_threshold = float(np.median([event.p_speak for event in events if event]))
    model.config.dst_update_threshold = float(np.median([event.p_update for event in events if event]))
    return model


def task_of(session: SessionRows) -> Task:
    """What a stream of ``session`` is about."""
    return Task(session.steps, session.goal, say_states=session.labelled)


def inputs_of(session: SessionRows) -> list[StreamInput]:
    """Pictures of noise and the user's words."""
    return [
        StreamInput(picture(session.video_uid, session.first_frame + frame), session.item(frame).user_text)
        for frame in range(len(session))
    ]


class SpiedBatch(StreamBatch):
    """Writes down, for each stream, the ids that were fed, their positions and the LM's logits at every place."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fed: list[list[int]] = [[] for _ in self.rows]
        self.positions: list[list[int]] = [[] for _ in self.rows]
        self.logits: list[list[torch.Tensor]] = [[] for _ in self.rows]
        self.passes = 0

    def _forward(
        self, rows: slice, ids: Sequence[Sequence[int]], features: Sequence[torch.Tensor], **reads: Any
    ) -> Any:
        self.passes += 1
        width = max(map(len, ids))
        asked = reads.pop("logits_to_keep", None)
        everywhere = torch.arange(width).expand(len(ids), width)
        lengths = list(self.cache.lengths[rows])
        output = super()._forward(rows, ids, features, logits_to_keep=everywhere, **reads)
        for index, number in enumerate(range(*rows.indices(len(self.rows)))):
            count = len(ids[index])
            self.fed[number].extend(ids[index])
            self.positions[number].extend(range(lengths[index], lengths[index] + count))
            self.logits[number].extend(output.logits[index, :count])
        if asked is not None:
            output.logits = torch.stack([row[place] for row, place in zip(output.logits, asked, strict=True)])
        return output


class ForcedBatch(SpiedBatch):
    """Decides and says what the reference does: the stream of a training clip, fed as a live one."""

    def __init__(self, model: Any, processor: Any, sessions: Sequence[SessionRows], **kwargs: Any) -> None:
        super().__init__(model, processor, [task_of(session) for session in sessions], **kwargs)
        self.sessions = sessions
        self._free_decide, self._free_write = self.turns.decide, self.turns.write
        self.turns.decide, self.turns.write = self.decide, self.write  # type: ignore[method-assign]

    def decide(self, row: StreamRow, p_speak: float, p_update: float, states: Sequence[Sequence[float]]) -> None:
        """Decide what the reference does, whatever the heads answer."""
        item = self.sessions[row.number].item(row.frame)
        after = list(row.table.states)
        for step, state in item.changes.items():
            after[step] = state
        sure = [[float(state == wanted) for state in range(3)] for wanted in after]
        self._free_decide(row, 1.0 if item.response else 0.0, 1.0 if item.changes else 0.0, sure)

    def write(self, row: StreamRow, logits: torch.Tensor) -> None:
        """Write the reference's response."""
        wanted = self.processor._ids(f" {self.sessions[row.number].item(row.frame).response}")
        token = wanted[len(row.words)] if len(row.words) < len(wanted) else self.processor.end_id
        self._free_write(row, torch.nn.functional.one_hot(torch.tensor(token), logits.shape[-1]).float())


def events_of(batch: StreamBatch, sessions: Sequence[SessionRows]) -> list[list[StreamEvent]]:
    """All events of each stream."""
    events: list[list[StreamEvent]] = [[] for _ in sessions]
    for row, event in batch.run([inputs_of(session) for session in sessions]):
        events[row].append(event)
    return events


def assert_same_events(ours: Sequence[StreamEvent], theirs: Sequence[StreamEvent], tolerance: float = 1e-4) -> None:
    """Everything but the latency is the same, probabilities within ``tolerance``."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for name in (
            "frame", "time", "text", "user_text", "transitions", "states", "deviations", "rejected", "cache_length",
        ):  # fmt: skip
            assert getattr(a, name) == getattr(b, name), (a.frame, name)
        assert a.context == b.context
        assert abs(a.p_speak - b.p_speak) <= tolerance and abs(a.p_update - b.p_update) <= tolerance
        assert np.abs(np.array(a.probabilities) - np.array(b.probabilities)).max() <= tolerance
