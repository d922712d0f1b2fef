"""One training step of the real model and trainer, on tensors that have sizes and no memory.

The step is the trainer's own: its model, its autocast, its losses, its optimiser. ``torch``'s fake tensors stand for
the weights and activations, so a model of 2.2 billion parameters is traced on any machine in seconds.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import Dataset
from transformers import masking_utils
from transformers.training_args import OptimizerNames

from configuration_dst_smolvlm import DSTSmolVLMConfig
from modeling_dst_smolvlm import PATCHES_PER_VISION_PASS, DSTSmolVLMForConditionalGeneration
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.memory.batch import BatchSize, make_batch
from prospect_hf.training.memory.flops import FlopCount
from prospect_hf.training.memory.known_values import KnownValues
from prospect_hf.training.memory.live_bytes import CUDA_BLOCK, GRADIENTS, INPUTS, OPTIMISER, LiveBytes
from prospect_hf.training.memory.planned_model import fill, planned_model
from prospect_hf.training.trainer import DSTTrainer

STEP, ENCODING = "training step", "encoding frames"


@dataclass(frozen=True)
class Setting:
    """What is trained, and how.

    Args:
        config: the model's sizes.
        args: the training settings.
        freeze_vision: the vision tower and the connector are not trained.
        encoded: frames are encoded already, in another run.
        streaming: frames are never encoded before, since the rows are streamed.
        processes: of the run; DDP keeps a copy of all gradients in its buckets.
        cuda: trace what a GPU does; False: what this machine's CPU does, to be compared with a measurement.
    """

    config: DSTSmolVLMConfig
    args: DSTTrainingArguments
    freeze_vision: bool = True
    encoded: bool = False
    streaming: bool = False
    processes: int = 1
    cuda: bool = True


@dataclass(frozen=True)
class Traced:
    """What a trace found.

    Args:
        size: of the batch.
        phase: when most memory is taken: in the training step, or while frames are encoded before.
        parts: bytes of each part at that moment.
        trained, parameters: numbers of parameters.
        step_flops: operations of a forward and a backward pass over the batch, with all that is computed twice.
        frame_flops: operations of encoding one frame before training; 0 where that is part of the step.
        frames: frames in the batch.
        step_peak: bytes at the peak of the training step alone.
        encoding_peak: bytes at the peak of encoding frames before training; 0 where they are not.
    """

    size: BatchSize
    phase: str
    parts: dict[str, int]
    trained: int
    parameters: int
    step_flops: int
    frame_flops: int
    frames: int
    step_peak: int
    encoding_peak: int

    @property
    def peak(self) -> int:
        """The largest number of bytes that are alive at a time."""
        return sum(self.parts.values())


def trace(setting: Setting, size: BatchSize) -> Traced:
    """Trace a training step of ``setting`` on a batch of ``size``, and the encoding of frames before it.

    Raises:
        ValueError: the clips are too short for a plan and two frames.
    """
    with _no_collection():
        with torch.device("meta"):
            model = planned_model(setting.config, setting.args, setting.freeze_vision)
        fake = FakeTensorMode()
        with fake:
            fill(model)
        return run_step(model, setting, size, fake)


def run_step(
    model: DSTSmolVLMForConditionalGeneration,
    setting: Setting,
    size: BatchSize,
    fake: FakeTensorMode | None = None,
) -> Traced:
    """A training step of ``model`` while its live bytes are counted; on fake tensors, or on real ones without them."""
    config, args = setting.config, setting.args
    batch = make_batch(config, size)
    frames = len(batch.pop("frame_features"))
    live = LiveBytes(config.text_config.vocab_size, CUDA_BLOCK if setting.cuda else 1, WORKSPACE)
    flops = FlopCount()
    known = None if fake is None else KnownValues(fake)
    with _trainer(model, args) as trainer, ExitStack() as modes:
        wrapped = trainer.accelerator.prepare_model(model, device_placement=False)
        for mode in (_masks_by_value(), fake, known, live, flops):
            if mode is not None:
                modes.enter_context(mode)
        live.add_model(model)
        if setting.cuda:
            for layer in model.modules():
                if isinstance(layer, nn.LayerNorm):
                    layer.register_forward_pre_hook(_cast_as_cuda)
        phases = {}
        frame_flops = 0
        in_step = setting.streaming or trained(model.model.vision_model) or trained(model.model.connector)
        if not in_step and not setting.encoded:
            frame_flops = _encode(model, flops)
            phases[ENCODING] = live.at_peak
            live.reset_peak()

        inputs = {name: known.know(value) for name, value in batch.items()} if known else dict(batch)
        inputs |= _frames(config, frames, pixels=in_step)
        live.add(inputs.values(), INPUTS)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        step = _optimizer(trainer, weights, live, setting.cuda)
        buckets = [torch.empty(sum(weight.numel() for weight in weights))] if setting.processes > 1 else []
        live.add(buckets, GRADIENTS)
        live.reset_peak()
        wrapped.train()
        before = flops.total
        if args.gradient_accumulation_steps > 1:  # those of the step's earlier batches
            for weight in weights:
                weight.grad = torch.zeros_like(weight)
                live.add([weight.grad], GRADIENTS)
        trainer.accelerator.backward(_loss(trainer, wrapped, inputs))
        step_flops = flops.total - before
        if args.max_grad_norm:
            nn.utils.clip_grad_norm_(weights, args.max_grad_norm)
        step()
        phases[STEP] = live.at_peak
    phase = max(phases, key=lambda name: sum(phases[name].values()))
    return Traced(
        size=size,
        phase=phase,
        parts={part: count for part, count in phases[phase].items() if count},
        trained=sum(weight.numel() for weight in weights),
        parameters=model_size(model),
        step_flops=step_flops,
        frame_flops=frame_flops,
        frames=frames,
        step_peak=sum(phases[STEP].values()),
        encoding_peak=sum(phases.get(ENCODING, {}).values()),
    )


def trained(module: nn.Module) -> bool:
    """Whether a part of the model is trained."""
    return any(weight.requires_grad for weight in module.parameters())


def model_size(model: nn.Module) -> int:
    """The number of parameters; those in 4 bits lie two to a byte."""
    packed = [weight for weight in model.parameters() if "quant_state" in vars(weight)]
    return sum(weight.numel() for weight in model.parameters()) + sum(weight.numel() for weight in packed)


class _Trainer(DSTTrainer):
    """The trainer without the part that moves the model, which is where it belongs."""

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        pass


class _NoClips(Dataset[Any]):
    def __len__(self) -> int:
        return 1


@contextmanager
def _trainer(model: nn.Module, args: DSTTrainingArguments) -> Iterator[DSTTrainer]:
    with tempfile.TemporaryDirectory() as folder:  # the trainer makes its output folder
        changes: dict[str, Any] = {"output_dir": folder}
        yield _Trainer(
            model=model,
            args=replace(args, **changes),
            train_dataset=_NoClips(),
            data_collator=lambda clips: clips,
        )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's search for cycles, which takes a quarter of a trace's time and finds no tensor to free."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _masks_by_value() -> Iterator[None]:
    """Let the library see that a row without padding needs no mask.

    It does not look at the values of fake tensors, which have none. Those of the mask are known here.
    """
    before = masking_utils.is_tracing
    masking_utils.is_tracing = lambda *tensor: False
    try:
        yield
    finally:
        masking_utils.is_tracing = before


def _loss(trainer: DSTTrainer, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """The trainer's loss without its check for finite values; the output is not kept during the backward pass."""
    sums, _ = trainer.loss_sums(model, dict(inputs))
    weights = list(trainer.args.loss_weights.values())
    return (sums.reshape(len(weights), -1).sum(1) * sums.new_tensor(weights)).sum()


