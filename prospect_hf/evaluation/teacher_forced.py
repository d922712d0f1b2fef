"""The teacher-forced evaluator: decisions, states and text likelihoods on streams that contain the reference texts.

The sequences are those of training (``data.clips``), with each frame in one clip; every clip opens with the reference
states. The figures measure each head after a correct history. They are better than a live stream can be, and the
report says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.clip_index import clips_of
from prospect_hf.data.clips import ClipCollator, ClipDataset, ClipInputs
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.packing import Clip
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.evaluation.predictions import ForcedTexts, Prediction
from prospect_hf.sessions import IGNORE

# Largest number of tokens in a batch including padding; limits the memory for activations and logits.
TOKENS_PER_BATCH = 8192


@torch.inference_mode()
def teacher_forced(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    frames: FrameReader | FrameFeatures,
    sessions: Sequence[SessionRows],
    max_seq_len: int,
) -> Iterator[tuple[int, Prediction]]:
    """Evaluate ``sessions``; yields (index, prediction) of each session when its last clip is done.

    Args:
        model: the model, in eval mode.
        processor: its processor.
        frames: reader of pictures or encoded frames.
        sessions: the sessions.
        max_seq_len: largest length of a clip in tokens, as in training.

    Raises:
        DataError: the plan and one frame with its texts exceed ``max_seq_len``.
    """
    clips = ClipDataset(clips_of(sessions, processor, max_seq_len), ClipInputs(processor, frames))
    collate = ClipCollator(processor.tokenizer.pad_token_id)
    numbers = {session.session_id: index for index, session in enumerate(sessions)}
    owner = [numbers[clip.session.session_id] for clip in clips.clips]
    waiting = np.bincount(owner, minlength=len(sessions))
    parts: dict[int, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for chosen in batches(clips.clips.lengths):
        batch = collate([clips[index] for index in chosen])
        inputs = {name: value.to(model.device) for name, value in batch.items() if not name.endswith("labels")}
        places = text_places(batch["labels"]).to(model.device)
        output = model(**inputs, use_cache=False, logits_to_keep=places)
        output.logits = output.logits[places >= 0]  # row-major, without the padding
        for index, part in zip(
            chosen, read_clips(output, batch, [clips.clips[i] for i in chosen], processor.state_feedback), strict=True
        ):
            number = owner[index]
            parts[number].append((clips.clips[index].begin, part))
            waiting[number] -= 1
            if not waiting[number]:
                yield number, _join([part for _, part in sorted(parts.pop(number), key=lambda pair: pair[0])])


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of the clips of each batch: clips of similar length, at most ``TOKENS_PER_BATCH`` tokens with padding."""
    chosen: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if chosen and lengths[chosen[0]] * (len(chosen) + 1) > TOKENS_PER_BATCH:
            yield chosen
            chosen = []
        chosen.append(index)
    if chosen:
        yield chosen


def text_places(labels: torch.Tensor) -> torch.Tensor:
    """``[batch, most]``: the places of each row of ``labels`` ``[batch, seq]`` that predict a label; -1 is padding."""
    places = [row.nonzero().flatten() for row in labels[:, 1:] != IGNORE]
    return torch.nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-1)


def read_clips(
    output: Any, batch: dict[str, torch.Tensor], clips: Sequence[Clip], state_feedback: bool
) -> Iterator[dict[str, Any]]:
    """The predictions for each clip of a batch, as arrays; ``output.logits`` are ``[labelled, vocab]``.

    ``state_feedback`` is the processor's.
    """
    speak = output.speaking_logits.float().softmax(-1)[..., 1].cpu().numpy()
    update = output.dst_update_logits.float().softmax(-1)[..., 1].cpu().numpy()
    states = output.dst_state_logits.argmax(-1).cpu().numpy()
    targets = batch["labels"][:, 1:]
    row, place = np.nonzero((targets != IGNORE).numpy())  # row-major, as the logits
    wanted = targets[torch.from_numpy(row), torch.from_numpy(place)].to(output.logits.device)
    nll = torch.nn.functional.cross_entropy(output.logits.float(), wanted, reduction="none").double().cpu().numpy()
    right = (output.logits.argmax(-1) == wanted).cpu().numpy()
    for index, clip in enumerate(clips):
        frames, steps = clip.end - clip.begin, len(clip.session.steps)
        of_clip = row == index
        yield {
            "p_speak": speak[index, :frames],
            "p_update": update[index, :frames],
            "states": states[index, :frames, :steps],
            "forced": _texts(clip, place[of_clip], nll[of_clip], right[of_clip], state_feedback),
        }


def _texts(clip: Clip, place: np.ndarray, nll: np.ndarray, right: np.ndarray, state_feedback: bool) -> ForcedTexts:
    """Group the clip's labelled tokens by text: a text is a run of labels without a gap."""
    texts = [
        (frame, is_state)
        for frame, item in sorted(clip.session.items.items())
        if clip.begin <= frame < clip.end
        for is_state, there in ((True, state_feedback and bool(item.changes)), (False, bool(item.response)))
        if there
    ]
    starts = np.flatnonzero(np.diff(place, prepend=-2) != 1)
    if len(starts) != len(texts):
        raise DataError(
            f"session {clip.session.session_id}: its stream has {len(starts)} labelled texts, but its rows have "
            f"{len(texts)}; the processor and the rows do not match."
        )
    if not len(starts):
        none = np.zeros(0, np.int64)
        return ForcedTexts(none, none.astype(bool), none, none.astype(float), none, none)
    tokens = np.diff(np.append(starts, len(place)))
    # Index of the first wrong token in each text; the text's length where all tokens are right.
    at = np.arange(len(place)) - np.repeat(starts, tokens)
    prefix = np.minimum.reduceat(np.where(right, np.repeat(tokens, tokens), at), starts)
    return ForcedTexts(
        frame=np.array([frame for frame, _ in texts]),
        is_state=np.array([is_state for _, is_state in texts]),
        tokens=tokens,
        nll=np.add.reduceat(nll, starts),
        right=np.add.reduceat(right.astype(np.int64), starts),
        prefix=prefix,
    )


def _join(parts: Sequence[dict[str, Any]]) -> Prediction:
    """Concatenate the clips of a session, in order, to one prediction."""
    forced = ForcedTexts(
        **{name: np.concatenate([vars(part["forced"])[name] for part in parts]) for name in vars(parts[0]["forced"])}
    )
    p_speak, p_update, states = (
        np.concatenate([part[name] for part in parts]) for name in ("p_speak", "p_update", "states")
    )
    return Prediction(p_speak, p_update, states, table=None, forced=forced)
