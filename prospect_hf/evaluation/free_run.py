"""Following whole sessions with nothing but their frames and the user's words.

No reference text, timing or state enters: sessions run through the streaming code as a live video would, many at
once, each at its own pace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm.auto import tqdm

from context_dst_smolvlm import Context
from modeling_dst_smolvlm import Decoding, DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.features import FRAMES_PER_PASS, FrameFeatures
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.rows import SessionRows
from prospect_hf.evaluation.metrics import event_scores, match_events, state_metrics, text_scores, transition_scores
from streaming_dst_smolvlm import StreamBatch, StreamEvent, StreamInput, Task


@dataclass
class Trace:
    """What the model did on one session.

    Args:
        p_speak, p_update: ``[frames]``, the decisions' probabilities.
        states: ``[frames, steps]``, the state head's answer after each frame.
        table: ``[frames, steps]``, the tracked table after each frame: it changes only where the model says so.
        spoken: frame -> what the assistant said.
        updates: frames on which the table changed.
    """

    p_speak: np.ndarray
    p_update: np.ndarray
    states: np.ndarray
    table: np.ndarray
    spoken: dict[int, str] = field(default_factory=dict)
    updates: list[int] = field(default_factory=list)


@torch.inference_mode()
def follow(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    frames: FrameReader | FrameFeatures,
    sessions: Sequence[SessionRows],
    batch_size: int = 32,
    max_new_tokens: int = 40,
    progress: bool = True,
    context: Context | str = "summarize_with_dst",
) -> list[Trace]:
    """The model's traces of ``sessions``, in their order; greedy utterances of at most ``max_new_tokens`` tokens.

    Args:
        context: what happens when a session is longer than the context (``context_dst_smolvlm.Context``).
    """
    was_training = model.training
    model.eval()
    order = sorted(range(len(sessions)), key=lambda index: len(sessions[index]))
    traces: dict[int, Trace] = {}
    with tqdm(total=len(sessions), desc="following sessions", unit="session", disable=not progress) as bar:
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            tasks = [
                Task(sessions[index].steps, sessions[index].goal, say_states=sessions[index].labelled)
                for index in chosen
            ]
            batch = StreamBatch(model, processor, tasks, context, decoding=Decoding(max_new_tokens=max_new_tokens))
            events: dict[int, list[StreamEvent]] = {index: [] for index in chosen}
            for row, event in batch.run([_inputs(model, frames, sessions[index]) for index in chosen]):
                events[chosen[row]].append(event)
            traces |= {index: trace_of(of_session) for index, of_session in events.items()}
            bar.update(len(chosen))
    model.train(was_training)
    return [traces[index] for index in range(len(sessions))]


def _inputs(
    model: DSTSmolVLMForConditionalGeneration, frames: FrameReader | FrameFeatures, session: SessionRows
) -> Iterator[StreamInput]:
    """A session's frames as features, and what the user says; encoded some at a time."""
    for begin in range(0, len(session), FRAMES_PER_PASS):
        end = min(begin + FRAMES_PER_PASS, len(session))
        inputs = {name: tensor.to(model.device) for name, tensor in frames.inputs(session, begin, end).items()}
        features = inputs["frame_features"] if "frame_features" in inputs else model.encode_frames(**inputs)
        for frame in range(begin, end):
            yield StreamInput(features[frame - begin], session.item(frame).user_text)


def trace_of(events: Sequence[StreamEvent]) -> Trace:
    """The events of a whole stream as arrays."""
    return Trace(
        p_speak=np.array([event.p_speak for event in events]),
        p_update=np.array([event.p_update for event in events]),
        states=np.array([event.probabilities for event in events]).argmax(-1),
        table=np.array([event.states for event in events]),
        spoken={event.frame: event.text for event in events if event.text is not None},
        updates=[event.frame for event in events if event.transitions],
    )


def score(
    traces: Sequence[Trace], sessions: Sequence[SessionRows], fps: float, tolerance_s: float = 1.0
) -> dict[str, float]:
    """How well ``traces`` follow ``sessions``: events and utterances within ``tolerance_s`` seconds, states, texts.

    Sessions without DST labels count for speaking and texts only.
    """
    tolerance = int(tolerance_s * fps)
    speaking = [
        (sorted(trace.spoken), np.flatnonzero(session.speaking == 1).tolist())
        for trace, session in zip(traces, sessions, strict=True)
    ]
    metrics = {f"speaking_{name}": value for name, value in event_scores(speaking, tolerance).items()}
    pairs = [pair for pair in zip(traces, sessions, strict=True) if pair[1].labelled]
    if pairs:
        updates = [(trace.updates, np.flatnonzero(session.dst_update == 1).tolist()) for trace, session in pairs]
        metrics |= {f"dst_update_{name}": value for name, value in event_scores(updates, tolerance).items()}
        reference = [session.states_after for _, session in pairs]
        metrics |= state_metrics([trace.states for trace, _ in pairs], reference)
        table = state_metrics([trace.table for trace, _ in pairs], reference)
        metrics["table_joint_state_accuracy"] = table["joint_state_accuracy"]
        changes = [(transitions(trace.table), transitions(session.states_after)) for trace, session in pairs]
        metrics |= {f"transition_{name}": value for name, value in transition_scores(changes, tolerance).items()}
    return metrics | matched_texts(traces, sessions, tolerance)


def transitions(states: np.ndarray) -> list[tuple[int, int, int]]:
    """``[frames, steps]`` to (frame, step, new state), from a table with nothing started."""
    before = np.vstack([np.zeros_like(states[:1]), states[:-1]])
    return [(int(frame), int(step), int(states[frame, step])) for frame, step in np.argwhere(states != before)]


def matched_texts(traces: Sequence[Trace], sessions: Sequence[SessionRows], tolerance: int) -> dict[str, float]:
    """Text scores of utterances matched in time with a reference utterance; a missed reference counts as silence."""
    predictions, references = [], []
    for trace, session in zip(traces, sessions, strict=True):
        wanted = np.flatnonzero(session.speaking == 1).tolist()
        found = {reference: predicted for predicted, reference in match_events(sorted(trace.spoken), wanted, tolerance)}
        for frame in wanted:
            references.append(session.item(frame).response)
            predictions.append(trace.spoken[found[frame]] if frame in found else "")
    return {f"response_{name}": value for name, value in text_scores(predictions, references).items()}


def silent_traces(sessions: Sequence[SessionRows]) -> list[Trace]:
    """Traces of a model that never speaks and never updates."""
    traces = []
    for session in sessions:
        frames, steps = session.states_after.shape
        empty = np.zeros((frames, steps), int)
        traces.append(Trace(np.zeros(frames), np.zeros(frames), empty, empty.copy()))
    return traces


def majority_response(sessions: Sequence[SessionRows]) -> str:
    """The most frequent response: the text that a model which never looks would do best to say."""
    counts: dict[str, int] = {}
    for session in sessions:
        for item in session.items.values():
            if item.response:
                counts[item.response] = counts.get(item.response, 0) + 1
    return max(counts, key=lambda text: counts[text]) if counts else ""
