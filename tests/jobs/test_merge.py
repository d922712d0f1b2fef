"""``prospect merge``: a whole model that answers as the adapters did, and says what was merged into what."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from adapter_fixtures import answers, trained, write_base
from model_fixtures import largest_difference
from safetensors.torch import load_file, save_file

from prospect_hf.checkpoints import load_trained
from prospect_hf.cli import main
from prospect_hf.content_hash import weights_hash
from prospect_hf.hub.front_matter import read_card

MATRIX = "model.text_model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``base`` and, trained on it, ``qlora`` and ``heads``."""
    root = tmp_path_factory.mktemp("made")
    base = write_base(root / "base")
    for mode in ("qlora", "heads"):
        trained(mode, base, root / mode, max_steps=2)
    return root


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    assert main(["merge", *map(str, arguments)]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return error


def test_a_quantised_base_is_merged_as_it_was_trained(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", str(made / "qlora"), str(tmp_path / "out")]) == 0
    merged = "adapters of rank 4 of training mode qlora in the base model base, which was dequantised from nf4"
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'out'}: {merged}.\n")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["merged"] == merged and config["adapter"] is None and "quantization_config" not in config
    assert not (tmp_path / "out" / "adapter").exists()
    wanted, found = (answers(load_trained(folder)[0]) for folder in (made / "qlora", tmp_path / "out"))
    assert max(largest_difference(wanted[name], found[name]) for name in wanted) < 1e-4


def test_the_original_base_is_taken_when_asked(made: Path, tmp_path: Path) -> None:
    """Its matrices plus the LoRA layers' product, computed here from the files."""
    assert main(["merge", str(made / "qlora"), str(tmp_path / "out"), "--original-base"]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["merged"].endswith("of training mode qlora in the base model base")
    base, merged = (load_file(folder / "model.safetensors")[MATRIX] for folder in (made / "base", tmp_path / "out"))
    adapters = load_file(made / "qlora" / "adapter" / "adapter_model.safetensors")
    name = f"base_model.model.{MATRIX.removesuffix('.weight')}.lora_"
    wanted = base + 32 / 4 * adapters[f"{name}B.weight"] @ adapters[f"{name}A.weight"]
    assert largest_difference(merged, wanted) < 1e-6 < 1e-3 < largest_difference(merged, base)


def test_the_card_goes_along_and_names_the_new_weights(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made / "qlora", tmp_path / "qlora"))
    count = {"videos": 1, "sessions": 1, "rows": 1, "speaking_1": 1, "dst_update_1": 0}
    facts = {
        "weights_sha256": weights_hash(folder),
        "settings": {
            "model": {"name_or_path": "owner/base", "freeze_vision": True},
            "data": {"frames": "store", "name": "x", "sources": ["wtag"]},
            "training": {"mode": "qlora", "train_connector": False},
        },
        "results": {"steps": 1, "train_seconds": 1.0, "trained_parameters": 5, "parameters": 5000},
        "balance": {"all": count},
    }
    (folder / "results.json").write_text(json.dumps(facts))
    output = tmp_path / "out"
    assert main(["merge", str(folder), str(output), "--base", str(made / "base")]) == 0
    head, body = read_card(output / "README.md")
    assert head["weights_sha256"] == weights_hash(output) != facts["weights_sha256"]
    assert "5 of 5,000 parameters were trained" in body
    assert "dequantised from nf4. The figures below were measured before merging." in body
    save_file({"x": torch.zeros(1)}, folder / "other.safetensors")
    assert main(["merge", str(folder), str(output)]) == 2  # results of other weights


def test_what_cannot_be_merged_is_one_sentence(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds a whole model: there is nothing to merge" in refused(capsys, made / "base", tmp_path / "out")
    assert "which holds the adapters" in refused(capsys, made / "qlora", made / "qlora")
    assert "which holds the base model" in refused(capsys, made / "qlora", made / "base")
    assert "nowhere has no config.json" in refused(capsys, tmp_path / "nowhere", tmp_path / "out")
    assert "cannot be loaded" in refused(capsys, made / "qlora", tmp_path / "out", "--base", tmp_path / "nowhere")
    assert "leave out --original-base" in refused(capsys, made / "heads", tmp_path / "out", "--original-base")
    assert not (tmp_path / "out").exists()


def test_no_folder_that_is_read_is_written_into(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Saving a model into a folder removes the weights there, and those in its folder ``adapter``."""
    shutil.copytree(made / "qlora", tmp_path / "models" / "adapter")
    shutil.copytree(made / "base", tmp_path / "base" / "adapter")
    adapters, base = tmp_path / "models" / "adapter", tmp_path / "base" / "adapter"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    for output in (adapters / "adapter", adapters / "merged", tmp_path / "models", base / "merged", tmp_path / "base"):
        assert "give a folder beside it" in refused(capsys, adapters, output, "--base", base)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


# Runs with `python -I`, without the project: the folder's own code, and of the merged folder without peft.
FRESH = """
import logging
import sys

folder, merged, place = sys.argv[1:]
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageTextToText

inputs = load_file(place)
answers = {}
models = {"adapters": (AutoModel, folder), "again": (AutoModelForImageTextToText, place + ".again")}
for name, (auto, path) in models.items():
    model = auto.from_pretrained(path, trust_remote_code=True)
    answers[name] = model(**inputs).speaking_logits.detach()
    model.save_pretrained(place + ".again")
logging.getLogger("bitsandbytes.backends.cpu.ops").warning("Failed to load CPU gemm_4bit_forward from kernels-...")
for package in ("peft", "bitsandbytes"):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]
    sys.modules[package] = None
answers["merged"] = AutoModel.from_pretrained(merged, trust_remote_code=True)(**inputs).speaking_logits.detach()
assert not any(name.startswith("prospect_hf") for name in sys.modules)
save_file(answers, place)
"""


def test_a_folder_and_its_merged_model_open_by_remote_code(made: Path, tmp_path: Path) -> None:
    from adapter_fixtures import clip_batch

    assert main(["merge", str(made / "qlora"), str(tmp_path / "merged")]) == 0
    place = tmp_path / "tensors"
    inputs = clip_batch()
    del inputs["labels"]
    save_file(inputs, place)
    wanted = answers(load_trained(made / "qlora")[0])["speaking_logits"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", FRESH, str(made / "qlora"), str(tmp_path / "merged"), str(place)],
        cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "gemm_4bit" not in done.stderr  # which bitsandbytes warns of on some processors, and nothing here uses
    found = load_file(place)
    # Another number of threads may sum in another order.
    assert {name: largest_difference(value, wanted) < 1e-4 for name, value in found.items()} == dict.fromkeys(
        ("adapters", "again", "merged"), True
    )
