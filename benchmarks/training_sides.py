"""One measurement of ``training.py``: a step of ours with one change, or the stock Trainer on samples of one frame."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from fresh_process import peak_bytes, reset_peak, resident_bytes
from shapes import END, SMOLVLM2_256M, TINY, Shape, model_of, random_batch
from stock_model import stock_inputs, stock_model
from torch import nn
from transformers import Trainer, TrainingArguments

from modeling_dst_smolvlm import IGNORE_INDEX
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration as Model
from prospect_hf.training.losses import focal_loss, masked_cross_entropy

SIZES = {"256M": SMOLVLM2_256M, "tiny": TINY.frames_of(1)}
GAMMA = 2.0
LENGTHS = (176, 264)  # tokens of the sessions that both trainers learn: 56 and 124 frames of one token
SHARES = {"12 %": False, "100 %": True}  # of the places with a text label; whether all have one
SAME_LOSS = ("ours", "all_logits", "kept_logits")
Loss = Callable[[], torch.Tensor]
Figures = dict[str, float]
PIXEL_FRAMES = 16  # encoded for each step: as many as one pass of the vision tower takes at 512 pixels


def session(shape: Shape, positions: int, all_labelled: bool = False) -> dict[str, torch.Tensor]:
    """A packed session."""
    return random_batch(shape, 1, positions, all_labelled)


def frame_sample(packed: dict[str, torch.Tensor], frame: int) -> dict[str, torch.Tensor]:
    """The stock Trainer's sample of one frame: the session up to it, and its turn as text, or an end token."""
    places = packed["frame_positions"][0].tolist()
    end = places[frame] + 1
    following = places[frame + 1] if frame + 1 < len(places) else packed["input_ids"].shape[1]
    ids = packed["input_ids"][:, :following]
    if following == end:
        ids = torch.cat([ids, torch.tensor([[END]])], dim=1)
    labels = ids.clone()
    labels[:, :end] = IGNORE_INDEX
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "frame_features": packed["frame_features"][: frame + 1],
    }


def head_losses(output: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The losses of decisions and states."""
    return (
        focal_loss(output.speaking_logits, batch["speaking_labels"], GAMMA)
        + focal_loss(output.dst_update_logits, batch["dst_update_labels"], GAMMA)
        + masked_cross_entropy(output.dst_state_logits, batch["dst_state_labels"])
    )


def losses_of_parts(model: Model, batch: dict[str, torch.Tensor], trainer: Any) -> dict[str, Loss]:
    """The loss of a step, ours and with one change, by the keys of ``PARTS``; all are of one model."""
    labels = batch["labels"][0, 1:]
    places = (labels != IGNORE_INDEX).nonzero().flatten()
    named = ("labels", "speaking_labels", "dst_update_labels", "dst_state_labels")
    inputs = {name: value for name, value in batch.items() if name not in named}
    shape = model.config.vision_config
    pixels = torch.randn(PIXEL_FRAMES, 3, shape.image_size, shape.image_size)

    def ours() -> torch.Tensor:
        return trainer.compute_loss(model, batch)

    def heads_off() -> torch.Tensor:
        read = {name: value for name, value in inputs.items() if name not in ("frame_positions", "step_positions")}
        return model(**read, labels=batch["labels"], use_cache=False).loss

    def all_logits() -> torch.Tensor:
        output = model(**inputs, use_cache=False)
        text = F.cross_entropy(output.logits[0, :-1].float(), labels, ignore_index=IGNORE_INDEX)
        return text + head_losses(output, batch)

    def kept_logits() -> torch.Tensor:
        output = model(**inputs, use_cache=False, logits_to_keep=places)
        return F.cross_entropy(output.logits[0].float(), labels[places]) + head_losses(output, batch)

    def from_pixels() -> torch.Tensor:
        features = batch["frame_features"].clone()
        features[:PIXEL_FRAMES] = model.encode_frames(pixels)
        return trainer.compute_loss(model, {**batch, "frame_features": features})

    return {
        "ours": ours,
        "heads_off": heads_off,
        "all_logits": all_logits,
        "kept_logits": kept_logits,
        "pixels": from_pixels,
    }


def timed_steps(model: nn.Module, losses: Mapping[str, Loss], repeats: int, before: int) -> dict[str, Figures]:
    """Steps of each loss in turn: median seconds of the processor, the loss, and the bytes taken at the peak.

    The learning rate is 0, so every step starts from the same weights. A first step, which allocates the states of the
    optimiser, does not count.

    Args:
        before: bytes that were resident before the model was built.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0)

    def step(loss: Loss) -> tuple[float, float]:
        began = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return time.process_time() - began, float(value.detach())

    step(next(iter(losses.values())))
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    results: dict[str, Figures] = {}
    for _ in range(repeats):
        for name, loss in losses.items():
            optimizer.zero_grad(set_to_none=True)
            reset_peak()
            taken, value = step(loss)
            seconds[name].append(taken)
            results[name] = {
                "seconds": statistics.median(seconds[name]),
                "loss": value,
                "bytes": float(peak_bytes() - before),
            }
    return results


