"""A model folder is never a mix: results and card name their weights, and the old go before new ones come."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prospect_hf.errors import UsageError
from prospect_hf.files import write_json, write_text
from prospect_hf.hub.weights import WEIGHTS_KEY, check_weights, new_model_files, weights_hash


def write_model(folder: Path, name: str, shards: int) -> None:
    """A folder of ``name``'s weights and configuration."""
    folder.mkdir(exist_ok=True, parents=True)
    for number in range(shards):
        (folder / f"model-{number}.safetensors").write_text(f"{name} {number} " * 1000)
    (folder / "model.safetensors.index.json").write_text(name)
    (folder / "config.json").write_text(name)


def write_about(folder: Path) -> None:
    """Results and card of the weights in ``folder``."""
    found = weights_hash(folder)
    write_json(folder / "results.json", {WEIGHTS_KEY: found})
    write_text(folder / "README.md", found)
    write_text(folder / ".eval_results" / "prospect.yaml", found)


def is_whole(folder: Path) -> bool:
    """Whether the folder has weights; if so, everything beside them must be theirs."""
    if not list(folder.glob("*.safetensors")):
        return False
    names = {path.read_text().split()[0] for path in folder.glob("*.safetensors")}
    assert len(names) == 1 and names == {(folder / "config.json").read_text()}, names
    for name in ("results.json", "README.md", ".eval_results/prospect.yaml"):
        if (folder / name).exists():
            assert weights_hash(folder) in (folder / name).read_text(), name
    return True


def test_the_hash_is_of_all_shards_in_order(tmp_path: Path) -> None:
    write_model(tmp_path, "a", 3)
    content = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("*.safetensors")))
    assert weights_hash(tmp_path) == hashlib.sha256(content).hexdigest()
    before = weights_hash(tmp_path)
    (tmp_path / "config.json").write_text("another")
    assert weights_hash(tmp_path) == before
    changed = bytearray((tmp_path / "model-2.safetensors").read_bytes())
    changed[5] ^= 1
    (tmp_path / "model-2.safetensors").write_bytes(changed)
    assert weights_hash(tmp_path) != before


def test_results_of_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no model\.safetensors"):
        weights_hash(tmp_path)
    write_model(tmp_path, "a", 1)
    check_weights(tmp_path, weights_hash(tmp_path), tmp_path / "README.md")
    with pytest.raises(UsageError, match=r"README\.md does not name its weights"):
        check_weights(tmp_path, None, tmp_path / "README.md")
    for other in ("0" * 64, 5, ["x"]):
        with pytest.raises(UsageError, match=r"README\.md is not about the weights in "):
            check_weights(tmp_path, other, tmp_path / "README.md")


def test_new_files_take_the_place_of_all_old_ones(tmp_path: Path) -> None:
    write_model(tmp_path, "a", 3)
    write_about(tmp_path)
    (tmp_path / "checkpoint-2").mkdir()
    with new_model_files(tmp_path) as temporary:
        write_model(temporary, "b", 2)
        assert is_whole(tmp_path) and "a" in (tmp_path / "config.json").read_text()
    assert is_whole(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [
            ".eval_results",
            "checkpoint-2",
            "config.json",
            "model-0.safetensors",
            "model-1.safetensors",
            "model.safetensors.index.json",
        ]
    )
    assert not list((tmp_path / ".eval_results").iterdir())


def test_adapters_and_whole_weights_take_each_others_place(tmp_path: Path) -> None:
    """A folder never holds a whole model beside adapters, and the hash is of what it holds."""

    def write_adapters(folder: Path) -> None:
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_model.safetensors").write_text("adapters")

    write_model(tmp_path, "a", 1)
    hashes = [weights_hash(tmp_path)]
    with new_model_files(tmp_path) as temporary:
        write_adapters(temporary)
    hashes.append(weights_hash(tmp_path))
    assert not list(tmp_path.glob("*.safetensors")) and hashes[1] == hashlib.sha256(b"adapters").hexdigest()
    with new_model_files(tmp_path) as temporary:
        write_model(temporary, "a", 1)
    assert not (tmp_path / "adapter").exists() and weights_hash(tmp_path) == hashes[0]


def test_a_save_that_fails_leaves_the_old_model_with_its_results(tmp_path: Path) -> None:
    write_model(tmp_path, "a", 1)
    write_about(tmp_path)
    with pytest.raises(OSError, match="full"), new_model_files(tmp_path) as temporary:
        write_model(temporary, "b", 1)
        raise OSError("full")
    assert is_whole(tmp_path) and (tmp_path / "results.json").exists()
    assert not list(tmp_path.glob("*.partial"))


class Killed(BaseException):
    """Stands for kill -9: nothing after it is carried out."""


@pytest.mark.parametrize("step", range(12))
def test_killed_between_any_two_steps_the_folder_is_no_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    write_model(tmp_path, "a", 3)
    write_about(tmp_path)
    left = [step]

    def counted(patched: pytest.MonkeyPatch, name: str) -> None:
        carried_out = getattr(Path, name)

        def one(self: Path, *args: object, **kwargs: object) -> object:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return carried_out(self, *args, **kwargs)

        patched.setattr(Path, name, one)

    with monkeypatch.context() as patched:
        try:
            with new_model_files(tmp_path) as temporary:
                write_model(temporary, "b", 2)
                patched.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
                counted(patched, "unlink")
                counted(patched, "replace")
        except Killed:
            pass
    is_whole(tmp_path)
    # The next run goes on in the same folder and leaves nothing of the killed one.
    with new_model_files(tmp_path) as temporary:
        write_model(temporary, "c", 1)
    assert is_whole(tmp_path) and (tmp_path / "config.json").read_text() == "c"
    assert not list(tmp_path.glob("*.partial"))


KEEPS_SAVING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_weights import write_about, write_model
from prospect_hf.files import write_json, write_text
from prospect_hf.hub.weights import new_model_files
folder = Path(sys.argv[1])
while True:
    for name in "ab":
        with new_model_files(folder) as temporary:
            write_model(temporary, name, 20)
        write_about(folder)
    print("saved", flush=True)
"""


def test_kill_9_while_saving(tmp_path: Path, repository: Path) -> None:
    for number in range(4):
        command = [sys.executable, "-c", KEEPS_SAVING, str(tmp_path), str(Path(__file__).parent)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(repository)})
        assert process.stdout is not None and process.stdout.readline() == b"saved\n"
        time.sleep(0.01 + 0.003 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        is_whole(tmp_path)
