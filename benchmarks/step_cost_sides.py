"""The two sides of ``step_cost.py``: shapes, batches, our training step and the stock model's step."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig

from configuration_dst_smolvlm import DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.sessions import IGNORE

IMAGE_ID, STEPS, PROMPT, TURN = 5, 8, 96, 12
Step = Callable[[], None]


@dataclass(frozen=True)
class Shape:
    """Sizes of model and batch; ``positions`` is the length of a stream in tokens."""

    hidden: int
    text_layers: int
    vision_layers: int
    heads: int
    vocabulary: int
    image: int
    patch: int
    shuffle: int
    batch: int
    positions: int
    features: bool = False

    @property
    def frame_tokens(self) -> int:
        """Tokens of one frame."""
        return (self.image // self.patch // self.shuffle) ** 2


SHAPES = {
    # About the size of the default model.
    "tiny": Shape(96, 3, 3, 4, 768, 48, 8, 3, batch=8, positions=320),
    # The 256M model's width and vocabulary, with fewer layers and smaller pictures.
    "mid": Shape(576, 6, 3, 9, 49_280, 96, 16, 2, batch=1, positions=768),
    "memory": Shape(576, 2, 1, 9, 49_280, 48, 8, 3, batch=1, positions=4096, features=True),
}


def build_config(shape: Shape) -> DSTSmolVLMConfig:
    """The configuration of our model; the stock model's is the same without our keys."""
    return DSTSmolVLMConfig(
        text_config=LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.hidden * 8 // 3,
            num_hidden_layers=shape.text_layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=8192,
        ).to_dict(),
        vision_config=SmolVLMVisionConfig(
            hidden_size=shape.hidden,
            intermediate_size=shape.hidden * 4,
            num_hidden_layers=shape.vision_layers,
            num_attention_heads=shape.heads,
            image_size=shape.image,
            patch_size=shape.patch,
        ).to_dict(),
        scale_factor=shape.shuffle,
        image_token_id=IMAGE_ID,
        tokens_per_frame="full",
        tie_word_embeddings=True,
    )


def build_batch(shape: Shape, all_labelled: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    """A batch in the format of ``ClipCollator``: a plan, then frames with occasional turns, without padding.

    About 12 % of the positions have a text label; with ``all_labelled``, every position has one.
    """
    draw = random.Random(seed)
    torch.manual_seed(seed)
    tokens = [draw.randrange(10, shape.vocabulary) for _ in range(PROMPT)]
    labels = [IGNORE] * PROMPT
    frames: list[int] = []
    share = 0.12 * shape.positions / (shape.positions - PROMPT)
    turn_chance = share * shape.frame_tokens / (TURN * (1 - share))
    while len(tokens) + shape.frame_tokens + TURN <= shape.positions:
        tokens += [IMAGE_ID] * shape.frame_tokens
        labels += [IGNORE] * shape.frame_tokens
        frames.append(len(tokens) - 1)
        if draw.random() < turn_chance:
            turn = [draw.randrange(10, shape.vocabulary) for _ in range(TURN)]
            tokens += turn
            labels += turn
    rest = [draw.randrange(10, shape.vocabulary) for _ in range(shape.positions - len(tokens))]
    tokens, labels = tokens + rest, labels + rest
    if all_labelled:
        labels = [draw.randrange(10, shape.vocabulary) for _ in tokens]
    one = {
        "input_ids": torch.tensor([tokens]),
        "attention_mask": torch.ones(1, len(tokens), dtype=torch.long),
        "labels": torch.tensor([labels]),
        "frame_positions": torch.tensor([frames]),
        "step_positions": torch.linspace(10, PROMPT - 1, STEPS).long()[None, :, None].repeat(1, 1, 2),
        "speaking_labels": (torch.rand(1, len(frames)) < 0.07).long(),
        "dst_update_labels": (torch.rand(1, len(frames)) < 0.02).long(),
        "dst_state_labels": torch.randint(0, 3, (1, len(frames), STEPS)),
    }
    batch = {name: value.repeat(shape.batch, *[1] * (value.dim() - 1)) for name, value in one.items()}
    count = len(frames) * shape.batch
    if shape.features:
        batch["frame_features"] = torch.randn(count, shape.frame_tokens, shape.hidden)
    else:
        batch["pixel_values"] = torch.randn(count, 3, shape.image, shape.image)
    return batch


def our_step(
    shape: Shape, batch: dict[str, torch.Tensor], folder: str
) -> tuple[Step, DSTSmolVLMForConditionalGeneration]:
    """The trainer's forward pass with all four losses and backward pass; and the model."""
    # Imported after main() has disabled logging, since importing bitsandbytes logs an irrelevant warning.
    from prospect_hf.training.arguments import DSTTrainingArguments
    from prospect_hf.training.trainer import DSTTrainer

    torch.manual_seed(0)
    model = DSTSmolVLMForConditionalGeneration(build_config(shape)).train()
    args = DSTTrainingArguments(output_dir=folder, use_cpu=True, disable_tqdm=True)
    trainer = DSTTrainer(model=model, args=args)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        loss = trainer.compute_loss(model, batch)
        assert isinstance(loss, torch.Tensor)
        loss.backward()

    return step, model


def stock_step(
    shape: Shape, batch: dict[str, torch.Tensor], weights: torch.nn.Module | None
) -> tuple[Step, Callable[[], torch.Tensor]]:
    """The stock model's forward pass with ``labels=`` and backward pass; and the forward pass alone (the loss)."""
    torch.manual_seed(0)
    values = build_config(shape).to_dict()
    for key in ("model_type", "auto_map", "tokens_per_frame", "num_dst_states", "fps"):
        values.pop(key)
    model = SmolVLMForConditionalGeneration(SmolVLMConfig(**values)).train()
    if weights is not None:
        model.load_state_dict({k: v for k, v in weights.state_dict().items() if k in model.state_dict()})
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    pixels = batch["pixel_values"].unflatten(0, (shape.batch, -1)) if "pixel_values" in batch else None

    def forward() -> torch.Tensor:
        if pixels is not None:
            return model(**inputs, pixel_values=pixels).loss
        encoded = {"image": BaseModelOutputWithPooling(pooler_output=batch["frame_features"].flatten(0, 1))}
        return model(**inputs, mm_encoder_outputs=encoded).loss

    def step() -> None:
        model.zero_grad(set_to_none=True)
        forward().backward()

    return step, forward
