"""Damaged model folders and saved streams are refused with a sentence, or give a model or stream that works."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adapter_fixtures import trained, write_base
from fuzzing import Target, assert_no_fault, survey
from gguf_fixtures import SMALL, write_gguf
from model_fixtures import picture, small_processor
from mutations import damage_file, files_in, json_bytes, mutate_bytes, mutate_json, write_files
from stream_fixtures import FIVE, PLAN, talkative_model

from adapters_dst_smolvlm import SUBFOLDER, WEIGHTS
from prospect_hf.checkpoints import load_trained
from prospect_hf.streaming import Context, Decoding, DSTStream, Tracking, restore_stream, save_stream
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.build import build_processor, load_whole
from prospect_hf.training.text_half import write_text_half

# How often each file of a model folder is damaged.
MODEL_FILES = {
    "config.json": 8,
    "model.safetensors": 4,
    "tokenizer.json": 3,
    "tokenizer_config.json": 2,
    "processor_config.json": 3,
    "generation_config.json": 1,
    "chat_template.jinja": 1,
}


def follow(stream: DSTStream) -> None:
    """Two frames, one with words."""
    stream.step(picture("v", 90), "where does the wheel")
    stream.step(picture("v", 91))


def saved_streams() -> Target:
    model, processor = talkative_model(), small_processor()
    bases = []
    for strategy, frames, source in (
        ("drop_middle", 9, "head"),
        ("summarize_with_dst", 0, "head"),
        ("drop_all", 3, "text"),
    ):
        stream = DSTStream(
            model, processor, PLAN, "the red wheel", [1, 0, 0], Context(strategy, 330, 60),
            Tracking(source=source, debounce=2), Decoding(6, temperature=1.2, seed=3),
        )  # fmt: skip
        for frame in range(frames):
            stream.step(picture("v", frame), "two" if frame % 4 == 1 else None)
        with tempfile.TemporaryDirectory() as folder:
            save_stream(stream, Path(folder) / "state")
            bases.append(files_in(Path(folder) / "state"))

    def target(rng: random.Random, folder: Path) -> None:
        write_files(folder / "state", rng.choice(bases))
        damage_file(folder / "state" / rng.choice(["stream.json", "stream.json", "stream.safetensors"]), rng)
        stream = restore_stream(folder / "state", model, processor)
        follow(stream)
        save_stream(stream, folder / "again")

    return target


SIZES = (0, -1, -2, 1, 3, 10**4, 10**7, 10**12, 10**30, 2.0, "2", None, True)


def odd_sizes(config: Any, rng: random.Random) -> None:
    """Put another number in place of a few whole numbers of a configuration."""
    parts = [config, config["text_config"], config["vision_config"]]
    places = [(part, key) for part in parts for key, value in part.items() if type(value) in (int, float)]
    for part, key in rng.sample(places, rng.choice([1, 1, 2])):
        part[key] = rng.choice(SIZES)


def damaged_model_folder(rng: random.Random, folder: Path, whole: dict[str, bytes], shards: dict[str, bytes]) -> None:
    if rng.random() < 0.12:
        write_files(folder, shards)
        named = rng.choice([*sorted(name for name in shards if "safetensors" in name), "model.safetensors.index.json"])
        if rng.random() < 0.2:
            (folder / named).unlink()
            return
    else:
        write_files(folder, whole)
        named = rng.choices(list(MODEL_FILES), list(MODEL_FILES.values()))[0]
        if rng.random() < 0.03:
            (folder / named).unlink()
            return
    if named == "config.json" and rng.random() < 0.5:
        config = json.loads((folder / named).read_bytes())
        odd_sizes(config, rng)
        (folder / named).write_text(json.dumps(config))
        return
    damage_file(folder / named, rng)


def model_files() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """A model's folder in one file of weights, and in several."""
    found = []
    for most in ("1GB", "60KB"):
        with tempfile.TemporaryDirectory() as place:
            talkative_model().save_pretrained(place, max_shard_size=most)
            small_processor().save_pretrained(place)
            found.append(files_in(Path(place)))
    return found[0], found[1]


def model_folders() -> Target:
    whole, shards = model_files()

    def target(rng: random.Random, folder: Path) -> None:
        damaged_model_folder(rng, folder, whole, shards)
        model, processor = load_trained(folder)
        follow(model.stream(processor, PLAN, "the red wheel", decoding=replace(FIVE, max_new_tokens=3)))

    return target


def folders_to_train_from() -> Target:
    whole, shards = model_files()

    def target(rng: random.Random, folder: Path) -> None:
        damaged_model_folder(rng, folder, whole, shards)
        arguments = ModelArguments(name_or_path=str(folder))
        build_processor(arguments, [])
        load_whole(arguments)

    return target


def folders_of_adapters() -> Target:
    with tempfile.TemporaryDirectory() as place:
        trained("lora", write_base(Path(place) / "base"), Path(place) / "lora", max_steps=1)
        whole = files_in(Path(place))
    names = ["lora/config.json", "lora/config.json", f"lora/{SUBFOLDER}/{WEIGHTS}", "base/config.json"]

    def target(rng: random.Random, folder: Path) -> None:
        write_files(folder, whole)
        named = rng.choice(names)
        if named == "lora/config.json" and rng.random() < 0.7:
            config = json.loads(whole[named])
            (folder / named).write_bytes(json_bytes({**config, "adapter": mutate_json(config["adapter"], rng)}, rng))
        else:
            damage_file(folder / named, rng)
        model, processor = load_trained(folder / "lora")
        follow(model.stream(processor, PLAN, "the red wheel", decoding=replace(FIVE, max_new_tokens=3)))

    return target


def gguf_files() -> Target:
    pytest.importorskip("gguf", reason="reads GGUF files: the extra gguf is not installed")
    with tempfile.TemporaryDirectory() as folder:
        whole = write_gguf(Path(folder) / "text.gguf").read_bytes()
    head = whole.index(b"blk.0.attn_q.weight")

    def target(rng: random.Random, folder: Path) -> None:
        # Most of the file is weights, in which a damaged bit is another number.
        damaged = mutate_bytes(whole[:head], rng) + whole[head:] if rng.random() < 0.6 else mutate_bytes(whole, rng)
        (folder / "text.gguf").write_bytes(damaged)
        write_text_half(folder / "text.gguf", folder / "base", SMALL)
        load_whole(ModelArguments(name_or_path=str(folder / "base")))

    return target


TARGETS: dict[str, tuple[Callable[[], Target], int]] = {
    "saved streams": (saved_streams, 40),
    "model folders": (model_folders, 40),
    "model folders to train from": (folders_to_train_from, 20),
    "folders of adapters": (folders_of_adapters, 30),
    "GGUF files": (gguf_files, 30),
}


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_models_and_streams(name: str, tmp_path: Path) -> None:
    make, inputs = TARGETS[name]
    assert_no_fault(survey(name, make(), inputs, tmp_path))
