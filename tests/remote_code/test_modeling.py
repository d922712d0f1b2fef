"""The model: a stock SmolVLM underneath, four heads read causally on top, and one answer however the stream is fed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_fixtures import (
    HEAD_LOGITS,
    SIZE,
    clip_dataset,
    collate,
    largest_difference,
    make_session,
    model_inputs,
    new_model,
    picture,
    small_model,
    small_processor,
    small_shape,
)
from safetensors.torch import load_file
from transformers import DynamicCache, SmolVLMConfig, SmolVLMForConditionalGeneration

from configuration_dst_smolvlm import DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration, DSTSmolVLMOutput
from prospect_hf.training.build import HEADS
from prospect_hf.training.tiny import tiny_config

Batch = dict[str, torch.Tensor]


def one_clip(tokens_per_frame: int | str = 1, seed: int = 0, frames: int = 12, steps: int = 3) -> Batch:
    """A batch of one clip."""
    return collate([clip_dataset([make_session(seed, frames, steps)], tokens_per_frame)[0]])


@torch.no_grad()
def heads_of(model: DSTSmolVLMForConditionalGeneration, batch: Batch, **changes: Any) -> Any:
    return model(**{**model_inputs(batch, "labels"), **changes})


# -- a stock SmolVLM underneath -----------------------------------------------------------------------------------


def stock_model(tied: bool = True) -> SmolVLMForConditionalGeneration:
    """A stock SmolVLM of the small shape, loud."""
    ours = tiny_config(small_processor("full"), small_shape("full"))
    config = SmolVLMConfig(
        text_config=ours.text_config.to_dict(),
        vision_config=ours.vision_config.to_dict(),
        scale_factor=ours.scale_factor,
        image_token_id=ours.image_token_id,
        tie_word_embeddings=tied,
    )
    model = SmolVLMForConditionalGeneration(config).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.2 + (weight.dim() == 1))
    return model


def load_stock(folder: Path, **overrides: Any) -> tuple[DSTSmolVLMForConditionalGeneration, dict[str, Any]]:
    config = DSTSmolVLMConfig.from_smolvlm(SmolVLMConfig.from_pretrained(folder), **overrides)
    loaded, info = DSTSmolVLMForConditionalGeneration.from_pretrained(folder, config=config, output_loading_info=True)
    return loaded.eval(), info


@pytest.mark.parametrize("tied", [True, False])
def test_a_stock_checkpoint_leaves_exactly_the_heads_fresh(tmp_path: Path, tied: bool) -> None:
    stock = stock_model(tied)
    stock.save_pretrained(tmp_path)
    model, info = load_stock(tmp_path)
    state = model.state_dict()
    heads = {name for name in state if name.split(".")[0] in HEADS}
    assert len(heads) == 14 and set(info["missing_keys"]) == heads
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    assert state.keys() - heads == stock.state_dict().keys()
    for name, weight in stock.state_dict().items():
        assert torch.equal(state[name], weight), name
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight) == tied
    # Fresh means drawn, not what the memory held.
    for name in heads:
        weight = state[name]
        if name in ("dst_state_norm.weight", "dst_step_norm.weight"):
            assert (weight == 1).all()
        elif name.endswith("bias"):
            assert (weight == 0).all()
        else:
            assert 0.5 < weight.std() / model.config.text_config.initializer_range < 1.5, name


def test_text_logits_and_loss_are_the_stock_models(tmp_path: Path) -> None:
    stock = stock_model()
    stock.save_pretrained(tmp_path)
    model, _ = load_stock(tmp_path, tokens_per_frame="full")
    batch = one_clip("full", frames=4)
    with torch.no_grad():
        theirs = stock(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            pixel_values=batch["pixel_values"][None],
            labels=batch["labels"],
        )
        ours = model(**model_inputs(batch, "labels"))
        with_labels = model(**model_inputs(batch))
    assert theirs.logits.std() > 0.1
    assert largest_difference(ours.logits, theirs.logits) <= 1e-5
    assert abs(float(with_labels.loss) - float(theirs.loss)) <= 1e-5


@pytest.mark.parametrize("tied", [True, False])
def test_save_and_load_are_bit_exact(tmp_path: Path, tied: bool) -> None:
    config = tiny_config(small_processor(), small_shape())
    config.tie_word_embeddings = tied
    model = DSTSmolVLMForConditionalGeneration(config).eval()
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    model.save_pretrained(tmp_path)
    loaded, info = DSTSmolVLMForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) != tied
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    batch = one_clip()
    before, after = heads_of(model, batch), heads_of(loaded.eval(), batch)
    for name in (*HEAD_LOGITS, "logits"):
        assert torch.equal(before[name], after[name]), name


# -- frames -------------------------------------------------------------------------------------------------------


def test_pixels_features_and_embeddings_give_the_same_answer() -> None:
    model, batch = small_model(4), one_clip(4)
    pixels = heads_of(model, batch)
    with torch.no_grad():
        features = model.encode_frames(batch["pixel_values"])
        embeds = model.joint_embed(batch["input_ids"], frame_features=features)
    assert features.shape == (12, 4, 32) and embeds.shape == (*batch["input_ids"].shape, 32)
    from_features = heads_of(model, batch, pixel_values=None, frame_features=features)
    from_embeds = heads_of(model, batch, input_ids=None, pixel_values=None, inputs_embeds=embeds)
    for name in (*HEAD_LOGITS, "logits", "step_hidden_states"):
        assert torch.equal(pixels[name], from_features[name]), name
        assert torch.equal(pixels[name], from_embeds[name]), name
    batched = heads_of(model, batch, pixel_values=batch["pixel_values"][None])
    assert torch.equal(pixels["logits"], batched["logits"])
    assert (
        largest_difference(pixels["logits"], heads_of(model, batch, pixel_values=-batch["pixel_values"]).logits) > 0.1
    )


def test_frames_are_encoded_alike_in_one_pass_and_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = small_model(4), one_clip(4)["pixel_values"]
    with torch.no_grad():
        whole = model.encode_frames(pixels)
        monkeypatch.setattr("modeling_dst_smolvlm.PATCHES_PER_VISION_PASS", 5 * 36)  # 5 frames a pass, 12 in all
        assert largest_difference(model.encode_frames(pixels), whole) <= 1e-5


def test_a_black_frame_is_a_frame() -> None:
    model, batch = small_model("full"), one_clip("full", frames=3)
    pixels = batch["pixel_values"].clone()
    pixels[1] = 0.0  # what the stock model takes for padding
    with torch.no_grad():
        features = model.encode_frames(pixels)
        alone = model.encode_frames(torch.zeros(1, 3, SIZE, SIZE))
        stock = model.get_image_features(pixels[None]).pooler_output
    assert len(features) == 3 and sum(map(len, stock)) == 2 * 36
    assert largest_difference(features[1:2], alone) <= 1e-5
    black, seen = heads_of(model, batch, pixel_values=pixels), heads_of(model, batch)
    assert largest_difference(black.speaking_logits[:, 0], seen.speaking_logits[:, 0]) <= 1e-5
    assert largest_difference(black.speaking_logits[:, 1], seen.speaking_logits[:, 1]) > 1e-3
    with pytest.raises(ValueError, match="108 <image> places but the frames bring 72"):
        heads_of(model, batch, pixel_values=pixels[[0, 2]])


def test_a_black_picture_goes_all_the_way() -> None:
    processor, model = small_processor(), small_model()
    frames = [picture("v", 0), np.zeros((SIZE, SIZE, 3), np.uint8)]
    with torch.no_grad():
        output = model(**processor("Make tea", ["Boil water."], frames))
    assert output.speaking_logits.shape == (1, 2, 2) and output.dst_state_logits.shape == (1, 2, 1, 3)
    assert torch.isfinite(output.speaking_logits).all()


@pytest.mark.parametrize("frames", [11, 13, 0])
def test_another_number_of_frames_than_places_is_refused(frames: int) -> None:
    model, batch = small_model(), one_clip()
    pixels = torch.randn(frames, 3, SIZE, SIZE) if frames else None
    with pytest.raises(ValueError, match=rf"12 <image> places but the frames bring {frames} tokens"):
        heads_of(model, batch, pixel_values=pixels)


def test_inputs_that_contradict_each_other_are_refused() -> None:
    model, batch = small_model(), one_clip()
    features = torch.zeros(12, 1, 32)
    with pytest.raises(ValueError, match="not both"):
        heads_of(model, batch, frame_features=features)
    with pytest.raises(ValueError, match="only one of them"):
        heads_of(model, batch, inputs_embeds=torch.zeros(1, 5, 32))
    with pytest.raises(ValueError, match="already hold the frames"):
        heads_of(model, batch, input_ids=None, inputs_embeds=torch.zeros(*batch["input_ids"].shape, 32))
    with pytest.raises(ValueError, match="step_positions, or step_hidden_states"):
        heads_of(model, batch, step_positions=None)
    with pytest.raises(ValueError, match=r"pixel_values must be \[frames, 3, 24, 24\], not \[12, 3, 12, 24\]"):
        heads_of(model, batch, pixel_values=batch["pixel_values"][:, :, ::2])
    with pytest.raises(ValueError, match="<image> places but the frames bring 0"):
        # The stock model ignores image_hidden_states silently.
        heads_of(model, batch, pixel_values=None, image_hidden_states=features)


@pytest.mark.parametrize("tokens", [1, 4, 9, 16, "full"])
def test_pooled_tokens_are_means_over_blocks(tokens: int | str) -> None:
    model, batch = small_model(tokens), one_clip(tokens, frames=3)
    side = 6 if tokens == "full" else int(int(tokens) ** 0.5)
    with torch.no_grad():
        pooled = model.encode_frames(batch["pixel_values"])
        vision = model.model.connector(model.model.vision_model(batch["pixel_values"]).last_hidden_state)
    assert pooled.shape == (3, side**2, 32)
    grid = vision.unflatten(1, (6, 6))
    # Block k of n over 6 cells goes from floor(6 k / n) to ceil(6 (k + 1) / n): blocks overlap where n does not divide.
    edges = [(6 * k // side, -(-6 * (k + 1) // side)) for k in range(side)]
    blocks = [grid[:, top:bottom, left:right].mean((1, 2)) for top, bottom in edges for left, right in edges]
    assert largest_difference(pooled, torch.stack(blocks, 1)) <= 1e-5
    output = heads_of(model, batch)
    assert output.speaking_logits.shape == (1, 3, 2) and output.dst_state_logits.shape == (1, 3, 3, 3)
    assert int((batch["input_ids"] == model.config.image_token_id).sum()) == 3 * side**2
    # A frame's decisions are read at the last of its tokens.
    places = (batch["input_ids"][0] == model.config.image_token_id).nonzero().flatten()
    assert batch["frame_positions"][0].tolist() == places[side**2 - 1 :: side**2].tolist()


# -- heads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 7, 23])
def test_any_number_of_steps(steps: int) -> None:
    output = heads_of(small_model(), one_clip(steps=steps))
    assert output.dst_state_logits.shape == (1, 12, steps, 3)
    assert output.step_hidden_states.shape == (1, steps, 32)
    assert torch.isfinite(output.dst_state_logits).all()


def test_the_state_head_is_the_documented_formula() -> None:
    model, batch = small_model(), one_clip()
    output = heads_of(model, batch, output_hidden_states=True)
    hidden = output.hidden_states[-1][0]
    frame = hidden[batch["frame_positions"][0]]
    lines = torch.stack([hidden[first : last + 1].mean(0) for first, last in batch["step_positions"][0].tolist()])
    step = lines - lines.mean(0)
    for f, s in ((0, 0), (5, 1), (11, 2)):
        with torch.no_grad():
            q, k = model.dst_frame_proj(frame[f]), model.dst_step_proj(model.dst_step_norm(step[s]))
            z = F.gelu(model.dst_state_norm(q * torch.sigmoid(k) + k))
            assert largest_difference(output.dst_state_logits[0, f, s], model.dst_state_head(z)) <= 1e-5
            assert largest_difference(output.speaking_logits[0, f], model.speaking_decision_head(frame[f])) <= 1e-5
            assert largest_difference(output.dst_update_logits[0, f], model.dst_update_head(frame[f])) <= 1e-5


def test_a_padded_row_answers_as_alone() -> None:
    model = small_model()
    clips = [clip_dataset([make_session(seed, frames, steps)])[0] for seed, frames, steps in ((0, 5, 2), (1, 14, 6))]
    together = heads_of(model, collate(clips))
    alone = heads_of(model, collate(clips[:1]))
    assert together.dst_state_logits.shape == (2, 14, 6, 3)
    for name in ("speaking_logits", "dst_update_logits"):
        assert largest_difference(together[name][0, :5], alone[name][0]) <= 1e-5, name
        assert (together[name][0, 5:] == 0).all(), name
    states = together.dst_state_logits[0]
    assert largest_difference(states[:5, :2], alone.dst_state_logits[0]) <= 1e-5
    assert (states[5:] == 0).all() and (states[:, 2:] == 0).all()
    assert (together.dst_state_logits[1] != 0).any(-1).all()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("counted", [True, False])
def test_padding_on_either_side_changes_nothing(side: str, counted: bool) -> None:
    """With position ids that count from the first real token, and with those that the model makes itself."""
    model, batch = small_model(), one_clip()
    plain = heads_of(model, batch)
    pad, length = 9, batch["input_ids"].shape[1]
    widths = (pad, 0) if side == "left" else (0, pad)
    shift = widths[0]
    mask = F.pad(batch["attention_mask"], widths, value=0)
    changes = {
        "input_ids": F.pad(batch["input_ids"], widths, value=small_processor().tokenizer.pad_token_id),
        "attention_mask": mask,
        "frame_positions": batch["frame_positions"] + shift,
        "step_positions": batch["step_positions"] + shift,
    }
    if counted:
        changes["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    padded = heads_of(model, batch, **changes)
    for name in HEAD_LOGITS:
        assert largest_difference(padded[name], plain[name]) <= 1e-4, name
    assert largest_difference(padded.logits[:, shift : shift + length], plain.logits) <= 1e-4


# -- text ---------------------------------------------------------------------------------------------------------


def test_the_text_loss_is_of_the_labelled_places_and_keeps_no_logits() -> None:
    model = small_model()
    batch = collate([clip_dataset([make_session(seed, frames)])[0] for seed, frames in ((0, 10), (1, 15))])
    full = heads_of(model, batch)
    with torch.no_grad():
        output = model(**model_inputs(batch))
    targets = batch["labels"][:, 1:]
    kept = targets != -100
    assert 0 < int(kept.sum()) < kept.numel()
    assert output.logits is None
    # Shifted once: the logits at a place answer for the label of the next.
    expected = F.cross_entropy(full.logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=-100)
    assert abs(float(output.loss) - float(expected)) <= 1e-5
    assert largest_difference(heads_of(model, batch, logits_to_keep=3).logits, full.logits[:, -3:]) <= 1e-5


@pytest.mark.parametrize("tied", [True, False])
def test_no_label_gives_a_finite_loss_that_goes_back(tied: bool) -> None:
    config = tiny_config(small_processor(), small_shape())
    config.tie_word_embeddings = tied
    model, batch = DSTSmolVLMForConditionalGeneration(config).train(), one_clip()
    batch["labels"].fill_(-100)
    output = model(**model_inputs(batch))
    assert output.loss.item() == 0.0
    output.loss.backward()
    # Every weight of the text path takes part, or a process without text labels stops its peers.
    weights = [*model.model.text_model.layers.parameters(), model.lm_head.weight]
    assert all(weight.grad is not None and (weight.grad == 0).all() for weight in weights)


# -- causality ----------------------------------------------------------------------------------------------------


def head_row(output: DSTSmolVLMOutput, frame: int) -> torch.Tensor:
    """All head logits of one frame of a batch of one."""
    return torch.cat([output[name][0, frame].flatten() for name in HEAD_LOGITS])


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("frame", [0, 4, 10])
def test_the_future_does_not_leak(tokens: int, frame: int) -> None:
    model, batch = small_model(tokens), one_clip(tokens)
    seen = heads_of(model, batch)
    end = int(batch["frame_positions"][0, frame]) + 1
    ids, pixels = batch["input_ids"], batch["pixel_values"]
    generator = torch.Generator().manual_seed(frame)

    other = ids.clone()
    texts = other[0, end:] != model.config.image_token_id
    other[0, end:][texts] = torch.randint(7, 300, (int(texts.sum()),), generator=generator)
    blind = pixels.clone()
    blind[frame + 1 :] = torch.randn(blind[frame + 1 :].shape, generator=generator)
    shuffled = torch.cat([ids[:, :end], ids[:, end:][:, torch.randperm(ids.shape[1] - end, generator=generator)]], 1)
    order = torch.cat([torch.arange(frame + 1), frame + 1 + torch.randperm(11 - frame, generator=generator)])
    for changes in (
        {"input_ids": other},
        {"pixel_values": blind},
        {"input_ids": shuffled, "pixel_values": pixels[order]},
    ):
        changed = heads_of(model, batch, **changes)
        for past in range(frame + 1):
            assert torch.equal(head_row(changed, past), head_row(seen, past)), (changes.keys(), past)

    # The control: what lies before the frame, and the frame itself, do change its decisions.
    earlier = ids.clone()
    earlier[0, 5] = 7 if earlier[0, 5] != 7 else 8
    assert largest_difference(head_row(heads_of(model, batch, input_ids=earlier), frame), head_row(seen, frame)) > 1e-3
    own = pixels.clone()
    own[frame] = -own[frame]
    assert largest_difference(head_row(heads_of(model, batch, pixel_values=own), frame), head_row(seen, frame)) > 1e-3


@pytest.mark.parametrize("tokens", [1, 9])
def test_a_packed_stream_is_its_per_frame_samples(tokens: int) -> None:
    model, batch = small_model(tokens), one_clip(tokens)
    packed = heads_of(model, batch)
    for frame, position in enumerate(batch["frame_positions"][0].tolist()):
        sample = heads_of(
            model,
            batch,
            input_ids=batch["input_ids"][:, : position + 1],
            attention_mask=batch["attention_mask"][:, : position + 1],
            pixel_values=batch["pixel_values"][: frame + 1],
            frame_positions=torch.tensor([[position]]),
        )
        assert largest_difference(head_row(sample, 0), head_row(packed, frame)) <= 1e-4, frame


@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_a_cached_stream_is_the_uncached_one(chunk: int) -> None:
    model, batch = small_model(4), one_clip(4)
    whole = heads_of(model, batch)
    with torch.no_grad():
        embeds = model.joint_embed(batch["input_ids"], batch["pixel_values"])
    prompt = int(batch["step_positions"].max()) + 1
    length = embeds.shape[1]
    bounds = [0, *range(prompt, length, chunk), length]
    cache, steps = DynamicCache(config=model.config.text_config), None
    logits: list[torch.Tensor] = []
    rows: list[torch.Tensor] = []
    for begin, end in pairwise(bounds):
        inside = batch["frame_positions"][(batch["frame_positions"] >= begin) & (batch["frame_positions"] < end)]
        with torch.no_grad():
            output = model(
                inputs_embeds=embeds[:, begin:end],
                attention_mask=batch["attention_mask"][:, :end],
                cache=cache,
                use_cache=True,
                step_positions=batch["step_positions"] if begin == 0 else None,
                step_hidden_states=steps,
                frame_positions=(inside - begin)[None] if len(inside) else None,
            )
        steps = output.step_hidden_states
        assert output.cache is cache and cache.get_seq_length() == end
        logits.append(output.logits)
        rows.extend(head_row(output, row) for row in range(len(inside)))
    assert len(rows) == 12
    assert largest_difference(torch.cat(logits, 1), whole.logits) <= 1e-4
    for frame, row in enumerate(rows):
        assert largest_difference(row, head_row(whole, frame)) <= 1e-4, frame


# -- learning -----------------------------------------------------------------------------------------------------

PARTS = ("model.vision_model", "model.connector", "model.text_model", *HEADS)


def all_losses(output: DSTSmolVLMOutput) -> torch.Tensor:
    return output.loss + sum(output[name].square().mean() for name in HEAD_LOGITS)


@pytest.mark.parametrize("frozen", [(), ("model.vision_model", "model.connector"), ("model.text_model",)])
def test_every_trainable_part_moves_and_no_frozen_one(frozen: tuple[str, ...]) -> None:
    model, batch = new_model().train(), one_clip()
    for part in frozen:
        model.get_submodule(part).requires_grad_(False)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=1e-2)
    all_losses(model(**model_inputs(batch))).backward()
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            assert weight.grad is None, name
        elif "k_proj.bias" not in name and "vision_model.head" not in name:  # a key's bias cancels in the softmax
            assert weight.grad is not None and (weight.grad != 0).any(), name
    optimizer.step()
    for part in PARTS:
        moved = any(
            not torch.equal(weight, before[f"{part}.{name}"])
            for name, weight in model.get_submodule(part).state_dict().items()
        )
        assert moved == (part not in frozen), part


def test_float32_heads_run_over_a_bfloat16_body() -> None:
    model, batch = new_model().to(torch.bfloat16), one_clip()
    for head in HEADS:
        model.get_submodule(head).float()
    output = heads_of(model, batch)
    assert output.logits.dtype == torch.bfloat16
    for name in HEAD_LOGITS:
        assert output[name].dtype == torch.float32 and torch.isfinite(output[name]).all(), name
    # Close to float32 all the way: only the body was rounded.
    exact = heads_of(small_model(), batch)
    assert largest_difference(output.speaking_logits, exact.speaking_logits) < 0.2
