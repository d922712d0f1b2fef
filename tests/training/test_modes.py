"""The training modes: what is trained moves and nothing else does; saved, loaded and merged models answer alike."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_fixtures import (
    ADAPTER_MODES,
    ALL_MODES,
    answers,
    build,
    clip_batch,
    mode_arguments,
    trained,
    trainer_of,
    write_base,
)
from model_fixtures import largest_difference
from safetensors.torch import load_file

from adapters_dst_smolvlm import merge
from prospect_hf.checkpoints import load_trained
from prospect_hf.training.trainer import DSTTrainer

HEAD = r"(speaking_decision_head|dst_\w+)\.(weight|bias)"
LORA = r"model\.text_model\.layers\.\d\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)\.lora_[AB]\.default\.weight"
TRAINED = {
    "full": rf"{HEAD}|model\.text_model\..*|lm_head.weight",
    "lora": rf"{HEAD}|{LORA}",
    "qlora": rf"{HEAD}|{LORA}",
    "heads": HEAD,
}
Model = Any


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def runs(base: Path) -> dict[str, DSTTrainer]:
    """A finished run in each mode that saves adapters, with checkpoints and evaluations on its way."""
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 1}
    return {mode: trained(mode, base, base.parent / mode, **settings) for mode in ADAPTER_MODES}


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("mode", ALL_MODES)
def test_each_trained_weight_moves_and_no_other(
    runs: dict[str, DSTTrainer], base: Path, tmp_path: Path, mode: str
) -> None:
    """A frozen weight is the base's, bit for bit, after steps and evaluations; so are the bytes of 4-bit weights."""
    before = weights(build(base, mode_arguments(mode, tmp_path)))
    model = trained("full", base, tmp_path).model if mode == "full" else runs[mode].model
    moved = {name for name, weight in weights(model).items() if not torch.equal(weight, before[name])}
    wanted = {name for name in before if re.fullmatch(TRAINED[mode], name)}
    assert moved == wanted, sorted(moved ^ wanted)
    assert len(wanted) == {"full": 35, "lora": 14 + 2 * 2 * 7, "qlora": 14 + 2 * 2 * 7, "heads": 14}[mode]


def test_the_connector_is_trained_when_asked(base: Path, tmp_path: Path) -> None:
    args = mode_arguments("lora", tmp_path / "out", train_connector=True)
    model = build(base, args)
    before = weights(model)
    trainer_of(model, args).train()
    moved = {name for name, weight in weights(model).items() if not torch.equal(weight, before[name])}
    connector = {name for name in moved if not re.fullmatch(TRAINED["lora"], name)}
    assert connector == {"model.connector.modality_projection.proj.weight"}


