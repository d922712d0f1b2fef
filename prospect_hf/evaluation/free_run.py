"""Following whole sessions with nothing but their frames and the user's words.

No reference text, timing or state enters: the model's own decisions open its utterances and its own state table goes
back into the stream. Many sessions run at once, each at its own pace: a round feeds one token of every stream, be it a
frame's or a word's, so no stream waits for another's utterance to end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import DynamicCache

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor, Stream, state_text
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.rows import SessionRows
from prospect_hf.evaluation.metrics import event_scores, match_events, state_metrics, text_scores, transition_scores


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


class _Follower:
    """One stream's queue of what to feed next, and what became of it."""

    def __init__(
        self,
        model: DSTSmolVLMForConditionalGeneration,
        processor: DSTSmolVLMProcessor,
        session: SessionRows,
        features: torch.Tensor,
        max_new_tokens: int,
    ) -> None:
        self.model, self.processor, self.session = model, processor, session
        self.features, self.max_new_tokens = features, max_new_tokens
        frames, steps = len(session), len(session.steps)
        self.trace = Trace(
            np.zeros(frames), np.zeros(frames), np.zeros((frames, steps), int), np.zeros((frames, steps), int)
        )
        self.table = np.zeros(steps, int)
        self.frame = -1
        self.queue: deque[int | torch.Tensor] = deque()
        self.words: list[int] | None = None  # ids of the utterance that is being written
        self.next_frame()

    @property
    def done(self) -> bool:
        return self.frame == len(self.session)

    def next_frame(self) -> None:
        self.frame += 1
        if not self.done:
            self.queue.extend(self.features[self.frame])

    def feed(self, stream: Stream) -> None:
        self.queue.extend(stream.input_ids)

    def decide(self, p_speak: float, p_update: float, states: np.ndarray) -> None:
        """Take the heads' answers at the end of a frame and queue what follows from them."""
        trace, config = self.trace, self.model.config
        trace.p_speak[self.frame], trace.p_update[self.frame] = p_speak, p_update
        trace.states[self.frame] = states
        stream = Stream()
        changes = {int(k): int(states[k]) for k in np.flatnonzero(states != self.table)}
        if p_update >= config.dst_update_threshold and changes:
            self.table = states.copy()
            trace.updates.append(self.frame)
            self.processor.add_turn(stream, "State", state_text(changes))
        trace.table[self.frame] = self.table
        user_text = self.session.item(self.frame).user_text
        if user_text:
            self.processor.add_turn(stream, "User", user_text)
        elif p_speak >= config.speaking_threshold:
            self.processor.open(stream, "Assistant")
            self.words = []
        self.feed(stream)
        if not self.queue:
            self.next_frame()

    def write(self, token: int) -> None:
        """Take the LM's next token of the utterance; the end token goes back into the stream too."""
        assert self.words is not None
        if token == self.processor.end_id or len(self.words) == self.max_new_tokens:
            self.trace.spoken[self.frame] = self.processor.tokenizer.decode(self.words).strip()
            self.words = None
            stream = Stream()
            self.processor.close(stream)
            self.feed(stream)
        else:
            self.words.append(token)
            self.queue.append(token)


@torch.inference_mode()
def follow(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    frames: FrameReader | FrameFeatures,
    sessions: Sequence[SessionRows],
    batch_size: int = 32,
    max_new_tokens: int = 40,
    progress: bool = True,
) -> list[Trace]:
    """The model's traces of ``sessions``, in their order; greedy utterances of at most ``max_new_tokens`` tokens."""
    was_training = model.training
    model.eval()
    order = sorted(range(len(sessions)), key=lambda index: len(sessions[index]))
    traces: dict[int, Trace] = {}
    with tqdm(total=len(sessions), desc="following sessions", unit="session", disable=not progress) as bar:
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            batch = _follow_batch(model, processor, frames, [sessions[index] for index in chosen], max_new_tokens)
            traces |= dict(zip(chosen, batch, strict=True))
            bar.update(len(chosen))
    model.train(was_training)
    return [traces[index] for index in range(len(sessions))]


def _follow_batch(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    frames: FrameReader | FrameFeatures,
    sessions: Sequence[SessionRows],
    max_new_tokens: int,
) -> list[Trace]:
    device = model.device
    followers, prompts = [], []
    for session in sessions:
        inputs = {name: tensor.to(device) for name, tensor in frames.inputs(session, 0, len(session)).items()}
        features = inputs["frame_features"] if "frame_features" in inputs else model.encode_frames(**inputs)
        followers.append(_Follower(model, processor, session, features.to(model.dtype), max_new_tokens))
        prompt = Stream()
        states = [0] * len(session.steps) if session.labelled else None
        processor.add_prompt(prompt, session.goal, session.steps, states)
        prompts.append(prompt)

    # Prompts are padded on the left, so that from here on every stream grows by one column a round.
    width = max(len(prompt.input_ids) for prompt in prompts)
    steps = max(len(prompt.step_positions) for prompt in prompts)
    ids = torch.full((len(prompts), width), processor.tokenizer.pad_token_id)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    step_positions = torch.full((len(prompts), steps, 2), -1)
    for row, prompt in enumerate(prompts):
        pad = width - len(prompt.input_ids)
        ids[row, pad:] = torch.tensor(prompt.input_ids)
        mask[row, pad:] = 1
        step_positions[row, : len(prompt.step_positions)] = torch.tensor(prompt.step_positions) + pad
    cache = DynamicCache(config=model.config.text_config)
    mask = mask.to(device)
    output = model(
        input_ids=ids.to(device),
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        step_positions=step_positions.to(device),
        cache=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    step_hidden = output.step_hidden_states
    embed = model.get_input_embeddings()
    nothing = torch.zeros(model.config.text_config.hidden_size, device=device, dtype=model.dtype)

    while not all(follower.done for follower in followers):
        fed = [None if follower.done else follower.queue.popleft() for follower in followers]
        column = [nothing if item is None else item if torch.is_tensor(item) else embed.weight[item] for item in fed]
        mask = torch.cat([mask, torch.tensor([[int(item is not None)] for item in fed], device=device)], dim=1)
        ends = [torch.is_tensor(item) and not follower.queue for item, follower in zip(fed, followers, strict=True)]
        output = model(
            inputs_embeds=torch.stack(column)[:, None],
            attention_mask=mask,
            position_ids=(mask.sum(1, keepdim=True) - 1).clamp(min=0),
            frame_positions=torch.tensor([[0 if end else -1] for end in ends], device=device),
            step_hidden_states=step_hidden,
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        speak = output.speaking_logits[:, 0].float().softmax(-1)[:, 1].tolist()
        update = output.dst_update_logits[:, 0].float().softmax(-1)[:, 1].tolist()
        states = output.dst_state_logits[:, 0].argmax(-1).cpu().numpy()
        # A frame or a stream's beginning is nothing that can be said.
        output.logits[..., [processor.image_id, processor.bos_id]] = -torch.inf
        words = output.logits[:, -1].argmax(-1).tolist()
        for row, follower in enumerate(followers):
            if fed[row] is None or follower.queue:
                continue
            if ends[row]:
                follower.decide(speak[row], update[row], states[row, : len(follower.session.steps)])
            elif follower.words is not None:
                follower.write(words[row])
            else:
                follower.next_frame()
    return [follower.trace for follower in followers]


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
