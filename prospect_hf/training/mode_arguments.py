"""Settings of what is trained: all weights, or adapters and heads on a frozen base model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import is_bitsandbytes_available, is_flash_attn_2_available, is_peft_available

from configuration_dst_smolvlm import CONNECTOR, LORA_TARGETS, NF4, heads_of
from prospect_hf.errors import UsageError
from prospect_hf.training.sharding import asked_sharding

MODES = ("full", "lora", "qlora", "heads")
LORA_MODES = ("lora", "qlora")
ATTENTION = ("auto", "sdpa", "flash_attention_2", "eager")


@dataclass
class ModeArguments:
    """The part of ``DSTTrainingArguments`` that says which weights are trained, and with which kernels."""

    mode: str = field(
        default="full",
        metadata={
            "help": "full: all weights, in float32; lora: LoRA layers of the text model and the heads, on a frozen "
            "base; qlora: the same on a base in 4 bits (nf4, double quantisation); heads: the heads alone."
        },
    )
    lora_rank: int = field(default=16, metadata={"help": "Rank of the LoRA layers (lora, qlora)."})
    lora_alpha: float = field(
        default=32.0, metadata={"help": "The LoRA layers' output is multiplied by lora_alpha / lora_rank."}
    )
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout before the LoRA layers, from 0 to below 1."})
    train_connector: bool = field(
        default=False,
        metadata={
            "help": "Train the connector too (lora, qlora, heads). Frames are cached after it, so each step then runs "
            "the vision tower on all its frames."
        },
    )
    attention: str = field(
        default="auto",
        metadata={
            "help": "auto: flash_attention_2 in bf16 on a GPU where the package is there and mode is not full, else "
            "sdpa; or sdpa, flash_attention_2, eager."
        },
    )

    if TYPE_CHECKING:  # of DSTTrainingArguments and its other parents
        bf16: bool = False
        deepspeed: Any = None
        fsdp: Any = None
        fp16: bool = False
        look_steps: int = 0
        muon_learning_rate: float | None = None
        optim: str = ""
        response_loss_weight: float = 1.0
        tf32: bool | None = None
        use_cpu: bool = False

    @property
    def cuda(self) -> bool:
        """Whether training runs on a CUDA device."""
        return torch.cuda.is_available() and not self.use_cpu

    @property
    def sharding(self) -> str | None:
        """``FSDP`` or ``DeepSpeed`` where the run's processes hold parts of the optimiser or of the model."""
        return asked_sharding(self.fsdp, self.deepspeed)

    def resolve_optimizer(self) -> None:
        """Put the optimiser that ``optim=auto`` stands for on this machine in its place."""
        if self.optim != "auto":
            return
        if not self.cuda:
            self.optim = "adamw_torch"
        elif self.mode in LORA_MODES and is_bitsandbytes_available() and self.sharding is None:
            self.optim = "paged_adamw_8bit"
        else:
            self.optim = "adamw_torch_fused"

    def check_mode(self) -> None:
        """Whether the settings fit each other and this machine.

        Raises:
            UsageError: they do not.
        """
        if self.mode not in MODES:
            raise UsageError(f"training.mode must be one of {', '.join(MODES)}, not {self.mode!r}.")
        if self.attention not in ATTENTION:
            raise UsageError(f"training.attention must be one of {', '.join(ATTENTION)}, not {self.attention!r}.")
        if self.lora_rank < 1:
            raise UsageError(f"training.lora_rank must be 1 or more, not {self.lora_rank}.")
        if not 0 < self.lora_alpha < float("inf"):
            raise UsageError(f"training.lora_alpha must be positive, not {self.lora_alpha:g}.")
        if not 0 <= self.lora_dropout < 1:
            raise UsageError(f"training.lora_dropout must be 0 or more and below 1, not {self.lora_dropout:g}.")
        if self.mode == "full" and self.train_connector:
            raise UsageError("training.mode=full trains the connector with the vision tower: set model.freeze_vision.")
        if self.mode != "full":
            self._check_frozen_base()
        self._check_machine()

    def _check_frozen_base(self) -> None:
        """Refuse what trains, or needs, the weights of the base."""
        reasons = {
            "training.look_steps": self.look_steps > 0,
            "training.muon_learning_rate": self.muon_learning_rate is not None,
            "training.fp16": self.fp16,
        }
        wrong = [name for name, given in reasons.items() if given]
        if wrong:
            raise UsageError(f"training.mode={self.mode} and {wrong[0]} do not go together: only mode=full takes it.")
        if self.mode == "heads" and self.response_loss_weight:
            raise UsageError(
                "training.mode=heads trains nothing that writes texts: set training.response_loss_weight=0, or take "
                "training=heads."
            )
        if self.mode in LORA_MODES and not is_peft_available():
            raise UsageError(f"training.mode={self.mode} needs the package peft: pip install peft.")
        if self.mode == "qlora" and not is_bitsandbytes_available():
            raise UsageError("training.mode=qlora needs the package bitsandbytes: pip install bitsandbytes.")

    def _check_machine(self) -> None:
        """Refuse what this machine cannot run."""
        if any(part in str(self.optim) for part in ("8bit", "paged", "bnb")):
            if not is_bitsandbytes_available():
                raise UsageError(
                    f"training.optim={self.optim} needs the package bitsandbytes: pip install bitsandbytes."
                )
            if not self.cuda:
                raise UsageError(
                    f"training.optim={self.optim} runs on a CUDA device alone and training runs on the CPU: set "
                    "training.optim=adamw_torch, or auto, which takes what the machine can run."
                )
            if self.sharding is not None:
                raise UsageError(
                    f"training.optim={self.optim} does not know weights that {self.sharding} cuts up: set "
                    "training.optim=adamw_torch."
                )
        if self.bf16 and self.cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UsageError(
                f"training.bf16=true: {torch.cuda.get_device_name()} has no bfloat16 units: set training.bf16=false."
            )
        if self.fp16 and not self.cuda:
            raise UsageError(
                "training.fp16=true is for CUDA devices and training runs on the CPU: leave it out, or set "
                "training.bf16=true."
            )
        if self.tf32 and not self.cuda:
            raise UsageError("training.tf32=true is for CUDA devices and training runs on the CPU: leave it out.")
        if self.attention == "flash_attention_2":
            wrong = {
                "runs on a CUDA device alone and training runs on the CPU": not self.cuda,
                "needs the package flash-attn, which is not installed": not is_flash_attn_2_available(),
                "needs training.bf16=true": not self.bf16,
                "cannot run on the float32 weights of training.mode=full": self.mode == "full",
            }
            for reason, holds in wrong.items():
                if holds:
                    raise UsageError(f"training.attention=flash_attention_2 {reason}: set training.attention=sdpa.")

    @property
    def attention_implementation(self) -> str:
        """The attention that ``attention`` stands for on this machine, in the words of transformers."""
        if self.attention != "auto":
            return self.attention
        flash = self.cuda and self.bf16 and self.mode != "full" and is_flash_attn_2_available()
        return "flash_attention_2" if flash else "sdpa"

    @property
    def base_dtype(self) -> str:
        """The type in which the base model is loaded: all weights are float32 where all are trained."""
        return "bfloat16" if self.bf16 and self.mode != "full" else "float32"

    def adapter(self, base_model: str, base_sha256: str, decision_source: str) -> dict[str, Any]:
        """What ``DSTSmolVLMConfig.adapter`` says of a model that is trained in this mode, which is not ``full``.

        Args:
            base_model: absolute path or Hub id of the base.
            base_sha256: of its weights.
            decision_source: of the model (``DSTSmolVLMConfig.decision_source``), on which the heads depend.
        """
        lora = self.mode in LORA_MODES
        heads = list(heads_of(decision_source))
        return {
            "mode": self.mode,
            "base_model": base_model,
            "base_sha256": base_sha256,
            "dtype": self.base_dtype,
            "rank": self.lora_rank if lora else None,
            "alpha": self.lora_alpha if lora else None,
            "dropout": self.lora_dropout if lora else None,
            "targets": LORA_TARGETS if lora else None,
            "modules": [*heads, CONNECTOR] if self.train_connector else heads,
            "quantization": {**NF4, "compute_dtype": self.base_dtype} if self.mode == "qlora" else None,
        }
