"""Plans: traced steps against measured ones, the largest setting that fits, and refusals with a knob."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prospect_hf.errors import UsageError
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.memory import plan as plan_module
from prospect_hf.training.memory.arguments import PlanArguments, parse_size
from prospect_hf.training.memory.batch import BatchSize, make_batch
from prospect_hf.training.memory.cards import CARDS
from prospect_hf.training.memory.cost import epoch_cost, proassist
from prospect_hf.training.memory.live_bytes import (
    ACTIVATIONS,
    ADAPTERS,
    GRADIENTS,
    LOGITS,
    OPTIMISER,
    QUANTISED,
    WEIGHTS,
)
from prospect_hf.training.memory.plan import largest_fitting, make_plan, refusal, relief, with_largest
from prospect_hf.training.memory.planned import planned_arguments
from prospect_hf.training.memory.planned_model import fill, planned_model
from prospect_hf.training.memory.shapes import HUB_IDS, PUBLISHED, planned_config, published_config
from prospect_hf.training.memory.step import ENCODING, STEP, Setting, Traced, model_size, run_step, trace

TINY = ModelArguments(image_size=24, patch_size=4, scale_factor=1, hidden_size=32, vision_layers=1, text_layers=2)
SIZE = BatchSize(2, 256, steps=4)
MIB = 2**20


def setting(folder: Path, cuda: bool = False, **training: Any) -> Setting:
    """The small model, in float32 and with AdamW unless ``training`` says otherwise; frames are encoded already."""
    args = planned_arguments({"output_dir": str(folder), "optim": "adamw_torch", **training})
    return Setting(planned_config(TINY), args, encoded=True, cuda=cuda)


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"activation_checkpointing": True, "gradient_accumulation_steps": 4},
        {"mode": "lora"},
        {"mode": "qlora", "bf16": True},
    ],
    ids=["full", "checkpointing", "lora", "qlora"],
)
def test_a_traced_step_counts_what_a_real_one_takes(tmp_path: Path, training: dict[str, Any]) -> None:
    of_cpu = setting(tmp_path, **training)
    traced = trace(of_cpu, SIZE)
    torch.manual_seed(0)
    model = planned_model(of_cpu.config, of_cpu.args, of_cpu.freeze_vision).to("cpu")
    measured = run_step(model, of_cpu, SIZE)
    assert traced.peak == pytest.approx(measured.peak, rel=0.02)
    assert (traced.trained, traced.parameters, traced.step_flops) == (
        measured.trained,
        measured.parameters,
        measured.step_flops,
    )
    for part in (WEIGHTS, ADAPTERS, GRADIENTS, OPTIMISER, QUANTISED):
        assert traced.parts.get(part, 0) == pytest.approx(measured.parts.get(part, 0), rel=0.01, abs=2048), part


def test_the_parts_are_those_of_the_mode(tmp_path: Path) -> None:
    full, qlora = trace(setting(tmp_path), SIZE), trace(setting(tmp_path, mode="qlora", bf16=True), SIZE)
    assert full.parts[OPTIMISER] >= 2 * full.trained * 4
    assert ADAPTERS not in full.parts and QUANTISED not in full.parts
    assert qlora.parts[ADAPTERS] > 0 and qlora.parts[QUANTISED] > 0
    assert qlora.trained < full.trained < full.parameters


def test_eight_bit_states_take_a_byte_and_a_scale_for_each_256_weights(tmp_path: Path) -> None:
    traced = trace(setting(tmp_path, mode="lora", optim="paged_adamw_8bit"), SIZE)
    whole = trace(setting(tmp_path, mode="lora"), SIZE)
    # Most weights of so small a model have fewer than 4,096 numbers, and keep float32.
    assert traced.parts[OPTIMISER] < whole.parts[OPTIMISER]


def test_more_tokens_clips_and_processes_take_more(tmp_path: Path) -> None:
    of_cuda = setting(tmp_path, cuda=True)
    peaks = [trace(of_cuda, replace(SIZE, batch=batch, seq=seq)).peak for batch, seq in ((2, 256), (2, 512), (4, 512))]
    assert peaks == sorted(set(peaks))
    several = trace(replace(of_cuda, processes=2), SIZE)
    assert several.peak > peaks[0]


def test_the_peak_may_be_that_of_encoding_frames(tmp_path: Path) -> None:
    encoding = trace(replace(setting(tmp_path), encoded=False), BatchSize(1, 128, steps=2))
    assert encoding.phase == ENCODING and encoding.frame_flops > 0
    assert encoding.peak == encoding.encoding_peak


def test_logits_are_a_part(tmp_path: Path) -> None:
    wide = replace(setting(tmp_path), config=planned_config(replace(TINY, vocab_size=20_000)))
    traced = trace(wide, SIZE)
    labelled = int((make_batch(wide.config, SIZE)["labels"] >= 0).sum())
    assert traced.parts[LOGITS] >= labelled * 20_000 * 4


# -- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "stock", "tokens"), [("256M", 256_484_928, 64), ("500M", 507_482_304, 64), ("2.2B", 2_246_784_880, 81)]
)
def test_published_sizes_have_the_published_numbers_of_parameters(
    tmp_path: Path, size: str, stock: int, tokens: int
) -> None:
    config = published_config(size, "full")
    assert config.stream_tokens == tokens
    args = planned_arguments({"output_dir": str(tmp_path)})
    with torch.device("meta"):
        model = planned_model(config, args, frozen_vision=True)
    heads = sum(
        weight.numel() for name, weight in model.named_parameters() if not name.startswith(("model.", "lm_head"))
    )
    assert model_size(model) - heads == stock


def test_published_sizes_are_those_of_the_files(shared_data: Path) -> None:
    for size in PUBLISHED:
        found = planned_config(ModelArguments(name_or_path=str(shared_data / "smolvlm2" / size)))
        known = published_config(size)
        for part in ("text_config", "vision_config"):
            ours, theirs = (getattr(config, part).to_dict() for config in (known, found))
            for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
                assert ours[key] == theirs[key], (size, part, key)
        assert known.text_config.rope_parameters == found.text_config.rope_parameters
        assert known.stream_tokens == found.stream_tokens and known.scale_factor == found.scale_factor


def test_4_bit_weights_take_half_a_byte_and_their_scales(tmp_path: Path) -> None:
    args = planned_arguments({"output_dir": str(tmp_path), "mode": "qlora", "bf16": True})
    with torch.device("meta"):
        model = planned_model(planned_config(TINY), args, frozen_vision=True)
    fill(model)
    layer = model.model.text_model.layers[0].mlp.down_proj.base_layer
    count = layer.in_features * layer.out_features
    assert layer.weight.numel() == count // 2 and layer.weight.dtype == torch.uint8
    state = layer.weight.quant_state
    assert state.absmax.numel() == count // 64 and state.state2.absmax.numel() == -(-count // 64 // 256)


def test_a_batch_is_that_of_the_collator() -> None:
    config = planned_config(TINY)
    batch = make_batch(config, SIZE)
    frames = SIZE.frames(1)
    assert batch["input_ids"].shape == (2, 256) and int(batch["attention_mask"].sum()) == 2 * 256 - 8
    assert batch["frame_positions"].shape == (2, frames)
    for row in range(2):
        places = batch["frame_positions"][row]
        assert bool((batch["input_ids"][row, places[places >= 0]] == config.image_token_id).all())
    assert int((batch["input_ids"] == config.image_token_id).sum()) == len(batch["frame_features"])
    with pytest.raises(ValueError, match="hold no plan"):
        make_batch(config, replace(SIZE, seq=60))


def test_an_unknown_model_is_not_downloaded() -> None:
    with pytest.raises(UsageError, match=r"sizes of this model are not known here, .* config\.json"):
        planned_config(ModelArguments(name_or_path="somebody/another-model"))
    assert all(planned_config(ModelArguments(name_or_path=name)).stream_tokens == 1 for name in HUB_IDS)


# -- the largest that fits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [0, 99, 100, 101, 130, 1000, 5000, 10**9])
@pytest.mark.parametrize("known", [{}, {4: 132}, {64: 612}])
def test_the_search_finds_the_largest_that_fits(budget: int, known: dict[int, int]) -> None:
    asked: list[int] = []

    def peak(place: int) -> int:
        asked.append(place)
        return 100 + 8 * place if place > 1 else 100

    fitting = [place for place in range(1, 65) if (100 + 8 * place if place > 1 else 100) <= budget]
    assert largest_fitting(peak, budget, 1, 64, 1, known) == max(fitting, default=None)
    assert len(asked) == len(set(asked)) <= 6


def test_the_search_keeps_to_its_steps() -> None:
    assert largest_fitting(lambda place: place**2, 700**2, 256, 8190, 128, {}) == 640
    assert largest_fitting(lambda place: place**2, 10**9, 256, 8190, 128, {}) == 256 + (8190 - 256) // 128 * 128


@pytest.fixture
def affine_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that take 1 KiB for each token and 1 MiB beside, and half of the former with checkpointing."""

    def traced(planned: Setting, size: BatchSize) -> Traced:
        per_token = 512 if planned.args.activation_checkpointing else 1024
        parts = {WEIGHTS: MIB, ACTIVATIONS: per_token * size.batch * size.seq}
        return Traced(size, STEP, parts, 1, 1, 1, 0, frames=1, step_peak=sum(parts.values()), encoding_peak=0)

    monkeypatch.setattr(plan_module, "trace", traced)


