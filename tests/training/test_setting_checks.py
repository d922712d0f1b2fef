"""Settings of model, data and training that contradict each other are refused before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prospect_hf.data.arguments import DataArguments
from prospect_hf.errors import UsageError
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.setting_checks import check_settings

HEADS = {"mode": "heads", "response_loss_weight": 0.0}


@pytest.mark.parametrize(
    ("model", "data", "training", "message"),
    [
        ({"decision_source": "lm"}, {}, HEADS, "mode=heads .*decision_source=lm decides without them"),
        ({"freeze_vision": True}, {}, {"look_steps": 2}, "freeze_vision forbids it"),
        ({"max_positions": 100}, {"max_seq_len": 101}, {}, "more than the 100 positions"),
        ({}, {"features": "folder"}, {}, "a vision tower that does not change"),
        ({}, {"features": "folder"}, {**HEADS, "train_connector": True}, "a connector that does not change"),
        ({}, {"rows": "folder", "streaming": True}, {}, "a stream has no end"),
    ],
    ids=["no decider", "frozen eyes", "too long", "features of a changing tower", "of a connector", "endless"],
)
def test_a_contradiction_is_named(
    model: dict[str, Any], data: dict[str, Any], training: dict[str, Any], message: str, tmp_path: Path
) -> None:
    args = DSTTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **training)
    with pytest.raises(UsageError, match=message):
        check_settings(ModelArguments(**model), DataArguments(root="folder", **data), args)


def test_settings_that_go_together_are_accepted(tmp_path: Path) -> None:
    args = DSTTrainingArguments(output_dir=str(tmp_path), use_cpu=True, max_steps=3)
    check_settings(ModelArguments(max_positions=2048), DataArguments(root="folder", max_seq_len=2048), args)
    streamed = DataArguments(root="folder", rows="folder", streaming=True)
    check_settings(ModelArguments(freeze_vision=True), streamed, args)
