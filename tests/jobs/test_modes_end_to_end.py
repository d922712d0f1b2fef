"""A base model, adapters on it, and every command that opens a folder of adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from job_fixtures import SETTINGS, evaluate, stream, train
from model_fixtures import picture
from PIL import Image

from prospect_hf.checkpoints import load_trained
from prospect_hf.hub.front_matter import read_card


@pytest.mark.slow
def test_every_command_opens_a_folder_of_adapters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = [f"data.root={tmp_path / 'corpus'}", f"data.cache_dir={tmp_path / 'cache'}"]
    assert train([*SETTINGS, *place, f"training.output_dir={tmp_path / 'base'}"]) == 0
    of_lora = [
        *(setting for setting in SETTINGS if "look_" not in setting),
        *place,
        "training=lora",
        "training.bf16=false",
        "training.eval_strategy=no",
        "training.num_train_epochs=1",
        f"model.name_or_path={tmp_path / 'base'}",
        f"training.output_dir={tmp_path / 'lora'}",
    ]
    saving = ["training.save_strategy=steps", "training.save_steps=2"]
    assert train([*of_lora, *saving]) == 0
    folder = tmp_path / "lora"
    config = json.loads((folder / "config.json").read_text())
    assert config["adapter"]["base_model"] == "../base"
    assert json.loads((folder / "checkpoint-2" / "config.json").read_text())["adapter"]["base_model"] == "../../base"
    results = json.loads((folder / "results.json").read_text())
    assert results["results"]["trained_parameters"] < results["results"]["parameters"] / 2
    _, body = read_card(folder / "README.md")
    assert "Training mode lora: the heads were trained, and LoRA layers of rank 16 in the text model." in body
    load_trained(folder / "checkpoint-2")

    # A run that was killed after its checkpoint ends with the same adapters.
    weights = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(folder / "adapter")
    assert train([*of_lora, *saving, "training.resume_from_checkpoint=true"]) == 0
    assert (folder / "adapter" / "adapter_model.safetensors").read_bytes() == weights

    # The folder of frame features that the run made cannot serve a connector that is trained.
    (features,) = [path for path in (tmp_path / "cache" / "features").iterdir() if path.is_dir()]
    capsys.readouterr()
    given = [f"data.features={features}", "training.train_connector=true"]
    assert train([*of_lora, *given]) == 2
    assert "training.train_connector=true trains it: unset one." in capsys.readouterr().err

    cache = f"data.cache_dir={tmp_path / 'cache'}"
    assert evaluate([f"evaluate.model={folder}", f"evaluate.output_dir={tmp_path / 'evaluation'}", cache]) == 0
    (tmp_path / "pictures").mkdir()
    for frame in range(3):
        Image.fromarray(picture("clip", frame)).save(tmp_path / "pictures" / f"{frame}.png")
    source = [f"stream.source={tmp_path / 'pictures'}", "stream.plan=[two]", f"stream.output_dir={tmp_path / 'out'}"]
    assert stream([f"stream.model={folder}", *source]) == 0
