"""Muon for the matrices inside the towers, AdamW for the rest.

A small model that is trained from scratch must learn which word belongs to which picture. The singular directions of
the weight matrices that encode this begin small. AdamW increases them slowly, since its step is dominated by the
directions that already explain most labels; Muon takes a step of the same size in every direction. The default job
reaches a joint state accuracy of 0.98 with Muon and, in the same number of steps, 0.63 with AdamW (README).
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_optimizer import Muon
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5
from torch import nn

from prospect_hf.training.arguments import DSTTrainingArguments

# Matrices that map tokens, positions or classes to vectors or back. Each row or column belongs to one of these, so
# AdamW's step per weight suits them better than Muon's step per direction.
ADAMW_MATRICES = (
    "embed_tokens",
    "position_embedding",
    "lm_head",
    "speaking_decision_head",
    "dst_update_head",
    "dst_state_head",
)


class ExactMuon(Muon):
    """Muon with its Newton-Schulz iteration in float32 on a CPU, where the library always takes bfloat16.

    A processor without bfloat16 units emulates it, which takes longer than all the rest of a step; and its rounding
    makes runs on two processors differ. On an accelerator, bfloat16 stays.
    """

    @staticmethod
    def _orthogonalize(group: dict[str, Any], updates: list[torch.Tensor]) -> list[torch.Tensor]:
        if updates[0].device.type != "cpu":
            return Muon._orthogonalize(group, updates)
        matrices = [update.reshape(len(update), -1) for update in updates]
        tall = [len(matrix) > matrix.shape[1] for matrix in matrices]
        wide = torch.stack([matrix.mT if high else matrix for matrix, high in zip(matrices, tall, strict=True)])
        found = zero_power_via_newton_schulz_5(
            wide, num_steps=group["ns_steps"], weights=group["ns_coeffs"], dtype=torch.float32
        )
        return [matrix.mT if high else matrix for matrix, high in zip(found, tall, strict=True)]


def muon_optimizer(model: nn.Module, args: DSTTrainingArguments) -> Muon:
    """The optimiser for the trained parameters of ``model``: Muon with ``args.muon_learning_rate``, AdamW for the rest.

    Muon's step is scaled to the size of AdamW's ("Muon is Scalable for LLM Training", 2025: 0.2 * sqrt(longer side)).
    ``weight_decay`` applies to Muon's matrices only.
    """
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    matrices = [w for name, w in trained if w.dim() >= 2 and not any(part in name for part in ADAMW_MATRICES)]
    chosen = set(map(id, matrices))
    rest = [weight for _, weight in trained if id(weight) not in chosen]
    groups = [
        {
            "params": matrices,
            "use_muon": True,
            "use_adjusted_lr": True,
            "lr": args.muon_learning_rate,
            "weight_decay": args.weight_decay,
        },
        {
            "params": rest,
            "use_muon": False,
            "lr": args.learning_rate,
            "betas": (args.adam_beta1, args.adam_beta2),
            "eps": args.adam_epsilon,
        },
    ]
    return ExactMuon([group for group in groups if group["params"]])