@pytest.mark.usefixtures("affine_steps")
def test_the_largest_of_a_plan_fits_and_the_next_does_not(tmp_path: Path) -> None:
    of_cuda = setting(tmp_path, cuda=True)
    plan = with_largest(make_plan(of_cuda, SIZE, 2 * MIB + 5 * 256 * 1024 + 1, MIB))
    assert plan.fits and plan.largest_batch == 5
    assert plan.longest == 640  # 2 x 640 KiB fit, and 2 x 768 KiB do not
    none = with_largest(make_plan(of_cuda, SIZE, MIB + 1024, 0))
    assert (none.fits, none.longest, none.largest_batch) == (False, None, None)


@pytest.mark.usefixtures("affine_steps")
def test_a_refusal_names_knobs_that_fit(tmp_path: Path) -> None:
    of_cuda, size = setting(tmp_path, cuda=True, gradient_accumulation_steps=3), replace(SIZE, batch=4)
    told = refusal(with_largest(make_plan(of_cuda, size, MIB + 600 * 1024, 0)), may_change_mode=True)
    assert "batches of 4 x 256 tokens take 2.0 GiB" not in told and "take 2 MiB (estimated, 0 MiB of it" in told
    assert "set training.activation_checkpointing=true (estimated 2 MiB)" in told
    assert "training.per_device_train_batch_size=2 training.gradient_accumulation_steps=6" in told
    assert "training=lora" in told and "training=qlora" in told
    assert "training.memory_check=false" in told
    nothing = refusal(with_largest(make_plan(of_cuda, size, 1000, 0)), may_change_mode=False)
    assert "take a smaller model, or a GPU with more memory" in nothing and "training=qlora" not in nothing


