"""What ``benchmarks/gpu.py`` measures is the real thing: shapes, operations, training steps, passes of a stream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture(autouse=True, scope="module")
def on_path(repository: Path) -> Any:
    """The benchmarks can be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(repository / "benchmarks"))
        yield


@pytest.mark.parametrize(
    "name, parameters, tokens",
    [
        ("SMOLVLM2_256M", 256_484_928, 64),
        ("SMOLVLM2_500M", 507_482_304, 64),
        ("SMOLVLM2_2B", 2_246_784_880, 81),
    ],
)
def test_the_shapes_are_those_of_the_published_checkpoints(name: str, parameters: int, tokens: int) -> None:
    import shapes
    from stock_model import stock_model

    shape = getattr(shapes, name)
    with torch.device("meta"):
        assert sum(weight.numel() for weight in stock_model(shape).parameters()) == parameters
    assert shape.frames_of("full").frame_tokens == tokens and shape.frame_tokens == 1


def test_configuration_and_processor_agree() -> None:
    from shapes import TINY, config_of, processor_of

    config, processor = config_of(TINY), processor_of(TINY)
    assert config.image_token_id == processor.image_id and config.stream_tokens == processor.tokens_per_frame
    assert config.text_config.eos_token_id == processor.end_id
    assert config.text_config.pad_token_id == processor.tokenizer.pad_token_id
    assert config.text_config.bos_token_id == processor.bos_id


def test_weights_are_made_in_their_type_but_for_the_rotary_frequencies() -> None:
    from shapes import TINY, model_of

    model = model_of(TINY, dtype=torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert model.model.text_model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("all_labelled", [False, True])
def test_a_random_batch_has_its_share_of_labels_and_its_padding(all_labelled: bool, padded: bool) -> None:
    from shapes import IMAGE, TINY, random_batch

    shape = replace(TINY, tokens_per_frame=1)
    batch = random_batch(shape, 2, 1024, all_labelled, padded=padded)
    labelled = float((batch["labels"] != -100).float().mean())
    assert labelled > 0.98 if all_labelled else 0.08 < labelled < 0.16
    assert int((batch["attention_mask"] == 0).sum()) == (8 if padded else 0)
    assert not bool((batch["labels"][batch["attention_mask"] == 0] != -100).any())
    assert int((batch["input_ids"] == IMAGE).sum()) == len(batch["frame_features"])


@pytest.mark.parametrize("checkpoints", [False, True])
def test_the_formula_of_operations_is_what_torch_counts(checkpoints: bool) -> None:
    from gpu_flops import step_flops
    from gpu_training import RANK, adapted_model, four_losses
    from shapes import PLAN_STEPS, TINY, random_batch

    # So many layers that the first one, whose input needs no gradient, hardly counts.
    shape = replace(TINY, layers=12, tokens_per_frame=1)
    model = adapted_model(shape, "lora", "cpu", checkpoints)
    model.set_attn_implementation("eager")  # plain products, which are counted whole
    batch = random_batch(shape, 2, 192)
    labelled = int((batch["labels"][:, 1:] != -100).sum())
    flops = step_flops(shape, 2, 192, labelled, batch["frame_positions"].numel(), PLAN_STEPS, RANK)
    whole = replace(flops, attention=2 * flops.attention)
    with FlopCounterMode(display=False) as forward:
        loss = four_losses(model, batch)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert forward.get_total_flops() == pytest.approx(whole.forward, rel=0.01)
    both = forward.get_total_flops() + backward.get_total_flops()
    assert both == pytest.approx(whole.hardware if checkpoints else whole.model, rel=0.03)


@pytest.mark.parametrize("mode", ["qlora", "lora"])
def test_a_training_step_learns_and_changes_adapters_and_heads_alone(mode: str) -> None:
    from bitsandbytes.nn import Linear4bit
    from gpu_training import adapted_model, training_step
    from shapes import TINY, random_batch

    model = adapted_model(TINY, mode, "cpu")
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    step = training_step(model, random_batch(TINY, 2, 192, padded=True), "cpu")
    losses = [float(step()) for _ in range(6)]
    assert losses[-1] < losses[0]
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if ".lora_" in name or name.startswith(("speaking", "dst_"))}
    in_four_bits = sum(isinstance(module, Linear4bit) for module in model.modules())
    assert in_four_bits == (7 * TINY.layers if mode == "qlora" else 0)


def test_the_kernel_of_attention_is_named() -> None:
    from gpu_training import attention_kernels
    from shapes import TINY, model_of, random_batch

    model, batch = model_of(TINY), random_batch(TINY, 1, 160)
    assert attention_kernels(model, batch, "cpu") == "SDPA flash_attention_for_cpu"
    model.set_attn_implementation("eager")
    assert attention_kernels(model, batch, "cpu") == "SDPA math"


