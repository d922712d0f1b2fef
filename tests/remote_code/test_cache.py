"""The KV cache: rows of their own length, spans cut out with their keys turned, copies that are copies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_fixtures import new_model
from transformers import DynamicCache, StaticCache

from cache_dst_smolvlm import FIRST_CAPACITY, StreamCache, cut, rotate
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration

MODEL = new_model()
TEXT = MODEL.config.text_config


def embeds(length: int, seed: int = 0, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, length, TEXT.hidden_size, generator=torch.Generator().manual_seed(seed))


def extend(
    cache: StreamCache,
    rows: slice,
    parts: list[torch.Tensor],
    model: DSTSmolVLMForConditionalGeneration = MODEL,
) -> torch.Tensor:
    """One pass that feeds each row its part ``[length, hidden]``; returns the hidden states."""
    width = max(map(len, parts))
    padded = torch.stack([torch.nn.functional.pad(part, (0, 0, 0, width - len(part)), value=3.0) for part in parts])
    positions, mask = cache.begin(rows, [len(part) for part in parts], padded.device)
    hidden: torch.Tensor = model.model.text_model(
        inputs_embeds=padded, attention_mask=mask, position_ids=positions, cache=cache, use_cache=True
    ).last_hidden_state
    cache.commit()
    return hidden


def whole(stream: torch.Tensor) -> torch.Tensor:
    """Hidden states of ``[length, hidden]`` in one pass without a cache."""
    hidden: torch.Tensor = MODEL.model.text_model(
        inputs_embeds=stream[None], attention_mask=torch.ones(1, len(stream), dtype=torch.long)
    ).last_hidden_state
    return hidden[0]


def new_cache(rows: int = 1) -> StreamCache:
    return StreamCache(rows, TEXT.num_hidden_layers)


@torch.inference_mode()
def test_rows_grow_each_at_its_own_pace() -> None:
    """Padding of one row never reaches another pass, nor another row, past the first allocation too."""
    lengths = [[7, 1, 3, 0], [1, 1, 1, 1], [0, 5, 2, 40], [FIRST_CAPACITY, 2, 0, 1], [1, 1, 1, 1], [3, 0, 0, 9]]
    cache = new_cache(4)
    streams = [embeds(sum(step[row] for step in lengths), seed=row)[0] for row in range(4)]
    seen: list[list[torch.Tensor]] = [[], [], [], []]
    at = [0, 0, 0, 0]
    for step in lengths:
        parts = [streams[row][at[row] : at[row] + count] for row, count in enumerate(step)]
        hidden = extend(cache, slice(0, 4), parts)
        for row, count in enumerate(step):
            seen[row].extend(hidden[row, :count])
            at[row] += count
    assert cache.lengths == [len(stream) for stream in streams] and cache.capacity == 2 * FIRST_CAPACITY
    for row, stream in enumerate(streams):
        assert float((torch.stack(seen[row]) - whole(stream)).abs().max()) <= 1e-4


@torch.inference_mode()
def test_one_row_of_several_can_be_fed_alone() -> None:
    cache, streams = new_cache(3), [embeds(12, seed)[0] for seed in range(3)]
    extend(cache, slice(0, 3), [streams[0][:4], streams[1][:6], streams[2][:2]])
    extend(cache, slice(1, 2), [streams[1][6:11]])
    hidden = extend(cache, slice(0, 3), [streams[0][4:5], streams[1][11:12], streams[2][2:3]])
    for row, length in enumerate((5, 12, 3)):
        assert float((hidden[row, 0] - whole(streams[row][:length])[-1]).abs().max()) <= 1e-4
    assert cache.lengths == [5, 12, 3]


def caches(length: int) -> dict[str, Any]:
    """Each kind of cache, holding the same ``length`` tokens."""
    filled: dict[str, Any] = {
        "dynamic": DynamicCache(config=TEXT),
        "static": StaticCache(config=TEXT, max_cache_len=64),
        "stream": new_cache(),
    }
    for name, cache in filled.items():
        if name == "stream":
            extend(cache, slice(0, 1), [embeds(length)[0]])
        else:
            MODEL.model.text_model(
                inputs_embeds=embeds(length), attention_mask=torch.ones(1, length), cache=cache, use_cache=True
            )
    return filled


@pytest.mark.parametrize("kind", ["dynamic", "static", "stream"])
@pytest.mark.parametrize("span", [(4, 15), (0, 3), (10, 20), (7, 7), (0, 20)])
@torch.inference_mode()
def test_a_cut_is_a_recomputation_in_the_first_layer(kind: str, span: tuple[int, int]) -> None:
    """Keys and values of layer 0 equal those of the kept tokens alone; deeper keys are the old ones, moved."""
    begin, end = span
    cache, before = caches(20)[kind], caches(20)[kind]
    cut(cache, begin, end, MODEL.model.text_model.rotary_emb)
    length = 20 - (end - begin)
    assert int(cache.get_seq_length()) == length
    kept = torch.cat([embeds(20)[0, :begin], embeds(20)[0, end:]])
    alone = new_cache()
    if length:
        extend(alone, slice(0, 1), [kept])
    for number, (ours, old) in enumerate(zip(cache.layers, before.layers, strict=True)):
        turned = rotate(old.keys[:, :, end:20], begin - end, MODEL.model.text_model.rotary_emb)
        assert torch.equal(ours.keys[:, :, begin:length], turned)
        assert torch.equal(ours.keys[:, :, :begin], old.keys[:, :, :begin])
        assert torch.equal(ours.values[:, :, begin:length], old.values[:, :, end:20])
        if number == 0 and length:
            assert float((ours.keys[:, :, :length] - alone.layers[0].keys[:, :, :length]).abs().max()) <= 1e-5
            assert float((ours.values[:, :, :length] - alone.layers[0].values[:, :, :length]).abs().max()) <= 1e-5


@torch.inference_mode()
def test_deeper_keys_are_those_of_their_states_at_the_new_places() -> None:
    """Every layer's moved keys equal its own states projected anew and turned to their new positions."""
    cache, states = new_cache(), []
    hooks = [
        layer.self_attn.register_forward_pre_hook(
            lambda module, args, kwargs: states.append(kwargs["hidden_states"]), with_kwargs=True
        )
        for layer in MODEL.model.text_model.layers
    ]
    extend(cache, slice(0, 1), [embeds(20)[0]])
    for hook in hooks:
        hook.remove()
    rotary = MODEL.model.text_model.rotary_emb
    cut(cache, 4, 15, rotary)
    for layer, kept, hidden in zip(MODEL.model.text_model.layers, cache.layers, states, strict=True):
        keys = layer.self_attn.k_proj(hidden[:, 15:]).unflatten(-1, (-1, kept.keys.shape[-1])).transpose(1, 2)
        placed = torch.cat([rotate(keys[:, :, n : n + 1], 4 + n, rotary) for n in range(5)], dim=2)
        assert float((kept.keys[:, :, 4:9] - placed).abs().max()) <= 1e-5