def measure(side: str, shape: Shape, positions: int, repeats: int, samples: int) -> dict[str, Figures]:
    """All figures of a side, in this process.

    Args:
        side: ours, lora or stock.
        positions: tokens of the stream of the parts.
        repeats: steps of each kind.
        samples: of the stock Trainer, for each session.
    """
    from prospect_hf.training.arguments import DSTTrainingArguments
    from prospect_hf.training.trainer import DSTTrainer

    before = resident_bytes()
    with tempfile.TemporaryDirectory() as folder:
        if side == "stock":
            return measure_stock(shape, repeats, samples, folder, before)
        args = DSTTrainingArguments(output_dir=folder, use_cpu=True, disable_tqdm=True, decision_loss="focal")
        if side == "lora":
            return measure_lora(shape, positions, repeats, args, before)
        model = frozen_vision(model_of(shape).train())
        trainer = DSTTrainer(model=model, args=args)
        losses: dict[str, Loss] = {}
        for length in LENGTHS:
            packed = session(shape, length)
            losses[f"session {length}"] = lambda packed=packed: trainer.compute_loss(model, packed)
        for share, all_labelled in SHARES.items():
            of_parts = losses_of_parts(model, session(shape, positions, all_labelled), trainer)
            wanted = SAME_LOSS if all_labelled else tuple(of_parts)
            losses |= {f"{part} {share}": of_parts[part] for part in wanted}
        return timed_steps(model, losses, repeats, before)


def measure_lora(shape: Shape, positions: int, repeats: int, args: Any, before: int) -> dict[str, Figures]:
    """Steps of LoRA layers and heads on a frozen base, without checkpointed layers and with them."""
    from gpu_training import adapted_model

    from prospect_hf.training.trainer import DSTTrainer

    model = adapted_model(shape, "lora", "cpu", checkpoints=False)
    trainer, batch = DSTTrainer(model=model, args=args), session(shape, positions)
    results = {}
    for name, prepare in (
        ("lora 12 %", model.activation_checkpointing_disable),
        ("lora_checkpoints 12 %", model.activation_checkpointing_enable),
    ):
        prepare()
        results |= timed_steps(model, {name: lambda: trainer.compute_loss(model, batch)}, repeats, before)
    return results


def measure_stock(shape: Shape, repeats: int, samples: int, folder: str, before: int) -> dict[str, Figures]:
    """Steps of the stock Trainer on samples of one frame; the seconds are the mean of a session's samples."""
    model = frozen_vision(stock_model(shape))
    trainer = Trainer(model=model, args=TrainingArguments(output_dir=folder, use_cpu=True, report_to=[]))
    results: dict[str, Figures] = {}
    for length in LENGTHS:
        packed = session(shape, length)
        frames = packed["frame_positions"].shape[1]
        # The middle frames of equal parts of the session: their mean is that of all frames.
        picked = [(2 * part + 1) * frames // (2 * samples) for part in range(samples)]
        losses: dict[str, Loss] = {}
        for frame in picked:
            inputs = stock_inputs(frame_sample(packed, frame))
            losses[str(frame)] = lambda inputs=inputs: trainer.compute_loss(model, inputs)
        each = timed_steps(model, losses, repeats, before).values()
        results[f"session {length}"] = {
            "seconds": statistics.fmean(one["seconds"] for one in each),
            "loss": statistics.fmean(one["loss"] for one in each),
            "bytes": max(one["bytes"] for one in each),
        }
    return results


def frozen_vision(model: Any) -> Any:
    """``model`` with its vision tower and connector excluded from training."""
    model.model.vision_model.requires_grad_(False)
    model.model.connector.requires_grad_(False)
    return model
