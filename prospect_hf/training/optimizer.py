"""Muon for the matrices inside the towers, AdamW for the rest.

A small model that is trained from scratch has to find out which word belongs to which look. Those directions begin
small in every weight matrix; AdamW lets them grow slowly under the ones that already explain most of the labels, Muon
takes a step of the same size in every direction of a matrix. On the default job it ends at a joint state accuracy of
0.98 where AdamW, in the same steps, ends at 0.63 (README).
"""

from __future__ import annotations

from pytorch_optimizer import Muon
from torch import nn

from prospect_hf.training.arguments import DSTTrainingArguments

# What maps tokens, places or classes to vectors or back: rows and columns mean single things, so AdamW's step per
# weight suits it better than a step per direction.
ADAMW_MATRICES = (
    "embed_tokens",
    "position_embedding",
    "lm_head",
    "speaking_decision_head",
    "dst_update_head",
    "dst_state_head",
)


def muon_optimizer(model: nn.Module, args: DSTTrainingArguments) -> Muon:
    """The optimiser of ``args.muon_learning_rate``, over the parameters of ``model`` that are trained.

    Muon's step is scaled to the size of AdamW's ("Muon is Scalable for LLM Training", 2025: 0.2 * sqrt(longer side)).
    ``weight_decay`` is on Muon's matrices only.
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
    return Muon([group for group in groups if group["params"]])
