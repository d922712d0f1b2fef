"""The training part of ``gpu.py``: steps of QLoRA and bf16 LoRA from cached features, with the modelling code itself.

A step is what the trainer does: autocast to bfloat16, the four losses, checkpointed layers, a clipped gradient, and
8-bit paged AdamW. The base model has random weights; for QLoRA its text matrices are quantised one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from gpu_flops import peak_flops, step_flops
from gpu_records import GIB, Records, free_memory, median_ms, peak_gib, reset_peak
from shapes import PLAN_STEPS, SMOLVLM2_2B, TINY, Shape, model_of, random_batch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from adapters_dst_smolvlm import add_adapters
from configuration_dst_smolvlm import HEADS, LORA_TARGETS, NF4
from modeling_dst_smolvlm import IGNORE_INDEX
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration as Model
from prospect_hf.machine import processor
from prospect_hf.training.losses import focal_loss, masked_cross_entropy

RANK, ALPHA, DROPOUT = 16, 32.0, 0.05  # the defaults of training
GAMMA = 2.0
CARD_GIB = 24.0  # the card that a training job is planned for
CONTEXT_GIB = 1.0  # of it, what driver and context take
REPEATS = 10


@dataclass(frozen=True)
class Case:
    """One way to train: ``mode`` is qlora or lora."""

    mode: str
    shape: Shape
    rows: int
    positions: int
    all_labelled: bool
    padded: bool = True

    @property
    def name(self) -> str:
        """As ``--plan`` names it."""
        share = 100 if self.all_labelled else 12
        equal = "" if self.padded else ", rows of equal length"
        return f"{self.mode} {self.shape.name} {self.rows} x {self.positions}, text labels at {share} %{equal}"

    def batch(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
        """The batch of every step."""
        return random_batch(
            self.shape, self.rows, self.positions, self.all_labelled, padded=self.padded, device=device, dtype=dtype
        )


def cases(tiny: bool) -> list[Case]:
    """What is measured, the most important first."""
    shape, positions = (TINY, 256) if tiny else (SMOLVLM2_2B, 4096)
    padded = [Case(mode, shape, 2, positions, every) for every in (False, True) for mode in ("qlora", "lora")]
    return [*padded, Case("lora", shape, 2, positions, False, padded=False)]


def quantize(model: Model, dtype: torch.dtype) -> None:
    """Put the text model's matrices into nf4 with double quantisation, in place, one after the other."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, linear in list(model.model.text_model.named_modules()):
        if not isinstance(linear, nn.Linear):
            continue
        small = Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=False,
            compute_dtype=dtype,
            compress_statistics=NF4["double"],
            quant_type=NF4["type"],
            device="meta",
        )
        small.weight = Params4bit(
            linear.weight.data, requires_grad=False, compress_statistics=NF4["double"], quant_type=NF4["type"]
        ).to(linear.weight.device)
        parent, _, own = name.rpartition(".")
        setattr(model.model.text_model.get_submodule(parent), own, small)
    model.is_loaded_in_4bit = True  # peft asks for it


def adapted_model(shape: Shape, mode: str, device: str, checkpoints: bool = True) -> Model:
    """A model with random weights and LoRA layers, with checkpointed layers or without, in training mode."""
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    model = model_of(shape, device, dtype).train()
    named = str(dtype).removeprefix("torch.")
    if mode == "qlora":
        quantize(model, dtype)
    adapter = {
        "mode": mode,
        "base_model": shape.name,
        "base_sha256": "0" * 64,
        "dtype": named,
        "rank": RANK,
        "alpha": ALPHA,
        "dropout": DROPOUT,
        "targets": LORA_TARGETS,
        "modules": [*HEADS],
        "quantization": {**NF4, "compute_dtype": named} if mode == "qlora" else None,
    }
    add_adapters(model, adapter)
    model.to(device)
    if checkpoints:
        model.activation_checkpointing_enable()
    return model


def four_losses(model: Model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The sum of the four losses, each a mean over its labels, as the trainer's default."""
    labels = ("speaking_labels", "dst_update_labels", "dst_state_labels")
    output = model(**{name: value for name, value in batch.items() if name not in labels}, use_cache=False)
    return (
        output.loss.float()
        + focal_loss(output.speaking_logits, batch["speaking_labels"], GAMMA)
        + focal_loss(output.dst_update_logits, batch["dst_update_labels"], GAMMA)
        + masked_cross_entropy(output.dst_state_logits, batch["dst_state_labels"])
    )


def optimizer_of(trained: list[nn.Parameter], device: str) -> torch.optim.Optimizer:
    """8-bit paged AdamW on a GPU, torch's on a CPU."""
    if not device.startswith("cuda"):
        return torch.optim.AdamW(trained, lr=1e-4)
    from bitsandbytes.optim import PagedAdamW8bit

    return PagedAdamW8bit(trained, lr=1e-4)


def training_step(model: Model, batch: dict[str, torch.Tensor], device: str) -> Callable[[], torch.Tensor]:
    """A whole step of the optimiser; it returns the loss."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = optimizer_of(trained, device)
    cuda = device.startswith("cuda")

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda" if cuda else "cpu", torch.bfloat16, enabled=cuda):
            loss = four_losses(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return loss.detach()

    return step


class AttentionKernels(TorchDispatchMode):
    """Collects the names of the attention kernels that torch chooses; none: matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the operation's name and run it."""
        name = str(func)
        if "scaled_dot_product" in name:
            self.names.add(name.split(".")[1].removeprefix("_scaled_dot_product_").removesuffix("_attention"))
        return func(*args, **(kwargs or {}))


def attention_kernels(model: Model, batch: dict[str, torch.Tensor], device: str) -> str:
    """The attention kernels of a forward pass."""
    cuda = device.startswith("cuda")
    kernels = AttentionKernels()
    with torch.no_grad(), torch.autocast("cuda" if cuda else "cpu", torch.bfloat16, enabled=cuda), kernels:
        four_losses(model, batch)
    return "SDPA " + (", ".join(sorted(kernels.names)) or "math")


def fits_card(step: Callable[[], object], device: str) -> str | None:
    """Whether a step runs while torch may take no more than ``CARD_GIB`` less what a context takes."""
    if not device.startswith("cuda"):
        return None
    total = torch.cuda.get_device_properties().total_memory
    free_memory()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (CARD_GIB - CONTEXT_GIB) * GIB / total))
    try:
        step()
        torch.cuda.synchronize()
        return "yes"
    except torch.OutOfMemoryError:
        return "no"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        free_memory()


