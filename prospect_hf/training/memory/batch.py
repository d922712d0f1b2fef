"""A training batch of given sizes, laid out as clips of sessions are: a plan, then frames with texts between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from configuration_dst_smolvlm import DSTSmolVLMConfig
from prospect_hf.data.clips import ClipCollator
from prospect_hf.sessions import IGNORE

PROMPT = 16  # tokens of instruction and goal
STEP_LINE = 10  # tokens of a step's line in the plan
# Rows of a batch differ in length, so that the mask of the padding is there as in training.
SHORTER = 8


@dataclass(frozen=True)
class BatchSize:
    """The sizes of a batch.

    Args:
        batch: clips.
        seq: tokens of the longest clip.
        text_tokens: tokens of text for each frame.
        labelled: share of these that have a label.
        steps: steps of the plan.
    """

    batch: int
    seq: int
    text_tokens: float = 0.5
    labelled: float = 0.6
    steps: int = 12

    def frames(self, tokens_per_frame: int) -> int:
        """Frames of the longest clip."""
        return max(1, int((self.seq - self.prompt) / (tokens_per_frame + self.text_tokens)))

    @property
    def prompt(self) -> int:
        """Tokens before the first frame."""
        return PROMPT + self.steps * STEP_LINE

    def least_seq(self, tokens_per_frame: int) -> int:
        """Tokens of the shortest clip that holds the plan and two frames, in every row."""
        return self.prompt + SHORTER + int(2 * (tokens_per_frame + self.text_tokens)) + 2


def make_batch(config: DSTSmolVLMConfig, size: BatchSize) -> dict[str, torch.Tensor]:
    """The integer inputs and labels of ``ClipCollator``, and ``frame_features`` ``[all frames, 0]`` for their number.

    Raises:
        ValueError: a clip of ``size.seq`` tokens has no room for the plan and two frames.
    """
    tokens = config.stream_tokens
    if size.seq < size.least_seq(tokens):
        raise ValueError(f"{size.seq} tokens hold no plan of {size.steps} steps and two frames of {tokens} tokens.")
    clips = [_clip(config, size, size.seq - (SHORTER if row else 0)) for row in range(size.batch)]
    return ClipCollator(int(config.text_config.pad_token_id))(clips)


def _clip(config: DSTSmolVLMConfig, size: BatchSize, seq: int) -> dict[str, torch.Tensor]:
    tokens = config.stream_tokens
    word = 1 if config.image_token_id != 1 else 2
    frames = BatchSize(size.batch, seq, size.text_tokens, size.labelled, size.steps).frames(tokens)
    ids, labels = torch.full((seq,), word), torch.full((seq,), IGNORE)
    # Frames lie evenly after the prompt, each in one piece.
    starts = size.prompt + torch.arange(frames) * (seq - size.prompt) // frames
    places = (starts[:, None] + torch.arange(tokens)).flatten()
    ids[places] = config.image_token_id
    texts = torch.ones(seq, dtype=torch.bool)
    texts[places], texts[: size.prompt] = False, False
    learned = texts.nonzero().flatten()
    learned = learned[: round(size.labelled * len(learned))]
    labels[learned] = word
    lines = PROMPT + torch.arange(size.steps) * STEP_LINE
    return {
        "input_ids": ids,
        "labels": labels,
        "frame_positions": starts + tokens - 1,
        "step_positions": torch.stack([lines, lines + STEP_LINE - 1], dim=1),
        "speaking_labels": torch.arange(frames) % 2,
        "dst_update_labels": torch.arange(frames) % 2,
        "dst_state_labels": torch.arange(frames * size.steps).view(frames, size.steps) % 3,
        "frame_features": torch.empty(frames, 0),
    }
