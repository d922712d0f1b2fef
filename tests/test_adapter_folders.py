"""A folder of adapters is opened on the very base it was trained on, or refused in one sentence; nothing in it runs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_fixtures import answers, build, mode_arguments, trained, write_base
from hostile_fixtures import change_json, poison, write_bomb
from model_fixtures import small_processor, small_shape
from safetensors.torch import load_file, save_file

from configuration_dst_smolvlm import NF4, DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.checkpoints import load_trained
from prospect_hf.errors import UsageError
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.build import build_model, build_processor, load_whole
from prospect_hf.training.tiny import tiny_model

ADAPTERS = "adapter/adapter_model.safetensors"
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``base`` and, trained on it, ``lora``."""
    root = tmp_path_factory.mktemp("made")
    trained("lora", write_base(root / "base"), root / "lora", max_steps=1)
    return root


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of ``made``."""
    return Path(shutil.copytree(made, tmp_path / "models"))


def refused(place: Path, message: str, **options: Any) -> None:
    with pytest.raises(UsageError, match=message) as error:
        load_trained(place / "lora", **options)
    assert "\n" not in str(error.value) and str(place) in str(error.value) and len(str(error.value)) < 900


# -- the base -------------------------------------------------------------------------------------------------------


def moved(place: Path) -> None:
    (place / "base").rename(place / "elsewhere")


def other_weights(place: Path) -> None:
    weights = load_file(place / "base" / "model.safetensors")
    weights["model.text_model.norm.weight"][0] += 1e-3
    save_file(weights, place / "base" / "model.safetensors", {"format": "pt"})


def other_size(place: Path) -> None:
    shape = small_shape(text_layers=2)
    shape.hidden_size = 64
    tiny_model(small_processor(), shape).save_pretrained(place / "base")


def fewer_layers(place: Path) -> None:
    shutil.rmtree(place / "base")
    tiny_model(small_processor(), small_shape(text_layers=1)).save_pretrained(place / "base")


def a_pickle(place: Path) -> None:
    (place / "base" / "model.safetensors").unlink()
    write_bomb(place / "base" / "pytorch_model.bin", place / "ran")


def adapters_as_base(place: Path) -> None:
    shutil.copytree(place / "lora", place / "other")
    shutil.rmtree(place / "base")
    (place / "other").rename(place / "base")


def foreign_adapter_as_base(place: Path) -> None:
    (place / "base" / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "/nowhere"}')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (moved, r"its base model \.\./base is not there .*: put it there, or give base_model=FOLDER"),
        (other_weights, r"holds adapters for other weights than those in .*base \(their SHA-256 differs\)"),
        (other_size, r"the weights in .*base and its config.json are not of one model: .* another shape"),
        (fewer_layers, r"SHA-256 differs"),
        (a_pickle, r"base has no model\.safetensors, the only weights"),
        (adapters_as_base, r"its base model .* holds adapters itself"),
        (foreign_adapter_as_base, r"its base model .* holds adapters itself \(adapter_config.json\)"),
    ],
)
def test_another_base_is_refused(place: Path, change: Callable[[Path], None], message: str) -> None:
    load_trained(place / "lora")
    change(place)
    refused(place, message)
    assert not (place / "ran").exists()


def test_a_base_that_lies_elsewhere_can_be_named(place: Path) -> None:
    wanted = answers(load_trained(place / "lora")[0])
    moved(place)
    elsewhere = place / "elsewhere"
    for model in (
        load_trained(place / "lora", str(elsewhere))[0],
        DSTSmolVLMForConditionalGeneration.from_pretrained(place / "lora", base_model=elsewhere),
    ):
        assert all(torch.equal(wanted[name], value) for name, value in answers(model).items())
    for given, told in (
        (place / "nowhere", "nowhere is not there"),
        (elsewhere / "config.json", "config.json is a file: give its folder"),
        ("", "its base model has an empty name"),
    ):
        refused(place, told, base_model=str(given))
    with pytest.raises(UsageError, match="owner/nowhere cannot be loaded"):
        load_trained(place / "lora", "owner/nowhere")
    with pytest.raises(UsageError, match="holds a whole model and has no base model"):
        load_trained(elsewhere, str(elsewhere))
    with pytest.raises(ValueError, match="holds a whole model: give no base_model"):
        DSTSmolVLMForConditionalGeneration.from_pretrained(elsewhere, base_model=elsewhere)


def test_a_base_of_the_hub_keeps_its_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read from a local copy, whose place must not get into what is saved."""
    config = DSTSmolVLMConfig.from_pretrained(place / "lora")
    change_json(place / "lora" / "config.json", adapter={**config.adapter, "base_model": "owner/base"})
    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        return str(place / "base")

    monkeypatch.setattr("prospect_hf.checkpoints.snapshot_download", download)
    model, _ = load_trained(place / "lora")
    model.save_pretrained(place / "again")
    assert asked == ["owner/base"]
    assert DSTSmolVLMConfig.from_pretrained(place / "again").adapter["base_model"] == "owner/base"
    arguments = ModelArguments(name_or_path="owner/base")
    monkeypatch.setattr("prospect_hf.training.build.base_folder", lambda name: place / "base")
    built = build_model(arguments, small_processor(), mode_arguments("lora", place / "out"))
    assert built.config.adapter["base_model"] == "owner/base" == built.config.name_or_path


