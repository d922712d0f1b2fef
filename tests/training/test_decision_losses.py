"""The losses of the two decisions: closed forms, any division into batches, weights from the data, refusals."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from prospect_hf.errors import DataError, UsageError
from prospect_hf.sessions import IGNORE
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.loss_arguments import LossArguments
from prospect_hf.training.losses import decision_weights, head_losses, label_counts, mean_losses

BALANCE = {
    "all dialogs train": {"speaking_0": 90, "speaking_1": 10, "dst_update_0": 396, "dst_update_1": 4},
    "wtag dialogs train": {"speaking_0": 90, "speaking_1": 10, "dst_update_0": 396, "dst_update_1": 4},
    "all dialogs test": {"speaking_0": 1, "speaking_1": 1, "dst_update_0": 1, "dst_update_1": 1},
}
LABELS = st.lists(st.sampled_from([0, 0, 1, IGNORE]), min_size=1, max_size=12)


def loss_of(**given: Any) -> LossArguments:
    args = LossArguments(**given)
    args.check_losses()
    return args


def batch_of(speaking: list[int], seed: int) -> tuple[SimpleNamespace, dict[str, torch.Tensor]]:
    """A batch of one clip whose two decisions have the same labels, and a model's output on it."""
    logits = 3 * torch.randn(1, len(speaking), 2, generator=torch.Generator().manual_seed(seed))

    class Output(SimpleNamespace):
        def __getitem__(self, name: str) -> torch.Tensor:
            return getattr(self, name)

    output = Output(
        speaking_logits=logits,
        dst_update_logits=-logits,
        dst_state_logits=torch.zeros(1, len(speaking), 1, 3),
        loss=torch.tensor(2.0),
    )
    labels = torch.tensor([speaking])
    batch = {"speaking_labels": labels, "dst_update_labels": labels, "labels": torch.tensor([[IGNORE, 5, 6]])}
    return output, {**batch, "dst_state_labels": torch.zeros(1, len(speaking), 1, dtype=torch.long)}


@settings(deadline=None, max_examples=25)
@given(labels=LABELS, seed=st.integers(0, 1000))
def test_balanced_is_the_average_of_the_means_of_both_classes(labels: list[int], seed: int) -> None:
    output, batch = batch_of(labels, seed)
    args = loss_of(decision_loss="balanced")
    means = mean_losses(head_losses(output, batch, args), label_counts(batch, args))
    speaking, update, states, response = means.tolist()
    for found, logits in ((speaking, output.speaking_logits), (update, output.dst_update_logits)):
        nll = -logits[0].double().log_softmax(-1)
        of_class = [[float(nll[i, c]) for i, label in enumerate(labels) if label == c] for c in (0, 1)]
        expected = sum(0.5 * sum(losses) / len(losses) for losses in of_class if losses)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert states == pytest.approx(math.log(3)) and response == 2.0


@settings(deadline=None, max_examples=20)
@given(
    parts=st.lists(LABELS, min_size=1, max_size=5),
    loss=st.sampled_from(["focal", "balanced", "cross_entropy"]),
    seed=st.integers(0, 1000),
)
def test_a_window_is_one_batch_however_it_is_divided(parts: list[list[int]], loss: str, seed: int) -> None:
    """Sums and counts add up, so micro-batches and processes give the loss of all their clips in one batch."""
    args = loss_of(decision_loss=loss)
    pieces = [batch_of(part, seed + number) for number, part in enumerate(parts)]
    sums = sum(head_losses(*piece, args) for piece in pieces)
    counts = sum(label_counts(batch, args) for _, batch in pieces)
    whole, batch = batch_of([label for part in parts for label in part], seed)
    for name in ("speaking_logits", "dst_update_logits"):
        setattr(whole, name, torch.cat([getattr(output, name) for output, _ in pieces], 1))
    together = mean_losses(head_losses(whole, batch, args), label_counts(batch, args))
    assert isinstance(sums, torch.Tensor) and isinstance(counts, torch.Tensor)
    torch.testing.assert_close(mean_losses(sums, counts)[:2], together[:2], rtol=1e-5, atol=1e-6)


def test_cross_entropy_and_weights_are_torchs() -> None:
    output, batch = batch_of([0, 1, 0, 0, IGNORE, 1, 0], 4)
    kept = batch["speaking_labels"][0] != IGNORE
    logits, labels = output.speaking_logits[0][kept], batch["speaking_labels"][0][kept]
    args = loss_of(decision_loss="cross_entropy", class_weights=[0.5, 8.0])
    found = mean_losses(head_losses(output, batch, args, decision_weights(args, None)), label_counts(batch, args))
    weighted = F.cross_entropy(logits, labels, torch.tensor([0.5, 8.0]), reduction="sum") / len(labels)
    assert float(found[0]) == pytest.approx(float(weighted), rel=1e-5)
    plain = loss_of(decision_loss="cross_entropy")
    found = mean_losses(head_losses(output, batch, plain), label_counts(batch, plain))
    assert float(found[0]) == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)


