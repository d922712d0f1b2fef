"""The language half of the small model learns to copy from random tokens that are written twice."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from model_fixtures import new_model, small_processor, small_shape

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.sessions import IGNORE
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.build import build_model
from prospect_hf.training.copying import learn_to_copy
from prospect_hf.training.tiny import tiny_model

SPECIAL = set(small_processor().tokenizer.all_special_ids)


def weights(model: DSTSmolVLMForConditionalGeneration) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def fresh(**sizes: int) -> DSTSmolVLMForConditionalGeneration:
    torch.manual_seed(0)
    return tiny_model(small_processor(), replace(small_shape(), **sizes))


def learned(steps: int, seed: int = 3, **sizes: int) -> tuple[DSTSmolVLMForConditionalGeneration, float]:
    model = fresh(**sizes)
    torch.manual_seed(seed)
    return model, learn_to_copy(model, SPECIAL, steps, progress=False)


def test_a_fresh_language_half_learns_to_copy(caplog: pytest.LogCaptureFixture) -> None:
    """Random tokens cost log(vocabulary), nearly 6 nats; what was read before costs next to nothing."""
    with caplog.at_level(logging.INFO, "prospect_hf"):
        model, loss = learned(400, hidden_size=96, heads=4)
    assert loss < 0.6
    assert f"The language half copies with loss {loss:.3f} after 400 steps" in caplog.text
    # At another distance than it was learned at, and among other words.
    words = torch.tensor([number for number in range(model.config.text_config.vocab_size) if number not in SPECIAL])
    once = words[torch.randperm(len(words), generator=torch.Generator().manual_seed(5))[:20]]
    text = torch.cat([once, words[:6], once])[None]
    with torch.no_grad():
        predicted = model.eval()(input_ids=text, use_cache=False).logits[0].argmax(-1)
    assert (predicted[26:-1] == once[1:]).float().mean() > 0.5


def test_heads_and_eyes_stay_as_they_are_and_the_seed_says_the_rest() -> None:
    before, after = weights(fresh()), weights(learned(3)[0])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "text_model" in name or "lm_head" in name}
    again, other = weights(learned(3)[0]), weights(learned(3, seed=4)[0])
    assert all(torch.equal(weight, again[name]) for name, weight in after.items())
    assert any(not torch.equal(weight, other[name]) for name, weight in after.items())


def test_special_tokens_are_left_out_and_only_copies_count(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    forward = DSTSmolVLMForConditionalGeneration.forward

    def watched(model: Any, **inputs: Any) -> Any:
        seen.append(inputs)
        return forward(model, **inputs)

    monkeypatch.setattr(DSTSmolVLMForConditionalGeneration, "forward", watched)
    learned(4)
    assert len(seen) == 4 and len({inputs["input_ids"].sum().item() for inputs in seen}) == 4
    for inputs in seen:
        ids, labels = inputs["input_ids"], inputs["labels"]
        assert not SPECIAL & set(ids.flatten().tolist())
        starts = set()
        for row, learned_row in zip(ids.tolist(), labels.tolist(), strict=True):
            once, again = row[:32], row[32:]
            start = next(place for place in range(32) if once[place:] + once[:place] == again)
            unknown = {0, 32 - start}  # the first copied token, and the one that began the first half
            expected = [IGNORE if place in unknown else token for place, token in enumerate(again)]
            assert learned_row == [IGNORE] * 32 + expected
            starts.add(start)
        assert len(starts) > 10


def test_a_small_model_from_scratch_is_built_with_it_and_a_checkpoint_is_not(tmp_path: Path) -> None:
    args = DSTTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    sizes = {"hidden_size": 16, "heads": 2, "text_layers": 1, "vision_layers": 1}
    processor = small_processor()

    def built(copy_steps: int, folder: Path | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        arguments = ModelArguments(copy_steps=copy_steps, name_or_path=folder and str(folder), **sizes)
        return weights(build_model(arguments, processor, args))

    plain, copies = built(0), built(2)
    language = "model.text_model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(plain[language], copies[language])
    checkpoint = new_model()
    checkpoint.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    saved = built(2, tmp_path / "saved")
    assert all(torch.equal(weight, saved[name]) for name, weight in weights(checkpoint).items())