@pytest.mark.parametrize("kind", ["dynamic", "static", "stream"])
@torch.inference_mode()
def test_a_stream_goes_on_after_a_cut(kind: str) -> None:
    """With one layer nothing of the removed tokens is left: what follows equals a recomputation."""
    model = new_model()
    text = model.model.text_model
    text.layers = text.layers[:1]
    text.config.num_hidden_layers = 1
    stream = embeds(25)[0]
    cache: Any = {
        "dynamic": DynamicCache(config=text.config),
        "static": StaticCache(config=text.config, max_cache_len=64),
        "stream": StreamCache(1, 1),
    }[kind]

    def feed(part: torch.Tensor) -> torch.Tensor:
        if kind == "stream":
            return extend(cache, slice(0, 1), [part], model)[0]
        held = int(cache.get_seq_length())
        hidden: torch.Tensor = text(
            inputs_embeds=part[None],
            attention_mask=torch.ones(1, held + len(part)),
            position_ids=torch.arange(held, held + len(part))[None],
            cache=cache,
            use_cache=True,
        ).last_hidden_state
        return hidden[0]

    feed(stream[:20])
    cut(cache, 4, 15, text.rotary_emb)
    rest = feed(stream[20:])
    kept = torch.cat([stream[:4], stream[15:]])
    expected = text(inputs_embeds=kept[None], attention_mask=torch.ones(1, len(kept))).last_hidden_state[0]
    assert float((rest - expected[-5:]).abs().max()) <= 1e-5