def test_adapters_are_not_pushed_by_saving(place: Path) -> None:
    with pytest.raises(ValueError, match="upload their folder"):
        load_trained(place / "lora")[0].save_pretrained(place / "again", push_to_hub=True)


def test_a_stock_base_gets_the_trained_heads(place: Path) -> None:
    """Its file has none, and its fresh ones are drawn at random."""
    weights = load_file(place / "base" / "model.safetensors")
    heads = [name for name in weights if name.startswith(("speaking", "dst"))]
    save_file({n: w for n, w in weights.items() if n not in heads}, place / "base" / "model.safetensors")
    change_json(place / "base" / "config.json", model_type="smolvlm")
    trained("heads", place / "base", place / "heads", max_steps=1)
    models = [load_trained(place / "heads")[0] for _ in range(2)]
    first, second = (answers(model) for model in models)
    assert len(heads) == 14 and all(torch.equal(first[name], second[name]) for name in first)


# -- the adapters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "dora"}, "adapter.mode in config.json is not what this package writes: 'dora'"),
        ({"rank": 10**9}, r"lora_A.weight is \[4, 32\] and by config.json \[1000000000, 32\]"),
        ({"rank": 0}, "adapter.rank in config.json is not what this package writes: 0"),
        ({"rank": "4"}, "adapter.rank in config.json is not what this package writes: '4'"),
        ({"alpha": float("nan")}, "adapter.alpha in config.json is not what this package writes: nan"),
        ({"targets": "(a+)+$"}, "adapter.targets in config.json is not what this package writes:"),
        ({"modules": ["lm_head"]}, "adapter.modules in config.json is not what this package writes:"),
        ({"dtype": "int8"}, "adapter.dtype in config.json is not what this package writes: 'int8'"),
        ({"base_model": 3}, "adapter.base_model in config.json is not what this package writes: 3"),
        ({"base_model": "/etc"}, "it names its base model by a path of another"),
        (
            {"base_model": "http://x/y"},
            "adapter.base_model in config.json is not what this package writes: 'http://x/y'",
        ),
        ({"base_model": "owner/../base"}, "adapter.base_model in config.json is not what this package writes:"),
        ({"base_model": "a" * 5000}, "adapter.base_model in config.json is not what this package writes:"),
        ({"base_model": "x\ny"}, "adapter.base_model in config.json is not what this package writes:"),
        ({"base_model": "../base/model.safetensors"}, "its base model ../base/model.safetensors is a file"),
        ({"base_sha256": "0"}, "adapter.base_sha256 in config.json is not what this package writes: '0'"),
        ({"quantization": {"type": "fp4"}}, "adapter.quantization in config.json is not what this package writes:"),
        ({"other": 1}, "adapter.other in config.json is not what this package writes: 1"),
    ],
)
def test_a_description_that_this_package_does_not_write_is_refused(
    place: Path, changes: dict[str, Any], message: str
) -> None:
    config = DSTSmolVLMConfig.from_pretrained(place / "lora")
    change_json(place / "lora" / "config.json", adapter={**config.adapter, **changes})
    refused(place, message)


@pytest.mark.parametrize("value", [[], [1], "lora", 3, True, {}])
def test_a_description_of_another_kind_is_refused(place: Path, value: object) -> None:
    change_json(place / "lora" / "config.json", adapter=value)
    refused(place, r"adapter(\.mode)? in config.json is not what this package writes")


