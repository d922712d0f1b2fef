"""The stream evaluator: sessions followed with nothing but their frames and the user's words.

No reference text, timing or state enters: sessions run through the streaming code as a live video would, many at
once, each at its own pace. What the model is asked is built from a session that has been stripped of its labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from zlib import crc32

import numpy as np
import torch

from context_dst_smolvlm import Context
from modeling_dst_smolvlm import Decoding, DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem
from prospect_hf.data.features import FRAMES_PER_PASS, FrameFeatures
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.predictions import Prediction, prediction_of
from prospect_hf.progress import Progress
from prospect_hf.sessions import IGNORE, NOT_STARTED
from streaming_dst_smolvlm import StreamBatch, StreamEvent, StreamInput, Task
from tracking_dst_smolvlm import Tracking


def follow(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    frames: FrameReader | FrameFeatures,
    sessions: Sequence[SessionRows],
    batch_size: int = 32,
    context: Context | str = "summarize_with_dst",
    decoding: Decoding | None = None,
    progress: bool = True,
) -> list[Prediction]:
    """The model's predictions on ``sessions``, in their order, whatever mode it is in.

    Args:
        context: what happens when a session is longer than the context (``context_dst_smolvlm.Context``).
        decoding: how texts are written; greedily, 40 tokens at most, where not given.
    """
    was_training = model.training
    model.eval()
    predictions: dict[int, Prediction] = {}
    with Progress(len(sessions), "following sessions", "session", show=progress) as bar:
        for chosen in chunks(sessions, batch_size):
            some = [sessions[index] for index in chosen]
            for index, prediction in follow_batch(model, processor, frames, some, context, None, decoding):
                predictions[chosen[index]] = prediction
                bar.update()
    model.train(was_training)
    return [predictions[index] for index in range(len(sessions))]


def chunks(sessions: Sequence[SessionRows], batch_size: int) -> list[list[int]]:
    """Indices of the sessions that run together: those of like length, short ones first."""
    order = sorted(range(len(sessions)), key=lambda index: len(sessions[index]))
    return [order[begin : begin + batch_size] for begin in range(0, len(order), batch_size)]


@torch.inference_mode()
def follow_batch(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    frames: FrameReader | FrameFeatures,
    sessions: Sequence[SessionRows],
    context: Context | str,
    tracking: Tracking | None = None,
    decoding: Decoding | None = None,
) -> Iterator[tuple[int, Prediction]]:
    """(index, prediction) of each of ``sessions``, which run together, as they end.

    Raises:
        StreamError: a session that does not fit into the context, and a strategy that makes no room.
    """
    heard = [without_labels(session) for session in sessions]
    # Draws follow from the session, and not from the batch that it happens to be in.
    tasks = [Task(one.steps, one.goal, say_states=one.labelled, seed=crc32(one.session_id.encode())) for one in heard]
    batch = StreamBatch(model, processor, tasks, context, tracking, decoding)
    events: list[list[StreamEvent]] = [[] for _ in sessions]
    sources = [_inputs(model, frames, session, words.items) for session, words in zip(sessions, heard, strict=True)]
    for row, event in batch.run(sources):
        events[row].append(event)
        if len(events[row]) == len(sessions[row]):
            yield row, prediction_of(events[row])
            events[row] = []


def without_labels(session: SessionRows) -> SessionRows:
    """The session as the assistant may know it: plan, frames and the user's words.

    Whether it has DST labels at all is kept, since a model that was trained without them is not told states.
    """
    nothing = np.full_like(session.states_after, NOT_STARTED if session.labelled else IGNORE)
    words = {frame: FrameItem(user_text=item.user_text) for frame, item in session.items.items() if item.user_text}
    return replace(
        session,
        speaking=np.zeros_like(session.speaking),
        dst_update=np.zeros_like(session.dst_update),
        states_before=nothing,
        states_after=nothing,
        items=words,
    )


def _inputs(
    model: DSTSmolVLMForConditionalGeneration,
    frames: FrameReader | FrameFeatures,
    session: SessionRows,
    words: dict[int, FrameItem],
) -> Iterator[StreamInput]:
    """A session's frames as features, and what the user says; read, or encoded, some at a time.

    The session goes to the reader whole: where pictures are drawn for want of videos, they are drawn from the labels.
    """
    for begin in range(0, len(session), FRAMES_PER_PASS):
        end = min(begin + FRAMES_PER_PASS, len(session))
        inputs = {name: tensor.to(model.device) for name, tensor in frames.inputs(session, begin, end).items()}
        features = inputs["frame_features"] if "frame_features" in inputs else model.encode_frames(**inputs)
        for frame in range(begin, end):
            yield StreamInput(features[frame - begin], words[frame].user_text if frame in words else None)
