"""``generate``: it continues the stream that it is given, with a cache and without, and pads with a real token."""

from __future__ import annotations

import pytest
import torch
from model_fixtures import (
    clip_dataset,
    collate,
    make_loud,
    make_session,
    model_inputs,
    new_model,
    small_processor,
    small_shape,
)

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.training.tiny import tiny_config

Batch = dict[str, torch.Tensor]


@torch.no_grad()
def greedy(model: DSTSmolVLMForConditionalGeneration, inputs: Batch, tokens: int) -> list[int]:
    """Greedy text without a cache: the whole stream again for every token."""
    inputs, words = dict(inputs), []
    for _ in range(tokens):
        words.append(int(model(**inputs).logits[0, -1].argmax()))
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[words[-1]]])], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return words


@pytest.mark.parametrize("form", ["pixel_values", "frame_features"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_continues_the_stream(form: str, use_cache: bool) -> None:
    model, batch = new_model(4), collate([clip_dataset([make_session(0, 3, 3)], 4)[0]])
    with torch.no_grad():  # no <image> place may be written in this test
        model.get_input_embeddings().weight[model.config.image_token_id] = 0.0
        model.lm_head.weight[model.config.image_token_id] = 0.0
    model.generation_config.eos_token_id = None
    inputs = model_inputs(batch, "labels")
    expected = greedy(model, inputs, 6)
    assert len(set(expected)) > 1
    if form == "frame_features":
        with torch.no_grad():
            inputs[form] = model.encode_frames(inputs.pop("pixel_values"))
    ids = model.generate(**inputs, max_new_tokens=6, do_sample=False, use_cache=use_cache)
    assert ids[0, inputs["input_ids"].shape[1] :].tolist() == expected


def test_generate_pads_a_finished_row_with_a_real_token() -> None:
    """The published configs name a pad token outside the vocabulary; the text model's own is the one to use."""
    config = tiny_config(small_processor(), small_shape())
    config.pad_token_id = 128_002
    model = make_loud(DSTSmolVLMForConditionalGeneration(config), 0).eval()
    ids = torch.tensor([[1, 20, 21], [1, 30, 31]])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        first = model(input_ids=ids, attention_mask=mask).logits[:, -1].argmax(-1)
    assert first[0] != first[1]
    model.generation_config.eos_token_id = int(first[0])  # the first row ends at once, the second goes on
    written = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, do_sample=False)[:, 3:]
    assert written.shape == (2, 3) and written[0, 0] == first[0] and written[1, 0] == first[1]
    assert int(written.max()) < config.text_config.vocab_size
