"""Every benchmark says what it measures when it is asked, and takes no option for a folder or starts to measure."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = {path.name: path for path in BENCHMARKS.glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8")}


def calls_of(text: str) -> list[str]:
    """The names of all functions and methods that ``text`` calls."""
    called = (node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    return [ast.unparse(function) for function in called]


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_a_benchmark_reads_its_arguments_by_argparse(name: str) -> None:
    text = SCRIPTS[name].read_text("utf-8")
    assert any(call.endswith(".parse_args") for call in calls_of(text)), f"{name} has no --help"
    assert "sys.argv" not in text
    assert "description=" in text, f"the --help of {name} does not say what it measures"


def test_all_benchmarks_are_seen() -> None:
    assert {"calibration.py", "coverage.py", "frames.py", "gpu.py", "training.py"} <= set(SCRIPTS)
