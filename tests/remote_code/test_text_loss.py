"""The text loss in pieces: equal to plain cross-entropy, and never with the logits of all places at once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from configuration_dst_smolvlm import DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from text_loss_dst_smolvlm import LOGITS_PER_PIECE, summed_cross_entropy


def head_and_rows(rows: int, hidden: int, vocabulary: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    head = nn.Linear(hidden, vocabulary, bias=False, dtype=dtype)
    return head, torch.randn(rows, hidden, dtype=dtype, requires_grad=True), torch.randint(0, vocabulary, (rows,))


def plain(head: nn.Module, rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(head(rows).float(), targets, reduction="sum")


def gradients(loss: torch.Tensor, *of: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss / 7, of))


class LargestTensor(TorchDispatchMode):
    """Counts the elements of the largest tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return out


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 40),
    hidden=st.integers(1, 9),
    vocabulary=st.integers(2, 50),
    per_piece=st.integers(1, 400),
    seed=st.integers(0, 2**16),
)
def test_it_equals_plain_cross_entropy(rows: int, hidden: int, vocabulary: int, per_piece: int, seed: int) -> None:
    head, x, targets = head_and_rows(rows, hidden, vocabulary, seed=seed)
    ours, theirs = summed_cross_entropy(head, x, targets, per_piece), plain(head, x, targets)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-6, abs=1e-6)
    for mine, other in zip(gradients(ours, x, head.weight), gradients(theirs, x, head.weight), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert float(summed_cross_entropy(head, x, targets, per_piece)) == pytest.approx(
            float(theirs.detach()), rel=1e-6, abs=1e-6
        )


def test_its_gradients_are_those_of_finite_differences() -> None:
    """In float64. (``gradcheck`` follows one loss back several times.)"""
    head, x, targets = head_and_rows(7, 3, 5, torch.float64)
    step = 1e-6
    found = gradients(summed_cross_entropy(head, x, targets, 10), x, head.weight)
    for values, grad in zip((x, head.weight), found, strict=True):
        flat, expected = values.data.view(-1), torch.zeros_like(grad).view(-1)
        for place in range(len(flat)):
            for sign in (1, -1):
                flat[place] += sign * step
                expected[place] += sign * float(summed_cross_entropy(head, x, targets, 10).detach()) / (2 * step * 7)
                flat[place] -= sign * step
        torch.testing.assert_close(grad.view(-1), expected, rtol=1e-6, atol=1e-8)


def test_no_logits_of_all_places_are_made_or_saved() -> None:
    head, x, targets = head_and_rows(64, 8, 100)
    saved: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.numel())
        return tensor

    with LargestTensor() as largest, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        summed_cross_entropy(head, x, targets, 800).backward()
    assert largest.elements <= 800 < 64 * 100
    assert max(saved) <= 800  # the gradient of the weight
    with LargestTensor() as largest, torch.no_grad():
        summed_cross_entropy(head, x, targets, 800)
    assert largest.elements <= 800


@pytest.mark.parametrize("trained", ["rows", "weight", "neither"])
def test_only_what_is_trained_gets_a_gradient(trained: str) -> None:
    head, x, targets = head_and_rows(20, 4, 30)
    head.weight.requires_grad_(trained == "weight")
    x.requires_grad_(trained == "rows")
    loss = summed_cross_entropy(head, x, targets, 90)
    assert loss.requires_grad == (trained != "neither")
    if trained != "neither":
        loss.backward()
    assert (x.grad is not None, head.weight.grad is not None) == (trained == "rows", trained == "weight")


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_half_precision_and_autocast_round_as_the_plain_loss_does(weights: torch.dtype) -> None:
    """The loss is in float32; gradients are near those of the plain loss, which is rounded once, not once a piece."""
    head, x, targets = head_and_rows(200, 32, 500, weights)
    exact_head, exact_x = copy.deepcopy(head).double(), x.detach().double().requires_grad_()
    exact = F.cross_entropy(exact_head(exact_x), targets, reduction="sum")
    expected = gradients(exact, exact_x, exact_head.weight)
    errors = []
    for loss_of in (lambda: summed_cross_entropy(head, x, targets, 20_000), lambda: plain(head, x, targets)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=weights == torch.float32):
            loss = loss_of()
        assert loss.dtype == torch.float32
        assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=1e-3)
        found = gradients(loss, x, head.weight)
        assert [grad.dtype for grad in found] == [weights, weights]
        errors.append([float((f.double() - e).norm() / e.norm()) for f, e in zip(found, expected, strict=True)])
    for ours, theirs in zip(*errors, strict=True):
        assert ours <= 2.5 * theirs < 0.02


