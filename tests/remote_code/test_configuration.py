"""The configuration: what is saved is what is loaded, and a wrong value is named before a model is built from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_fixtures import small_processor, small_shape
from transformers import SmolVLMConfig

from configuration_dst_smolvlm import AUTO_MAP, DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.training.tiny import tiny_config

OWN_KEYS = {"model_type", "auto_map", "architectures", "transformers_version"}


def config_with(**changes: Any) -> DSTSmolVLMConfig:
    config = tiny_config(small_processor(), small_shape())
    for name, value in changes.items():
        setattr(config, name, value)
    return config


@pytest.mark.parametrize("tokens", [1, 4, 9, 16, "full"])
def test_save_and_load_round_trip(tmp_path: Path, tokens: int | str) -> None:
    config = config_with(tokens_per_frame=tokens, speaking_threshold=0.25, dst_update_threshold=0.75, fps=4.0)
    config.save_pretrained(tmp_path)
    loaded = DSTSmolVLMConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.tokens_per_frame == tokens and type(loaded.tokens_per_frame) is type(tokens)
    assert (loaded.speaking_threshold, loaded.dst_update_threshold, loaded.fps) == (0.25, 0.75, 4.0)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "dst_smolvlm" and saved["auto_map"] == AUTO_MAP
    assert AUTO_MAP.keys() == {"AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoProcessor"}


@pytest.mark.parametrize(("tokens", "expected"), [(1, 1), (4, 4), (9, 9), (16, 16), ("full", 36)])
def test_stream_tokens(tokens: int | str, expected: int) -> None:
    config = config_with(tokens_per_frame=tokens)
    config.check()
    assert config.grid_side == 6  # 24 px in patches of 4, no pixel shuffle
    assert config.stream_tokens == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokens_per_frame", 2),
        ("tokens_per_frame", 0),
        ("tokens_per_frame", "all"),
        ("num_dst_states", 2),
        ("speaking_threshold", 1.5),
        ("speaking_threshold", float("nan")),
        ("dst_update_threshold", -0.1),
        ("fps", 0.0),
        ("fps", float("nan")),
    ],
)
def test_a_value_out_of_range_is_named_when_the_model_is_built(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=key):
        DSTSmolVLMForConditionalGeneration(config_with(**{key: value}))


def test_more_tokens_than_the_vision_tower_has_are_refused() -> None:
    config = config_with(tokens_per_frame=16, scale_factor=2)  # 3 x 3 vision tokens are left
    with pytest.raises(ValueError, match=r"tokens_per_frame=16 .*3 x 3"):
        config.check()


@pytest.mark.parametrize(
    ("size", "side", "parameters"), [("256M", 8, 256_484_928), ("500M", 8, 507_482_304), ("2.2B", 9, 2_246_784_880)]
)
def test_from_smolvlm_keeps_all_of_a_real_config(shared_data: Path, size: str, side: int, parameters: int) -> None:
    stock = SmolVLMConfig.from_pretrained(shared_data / "smolvlm2" / size)
    config = DSTSmolVLMConfig.from_smolvlm(stock, tokens_per_frame="full")
    config.check()
    assert (config.grid_side, config.stream_tokens) == (side, side**2)
    ours, theirs = config.to_dict(), stock.to_dict()
    assert {key: ours[key] for key in theirs.keys() - OWN_KEYS} == {
        key: theirs[key] for key in theirs.keys() - OWN_KEYS
    }
    assert ours["model_type"] == "dst_smolvlm" and ours["auto_map"] == AUTO_MAP
    with torch.device("meta"):
        model = DSTSmolVLMForConditionalGeneration(config)
    hidden = config.text_config.hidden_size
    heads = (2 + 2 + 3) * (hidden + 1) + 2 * hidden * (hidden + 1) + 4 * hidden
    assert model.num_parameters() - heads == parameters


def test_overrides_win_over_the_stock_config() -> None:
    stock = SmolVLMConfig(**{k: v for k, v in config_with().to_dict().items() if k in ("text_config", "vision_config")})
    config = DSTSmolVLMConfig.from_smolvlm(stock, tokens_per_frame=4, fps=1.0)
    assert (config.tokens_per_frame, config.fps) == (4, 1.0)
    assert config.text_config.to_dict() == stock.text_config.to_dict()