@torch.inference_mode()
def test_a_cut_leaves_other_rows_alone() -> None:
    cache = new_cache(2)
    extend(cache, slice(0, 2), [embeds(12, 0)[0], embeds(9, 1)[0]])
    other = cache.read(1)
    cut(cache, 2, 6, MODEL.model.text_model.rotary_emb, row=0)
    assert cache.lengths == [8, 9]
    assert all(torch.equal(tensor, cache.read(1)[name]) for name, tensor in other.items())


@torch.inference_mode()
def test_moving_back_is_moving_nowhere() -> None:
    rotary = MODEL.model.text_model.rotary_emb
    keys = embeds(7)[0][None, None, :, : TEXT.hidden_size // TEXT.num_attention_heads]
    assert float((rotate(rotate(keys, 900, rotary), -900, rotary) - keys).abs().max()) <= 1e-5
    once = rotate(keys, -100, rotary)
    turned = keys
    for _ in range(100):
        turned = rotate(turned, -1, rotary)
    assert float((turned - once).abs().max()) <= 1e-4
    assert rotate(keys.bfloat16(), -3, rotary).dtype == torch.bfloat16


@torch.inference_mode()
def test_what_was_read_is_a_copy() -> None:
    """A snapshot does not grow with the stream, and writing it back gives the same continuation."""
    cache = new_cache(2)
    extend(cache, slice(0, 2), [embeds(12, 0)[0], embeds(9, 1)[0]])
    held = cache.read(0)
    first = {name: tensor.clone() for name, tensor in held.items()}
    expected = extend(cache, slice(0, 1), [embeds(5, 7)[0]])
    cache.truncate(0, 3)
    extend(cache, slice(0, 1), [embeds(12, 8)[0]])
    assert all(torch.equal(tensor, held[name]) and tensor.shape[1] == 12 for name, tensor in first.items())
    fresh = new_cache(3)
    fresh.write(2, held)
    assert fresh.lengths == [0, 0, 12]
    assert torch.equal(extend(fresh, slice(2, 3), [embeds(5, 7)[0]]), expected)
    empty = new_cache()
    assert empty.read(0) == {}
    empty.write(0, {})
    assert empty.lengths == [0]


@torch.inference_mode()
def test_what_was_truncated_is_written_over() -> None:
    cache = new_cache()
    extend(cache, slice(0, 1), [embeds(12)[0]])
    cache.truncate(0, 5)
    hidden = extend(cache, slice(0, 1), [embeds(4, 3)[0]])
    expected = whole(torch.cat([embeds(12)[0, :5], embeds(4, 3)[0]]))
    assert float((hidden[0] - expected[-4:]).abs().max()) <= 1e-4 and cache.lengths == [9]


def test_cuts_that_cannot_be_made() -> None:
    rotary = MODEL.model.text_model.rotary_emb
    with torch.inference_mode():
        cache = caches(10)["stream"]
        for begin, end in ((-1, 3), (5, 11), (6, 5)):
            with pytest.raises(ValueError, match="no span"):
                cut(cache, begin, end, rotary)
        with pytest.raises(ValueError, match="say which row"):
            cut(new_cache(2), 0, 0, rotary)
        with pytest.raises(ValueError, match="cannot be truncated to 11"):
            cache.truncate(0, 11)
    stretched = new_model().model.text_model.rotary_emb
    stretched.rope_type = "dynamic"
    with pytest.raises(ValueError, match="dynamic rotary"):
        cut(cache, 0, 1, stretched)
