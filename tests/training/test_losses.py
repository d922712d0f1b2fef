"""The losses against their closed form, independent packages, and the inputs that break other focal losses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prospect_hf.errors import DataError, UsageError
from prospect_hf.training.losses import Reduction, focal_loss, masked_cross_entropy

GAMMAS = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)


def batch(seed: int, shape: tuple[int, ...] = (64,), classes: int = 3, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(*shape, classes, generator=generator)
    return logits, torch.randint(classes, shape, generator=generator)


def closed_form(logits: Tensor, targets: Tensor, gamma: float, alpha: Tensor | None = None) -> Tensor:
    """The formula of the paper, letter by letter, in float64; for targets without ignored places."""
    p = logits.double().softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    losses = -((1 - p) ** gamma) * p.log()
    return losses if alpha is None else losses * alpha.double()[targets]


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_focal_equals_closed_form(gamma: float, classes: int) -> None:
    logits, targets = batch(seed=classes, shape=(4, 50), classes=classes)
    alpha = torch.linspace(0.25, 2.0, classes)
    losses = focal_loss(logits, targets, gamma, alpha, reduction="none")
    exact = closed_form(logits, targets, gamma, alpha)
    assert losses.dtype == torch.float32
    # The absolute part is for losses that no sum of this batch can feel.
    torch.testing.assert_close(losses.double(), exact, rtol=1e-6, atol=1e-9)
    mean = focal_loss(logits, targets, gamma, alpha.tolist()).double()
    torch.testing.assert_close(mean, exact.mean(), rtol=1e-6, atol=0)


def test_focal_keeps_digits_where_probability_rounds_to_one() -> None:
    margin = torch.tensor([18.0, 25.0, 40.0])
    logits = torch.stack([torch.zeros(3), margin], dim=-1)
    losses = focal_loss(logits, torch.ones(3, dtype=torch.long), gamma=1.0, reduction="none").double()
    odds = (-margin.double()).exp()  # 1 - p and -log(p) are both odds to first order
    torch.testing.assert_close(losses, odds * odds, rtol=1e-5, atol=0)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradcheck(gamma: float) -> None:
    logits, targets = batch(seed=1, shape=(3, 4))
    targets[0, 1] = -100
    leaf = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, targets, gamma, [0.5, 1.0, 2.0]), (leaf,))
    assert torch.autograd.gradcheck(lambda x: masked_cross_entropy(x, targets), (leaf,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gamma", [*GAMMAS, 1e-3, 20.0])
def test_saturated_logits_have_finite_gradients(gamma: float, dtype: torch.dtype) -> None:
    rows = [[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0], [200.0, 0.0], [0.0, 200.0], [90.0, 0.0], [0.0, 17.0]]
    leaf = torch.tensor(rows, dtype=dtype).repeat(2, 1).requires_grad_()
    targets = torch.tensor([0] * len(rows) + [1] * len(rows))
    losses = focal_loss(leaf, targets, gamma, reduction="none")
    losses.sum().backward()
    assert torch.isfinite(losses).all() and (losses >= 0).all()
    assert leaf.grad is not None and torch.isfinite(leaf.grad).all()
    # A hopelessly wrong sample is not clipped: it costs its margin and keeps its full gradient.
    wrong, right = 1, 0
    assert losses[wrong].item() == pytest.approx(2e4, rel=1e-2)
    assert leaf.grad[wrong].tolist() == pytest.approx([-1.0, 1.0], rel=1e-2)
    assert losses[right].item() == 0.0


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.0])
def test_focal_agrees_with_independent_packages(gamma: float) -> None:
    imbalanced = pytest.importorskip("imbalanced_losses.focal_loss", reason="imbalanced-losses is not installed")
    torch_focalloss = pytest.importorskip("torch_focalloss", reason="pytorch-focalloss is not installed")
    logits, targets = batch(seed=2, shape=(200,), classes=4)
    targets[::5] = -100
    alpha = torch.tensor([0.25, 0.5, 1.0, 2.0])
    leaf = logits.clone().requires_grad_()
    kept = targets != -100  # the second package fails on an ignored target
    peers = (
        imbalanced.SoftmaxFocalLoss(alpha=alpha, gamma=gamma, reduction="sum")(leaf, targets),
        torch_focalloss.MultiClassFocalLoss(gamma=gamma, alpha=alpha, reduction="sum")(leaf[kept], targets[kept]),
    )
    ours = focal_loss(leaf, targets, gamma, alpha, reduction="sum")
    (gradient,) = torch.autograd.grad(ours, leaf)
    for peer in peers:
        torch.testing.assert_close(ours, peer, rtol=1e-5, atol=0)
        torch.testing.assert_close(gradient, torch.autograd.grad(peer, leaf)[0], rtol=1e-4, atol=1e-6)


def test_focal_agrees_with_tensorflow_package() -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed (extra focal-loss-tf)")
    package = pytest.importorskip("focal_loss", reason="focal-loss is not installed (extra focal-loss-tf)")
    if "sparse_categorical_focal_loss" not in vars(package):
        pytest.skip("the installed focal_loss module belongs to focal-loss-torch, which overwrote focal-loss")
    logits, targets = batch(seed=3)
    theirs = package.sparse_categorical_focal_loss(targets.numpy(), logits.numpy(), gamma=2.0, from_logits=True)
    ours = focal_loss(logits, targets, 2.0, reduction="none")
    torch.testing.assert_close(ours, torch.from_numpy(theirs.numpy()), rtol=1e-4, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple),
    classes=st.integers(2, 6),
    ignored=st.floats(0, 1),
    gamma=st.sampled_from(GAMMAS),
    seed=st.integers(0, 10_000),
    ignore_index=st.sampled_from([-100, -1]),
)
def test_any_shape_and_any_share_of_ignored(
    shape: tuple[int, ...], classes: int, ignored: float, gamma: float, seed: int, ignore_index: int
) -> None:
    logits, targets = batch(seed, shape, classes)
    labelled = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) >= ignored
    targets = targets.masked_fill(~labelled, ignore_index)
    # Nothing at an ignored place may leak out.
    logits = logits.masked_fill(~labelled.unsqueeze(-1), 1e30).requires_grad_()
    count = int(labelled.sum())

    def both(reduction: Reduction) -> tuple[Tensor, Tensor]:
        return (
            focal_loss(logits, targets, gamma, None, ignore_index, reduction),
            masked_cross_entropy(logits, targets, ignore_index, reduction),
        )

    for each, total, mean in zip(both("none"), both("sum"), both("mean"), strict=True):
        assert each.shape == targets.shape
        assert (each[~labelled] == 0).all()
        torch.testing.assert_close(each.sum(), total)
        torch.testing.assert_close(mean * max(count, 1), total)
        (gradient,) = torch.autograd.grad(mean, logits)
        assert torch.isfinite(gradient).all() and (gradient[~labelled] == 0).all()
        assert count == 0 or bool((gradient != 0).any())
    if count:
        expected = F.cross_entropy(logits[labelled], targets[labelled])
        torch.testing.assert_close(masked_cross_entropy(logits, targets, ignore_index), expected)
        torch.testing.assert_close(focal_loss(logits, targets, 0.0, None, ignore_index), expected)


def test_half_precision_is_computed_in_float32() -> None:
    logits, targets = batch(seed=4)
    half = logits.bfloat16()
    for loss, exact in (
        (focal_loss(half, targets, 2.0), closed_form(half, targets, 2.0).mean()),
        (masked_cross_entropy(half, targets), closed_form(half, targets, 0.0).mean()),
    ):
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)


def test_focal_takes_logits_and_not_probabilities() -> None:
    logits, targets = batch(seed=5)
    assert not torch.isclose(focal_loss(logits, targets, 2.0), focal_loss(logits.softmax(-1), targets, 2.0), rtol=1e-2)
    torch.testing.assert_close(focal_loss(logits, targets, 2.0), focal_loss(logits + 7.0, targets, 2.0))


def test_sums_over_micro_batches_add_up() -> None:
    logits, targets = batch(seed=6, shape=(8, 10))
    whole = focal_loss(logits, targets, 2.0, reduction="sum")
    parts = [focal_loss(x, y, 2.0, reduction="sum") for x, y in zip(logits, targets, strict=True)]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


def test_wrong_arguments_are_named() -> None:
    logits, targets = batch(seed=7)
    for gamma in (-0.1, math.nan, math.inf):
        with pytest.raises(UsageError, match="gamma"):
            focal_loss(logits, targets, gamma)
    with pytest.raises(UsageError, match="alpha"):
        focal_loss(logits, targets, 2.0, [1.0, 1.0])
    with pytest.raises(UsageError, match="reduction"):
        focal_loss(logits, targets, 2.0, reduction="average")  # type: ignore[arg-type]
    for loss in (lambda x, y: focal_loss(x, y, 2.0), masked_cross_entropy):
        for wrong in (3, -1):
            with pytest.raises(DataError, match=f"Target {wrong} is no class"):
                loss(logits, targets.index_fill(0, torch.tensor(5), wrong))
        with pytest.raises(DataError, match="do not fit"):
            loss(logits, targets[:-1])
        with pytest.raises(DataError, match="two or more"):
            loss(logits[:, :1], targets)
    assert issubclass(UsageError, ValueError) and issubclass(DataError, ValueError)
