"""A trained folder is opened whole or refused: no weight is drawn at random in place of one that is missing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_fixtures import small_processor
from safetensors.torch import load_file, save_file
from stream_fixtures import talkative_model

from prospect_hf.checkpoints import load_trained
from prospect_hf.errors import UsageError
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.build import build_processor, load_whole

Weights = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A trained folder, as far as files go."""
    talkative_model().save_pretrained(tmp_path)
    small_processor().save_pretrained(tmp_path)
    return tmp_path


def change(folder: Path, change_weights: Callable[[Weights], object]) -> None:
    """Rewrite the folder's weights."""
    weights = load_file(folder / "model.safetensors")
    change_weights(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def drop(part: str) -> Callable[[Weights], None]:
    def drop_part(weights: Weights) -> None:
        for name in [name for name in weights if part in name]:
            del weights[name]

    return drop_part


def spoil(value: float) -> Callable[[Weights], None]:
    def spoil_one(weights: Weights) -> None:
        weights["dst_state_head.weight"][0, 0] = value

    return spoil_one


FAULTS = {
    "a head": (drop("speaking_decision_head"), "lacks 2 tensors, .* speaking_decision_head.bias"),
    "a layer": (drop("text_model.layers.0."), "lacks 9 tensors, .*text_model.layers.0"),
    "the vision tower": (drop("vision_model"), "lacks .* tensors, .*vision_model"),
    "unknown": (lambda weights: weights.update(other=torch.zeros(2)), "has unknown 1 tensors, .* other"),
    "nan": (spoil(float("nan")), "1 tensors with values that are not finite, .* dst_state_head.weight"),
    "infinite": (spoil(float("inf")), "not finite"),
    "another shape": (lambda weights: weights.update({"dst_state_head.weight": torch.zeros(3, 5)}), "cannot be loaded"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_folder_is_refused_with_the_tensors_names(folder: Path, fault: str) -> None:
    load_trained(folder)
    change_weights, message = FAULTS[fault]
    change(folder, change_weights)
    with pytest.raises(UsageError, match=message) as refused:
        load_trained(folder)
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)


def test_training_goes_on_from_no_folder_without_its_heads(folder: Path) -> None:
    arguments = ModelArguments(name_or_path=str(folder))
    load_whole(arguments)
    change(folder, drop("dst_update_head"))
    with pytest.raises(UsageError, match=r"is not a complete DST-SmolVLM2 checkpoint: 2 tensors .*dst_update_head"):
        load_whole(arguments)


def test_training_starts_from_no_weight_that_is_not_finite(folder: Path) -> None:
    change(folder, spoil(float("nan")))
    with pytest.raises(UsageError, match="not finite"):
        load_whole(ModelArguments(name_or_path=str(folder)))


def change_json(path: Path, changes: dict[str, Any]) -> None:
    """Set ``part.key`` of a JSON file."""
    values = json.loads(path.read_text())
    for place, value in changes.items():
        *outer, last = place.split(".")
        inner = values
        for part in outer:
            inner = inner[part]
        inner[last] = value
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_config.num_hidden_layers": 10**7}, "10000001 layers, but"),
        ({"text_config.num_attention_heads": 0}, "text_config.num_attention_heads=0; it must be a whole number"),
        ({"vision_config.num_attention_heads": -2}, "vision_config.num_attention_heads=-2; it must"),
        (
            {"text_config.vocab_size": 10**8},
            r"another shape, the first of them .*\[340, 32\] in the file and \[100000000",
        ),
        ({"vision_config.image_size": 48}, "another shape, the first of them .*position_embedding"),
        ({"scale_factor": 0}, "scale_factor must be a whole number"),
        ({"fps": float("inf")}, "fps must be positive"),
        ({"image_token_id": ["x"]}, "cannot be loaded"),
        ({"image_token_id": 7}, "its tokenizer is not its model's"),
    ],
)
def test_sizes_that_are_not_the_weights_are_refused_at_once(folder: Path, changes: Any, message: str) -> None:
    change_json(folder / "config.json", changes)
    began = time.monotonic()
    with pytest.raises(UsageError, match=message):
        load_trained(folder)
    assert time.monotonic() - began < 20  # building ten million layers takes hours
    with pytest.raises(UsageError):
        arguments = ModelArguments(name_or_path=str(folder))
        build_processor(arguments, [])
        load_whole(arguments)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tokenizer.json", {"decoder": 3}),  # tokenizers raises a bare Exception
        ("tokenizer_config.json", {"bos_token": 3}),
        ("processor_config.json", {"image_processor.max_image_size": {"longest_edge": 10**7}}),
        ("processor_config.json", {"image_processor.image_mean": [1e308] * 3}),
        ("processor_config.json", {"image_processor": []}),
    ],
)
def test_whatever_a_library_raises_is_one_sentence(folder: Path, name: str, changes: Any) -> None:
    change_json(folder / name, changes)
    with pytest.raises(UsageError, match="cannot be loaded") as refused:
        load_trained(folder)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 900


def test_weights_of_whole_numbers_are_refused(folder: Path) -> None:
    change(folder, lambda weights: weights.update({"dst_state_head.bias": torch.zeros(3, dtype=torch.int8)}))
    with pytest.raises(UsageError, match=r"dst_state_head.bias in model.safetensors holds I8"):
        load_trained(folder)
