"""The part of ``gpu.py`` that holds our training step against the stock model's: time and memory, the same weights.

Both sides are forward passes of one model object: ours with all four losses, the stock class's with ``labels=`` and
full logits. So weights, LoRA layers and checkpoints are the same, and so is the text loss, which is checked. All tokens
of each frame are in the stream, the stock model's only way; features come from a cache. As in training, the weights are
float32 where all are trained, and passes are in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from gpu_records import GIB, Records, median_ms, reset_peak
from gpu_training import adapted_model, four_losses
from shapes import SMOLVLM2_2B, SMOLVLM2_256M, TINY, Shape, model_of, random_batch
from stock_model import stock_inputs
from transformers import SmolVLMForConditionalGeneration

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration as Model

REPEATS = 10


def stock_loss(model: Model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The stock class's text loss on ``model``."""
    loss: torch.Tensor = SmolVLMForConditionalGeneration.forward(model, **stock_inputs(batch), use_cache=False).loss
    return loss


def text_loss(model: Model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Our text loss alone."""
    names = ("input_ids", "attention_mask", "labels", "frame_features")
    loss: torch.Tensor = model(**{name: batch[name] for name in names}, use_cache=False).loss
    return loss


def measure(model: Model, loss: Callable[[], torch.Tensor], device: str) -> tuple[float, float | None]:
    """Milliseconds of a forward and backward pass, and the GiB that it adds at its peak, gradients included."""
    cuda = device.startswith("cuda")

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast("cuda" if cuda else "cpu", torch.bfloat16, enabled=cuda):
            value = loss()
        value.backward()

    model.zero_grad(set_to_none=True)
    reset_peak(device)
    before = torch.cuda.memory_allocated() if cuda else 0
    taken = median_ms(step, device, REPEATS, 8, warm=2)
    return taken, (torch.cuda.max_memory_allocated() - before) / GIB if cuda else None


def stock_row(shape: Shape, mode: str, positions: int, all_labelled: bool, device: str) -> dict[str, Any]:
    """Both sides of one model and batch.

    Raises:
        ArithmeticError: the two text losses differ.
    """
    cuda = device.startswith("cuda")
    model = model_of(shape, device).train() if mode == "full" else adapted_model(shape, mode, device)
    if mode == "full":
        model.model.vision_model.requires_grad_(False)
        model.model.connector.requires_grad_(False)
    batch = random_batch(shape, 2, positions, all_labelled, padded=True, device=device, dtype=model.dtype)
    model.eval()  # without dropout
    with torch.no_grad(), torch.autocast("cuda" if cuda else "cpu", torch.bfloat16, enabled=cuda):
        losses = float(text_loss(model, batch)), float(stock_loss(model, batch))
    model.train()
    if not math.isclose(*losses, rel_tol=2e-2 if cuda else 1e-4):
        raise ArithmeticError(f"the text losses differ: ours {losses[0]}, stock {losses[1]}")
    ours, our_gib = measure(model, lambda: four_losses(model, batch), device)
    stock, stock_gib = measure(model, lambda: stock_loss(model, batch), device)
    return {
        "model": shape.name,
        "mode": mode,
        "batch": f"2 x {positions}",
        "text labels at": "100 %" if all_labelled else "12 %",
        "ours, ms": ours,
        "stock, ms": stock,
        "time": f"{ours / stock:.2f} x",
        "ours adds, GiB": our_gib,
        "stock adds, GiB": stock_gib,
        "memory": None if our_gib is None or stock_gib is None else f"{our_gib / stock_gib:.2f} x",
        "text losses": f"{losses[0]:.4f}, {losses[1]:.4f}",
    }


def run(records: Records, device: str, tiny: bool, plan: dict[str, float]) -> None:
    """Record one row for each model and share of labels."""
    works = [(TINY, "full"), (TINY, "lora")] if tiny else [(SMOLVLM2_256M, "full"), (SMOLVLM2_2B, "lora")]
    positions = 256 if tiny else 4096
    for shape, mode in works:
        for all_labelled in (False, True):

            def measured(shape: Shape = shape, mode: str = mode, all_labelled: bool = all_labelled) -> dict[str, Any]:
                return stock_row(shape.frames_of("full"), mode, positions, all_labelled, device)

            share = "100 %" if all_labelled else "12 %"
            records.attempt(f"{shape.name} {mode}, text labels at {share}", 2 if tiny else 15, measured)
    records.add("note", "Forward and backward pass, from cached features, without the optimiser; medians.")
