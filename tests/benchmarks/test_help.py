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


def test_wrong_input_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from label_truth import truth_videos
    from one_sentence import exit_code

    assert exit_code(lambda: 1) == 1
    assert exit_code(lambda: len(truth_videos(tmp_path))) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} has neither ego4d/goalstep_*.json nor")
