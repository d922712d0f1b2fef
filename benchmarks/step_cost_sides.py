"""The two sides of ``step_cost.py``: models, batches, our training step and the stock model's step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from shapes import Shape, config_of, random_batch
from stock_model import stock_inputs, stock_model

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.trainer import DSTTrainer

Step = Callable[[], None]


@dataclass(frozen=True)
class Work:
    """A model, and the batches that it gets: ``rows`` streams of ``positions`` tokens, all tokens of each frame."""

    shape: Shape
    rows: int
    positions: int
    features: bool = False

    def batch(self, all_labelled: bool) -> dict[str, torch.Tensor]:
        """A batch, with text labels everywhere or at about 12 % of the positions."""
        return random_batch(self.shape, self.rows, self.positions, all_labelled, pixels=not self.features)


WORKS = {
    # About the size of the default model.
    "tiny": Work(Shape("tiny", 48, 8, 3, 96, 3, 4, 384, 96, 3, 4, 4, 256, 768, "full"), rows=8, positions=320),
    # The 256M model's width and vocabulary, with fewer layers and smaller pictures.
    "mid": Work(Shape("mid", 96, 16, 2, 576, 3, 9, 2304, 576, 6, 9, 9, 1536, 49_280, "full"), rows=1, positions=768),
    "memory": Work(
        Shape("memory", 48, 8, 3, 576, 1, 9, 2304, 576, 2, 9, 9, 1536, 49_280, "full"),
        rows=1,
        positions=4096,
        features=True,
    ),
}


def our_step(
    work: Work, batch: dict[str, torch.Tensor], folder: str
) -> tuple[Step, DSTSmolVLMForConditionalGeneration]:
    """The trainer's forward pass with all four losses and backward pass; and the model."""
    torch.manual_seed(0)
    model = DSTSmolVLMForConditionalGeneration(config_of(work.shape)).train()
    args = DSTTrainingArguments(output_dir=folder, use_cpu=True, disable_tqdm=True)
    trainer = DSTTrainer(model=model, args=args)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        loss = trainer.compute_loss(model, batch)
        assert isinstance(loss, torch.Tensor)
        loss.backward()

    return step, model


def stock_step(
    work: Work, batch: dict[str, torch.Tensor], weights: torch.nn.Module | None
) -> tuple[Step, Callable[[], torch.Tensor]]:
    """The stock model's forward pass with ``labels=`` and backward pass; and the forward pass alone (the loss)."""
    model = stock_model(work.shape)
    if weights is not None:
        model.load_state_dict({k: v for k, v in weights.state_dict().items() if k in model.state_dict()})
    inputs = stock_inputs(batch)

    def forward() -> torch.Tensor:
        return model(**inputs).loss

    def step() -> None:
        model.zero_grad(set_to_none=True)
        forward().backward()

    return step, forward
