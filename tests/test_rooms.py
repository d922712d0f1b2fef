"""The rooms of the house: who may import whom. The table is CONTRIBUTING's own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from prospect_hf.code_fingerprint import code_fingerprint
from prospect_hf.dataset.input_files import LABEL_CODE
from prospect_hf.evaluation.stamp import PREDICTION_CODE

# The one documented circle: a method of the model opens a stream on it, so that saving a checkpoint, which copies a
# model's relative imports, takes the streaming code along.
REMOTE_CODE_CIRCLE = {
    ("modeling_dst_smolvlm", "streaming_dst_smolvlm"),
    ("modeling_dst_smolvlm", "pipeline_dst_smolvlm"),
}


def floors(repository: Path) -> dict[str, int]:
    """Room, as a dotted module name, to its row in CONTRIBUTING's table; 0 is the top floor."""
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8").split("| room |")[1].split("\n\n")[0]
    rows = [line.split("|")[1] for line in text.splitlines()[2:]]
    return {room.replace("/", "."): floor for floor, row in enumerate(rows) for room in re.findall("`(.+?)`", row)}


def modules(repository: Path) -> dict[str, Path]:
    """Dotted name to file, of everything but tests, benchmarks and tools."""
    files = [*repository.glob("*.py"), *repository.glob("scripts/*.py"), *repository.glob("prospect_hf/**/*.py")]
    names = {".".join(path.relative_to(repository).with_suffix("").parts): path for path in files}
    return {name.removesuffix(".__init__") if name != "prospect_hf.__init__" else name: p for name, p in names.items()}


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """(module, line) of each import in module ``name``; those inside functions and type checks, and relative ones too.

    A relative import of a root module names its neighbour: in a checkpoint the root modules lie in one package.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = node.level - (path.name == "__init__.py")
            package = name.split(".")[: -above or None] if node.level else []
            module = ".".join([*package, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}".removeprefix(".") for alias in node.names]
            yield from ((target if target in known else module, node.lineno) for target in names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)


def edges(repository: Path) -> dict[tuple[str, str], int]:
    """(importer, imported) of this project's modules -> line."""
    known = modules(repository)
    return {
        (name, target if target != "prospect_hf" else "prospect_hf.__init__"): line
        for name, path in known.items()
        for target, line in imported(name, path, known)
        if target in known or target == "prospect_hf"
    }


def floor_of(name: str, table: dict[str, int]) -> int:
    rooms = [room for room in table if name == room or name.startswith(room + ".")]
    assert rooms, f"{name} is in no room: give it a place in CONTRIBUTING's table"
    return table[max(rooms, key=len)]


def test_no_room_imports_one_above_it(repository: Path) -> None:
    table = floors(repository)
    upward = [
        f"{importer}:{line} imports {target}"
        for (importer, target), line in edges(repository).items()
        if floor_of(importer, table) > floor_of(target, table)
    ]
    assert not upward


def test_every_room_of_the_table_exists(repository: Path) -> None:
    known = modules(repository)
    missing = [room for room in floors(repository) if not any(f"{name}.".startswith(room + ".") for name in known)]
    assert not missing


def test_no_modules_import_each_other_in_a_circle(repository: Path) -> None:
    targets: dict[str, set[str]] = {}
    for importer, target in edges(repository).keys() - REMOTE_CODE_CIRCLE:
        targets.setdefault(importer, set()).add(target)
    done: set[str] = set()

    def follow(name: str, path: list[str]) -> None:
        if name in path:
            pytest.fail(" -> ".join([*path[path.index(name) :], name]))
        if name not in done:
            for target in sorted(targets.get(name, ())):
                follow(target, [*path, name])
            done.add(name)

    for name in sorted(targets):
        follow(name, [])


def test_no_import_is_overlooked(tmp_path: Path) -> None:
    files = {
        "first_dst_smolvlm": "from . import third_dst_smolvlm\nif A:\n    from .second_dst_smolvlm import B",
        "prospect_hf.room.__init__": "from .inner import A",
        "prospect_hf.room.inner": "from ..errors import A\nfrom . import other\nimport prospect_hf.files",
    }
    found = {}
    for name, text in files.items():
        path = tmp_path / f"{name.split('.')[-1]}.py"
        path.write_text(text)
        known = {"third_dst_smolvlm": path, "prospect_hf.room.other": path}
        found[name] = [target for target, _ in imported(name.removesuffix(".__init__"), path, known)]
    assert found == {
        "first_dst_smolvlm": ["third_dst_smolvlm", "second_dst_smolvlm"],
        "prospect_hf.room.__init__": ["prospect_hf.room.inner"],
        "prospect_hf.room.inner": ["prospect_hf.errors", "prospect_hf.room.other", "prospect_hf.files"],
    }


@pytest.mark.parametrize("patterns", [LABEL_CODE, PREDICTION_CODE])
def test_every_file_that_a_fingerprint_names_exists(repository: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        assert list((repository / "prospect_hf").glob(pattern)), pattern


def test_a_fingerprint_refuses_a_file_that_is_not_there(repository: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"labels/renamed\.py: no such source file"):
        code_fingerprint(repository / "prospect_hf", ["sessions.py", "labels/renamed.py"])
