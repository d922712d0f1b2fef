"""A Hugging Face Space with the demo: the package is on no index, so its code is copied into the Space."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement

import modeling_dst_smolvlm
import prospect_hf
from prospect_hf.errors import UsageError
from prospect_hf.files import temporary_path, write_text
from prospect_hf.streaming.demo.limits import Limits

PYTHON = "3.11"
# What a Space runs on, for requirements that not every machine has.
MACHINE = {
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_system": "Linux",
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.0",
    "sys_platform": "linux",
}
APP = '''"""The demo of {model_id}."""

from huggingface_hub import snapshot_download

from prospect_hf.streaming.demo.app import build_app, launch
from prospect_hf.streaming.demo.limits import Limits

# What one visitor may take.
limits = {limits}
launch(build_app(snapshot_download("{model_id}"), limits), host="0.0.0.0", port=7860)
'''
README = """---
title: "{title}"
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
license: apache-2.0
models:
  - {model_id}
---

[{model_id}](https://huggingface.co/{model_id}) follows a video or a camera by a plan: at every frame it decides whether
to speak and which steps have moved.
"""


def write_space(folder: Path, model_id: str, limits: Limits | None = None) -> list[Path]:
    """Write a Space that shows the model ``model_id`` of the Hub: its files and the code of this package.

    Args:
        folder: where the files are written.
        model_id: ``OWNER/NAME``.
        limits: what one visitor may take; by default those of ``Limits``.

    Returns:
        The paths of its files and folders.

    Raises:
        UsageError: ``model_id`` is no name of the Hub, or a file is there already.
        OSError: the folder cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", model_id, re.ASCII):
        raise UsageError(f"{model_id!r} is no model of the Hub: give OWNER/NAME.")
    title = model_id.split("/")[1]
    texts = {
        "app.py": APP.format(model_id=model_id, limits=limits or Limits()),
        "requirements.txt": "".join(f"{line}\n" for line in requirements("demo")),
        "README.md": README.format(model_id=model_id, title=title, gradio=version("gradio"), python=PYTHON),
    }
    package, modules = Path(prospect_hf.__file__).parent, Path(modeling_dst_smolvlm.__file__).parent
    code = [package, *sorted(modules.glob("*_dst_smolvlm.py"))]
    written = [folder / name for name in (*texts, *(path.name for path in code))]
    for path in written:
        if path.exists():
            raise UsageError(f"{path} is there already: give another folder.")
    temporary = temporary_path(folder / "space")  # a full disk leaves no half Space
    try:
        for name, text in texts.items():
            write_text(temporary / name, text)
        for path in code:
            if path.is_dir():
                shutil.copytree(path, temporary / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(path, temporary / path.name)
        for path in written:
            (temporary / path.name).replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return written


def requirements(extra: str) -> list[str]:
    """What a Space has to install for this package with ``extra``, from the metadata of the installed package."""
    wanted, waiting, lines = {""}, [extra], set()
    while waiting:
        wanted.add(waiting.pop())
        for line in requires("prospect-hf") or []:
            requirement = Requirement(line)
            marker, requirement.marker = requirement.marker, None
            if marker is not None and not any(marker.evaluate({**MACHINE, "extra": name}) for name in wanted):
                continue
            if requirement.name == "prospect-hf":
                waiting += requirement.extras - wanted - set(waiting)
            else:
                lines.add(str(requirement))
    return sorted(lines)