def test_weights_that_are_to_be_quantised_in_another_way_are_refused(place: Path) -> None:
    """transformers would load the base so, whatever the adapters were trained on."""
    for name in ("base", "lora"):
        change_json(place / name / "config.json", quantization_config={"load_in_8bit": True})
    refused(place, "config.json has quantization_config")
    with pytest.raises(ValueError, match=r"config\.json has quantization_config"):
        DSTSmolVLMForConditionalGeneration.from_pretrained(place / "lora")
    with pytest.raises(UsageError, match=r"config\.json has quantization_config"):
        load_trained(place / "base")


def without_one(weights: Weights) -> None:
    del weights["base_model.model.dst_update_head.bias"]


def one_more(weights: Weights) -> None:
    weights["base_model.model.lm_head.weight"] = torch.zeros(2, 2)


def another_shape(weights: Weights) -> None:
    weights["base_model.model.dst_update_head.bias"] = torch.zeros(5)


def whole_numbers(weights: Weights) -> None:
    weights["base_model.model.dst_update_head.bias"] = torch.zeros(2, dtype=torch.int8)


def not_finite(weights: Weights) -> None:
    weights["base_model.model.dst_update_head.bias"] = torch.tensor([0.0, float("nan")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_one, "lacks base_model.model.dst_update_head.bias"),
        (one_more, "has unknown base_model.model.lm_head.weight"),
        (another_shape, r"dst_update_head.bias is \[5\] and by config.json \[2\]"),
        (whole_numbers, "dst_update_head.bias in adapter_model.safetensors holds I8"),
        (not_finite, "values that are not finite, the first of them dst_update_head.bias"),
    ],
)
def test_other_adapters_are_refused(place: Path, change: Callable[[Weights], None], message: str) -> None:
    weights = load_file(place / "lora" / ADAPTERS)
    change(weights)
    save_file(weights, place / "lora" / ADAPTERS)
    refused(place, message)


def test_missing_or_damaged_adapters_are_refused(place: Path) -> None:
    path = place / "lora" / ADAPTERS
    path.write_bytes(path.read_bytes()[:100])
    refused(place, "cannot be loaded")
    path.unlink()
    refused(place, "cannot be loaded")
    path.mkdir()
    refused(place, r"cannot be loaded: .*adapter_model\.safetensors is a folder")
    path.rmdir()
    write_bomb(path.with_name("adapter_model.bin"), place / "ran")
    refused(place, "cannot be loaded")
    assert not (place / "ran").exists()


def test_no_code_of_the_folder_or_its_base_runs(place: Path, tmp_path: Path) -> None:
    marker = tmp_path / "it ran"
    for name in ("base", "lora"):
        poison(place / name, marker)
    model, _ = load_trained(place / "lora")
    assert type(model) is DSTSmolVLMForConditionalGeneration and not marker.exists()


def test_a_missing_package_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    refused(place, "LoRA layers need the package peft: pip install peft")


def test_a_base_in_4_bits_needs_a_package(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DSTSmolVLMConfig.from_pretrained(place / "lora")
    quantization = {**NF4, "compute_dtype": "float32"}
    change_json(
        place / "lora" / "config.json", adapter={**config.adapter, "mode": "qlora", "quantization": quantization}
    )
    load_trained(place / "lora")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    refused(place, "a base in 4 bits needs the package bitsandbytes: pip install bitsandbytes")


# -- where a whole model is wanted ----------------------------------------------------------------------------------


def test_training_takes_no_folder_of_adapters_for_a_whole_model(place: Path) -> None:
    arguments = ModelArguments(name_or_path=str(place / "lora"))
    message = r"lora holds adapters and no whole model: make one of them, prospect merge .*lora FOLDER"
    for load in (
        lambda: build_processor(arguments, []),
        lambda: load_whole(arguments),
        lambda: build(place / "lora", mode_arguments("full", place / "out")),
        lambda: build(place / "lora", mode_arguments("lora", place / "out")),
    ):
        with pytest.raises(UsageError, match=message):
            load()


def test_the_small_new_model_has_no_base(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"training\.mode=lora trains adapters of a checkpoint, and the small"):
        build_model(ModelArguments(), small_processor(), mode_arguments("lora", tmp_path))


def test_a_run_does_not_go_on_on_another_base(place: Path) -> None:
    args = mode_arguments("lora", place / "out")
    arguments = ModelArguments(name_or_path=str(place / "base"))
    build_model(arguments, small_processor(), args, place / "lora")
    other_weights(place)
    with pytest.raises(UsageError, match="holds adapters for other weights"):
        build_model(arguments, small_processor(), args, place / "lora")
