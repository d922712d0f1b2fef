"""What gets installed: the package with its data files, and the remote code as top-level modules."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from prospect_hf import __version__

ROOT_MODULES = {path.name for path in Path(__file__).parents[1].glob("*_dst_smolvlm.py")}
# The lists of pyproject.toml that name every root module.
MODULE_LISTS = (
    "tool.hatch.build.targets.wheel.only-include",
    "tool.hatch.build.targets.sdist.only-include",
    "tool.ruff.lint.isort.known-first-party",
    "tool.mypy.files",
)
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built in place by its backend (no network and no build environment)."""
    pytest.importorskip("hatchling.build", reason="hatchling is not installed (extra test)")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-c", BUILD, str(folder)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_the_package_and_the_root_modules(wheel: zipfile.ZipFile, repository: Path) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {
        str(path.relative_to(repository))
        for path in (repository / "prospect_hf").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == sources | ROOT_MODULES | {"prospect_hf/model_card.md"}
    assert "prospect_hf/py.typed" in names and "modeling_dst_smolvlm.py" in names
    assert "prospect_hf/streaming/timeline.html" in names
    assert "prospect_hf/training/losses.py" in names and "prospect_hf/data/__init__.py" in names
    assert any(name.startswith("prospect_hf/configs/") and name.endswith(".yaml") for name in names)


@pytest.mark.parametrize("key", MODULE_LISTS)
def test_every_list_of_modules_names_each_root_module(key: str, repository: Path) -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    value = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    for part in key.split("."):
        value = value[part]
    assert {f"{name.removesuffix('.py')}.py" for name in value if "_dst_smolvlm" in name} == ROOT_MODULES


def test_wheel_carries_licence_version_and_requirements(wheel: zipfile.ZipFile) -> None:
    (metadata_name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = wheel.read(metadata_name).decode()
    assert f"\nName: prospect-hf\nVersion: {__version__}\n" in metadata
    assert "\nRequires-Python: >=3.10\n" in metadata
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())
    required = [line.split(": ")[1] for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
    everyone = [line for line in required if "extra ==" not in line]
    # focal-loss is TensorFlow code and focal-loss-torch overwrites it: neither comes along unasked.
    assert not any(line.startswith(("focal-loss", "tensorflow", "torchvision")) for line in everyone)
    assert not any(line.startswith("focal-loss-torch") for line in required)


def test_the_lowest_releases_have_no_known_holes(repository: Path) -> None:
    """Of the libraries that read pictures, templates and settings, and of the one that loads an encoder's parts."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    required = [Requirement(line) for line in [*project["dependencies"], *project["optional-dependencies"]["eval"]]]
    lowest = {"pillow": "12.2", "jinja2": "3.1.6", "pyyaml": "6.0.1", "sentence-transformers": "6.0"}
    for name, version in lowest.items():
        (found,) = (one for one in required if one.name == name)
        (bound,) = (one.version for one in found.specifier if one.operator == ">=")
        assert Version(bound) >= Version(version), name
    assert "SECURITY.md" in settings["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]


def test_importing_the_package_is_cheap(repository: Path) -> None:
    code = (
        "import prospect_hf, sys; print(prospect_hf.__version__, *sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [__version__]