def _frames(config: DSTSmolVLMConfig, frames: int, pixels: bool) -> dict[str, Tensor]:
    side = config.vision_config.image_size
    if pixels:
        return {"pixel_values": torch.rand(frames, 3, side, side)}
    return {"frame_features": torch.rand(frames, config.stream_tokens, config.text_config.hidden_size)}


@torch.no_grad()
def _encode(model: DSTSmolVLMForConditionalGeneration, flops: FlopCount) -> int:
    """Encode one pass of frames; returns the operations of one frame."""
    vision = model.config.vision_config
    frames = max(1, PATCHES_PER_VISION_PASS // (vision.image_size // vision.patch_size) ** 2)
    before = flops.total
    model.encode_frames(torch.rand(frames, 3, vision.image_size, vision.image_size))
    return (flops.total - before) // frames


def _optimizer(trainer: DSTTrainer, weights: list[nn.Parameter], live: LiveBytes, cuda: bool) -> Callable[[], object]:
    """The step of the trainer's optimiser, whose states are there as after the first step."""
    with live.part(OPTIMISER):
        name = OptimizerNames(trainer.args.optim).value
        if any(word in name for word in ("bnb", "8bit", "paged")):
            states = [
                state for weight in weights for state in _blockwise_states(weight, "8bit" in name, "lion" in name)
            ]
            return lambda: states
        optimizer = trainer.create_optimizer()
        if cuda:
            for group in optimizer.param_groups:  # the default on CUDA, with temporary copies of all weights
                if "foreach" in group and group["foreach"] is None and not group.get("fused"):
                    group["foreach"] = True
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
    optimizer.zero_grad()
    return optimizer.step


def _blockwise_states(weight: Tensor, in_8_bits: bool, one: bool) -> list[Tensor]:
    """The states of a weight in bitsandbytes' optimisers (``bitsandbytes.optim.optimizer``, ``init_state``)."""
    count = weight.numel()
    if not in_8_bits or count < 4096:  # smaller weights keep float32
        return [torch.empty(count) for _ in range(1 if one else 2)]
    blocks = -(-count // 256)
    return [
        tensor
        for _ in range(1 if one else 2)
        for tensor in (torch.empty(count, dtype=torch.uint8), torch.empty(blocks))
    ]


def _cast_as_cuda(layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Autocast's list for CUDA where it differs from the CPU's in this model: layer norms compute in float32."""
    return tuple(one.float() for one in given) if torch.is_autocast_enabled("cpu") else given


def _dequantised(rows: Tensor, packed: Tensor, shape: list[int], *rest: Any, **options: Any) -> int:
    """Bytes of the matrix that bitsandbytes' 4-bit product dequantises for itself, from 1,536 rows on."""
    return shape[0] * shape[1] * rows.element_size() if rows.numel() // rows.shape[-1] > 1536 else 0


WORKSPACE = {"bitsandbytes.gemm_4bit": _dequantised}