@pytest.mark.parametrize("mode", ADAPTER_MODES)
def test_saved_loaded_and_merged_models_answer_alike(runs: dict[str, DSTTrainer], tmp_path: Path, mode: str) -> None:
    trainer = runs[mode]
    folder = Path(str(trainer.args.output_dir))
    wanted = answers(trainer.model)
    loaded, processor = load_trained(folder)
    assert {name: largest_difference(wanted[name], value) for name, value in answers(loaded).items()} == dict.fromkeys(
        wanted, 0.0
    )
    merge(loaded)
    parts = "heads" if mode == "heads" else "adapters of rank 4"
    assert loaded.config.merged.startswith(f"{parts} of training mode {mode} in the base model ")
    merged = answers(loaded)
    assert max(largest_difference(wanted[name], value) for name, value in merged.items()) < 1e-4
    loaded.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    reloaded, _ = load_trained(tmp_path)
    assert all(torch.equal(merged[name], value) for name, value in answers(reloaded).items())
    assert not any("lora" in name or "base_layer" in name for name in load_file(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("mode", ADAPTER_MODES)
def test_a_checkpoint_opens_as_the_finished_folder_does(runs: dict[str, DSTTrainer], base: Path, mode: str) -> None:
    """It is written in a folder of its own, one deeper, and names the base by its path."""
    checkpoint = base.parent / mode / "checkpoint-4"
    named = json.loads((checkpoint / "config.json").read_text())["adapter"]["base_model"]
    assert named == "../../base"
    opened = dict(load_trained(checkpoint)[0].named_parameters())
    for name, weight in runs[mode].model.named_parameters():
        assert opened[name].equal(weight), name


@pytest.mark.parametrize("mode", ADAPTER_MODES)
def test_a_folder_holds_the_trained_weights_alone(runs: dict[str, DSTTrainer], base: Path, mode: str) -> None:
    folder = Path(str(runs[mode].args.output_dir))
    for place in (folder, folder / "checkpoint-2"):
        assert [path.relative_to(place).as_posix() for path in place.rglob("*.safetensors") if
                path.parent.parent == place] == ["adapter/adapter_model.safetensors"]  # fmt: skip
        assert (place / "adapter" / "adapter_config.json").is_file() == (mode != "heads")
        saved = load_file(place / "adapter" / "adapter_model.safetensors")
        assert len(saved) == (14 if mode == "heads" else 14 + 28)
        assert all(value.dtype == torch.float32 for value in saved.values())
    assert (
        "/" not in runs[mode].model.config.adapter["mode"]
        and str(base.parent) not in (folder / "config.json").read_text()
    )


@pytest.mark.parametrize("mode", ADAPTER_MODES)
def test_a_resumed_run_equals_an_uninterrupted_one(
    runs: dict[str, DSTTrainer], base: Path, mode: str, tmp_path: Path
) -> None:
    """Dropout, evaluations and the optimiser's state included; a quantised base is the same one again."""
    whole = runs[mode]
    args = mode_arguments(mode, tmp_path, max_steps=4)
    torch.manual_seed(7)
    again = trainer_of(build(base, args), args)
    again.train(resume_from_checkpoint=str(Path(str(whole.args.output_dir)) / "checkpoint-2"))
    assert again.state.global_step == 4
    ours, theirs = weights(again.model), weights(whole.model)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_best_checkpoint_is_put_back(base: Path, tmp_path: Path) -> None:
    every = {"strategy": "steps", "steps": 1}
    settings = {f"{what}_{key}": value for what in ("save", "eval") for key, value in every.items()}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "learning_rate": 30.0}
    trainer = trained("lora", base, tmp_path, max_steps=6, **settings, **best)
    kept = Path(str(trainer.state.best_model_checkpoint)).name
    assert kept != "checkpoint-6", "no step made the loss worse: the test shows nothing"
    final, wanted = (load_file(tmp_path / place / "adapter/adapter_model.safetensors") for place in (".", kept))
    assert all(torch.equal(final[name], wanted[name]) for name in wanted)


# -- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["lora", "qlora"])
def test_heads_are_in_float32_on_a_body_in_bfloat16(base: Path, tmp_path: Path, mode: str) -> None:
    out = base.parent / f"{mode}-bf16"
    trainer = trained(mode, base, out, bf16=True, max_steps=1)
    for name, weight in trainer.model.named_parameters():
        if re.fullmatch(TRAINED[mode], name):
            assert weight.dtype == torch.float32, name
        else:
            assert weight.dtype in (torch.bfloat16, torch.uint8), name
    loaded, processor = load_trained(out)
    assert all(torch.equal(value, weights(trainer.model)[name]) for name, value in weights(loaded).items())
    wanted = answers(loaded)
    merge(loaded)
    loaded.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    types = {name: value.dtype for name, value in load_file(tmp_path / "model.safetensors").items()}
    for name, dtype in types.items():
        assert dtype == (torch.float32 if re.fullmatch(HEAD, name) else torch.bfloat16), name
    merged, _ = load_trained(tmp_path)
    assert merged.dst_state_head.weight.dtype == torch.float32 and merged.lm_head.weight.dtype == torch.bfloat16
    for name, value in answers(merged).items():
        # bfloat16 keeps 8 bits of a logit.
        assert largest_difference(wanted[name], value) < 0.05 * float(wanted[name].abs().max()), name


@pytest.mark.parametrize("mode", ADAPTER_MODES)
def test_tied_embeddings_stay_those_of_the_base(
    runs: dict[str, DSTTrainer], base: Path, tmp_path: Path, mode: str
) -> None:
    tied = load_file(base / "model.safetensors")["model.text_model.embed_tokens.weight"]
    model, _ = load_trained(Path(str(runs[mode].args.output_dir)))
    for merged in (False, True):
        if merged:
            merge(model)
            model.save_pretrained(tmp_path)
            assert torch.equal(load_file(tmp_path / "model.safetensors")["model.text_model.embed_tokens.weight"], tied)
        assert model.lm_head.weight is model.get_input_embeddings().weight and torch.equal(model.lm_head.weight, tied)


# -- activation checkpoints -----------------------------------------------------------------------------------------


def step(model: Model, checkpointing: bool) -> tuple[dict[str, torch.Tensor], list[bool], list[int]]:
    """Gradients of a loss on pixels; whether the tower's output requires one; passes of tower and text layers."""
    if checkpointing:
        model.activation_checkpointing_enable()
    model.train()
    seen: list[bool] = []
    passes = [0, 0]

    def count(which: int) -> Any:
        def forward(*_: Any) -> None:
            passes[which] += 1

        return forward

    # Checkpoints call a layer's forward again, and not its hooks: a matrix inside it is counted.
    towers = (model.model.vision_model.encoder.layers[0].mlp.fc1, model.model.text_model.layers[0].input_layernorm)
    hooks = [module.register_forward_hook(count(which)) for which, module in enumerate(towers)]
    hooks.append(model.model.vision_model.register_forward_hook(lambda *a: seen.append(a[2][0].requires_grad)))
    torch.manual_seed(3)
    output = model(**clip_batch(), use_cache=False)
    (output.loss + output.speaking_logits.sum() + output.dst_state_logits.square().sum()).backward()
    for hook in hooks:
        hook.remove()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return found, seen, passes


@pytest.mark.parametrize("mode", ["lora", "qlora"])
def test_checkpoints_change_no_gradient_and_leave_the_frozen_tower_alone(base: Path, tmp_path: Path, mode: str) -> None:
    args = mode_arguments(mode, tmp_path, lora_dropout=0.3)
    plain, _, passes = step(build(base, args), checkpointing=False)
    assert passes == [1, 1]
    checkpointed, seen, passes = step(build(base, args), checkpointing=True)
    assert passes == [1, 2]  # the text layers are recomputed, the tower is not
    assert seen == [False]  # no graph through the tower, by hooks on embeddings or otherwise
    assert plain.keys() == checkpointed.keys() and len(plain) == 14 - 2 + 28
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)
    assert all(float(gradient.abs().sum()) > 0 for name, gradient in plain.items() if "lora_A" not in name)


def test_a_tower_that_is_trained_is_checkpointed_too(base: Path, tmp_path: Path) -> None:
    model = build(base, mode_arguments("full", tmp_path))
    model.requires_grad_(True)
    _, seen, passes = step(model, checkpointing=True)
    assert passes == [2, 2] and seen == [True]


def test_reentrant_checkpoints_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="non-reentrant"):
        build(base, mode_arguments("lora", tmp_path)).activation_checkpointing_enable({"use_reentrant": True})


# -- other readers --------------------------------------------------------------------------------------------------


def test_peft_opens_the_adapters_of_a_folder(runs: dict[str, DSTTrainer], base: Path) -> None:
    from peft import PeftModel

    trainer = runs["lora"]
    whole, _ = load_trained(base)
    opened = PeftModel.from_pretrained(whole, str(Path(str(trainer.args.output_dir)) / "adapter")).eval()
    wanted = answers(trainer.model)
    assert all(torch.equal(wanted[name], value) for name, value in answers(opened).items())
