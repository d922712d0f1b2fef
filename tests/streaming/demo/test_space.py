"""The files of a Space, and the script."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="gradio is not installed (extra demo)")
pytest.importorskip("av", reason="PyAV is not installed (extra stream)")


from prospect_hf.errors import UsageError
from prospect_hf.jobs.command import sentence
from prospect_hf.streaming.demo.limits import Limits
from prospect_hf.streaming.demo.space import write_space


def test_the_files_of_a_space(tmp_path: Path, repository: Path) -> None:
    written = write_space(tmp_path / "space", "owner/dst-smolvlm2", Limits(streams=3))
    modules = [path.name for path in sorted(repository.glob("*_dst_smolvlm.py"))]
    assert [path.name for path in written] == ["app.py", "requirements.txt", "README.md", "prospect_hf", *modules]
    assert sorted(written) == sorted((tmp_path / "space").iterdir())
    app, requirements, card = (path.read_text(encoding="utf-8") for path in written[:3])
    compile(app, "app.py", "exec")
    assert "limits = Limits(streams=3, minutes=30.0, video_minutes=60.0, upload_mb=500)\n" in app
    assert 'snapshot_download("owner/dst-smolvlm2")' in app
    front = card.split("---\n")[1]
    assert "sdk: gradio\n" in front and "app_file: app.py\n" in front and "  - owner/dst-smolvlm2\n" in front
    # The package is on no index; what it needs is, with the extras demo and stream.
    names = {re.split("[<>=]", line)[0] for line in requirements.splitlines()}
    assert {"av", "rich", "gradio", "torch", "transformers", "bitsandbytes"} <= names
    assert not names & {"prospect-hf", "openai", "pytest", "playwright"} and ";" not in requirements


def test_a_space_runs_on_its_own_copy_of_the_code(tmp_path: Path, folder: Path) -> None:
    """Only the Space's folder holds the package: app.py starts with a model that the Hub gave."""
    space = tmp_path / "space"
    write_space(space, "owner/name")
    script = f"""
import sys
from pathlib import Path
sys.path[:] = [{str(space)!r}] + [path for path in sys.path if path and not (Path(path) / "prospect_hf").is_dir()
    or "site-packages" in path]
import huggingface_hub, gradio
huggingface_hub.snapshot_download = lambda model: {{"owner/name": {str(folder)!r}}}[model]
def launch(self, **settings):
    print("served", settings["server_name"], settings["server_port"])
    raise KeyboardInterrupt
gradio.Blocks.launch = launch
import contextlib, runpy
with contextlib.suppress(KeyboardInterrupt):
    runpy.run_path("app.py", run_name="__main__")
ours = [name for name in sys.modules if name.startswith("prospect_hf") or name.endswith("_dst_smolvlm")]
files = [Path(sys.modules[name].__file__) for name in ours]
print(len(files), {{Path({str(space)!r}) in file.parents for file in files}})
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=space, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "served 0.0.0.0 7860" in done.stdout
    count, places = done.stdout.splitlines()[-1].split(" ", 1)
    assert int(count) > 20 and places == "{True}"


@pytest.mark.parametrize("model_id", ["", "outputs/tiny/x", 'a/b"); import os', "name", "../x", "a/b\n"])
def test_a_space_needs_a_model_of_the_hub(tmp_path: Path, model_id: str) -> None:
    with pytest.raises(UsageError, match="OWNER/NAME"):
        write_space(tmp_path / "space", model_id)
    assert not (tmp_path / "space").exists()


def test_a_space_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UsageError, match=r"README\.md is there already"):
        write_space(tmp_path, "owner/name")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_space_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError):
        write_space(tmp_path / "file" / "space", "owner/name")

    def full(*_: object, **__: object) -> None:
        raise shutil.Error([("a.py", "b.py", "[Errno 28] No space left on device: 'b.py'")])

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(shutil.Error) as failed:
        write_space(tmp_path / "space", "owner/name")
    assert sentence(failed.value) == ("no space is left on the disk: free some, or give a folder on another disk.", 1)
    assert not list((tmp_path / "space").iterdir())


def test_the_script_says_what_is_wrong(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(repository / "scripts/demo.py"), str(tmp_path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "config.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_gradio_is_one_sentence(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "gradio.py").write_text("raise ImportError('none')")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['demo.py', 'nowhere']; " + (
        f"import runpy; runpy.run_path({str(repository / 'scripts/demo.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and 'pip install -e ".[demo]"' in done.stderr
    assert done.stderr.count("\n") == 1
