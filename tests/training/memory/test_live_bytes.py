"""The bytes that live tensors take, against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from prospect_hf.training.memory.flops import FlopCount
from prospect_hf.training.memory.known_values import KnownValues
from prospect_hf.training.memory.live_bytes import ACTIVATIONS, COPIES, GRADIENTS, LOGITS, WEIGHTS, LiveBytes

FLOAT = 4  # bytes


def test_views_and_operations_in_place_take_nothing() -> None:
    with LiveBytes() as live:
        values = torch.zeros(10, 10)
        views = [values.view(100), values.t(), values[2:5], values.detach()]
        values.add_(1)
        views[0][:50].mul_(2)
        assert live.total == live.peak == 100 * FLOAT


def test_what_is_freed_no_longer_counts_and_the_peak_stays() -> None:
    with LiveBytes() as live:
        first = torch.zeros(1000)
        view = first[:1]
        second = torch.zeros(500)
        del first
        assert live.total == 1500 * FLOAT  # the view keeps the whole storage
        del view
        assert live.total == 500 * FLOAT
        del second
        assert live.total == 0
        assert live.peak == 1500 * FLOAT
        live.reset_peak()
        assert live.peak == 0


def test_a_tied_weight_counts_once_and_gradients_when_they_are_there() -> None:
    first, second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    with LiveBytes() as live:
        live.add_model(model)
        assert live.live[WEIGHTS] == 64 * FLOAT
        model(torch.ones(2, 8)).sum().backward()
        assert live.live[GRADIENTS] == 64 * FLOAT
        model.zero_grad()
        assert live.live[GRADIENTS] == 0


def test_what_autograd_keeps_counts_until_the_backward_pass() -> None:
    weight = torch.ones(16, requires_grad=True)
    with LiveBytes() as live:
        live.add([weight], WEIGHTS)
        # exp and sin each keep a result or an input of 16 numbers; the loss is one number.
        loss = weight.exp().sin().sum()
        assert live.live[ACTIVATIONS] == (16 + 1) * FLOAT
        loss.backward()
        assert live.live[ACTIVATIONS] == (1 + 16) * FLOAT  # the loss, and the gradient of a weight without a hook


def test_checkpointing_keeps_inputs_alone() -> None:
    def layer(values: Tensor) -> Tensor:
        return values.sin().exp().sin().exp()

    def kept(checkpointed: bool) -> int:
        values = torch.ones(1000, requires_grad=True)
        with LiveBytes() as live:
            live.add([values], WEIGHTS)
            result = checkpoint(layer, values, use_reentrant=False) if checkpointed else layer(values)
            assert result.shape == (1000,)
            return int(live.live[ACTIVATIONS])

    assert kept(checkpointed=True) < 1100 * FLOAT  # the result, and the state of the random numbers
    assert kept(checkpointed=False) == 2000 * FLOAT  # exp keeps its result, which is what sin keeps of its input


def test_casts_of_weights_and_logits_are_parts_of_their_own() -> None:
    linear = nn.Linear(8, 50, bias=False)
    with LiveBytes(vocabulary=50) as live:
        live.add_model(linear)
        values = torch.ones(3, 8)
        with torch.autocast("cpu", torch.bfloat16):
            logits = linear(values)
            assert live.live[COPIES] == 8 * 50 * 2
        assert live.live[LOGITS] == logits.numel() * 2
        # Of the cast input nothing is left but what autograd keeps.
        assert live.live[ACTIVATIONS] == 24 * FLOAT + 24 * 2


def test_allocations_are_rounded_up_to_blocks_and_a_workspace_raises_the_peak() -> None:
    with LiveBytes(block=512, workspace={"aten.mm": lambda left, right: 4096}) as live:
        left, right = torch.ones(2, 2), torch.ones(2, 2)
        assert live.total == 1024
        assert (left @ right).shape == (2, 2)
        assert live.peak == 1024 + 4096
        assert live.at_peak[COPIES] == 4096


def test_fake_tensors_count_as_real_ones_do() -> None:
    def step(live: LiveBytes) -> list[int]:
        model = nn.Sequential(nn.Linear(20, 30), nn.GELU(), nn.LayerNorm(30), nn.Linear(30, 7))
        live.add_model(model)
        loss = model(torch.ones(5, 20)).square().mean()
        kept = live.total
        loss.backward()
        return [kept, live.total, live.peak]

    with LiveBytes() as live:
        real = step(live)
    with FakeTensorMode(), LiveBytes() as live:
        fake = step(live)
    assert fake == real


def test_products_and_attention_count_their_operations() -> None:
    with FakeTensorMode(), FlopCount() as flops:
        torch.empty(3, 4) @ torch.empty(4, 5)
        assert flops.total == 2 * 3 * 4 * 5
        heads = torch.empty(2, 3, 16, 8, requires_grad=True)
        before = flops.total
        attended = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        assert flops.total - before == 2 * (2 * 2 * 3 * 16 * 16 * 8)
        before = flops.total
        attended.sum().backward()
        assert flops.total - before == 5 * (2 * 2 * 3 * 16 * 16 * 8)


# -- values of fake tensors ---------------------------------------------------------------------------------------


def test_what_follows_from_known_values_is_known() -> None:
    labels = torch.tensor([[1, -100, 3], [-100, -100, 2]])
    with FakeTensorMode() as fake, KnownValues(fake) as known:
        given = known.know(labels)
        mask = given[:, 1:] != -100
        hidden = torch.empty(2, 3, 8, requires_grad=True)
        chosen = hidden[:, 1:][mask]
        assert chosen.shape == (2, 8)
        chosen.sum().backward()  # the mask selects places in the backward pass too
        assert hidden.grad is not None and hidden.grad.shape == (2, 3, 8)
        assert int(mask.sum()) == 2
        assert bool((given == 3).any()) and not bool((given > 3).any())
        assert mask.nonzero().tolist() == [[0, 1], [1, 1]]
        assert given[mask.any(1)].shape == (2, 3)


def test_what_does_not_follow_from_known_values_is_not_read() -> None:
    with FakeTensorMode() as fake, KnownValues(fake) as known:
        with pytest.raises(RuntimeError, match="does not follow from the batch"):
            float(torch.empty(()))
        given = known.know(torch.tensor([1, 2]))
        given.add_(torch.empty(2, dtype=torch.int64))
        with pytest.raises(RuntimeError, match="does not follow from the batch"):
            int(given[0])
        with pytest.raises(RuntimeError, match="mask that does not follow"):
            torch.empty(3)[torch.empty(3) > 0]