def test_under_autocast_all_products_are_in_its_type() -> None:
    types: set[torch.dtype] = set()

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "mm" in str(func):
                types.update(arg.dtype for arg in args if isinstance(arg, torch.Tensor))
            return func(*args, **(kwargs or {}))

    head, x, targets = head_and_rows(20, 4, 30)
    with Products(), torch.autocast("cpu", dtype=torch.bfloat16):
        summed_cross_entropy(head, x, targets, 90).backward()
    assert types == {torch.bfloat16}


def test_a_head_with_an_adapter_gets_its_own_gradients() -> None:
    class Adapted(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 30, bias=False)
            self.more = nn.Parameter(torch.zeros(30, 4))

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) + input @ self.more.T

    _, x, targets = head_and_rows(20, 4, 30)
    head = Adapted()
    summed_cross_entropy(head, x, targets, 90).backward()
    assert head.more.grad is not None and head.more.grad.abs().sum() > 0


def test_windows_add_up_and_a_second_backward_pass_is_refused() -> None:
    head, x, targets = head_and_rows(20, 4, 30)
    summed_cross_entropy(head, x, targets, 90).backward()
    once = head.weight.grad.clone()
    loss = summed_cross_entropy(head, x, targets, 90)
    loss.backward(retain_graph=True)
    torch.testing.assert_close(head.weight.grad, 2 * once)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


def test_the_models_loss_is_in_pieces_under_checkpointing_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """All weights, those of tied embeddings included, get the same gradients; and no logits are returned."""
    config = DSTSmolVLMConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": 60,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "pad_token_id": 2,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
        },
        scale_factor=2,
        image_token_id=59,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = DSTSmolVLMForConditionalGeneration(config).train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(3, 50, (2, 40))
    results = []
    for pieces in (LOGITS_PER_PIECE, 600):
        monkeypatch.setattr(summed_cross_entropy, "__defaults__", (pieces,))
        model.zero_grad()
        with LargestTensor() as largest:
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, use_cache=False)
            output.loss.backward()
        assert output.logits is None
        results.append((float(output.loss.detach()), {n: w.grad for n, w in model.named_parameters()}))
    assert largest.elements < 2 * 39 * 60
    (whole, of_whole), (split, of_pieces) = results
    assert split == pytest.approx(whole, rel=1e-6)
    assert of_pieces["model.text_model.embed_tokens.weight"].abs().sum() > 0
    for name, grad in of_whole.items():
        if grad is not None:
            torch.testing.assert_close(of_pieces[name], grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_a_head_that_is_cut_up_is_called_once(training: bool) -> None:
    """DeepSpeed gathers its weight while it is called, which all processes must do equally often."""
    head, x, targets = head_and_rows(9, 3, 5)
    head.weight.ds_id = 0
    calls: list[int] = []
    head.register_forward_hook(lambda module, given, logits: calls.append(len(logits)))
    with torch.set_grad_enabled(training):
        loss = summed_cross_entropy(head, x, targets, 10)
    assert calls == [9] and float(loss.detach()) == pytest.approx(float(plain(head, x, targets).detach()))