@pytest.mark.usefixtures("affine_steps")
def test_relief_halves_the_batch_then_checkpoints_then_halves_the_length(tmp_path: Path) -> None:
    def told(batch: int, **training: Any) -> str:
        return relief(make_plan(setting(tmp_path, cuda=True, **training), replace(SIZE, batch=batch), 2**30, 0))

    assert "training.per_device_train_batch_size=1 training.gradient_accumulation_steps=2" in told(2)
    assert "training.activation_checkpointing=true" in told(1)
    assert "data.max_seq_len=128" in told(1, activation_checkpointing=True)


# -- settings and cost ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [("24GiB", 24 * 2**30), ("24GB", 24 * 10**9), (24, 24 * 2**30), ("0.5 gib", 2**29), ("800 MiB", 800 * MIB)],
)
def test_sizes_are_read_with_their_units(size: str | float, expected: int) -> None:
    assert parse_size(size, "plan.gpu_memory") == expected


@pytest.mark.parametrize("size", ["", "24 gigs", "-1GiB", "nan", "1e3GiB", "GiB", 0, "99999999TiB"])
def test_what_is_no_size_is_refused(size: str | float) -> None:
    with pytest.raises(UsageError, match=r"plan\.gpu_memory"):
        parse_size(size, "plan.gpu_memory")


@pytest.mark.parametrize(
    "settings",
    [
        {"card": "gtx_1080"},
        {"utilisation": 0},
        {"labelled": 1.5},
        {"steps": 0},
        {"text_tokens": -1},
        {"frames_per_epoch": 0},
        {"gpu_memory": "1GiB", "allowance": "2GiB"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_plan_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"plan\."):
        PlanArguments(**settings)


def test_an_epoch_costs_its_frames(tmp_path: Path) -> None:
    corpus = proassist(["wtag", "holoassist"])
    assert (corpus.rows, corpus.frames) == (786 * 1278 + 7052 * 536, 40 * 1278 + 1436 * 536)
    of_cuda = setting(tmp_path, cuda=True)
    traced = trace(of_cuda, SIZE)
    cost = epoch_cost(of_cuda, traced, corpus, CARDS["h100"], 0.5)
    assert cost.tokens == corpus.rows * 1.5
    assert cost.flops == pytest.approx(corpus.rows / traced.frames * traced.step_flops)
    assert cost.seconds == pytest.approx(cost.flops / (989e12 * 0.5))