def training_row(case: Case, device: str, plan: dict[str, float]) -> dict[str, Any]:
    """Time and peak memory of a step."""
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    model = adapted_model(case.shape, case.mode, device)
    batch = case.batch(device, dtype)
    kernels = attention_kernels(model, batch, device)
    step = training_step(model, batch, device)
    reset_peak(device)
    loss = step()
    if not bool(loss.isfinite()):
        raise FloatingPointError(f"the loss of the first step is {float(loss)}")
    taken = median_ms(step, device, REPEATS, 12, warm=2)
    peak, reserved = peak_gib(device)
    flops = step_flops(
        case.shape,
        case.rows,
        case.positions,
        int((batch["labels"][:, 1:] != IGNORE_INDEX).sum()),
        batch["frame_positions"].numel(),
        PLAN_STEPS,
        RANK,
    )
    ceiling = peak_flops(torch.cuda.get_device_name()) if device.startswith("cuda") else None
    planned = plan.get(case.name)
    return {
        "step": case.name,
        "ms": taken,
        "tokens/s": 1000 * case.rows * case.positions / taken,
        "TFLOP/s": flops.model / taken / 1e9,
        "of peak": None if ceiling is None else f"{100 * flops.model / (taken / 1000) / ceiling:.1f} %",
        "with recomputation": None if ceiling is None else f"{100 * flops.hardware / (taken / 1000) / ceiling:.1f} %",
        "peak, GiB": peak,
        "reserved, GiB": reserved,
        "planned, GiB": planned,
        "planned / peak": None if planned is None or peak is None else planned / peak,
        f"fits {CARD_GIB:.0f} GiB": fits_card(step, device),
        "attention": kernels,
    }


def machine_notes(device: str) -> list[str]:
    """The card, its clocks as torch tells them, what its matrix products reach, and the versions."""
    import bitsandbytes
    import peft
    import transformers

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}"
    notes = [f"{versions}, bitsandbytes {bitsandbytes.__version__}"]
    if not device.startswith("cuda"):
        return [*notes, f"{processor()}, {torch.get_num_threads()} threads; memory is measured on a GPU alone"]
    card = torch.cuda.get_device_properties()
    notes.append(f"{card.name}, {card.total_memory / GIB:.1f} GiB, {card.multi_processor_count} multiprocessors")
    one, other = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    taken = median_ms(lambda: one @ other, device, 10, 5)
    notes.append(f"a bfloat16 matrix product of 8,192 x 8,192 x 8,192 reaches {2 * 8192**3 / taken / 1e9:.0f} TFLOP/s")
    return notes


def clock_note() -> str:
    """Clock, power and temperature, as torch tells them right after work.

    Raises:
        ImportError: the package nvidia-ml-py is not there.
    """
    torch.cuda.synchronize()
    clock, power, heat = torch.cuda.clock_rate(), torch.cuda.power_draw() / 1000, torch.cuda.temperature()
    return f"after matrix products: {clock} MHz, {power:.0f} W, {heat} degrees Celsius"


def run(records: Records, device: str, tiny: bool, plan: dict[str, float]) -> None:
    """Record the machine, and one row for each way to train."""

    def machine() -> None:
        for note in machine_notes(device):
            records.add("note", note)
        if device.startswith("cuda") and find_spec("pynvml") is not None:
            records.add("note", clock_note())

    records.attempt("the machine", 0, machine)
    for case in cases(tiny):
        records.attempt(case.name, 2 if tiny else 15, lambda case=case: training_row(case, device, plan))
    records.add(
        "note",
        "From cached features, one token a frame, checkpointed layers, rank 16, autocast to bfloat16, one row padded, "
        f"{'8-bit paged AdamW' if device.startswith('cuda') else 'AdamW, no autocast'}. Operations are those that the "
        "step needs, in the second share also those that checkpoints compute twice; attention counts for half "
        "(after PaLM, Chowdhery et al. 2022, appendix B, and Korthikanti et al. 2022).",
    )
