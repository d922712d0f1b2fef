"""What a run writes: JSON without NaN or infinity, in ``results.json`` and in the card alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from context_dst_smolvlm import Context
from prospect_hf.data.arguments import DataArguments
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.results import finite_or_null, write_results


def test_numbers_that_are_not_finite_become_null() -> None:
    value = {"a": float("nan"), "b": [1, float("inf"), {"c": -np.inf}], "d": (0.5, None, "nan"), "e": np.float64("nan")}
    assert finite_or_null(value) == {"a": None, "b": [1, None, {"c": None}], "d": [0.5, None, "nan"], "e": None}


def test_results_are_strict_json(tmp_path: Path) -> None:
    settings = {"max_grad_norm": float("inf"), "hub_token": "hf_secret"}
    args = DSTTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **settings)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    results = {"steps": 1, "train_seconds": 1.0, "validation": {"eval_loss": float("nan")}}
    write_results(tmp_path, ModelArguments(), DataArguments(root="x"), args, Context(), results, {})
    text = (tmp_path / "results.json").read_text()
    facts = json.loads(text, parse_constant=pytest.fail)
    assert facts["results"]["validation"] == {"eval_loss": None} and facts["settings"]["data"]["root"].endswith("/x")
    assert facts["settings"]["training"]["max_grad_norm"] is None
    assert "hf_secret" not in text + (tmp_path / "README.md").read_text()
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_results(tmp_path, ModelArguments(), DataArguments(root="x"), args, Context(), {"x": Path()}, {})
    assert (tmp_path / "results.json").read_text() == text
