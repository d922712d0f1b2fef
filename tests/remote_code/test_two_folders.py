"""Two local folders of one name in one process: each runs its own code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hostile_fixtures import whole_folder

# The copies differ in one module of the model, which the configuration's file does not import.
SCRIPT = """
import json, shutil, sys
from pathlib import Path

root, saved, repository = map(Path, sys.argv[1:])


def folder(run, changed, name="checkpoint-100"):
    made = Path(shutil.copytree(saved, root / run / name))
    path = made / f"{changed}_dst_smolvlm.py"
    path.write_text(path.read_text() + f"\\nRUN = {run!r}\\n")
    return str(made)


def run_of(made, changed):
    package = type(made).__module__.rpartition(".")[0]
    __import__(f"{package}.{changed}_dst_smolvlm")
    return sys.modules[f"{package}.{changed}_dst_smolvlm"].RUN


from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

trust = {"trust_remote_code": True}
for changed, auto in (("modeling", AutoModel), ("decoding", AutoModelForImageTextToText)):
    a, b = (folder(changed + run, changed) for run in "AB")
    for path, run in ((a, "A"), (b, "B"), (a, "A")):
        assert run_of(auto.from_pretrained(path, **trust), changed) == changed + run, (changed, run)
a, b = (folder("processing" + run, "processing") for run in "AB")
for path, run in ((a, "A"), (b, "B"), (a, "A")):
    assert run_of(AutoProcessor.from_pretrained(path, **trust), "processing") == "processing" + run

# A second folder that names another class.
c = Path(folder("C", "modeling"))
(c / "other.py").write_text("from .modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration\\n"
                            "class Other(DSTSmolVLMForConditionalGeneration): pass\\n")
config = json.loads((c / "config.json").read_text())
config["auto_map"]["AutoModel"] = "other.Other"
(c / "config.json").write_text(json.dumps(config))
assert type(AutoModel.from_pretrained(str(c), **trust)).__name__ == "Other"

# Where the installed configuration class is used, all folders share it, whatever they are called.
sys.path.insert(0, str(repository))
from configuration_dst_smolvlm import DSTSmolVLMConfig

AutoConfig.register("dst_smolvlm", DSTSmolVLMConfig)
for run, name in (("D", "one"), ("E", "two")):
    assert run_of(AutoModel.from_pretrained(folder(run, "modeling", name), **trust), "modeling") == run, run
print("each its own")
"""


def test_a_second_folder_of_one_name_runs_its_own_code(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    saved = whole_folder(tmp_path / "saved")
    done = subprocess.run(
        [sys.executable, "-I", "script.py", "runs", str(saved), str(repository)],
        cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout.endswith("each its own\n"), done.stderr