def test_weights_from_the_data_make_the_mean_over_the_split_balanced() -> None:
    args = loss_of(decision_loss="cross_entropy", class_weights="data")
    weights = decision_weights(args, BALANCE)
    assert weights == {"speaking": (100 / 180, 5.0), "dst_update": (400 / 792, 50.0)}
    output, batch = batch_of([0] * 90 + [1] * 10, 1)
    weighted = mean_losses(head_losses(output, batch, args, weights), label_counts(batch, args))
    balanced = loss_of(decision_loss="balanced")
    expected = mean_losses(head_losses(output, batch, balanced), label_counts(batch, balanced))
    assert float(weighted[0]) == pytest.approx(float(expected[0]), rel=1e-5)


def test_weights_of_other_balances() -> None:
    args = loss_of(decision_loss="focal", class_weights="data")
    two_forms = {**BALANCE, "all prepared train": BALANCE["all dialogs train"]}
    assert decision_weights(args, two_forms) == decision_weights(args, BALANCE)
    unlabelled = {"all dialogs train": {**BALANCE["all dialogs train"], "dst_update_0": 0, "dst_update_1": 0}}
    found = decision_weights(args, unlabelled)
    assert found is not None and found["dst_update"] == (1.0, 1.0)
    silent = {"all dialogs train": {**BALANCE["all dialogs train"], "speaking_1": 0}}
    with pytest.raises(DataError, match="90 negative and 0 positive labels of speaking, and a weight needs both"):
        decision_weights(args, silent)
    with pytest.raises(DataError, match="no label balance"):
        decision_weights(args, None)
    assert decision_weights(loss_of(), BALANCE) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"decision_loss": "dice"}, "decision_loss must be one of balanced, focal, cross_entropy, not 'dice'"),
        ({"decision_loss": "focal", "focal_gamma": math.inf}, "focal_gamma must be 0 or more and finite, not inf"),
        ({"focal_gamma": 2.0}, "focal_gamma=2 has no effect with .*balanced"),
        ({"decision_loss": "cross_entropy", "focal_gamma": 0.0}, "focal_gamma=0 has no effect with .*cross_entropy"),
        ({"class_weights": "data"}, "class_weights has no effect with .*balanced"),
        ({"class_weights": [1.0, 2.0]}, "class_weights has no effect with .*balanced"),
        (
            {"decision_loss": "focal", "class_weights": "auto"},
            "class_weights must be data or two .* not 'auto'",
        ),
        ({"decision_loss": "focal", "class_weights": [1.0, 2.0, 3.0]}, "class_weights must be data or two weights"),
        ({"decision_loss": "focal", "class_weights": [1.0, -2.0]}, "class_weights must be data or two weights"),
        ({"decision_loss": "focal", "class_weights": [0.0, 0.0]}, "class_weights must be .* not both 0"),
        ({"decision_loss": "focal", "class_weights": [1.0, math.inf]}, "class_weights must be data or two weights"),
        ({"decision_loss": "focal", "class_weights": [math.nan, 1.0]}, "class_weights must be data or two weights"),
    ],
)
def test_what_a_loss_does_not_use_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^training.{message}"):
        loss_of(**given)


def test_the_record_holds_the_gamma_that_is_used(tmp_path: Any) -> None:
    """The default written out is the same run; the first stage has no weights of whole sessions."""
    common = {"output_dir": str(tmp_path), "use_cpu": True, "max_steps": 1, "look_steps": 1}
    assert DSTTrainingArguments(**common).given["focal_gamma"] is None
    stage = DSTTrainingArguments(**common).for_first_stage()  # balanced decisions would drown the states there
    assert (stage.decision_loss, stage.focal_gamma) == ("focal", 2.0)
    plain = DSTTrainingArguments(**common, decision_loss="cross_entropy").for_first_stage()
    assert (plain.decision_loss, plain.focal_gamma) == ("cross_entropy", None)
    common["decision_loss"] = "focal"
    assert DSTTrainingArguments(**common).given["focal_gamma"] == 2.0
    assert DSTTrainingArguments(**common, focal_gamma=2.0).given == DSTTrainingArguments(**common).given
    assert DSTTrainingArguments(**common, class_weights="data").for_first_stage().class_weights is None
    assert DSTTrainingArguments(**common, class_weights=[1.0, 3.0]).for_first_stage().class_weights == [1.0, 3.0]
