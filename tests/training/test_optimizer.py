"""Muon takes the matrices inside the towers, AdamW the rest; both follow the schedule and skip what is frozen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_fixtures import new_model
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5
from torch import nn

from prospect_hf.errors import UsageError
from prospect_hf.settings import parse
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.build import freeze_vision
from prospect_hf.training.optimizer import muon_optimizer

SETTINGS = {"use_cpu": True, "learning_rate": 1e-3, "muon_learning_rate": 2e-2, "weight_decay": 0.1}


def named(model: nn.Module, group: dict[str, object]) -> set[str]:
    ids = {id(weight) for weight in group["params"]}
    return {name for name, weight in model.named_parameters() if id(weight) in ids}


def test_every_trained_parameter_is_in_one_group(tmp_path: Path) -> None:
    model, args = new_model(), DSTTrainingArguments(output_dir=str(tmp_path), **SETTINGS)
    muon, adamw = muon_optimizer(model, args).param_groups
    in_muon, in_adamw = named(model, muon), named(model, adamw)
    assert in_muon | in_adamw == {name for name, _ in model.named_parameters()} and not in_muon & in_adamw
    assert muon["lr"] == 2e-2 and adamw["lr"] == 1e-3
    assert muon["weight_decay"] == 0.1 and adamw["weight_decay"] == 0
    for name in ("model.text_model.layers.0.self_attn.q_proj.weight", "dst_step_proj.weight"):
        assert name in in_muon
    for name in ("model.text_model.embed_tokens.weight", "speaking_decision_head.weight", "dst_state_head.weight"):
        assert name in in_adamw
    assert not any(name.endswith("bias") or "norm" in name for name in in_muon)
    freeze_vision(model)
    frozen = [named(model, group) for group in muon_optimizer(model, args).param_groups]
    assert frozen[0] == {name for name in in_muon if "vision_model" not in name and "connector" not in name}
    assert frozen[1] == {name for name in in_adamw if "vision_model" not in name and "connector" not in name}


def test_a_matrix_takes_a_step_of_the_same_size_in_every_direction(tmp_path: Path) -> None:
    """The singular values of Muon's step are near each other where those of the gradient are far apart."""
    args = DSTTrainingArguments(output_dir=str(tmp_path), **{**SETTINGS, "weight_decay": 0.0})
    model = nn.Linear(300, 300, bias=False)
    optimizer, weight = muon_optimizer(model, args), model.weight
    before = weight.detach().clone()
    left, right = (torch.linalg.qr(torch.randn(len(weight), len(weight)))[0] for _ in range(2))
    weight.grad = left @ torch.diag(torch.logspace(0, -2, len(weight))) @ right
    optimizer.step()
    # 0.2 * sqrt(longer side), the size of AdamW's step.
    step = torch.linalg.svdvals(before - weight.detach()) / (args.muon_learning_rate * 0.2 * len(weight) ** 0.5)
    assert float(step.min()) > 0.5 and float(step.max()) < 1.5


def test_on_a_cpu_the_iteration_is_in_float32(tmp_path: Path) -> None:
    """Each matrix of a group moves as by Newton-Schulz in float64, to float32's precision; bfloat16 has three digits.

    Two matrices of one shape, one that is its transpose, and a convolution, which the library stacks.
    """
    args = DSTTrainingArguments(output_dir=str(tmp_path), **{**SETTINGS, "weight_decay": 0.0})
    torch.manual_seed(0)
    shapes = [(24, 40), (24, 40), (40, 24), (24, 2, 4, 5)]
    model = nn.ParameterList([nn.Parameter(torch.randn(shape)) for shape in shapes])
    optimizer = muon_optimizer(model, args)
    before = [weight.detach().clone() for weight in model]
    for weight in model:
        weight.grad = torch.randn_like(weight)
    gradients = [weight.grad.clone() for weight in model]
    optimizer.step()
    for weight, old, gradient in zip(model, before, gradients, strict=True):
        # The first step: the momentum is 0.05 times the gradient, so Nesterov's update is a multiple of the gradient.
        wanted = zero_power_via_newton_schulz_5(gradient.double().reshape(len(weight), -1), dtype=torch.float64)
        scale = args.muon_learning_rate * 0.2 * max(len(weight), weight[0].numel()) ** 0.5
        moved = (old - weight.detach()).double().reshape(len(weight), -1) / scale
        assert float((moved - wanted).abs().max()) < 1e-4


@pytest.mark.parametrize("value", [0.0, -1e-3, float("nan")])
def test_a_learning_rate_that_is_none_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(UsageError, match=r"training\.muon_learning_rate must be positive"):
        parse(DSTTrainingArguments, {"output_dir": str(tmp_path), **SETTINGS, "muon_learning_rate": value}, "training")
