"""The free-running evaluator: streams sessions with their frames and the user's texts as only input.

Sessions run through the streaming code like live video, many in one batch, each at its own position. The model's input
is built from a copy of the session without labels, so no reference text, timing or state can leak into it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast
from zlib import crc32

import numpy as np
import torch
from torch.utils.data import Subset

from context_dst_smolvlm import Context
from decoding_dst_smolvlm import Decoding
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem
from prospect_hf.data.features import FRAMES_PER_PASS, FrameFeatures
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.predictions import Prediction, prediction_of
from prospect_hf.machine import process_number, processes
from prospect_hf.processes import of_each, share
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
    thresholds: tuple[float, float] | None = None,
) -> list[Prediction]:
    """The model's predictions on ``sessions``, in their order; the model is in eval mode meanwhile.

    Args:
        model: the model.
        processor: its processor.
        frames: reader of pictures or encoded frames.
        sessions: the sessions.
        batch_size: number of sessions in a batch.
        context: strategy for sessions longer than the context (``context_dst_smolvlm.Context``).
        decoding: decoding of texts; unset: greedy, at most 40 tokens.
        progress: show a progress bar.
        thresholds: of the speaking and of the DST-update decision; unset: those of the model's configuration.
    """
    speaking, update = thresholds or (None, None)
    was_training = model.training
    model.eval()
    predictions: dict[int, Prediction] = {}
    with Progress(len(sessions), "following sessions", "session", show=progress) as bar:
        for chosen in chunks(sessions, batch_size):
            some = [sessions[index] for index in chosen]
            for index, prediction in follow_batch(
                model, processor, frames, some, context, None, decoding, speaking, update
            ):
                predictions[chosen[index]] = prediction
                bar.update()
    model.train(was_training)
    return [predictions[index] for index in range(len(sessions))]


def follow_in_shares(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    frames: FrameReader | FrameFeatures,
    sessions: Sequence[SessionRows],
    context: Context | str = "summarize_with_dst",
    progress: bool = True,
) -> list[Prediction]:
    """As :func:`follow`: each of several processes follows a share of the sessions, and all get all predictions."""
    own = share([len(session) for session in sessions], process_number(), processes())
    own_sessions = cast(Sequence[SessionRows], Subset(cast(Any, sessions), own))  # each is read when it is followed
    followed = follow(model, processor, frames, own_sessions, context=context, progress=progress)
    predictions = [pair for part in of_each(list(zip(own, followed, strict=True))) for pair in part]
    return [prediction for _, prediction in sorted(predictions, key=lambda pair: pair[0])]


def chunks(sessions: Sequence[SessionRows], batch_size: int) -> list[list[int]]:
    """Indices of the sessions of each batch: sessions of similar length together, the shortest first."""
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
    speaking_threshold: float | None = None,
    dst_update_threshold: float | None = None,
) -> Iterator[tuple[int, Prediction]]:
    """Stream ``sessions`` as one batch; yields (index, prediction) of each session when it ends.

    Args:
        context, tracking, decoding, speaking_threshold, dst_update_threshold: as in ``StreamBatch``.

    Raises:
        StreamError: a session exceeds the context, and the strategy is ``none``.
    """
    heard = [without_labels(session) for session in sessions]
    # Seeded by the session id, so that sampling does not depend on the batch.
    tasks = [Task(one.steps, one.goal, say_states=one.labelled, seed=crc32(one.session_id.encode())) for one in heard]
    batch = StreamBatch(
        model,
        processor,
        tasks,
        context,
        tracking,
        decoding,
        speaking_threshold=speaking_threshold,
        dst_update_threshold=dst_update_threshold,
    )
    events: list[list[StreamEvent]] = [[] for _ in sessions]
    sources = [_inputs(model, frames, session, words.items) for session, words in zip(sessions, heard, strict=True)]
    for row, event in batch.run(sources):
        events[row].append(event)
        if len(events[row]) == len(sessions[row]):
            yield row, prediction_of(events[row])
            events[row] = []


def without_labels(session: SessionRows) -> SessionRows:
    """A copy of the session with only what the assistant may know: plan, frames and the user's texts.

    It keeps whether the session has DST labels, since prompts without DST labels contain no states.
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
    words: Mapping[int, FrameItem],
) -> Iterator[StreamInput]:
    """The features and user texts of a session's frames, read or encoded ``FRAMES_PER_PASS`` frames at a time.

    ``session`` has its labels, because ``data.frames=rendered`` draws the pictures from them.
    """
    for begin in range(0, len(session), FRAMES_PER_PASS):
        end = min(begin + FRAMES_PER_PASS, len(session))
        inputs = {name: tensor.to(model.device) for name, tensor in frames.inputs(session, begin, end).items()}
        features = inputs["frame_features"] if "frame_features" in inputs else model.encode_frames(**inputs)
        for frame in range(begin, end):
            yield StreamInput(features[frame - begin], words[frame].user_text if frame in words else None)
