"""A saved folder works where this project is not installed: remote code alone, copied elsewhere, in a fresh process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from model_fixtures import (
    HEAD_LOGITS,
    clip_dataset,
    collate,
    make_session,
    model_inputs,
    new_model,
    picture,
    small_processor,
)
from safetensors.torch import load_file, save_file

from streaming_dst_smolvlm import DSTStream

REMOTE = (
    "adapters",
    "cache",
    "configuration",
    "container",
    "context",
    "decoding",
    "events",
    "inputs",
    "modeling",
    "pipeline",
    "processing",
    "room",
    "streaming",
    "text_loss",
    "tracking",
    "turns",
    "video",
)
GOAL, STEPS = "Make tea", ["Boil water.", "Pour <image> it."]

# Runs with `python -I`: no current folder, no PYTHONPATH. The finder refuses the project even where it is installed.
FRESH = """
import json, os, sys

folder, inputs_file, answers_file = sys.argv[1:]


def of_project(name):
    first = name.split(".")[0]
    return first == "prospect_hf" or first.endswith("_dst_smolvlm")


class NotHere:
    def find_spec(self, name, path=None, target=None):
        if of_project(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, NotHere())
for name in ("prospect_hf", "modeling_dst_smolvlm", "streaming_dst_smolvlm", "pipeline_dst_smolvlm"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        pass
    else:
        raise SystemExit(f"{name} can be imported here")

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = load_file(inputs_file)
frames = [Image.fromarray(frame.numpy()) for frame in inputs.pop("frames")]
built = processor(sys.stdin.readline().strip(), json.loads(sys.stdin.readline()), frames)
answers = {f"built.{name}": value for name, value in built.items()}
facts = {"config": type(config).__name__, "processor": type(processor).__name__, "models": []}
for auto in (AutoModel, AutoModelForImageTextToText):
    model = auto.from_pretrained(folder, trust_remote_code=True).eval()
    facts["models"].append(type(model).__name__)
    with torch.no_grad():
        for kind, fed in (("batch", inputs), ("built", built)):
            output = model(**fed)
            for name in ("logits", "speaking_logits", "dst_update_logits", "dst_state_logits"):
                answers[f"{auto.__name__}.{kind}.{name}"] = output[name]
facts["tokens_per_frame"] = processor.tokens_per_frame
facts["threshold"] = model.config.speaking_threshold
stream = model.stream(processor, facts_plan := ["Boil water.", "Pour it."], "Make tea")
pipe = pipeline("dst-stream", model=folder, trust_remote_code=True)
facts["pipeline"] = type(pipe).__name__
for name, events in (("stream", list(stream.run(frames))), ("pipeline", pipe(frames, facts_plan, "Make tea"))):
    facts[name + "_events"] = [[e.frame, e.p_speak, e.p_update, e.text, list(e.states)] for e in events]
model.save_pretrained(answers_file + ".again")
facts["files"] = sorted(path for path in os.listdir(answers_file + ".again") if path.endswith(".py"))
facts["project"] = sorted(name for name in sys.modules if of_project(name))
save_file({name: value.contiguous() for name, value in answers.items()}, answers_file)
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What the fresh process tells, its tensors, and the same tensors made here."""
    root = tmp_path_factory.mktemp("remote")
    model, processor = new_model(4), small_processor(4)
    model.config.speaking_threshold = 0.25
    model.save_pretrained(root / "made")
    processor.save_pretrained(root / "made")
    shutil.copytree(root / "made", root / "copied")
    shutil.rmtree(root / "made")

    batch = model_inputs(collate([clip_dataset([make_session(seed, 8 + seed)], 4)[0] for seed in range(2)]), "labels")
    frames = [picture("v", frame) for frame in range(3)]
    save_file(
        {**batch, "frames": torch.stack([torch.from_numpy(frame) for frame in frames])}, root / "inputs.safetensors"
    )
    (root / "fresh.py").write_text(FRESH)
    (root / "elsewhere").mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            root / "fresh.py",
            root / "copied",
            root / "inputs.safetensors",
            root / "answers.safetensors",
        ],
        input=f"{GOAL}\n{json.dumps(STEPS)}\n",
        cwd=root / "elsewhere",
        env={**os.environ, "HF_MODULES_CACHE": str(root / "modules"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    events = list(DSTStream(model, processor, ["Boil water.", "Pour it."], "Make tea").run(frames))
    told = [[e.frame, e.p_speak, e.p_update, e.text, list(e.states)] for e in events]
    facts = json.loads(done.stdout.splitlines()[-1]) | {"expected_events": told}
    built = processor(GOAL, STEPS, frames)
    expected = {f"built.{name}": value for name, value in built.items()}
    with torch.no_grad():
        for kind, fed in (("batch", batch), ("built", built)):
            output = model(**fed)
            expected |= {f"{kind}.{name}": output[name] for name in (*HEAD_LOGITS, "logits")}
    return facts, load_file(root / "answers.safetensors"), expected


def test_the_project_was_not_there(answers: tuple[dict[str, Any], Any, Any]) -> None:
    facts = answers[0]
    assert facts["project"] == []
    assert facts["config"] == "DSTSmolVLMConfig" and facts["processor"] == "DSTSmolVLMProcessor"
    assert facts["models"] == ["DSTSmolVLMForConditionalGeneration"] * 2
    assert facts["tokens_per_frame"] == 4 and facts["threshold"] == 0.25


def test_streams_and_the_pipeline_come_with_the_folder(answers: tuple[dict[str, Any], Any, Any]) -> None:
    facts = answers[0]
    assert facts["pipeline"] == "DSTStreamPipeline"
    assert facts["files"] == [f"{name}_dst_smolvlm.py" for name in REMOTE]
    for kind in ("stream_events", "pipeline_events"):
        for theirs, ours in zip(facts[kind], facts["expected_events"], strict=True):
            assert [theirs[0], *theirs[3:]] == [ours[0], *ours[3:]]
            assert theirs[1:3] == pytest.approx(ours[1:3], abs=1e-5)


def test_the_processor_builds_the_same_stream(
    answers: tuple[Any, dict[str, torch.Tensor], dict[str, torch.Tensor]],
) -> None:
    _, theirs, ours = answers
    names = {name for name in ours if name.count(".") == 1 and name.startswith("built.") and "logits" not in name}
    assert len(names) == 5
    for name in names:
        assert torch.equal(theirs[name], ours[name]), name


@pytest.mark.parametrize("auto", ["AutoModel", "AutoModelForImageTextToText"])
@pytest.mark.parametrize("kind", ["batch", "built"])
def test_the_model_answers_the_same(
    answers: tuple[Any, dict[str, torch.Tensor], dict[str, torch.Tensor]], auto: str, kind: str
) -> None:
    _, theirs, ours = answers
    for name in (*HEAD_LOGITS, "logits"):
        assert ours[f"{kind}.{name}"].std() > 0
        # Another number of threads may sum in another order; the weights are the same bit for bit.
        assert torch.allclose(theirs[f"{auto}.{kind}.{name}"], ours[f"{kind}.{name}"], rtol=0, atol=1e-5), name


@pytest.mark.slow
def test_remote_code_is_typed_across_its_modules(repository: Path, tmp_path: Path) -> None:
    """As it lies in a checkpoint: at the top level mypy cannot follow relative imports and takes them for ``Any``."""
    pytest.importorskip("mypy", reason="mypy is not installed (extra dev)")
    package = tmp_path / "checkpoint"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in REMOTE:
        shutil.copy(repository / f"{name}_dst_smolvlm.py", package)
    settings = ["--config-file", str(repository / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache")]
    # The second import of each ``try`` is the same name once more.
    command = [sys.executable, "-m", "mypy", *settings, "--disable-error-code", "no-redef", "-p", "checkpoint"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout


def test_the_settings_of_decoding_need_no_torch(repository: Path) -> None:
    code = "import sys, decoding_dst_smolvlm; print(*sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_remote_code_imports_nothing_of_the_project(repository: Path) -> None:
    assert {path.name for path in repository.glob("*_dst_smolvlm.py")} == {f"{name}_dst_smolvlm.py" for name in REMOTE}
    for name in REMOTE:
        text = (repository / f"{name}_dst_smolvlm.py").read_text()
        assert "import prospect_hf" not in text and "from prospect_hf" not in text
