"""Small models, sessions and pictures, made in memory in a second: what the tests of the model half are built from.

Nothing here needs the simulator, a file or a trained weight. The models are *loud*: their weights are so large that any
change of an input shows in the logits, so that a test that finds equal logits has found something.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem
from prospect_hf.data.clip_index import clips_of
from prospect_hf.data.clips import ClipCollator, ClipDataset, ClipInputs
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.sessions import IGNORE
from prospect_hf.training.arguments import TinyShape
from prospect_hf.training.tiny import tiny_model, tiny_processor

SIZE = 24  # pixels; patches of 4 and no pixel shuffle leave 6 x 6 vision tokens
WORDS = ("attach", "the", "red", "wheel", "and", "tighten", "bolt", "two", "now", "please", "where", "does", "done")
HEAD_LOGITS = ("speaking_logits", "dst_update_logits", "dst_state_logits")


def small_shape(tokens_per_frame: int | str = 1, text_layers: int = 2) -> TinyShape:
    """A shape of about 40,000 parameters."""
    return TinyShape(
        image_size=SIZE,
        patch_size=4,
        scale_factor=1,
        hidden_size=32,
        vision_layers=1,
        text_layers=text_layers,
        heads=2,
        vocab_size=340,
        max_positions=2048,
        tokens_per_frame=tokens_per_frame,
    )


@functools.cache
def small_processor(tokens_per_frame: int | str = 1, state_feedback: bool = True) -> DSTSmolVLMProcessor:
    """Its tokenizer knows ``WORDS``, and every other text byte by byte."""
    processor = tiny_processor([" ".join(WORDS), *(f" {word}" for word in WORDS)] * 3, small_shape(tokens_per_frame))
    processor.state_feedback = state_feedback
    return processor


def new_model(
    tokens_per_frame: int | str = 1, seed: int = 0, decision_source: str = "heads", state_feedback: bool = True
) -> DSTSmolVLMForConditionalGeneration:
    """A loud model in eval mode, for tests that change it."""
    processor = small_processor(tokens_per_frame, state_feedback)
    model = tiny_model(processor, small_shape(tokens_per_frame), decision_source)
    model.eval()
    return make_loud(model, seed)


@functools.cache
def small_model(tokens_per_frame: int | str = 1) -> DSTSmolVLMForConditionalGeneration:
    """A loud model that is shared: read it, do not change it."""
    return new_model(tokens_per_frame)


def make_loud(model: DSTSmolVLMForConditionalGeneration, seed: int) -> DSTSmolVLMForConditionalGeneration:
    """Redraw all weights, matrices ten times wider than a fresh model's."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            spread = 0.2 if weight.dim() > 1 else 0.1
            weight.copy_(
                torch.randn(weight.shape, generator=generator) * spread + ("norm" in name and weight.dim() == 1)
            )
    return model


def sentence(rng: random.Random, longest: int = 4) -> str:
    """One to ``longest`` known words."""
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, longest)))


def make_session(
    seed: int = 0,
    frames: int = 20,
    steps: int = 3,
    first_frame: int = 0,
    labelled: bool = True,
    event_rate: float = 0.25,
    turn_rate: float = 0.3,
) -> SessionRows:
    """A session with consistent labels: steps start and complete at random, users and the assistant talk at random."""
    rng = random.Random(seed)
    before = np.zeros((frames, steps), np.int8)
    after = np.zeros((frames, steps), np.int8)
    speaking = np.zeros(frames, np.int8)
    items: dict[int, FrameItem] = {}
    state = [0] * steps
    for frame in range(frames):
        before[frame] = state
        changes: dict[int, int] = {}
        user_text = response = ""
        if rng.random() < event_rate:
            open_steps = [step for step in range(steps) if state[step] < 2]
            for step in rng.sample(open_steps, min(len(open_steps), rng.randint(1, 2))):
                state[step] += 1
                changes[step] = state[step]
        after[frame] = state
        if rng.random() < turn_rate:
            if rng.random() < 0.4:
                user_text, speaking[frame] = sentence(rng), IGNORE
            else:
                response, speaking[frame] = sentence(rng), 1
        if (changes and labelled) or user_text or response:
            items[frame] = FrameItem(changes if labelled else {}, user_text, response)
    update = (before != after).any(1).astype(np.int8)
    if not labelled:
        before[:], after[:], update[:] = IGNORE, IGNORE, IGNORE
    return SessionRows(
        session_id=f"wtag.v{seed}.talk_some_0",
        source="wtag",
        video_uid=f"v{seed}",
        user_type="talk_some",
        goal=sentence(rng),
        steps=[sentence(rng, 3) for _ in range(steps)],
        frames_file=f"frames/v{seed}.arrow",
        first_frame=first_frame,
        speaking=speaking,
        dst_update=update,
        states_before=before,
        states_after=after,
        items=items,
    )


class NoiseReader(FrameReader):
    """Pictures of noise, fixed by video and absolute frame index, in place of files."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"), "blank", small_processor())

    def read(self, session: SessionRows, begin: int, end: int) -> list[np.ndarray]:
        """Frames ``begin`` to ``end`` (positions in the session)."""
        return [picture(session.video_uid, session.first_frame + frame) for frame in range(begin, end)]


def picture(video: str, frame: int, size: int = SIZE) -> np.ndarray:
    """Noise, uint8 ``[size, size, 3]``."""
    rng = np.random.default_rng([*video.encode(), frame])
    return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)


def clip_dataset(
    sessions: Sequence[SessionRows], tokens_per_frame: int | str = 1, max_seq_len: int = 2048, dropout: float = 0.0
) -> ClipDataset:
    """Clips of ``sessions`` with pictures of noise."""
    processor = small_processor(tokens_per_frame)
    return ClipDataset(clips_of(sessions, processor, max_seq_len), ClipInputs(processor, NoiseReader(), dropout))


def collate(clips: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """One padded batch."""
    return ClipCollator(small_processor().tokenizer.pad_token_id)(clips)


def model_inputs(batch: dict[str, torch.Tensor], *without: str) -> dict[str, torch.Tensor]:
    """What ``forward`` takes of a batch, less ``without``."""
    head_labels = ("speaking_labels", "dst_update_labels", "dst_state_labels")
    return {name: value for name, value in batch.items() if name not in (*head_labels, *without)}


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference; the shapes must be equal, not just fit."""
    assert a.shape == b.shape, (a.shape, b.shape)
    return float((a.float() - b.float()).abs().max()) if a.numel() else 0.0