@pytest.mark.parametrize(
    "card, peak",
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 PCIe", None),
        ("Tesla T4", None),
    ],
)
def test_the_peak_of_a_card_is_found_by_its_name(card: str, peak: float | None) -> None:
    from gpu_flops import peak_flops

    assert peak_flops(card) == peak


def test_both_steps_are_of_one_model_and_have_one_text_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_stock
    from shapes import TINY

    monkeypatch.setattr(gpu_stock, "REPEATS", 1)
    row = gpu_stock.stock_row(TINY.frames_of("full"), "full", 192, False, "cpu")
    ours, stock = row["text losses"].split(", ")
    assert ours == stock and row["ours, ms"] > 0
    monkeypatch.setattr(gpu_stock, "stock_loss", lambda model, batch: torch.tensor(1.0))
    with pytest.raises(ArithmeticError, match="the text losses differ"):
        gpu_stock.stock_row(TINY.frames_of("full"), "full", 192, False, "cpu")


def test_the_pass_with_a_fixed_cache_decides_as_the_stream_does(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_streaming
    from shapes import TINY

    monkeypatch.setattr(gpu_streaming, "REPEATS", 2)
    row = gpu_streaming.Bench(TINY, "cpu").row(700, 1.0)
    assert row["cached tokens"] == 698 and row["largest difference of a probability"] < 1e-5
    assert row["from a picture, ms"] > row["of it picture to features, ms"] > 0


@given(st.integers(1, 300), st.integers(0, 400))
def test_the_largest_number_of_streams_is_found_to_within_an_eighth(most: int, truth: int) -> None:
    from gpu_batch import largest

    tried: list[int] = []
    found, ended = largest(lambda n: not tried.append(n) and n <= truth, most, lambda: True)
    assert ended and found <= truth and all(1 <= n <= most for n in tried)
    assert found == min(most, truth) if found < 8 or truth >= most else truth - found <= max(1, found // 8)
    assert len(tried) == len(set(tried))


def test_a_search_without_time_says_so() -> None:
    from gpu_batch import largest

    answers = iter([True, True, False])
    assert largest(lambda n: True, 1000, lambda: next(answers)) == (4, False)


@pytest.mark.parametrize("how", ["silent", "talking", "pictures"])
def test_streams_are_followed_in_a_batch(how: str) -> None:
    from gpu_batch import capacity_row
    from gpu_streaming import Bench
    from shapes import TINY

    row = capacity_row(Bench(TINY, "cpu"), how, 100, 2, 60)
    assert row["live streams"] == 2 and row["limited by"] == "more than 2 were not tried"
    kv = 2 * TINY.layers * TINY.kv_heads * (TINY.hidden // TINY.heads) * 4  # bytes of a token
    assert row["cache of a stream, MiB"] == 256 * kv / 2**20


def test_the_plan_of_a_step_is_traced_with_its_own_batch(tmp_path: Path) -> None:
    from gpu_plan import planned_gib
    from gpu_training import Case
    from shapes import TINY

    sizes = [planned_gib(Case("lora", TINY, 2, length, False), str(tmp_path)) for length in (192, 384)]
    assert 0 < sizes[0] < sizes[1] < 0.1


def test_a_sample_of_one_frame_ends_with_its_turn_or_with_silence() -> None:
    from shapes import END, IMAGE, TINY
    from training_sides import frame_sample, session

    packed = session(TINY.frames_of(1), 264)
    frames = packed["frame_positions"].shape[1]
    for frame in range(frames):
        sample = frame_sample(packed, frame)
        learned = sample["labels"] != -100
        said = sample["input_ids"][learned]
        assert int((sample["input_ids"] == IMAGE).sum()) == len(sample["frame_features"]) == frame + 1
        assert said.tolist() == [END] or len(said) >= 12
        assert not bool((said == IMAGE).any()) and bool(learned[0, -1])


def test_the_changes_of_a_step_that_must_not_change_its_loss_do_not(tmp_path: Path) -> None:
    from shapes import TINY, model_of
    from training_sides import SAME_LOSS, losses_of_parts, session

    from prospect_hf.training.arguments import DSTTrainingArguments
    from prospect_hf.training.trainer import DSTTrainer

    model = model_of(TINY.frames_of(1))
    args = DSTTrainingArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, decision_loss="focal")
    losses = losses_of_parts(model, session(TINY.frames_of(1), 264), DSTTrainer(model=model, args=args))
    values = {name: float(loss().detach()) for name, loss in losses.items()}
    assert [values[name] for name in SAME_LOSS] == pytest.approx([values["ours"]] * 3, rel=1e-5)
    assert values["heads_off"] < values["ours"] != values["pixels"]
