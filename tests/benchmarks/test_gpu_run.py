"""``benchmarks/gpu.py``: sections in processes of their own, within a budget, with results that outlive a failure."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

# What the script must do without: everything that the package needs beyond torch, transformers, peft, bitsandbytes.
ABSENT = ("datasets", "evaluate", "hydra", "omegaconf", "pyarrow", "pytorch_optimizer", "sacrebleu", "scipy")


@pytest.fixture(autouse=True)
def on_path(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks can be imported."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, which waits no longer for a section that hangs than a test may take."""
    import gpu

    monkeypatch.setattr(gpu, "KILL_AFTER", 0.1)
    return gpu


def shown(folder: Path) -> dict[str, dict[str, list[str]]]:
    """The results that were written."""
    return json.loads((folder / "gpu.json").read_text(encoding="utf-8"))


def test_what_earlier_sections_leave_is_shared_by_later_ones() -> None:
    from gpu_records import Budget

    clock = SimpleNamespace(now=100.0)
    budget = Budget(60, lambda: clock.now)
    assert budget.share([1, 2, 3]) == 10
    clock.now += 4  # less than its share
    assert budget.left() == 56
    assert budget.share([2, 3]) == pytest.approx(22.4)
    clock.now += 100
    assert budget.left() == budget.share([1]) == 0


def test_a_case_that_does_not_fit_is_skipped_and_one_that_fails_ends_no_other(tmp_path: Path) -> None:
    from gpu_records import Budget, Records, by_section, read_records

    clock = SimpleNamespace(now=0.0)
    records = Records(tmp_path / "records", "streaming", Budget(10, lambda: clock.now))

    def broken() -> None:
        raise RuntimeError("no kernel image\nis there")

    records.attempt("first", 9, lambda: {"model": "tiny", "ms": 1.5})
    records.attempt("second", 1, broken)
    clock.now = 4
    records.attempt("third", 9, lambda: {"model": "never"})
    records.attempt("fourth", 5, lambda: {"model": "last", "ms": 2.5})
    with records.file.open("a", encoding="utf-8") as file:
        file.write('{"section": "stream')  # a kill in the middle of a line
    result = by_section(read_records(records.file), ["streaming", "batch"])["streaming"]
    assert result.rows == [{"model": "tiny", "ms": 1.5}, {"model": "last", "ms": 2.5}]
    assert result.errors == ["second: RuntimeError: no kernel image"] and records.failed == 1
    assert result.skipped == ["third: needs about 9 s, 6 s are left"]


def test_the_page_has_a_table_and_says_what_failed_was_skipped_or_not_finished() -> None:
    from gpu_records import Record, by_section, markdown

    records = [
        Record("a", "row", {"model": "256M", "ms": 12.3456, "peak": None}),
        Record("a", "row", {"model": "2.2B", "ms": 1234.5, "peak": 3}),
        Record("a", "error", "compiled: RuntimeError: x"),
        Record("b", "skipped", "the whole section"),
        Record("a", "done", 3.0),
    ]
    page = markdown("On a GPU", {"a": "First", "b": "Second"}, by_section(records, ["a", "b"]))
    assert "| model | ms | peak |\n| --- | --- | --- |\n| 256M | 12.3 | – |\n| 2.2B | 1,234 | 3 |" in page
    assert "- **Failed**: compiled: RuntimeError: x" in page
    assert "## Second\n\n- Skipped: the whole section\n- Not finished." in page and page.count("Not finished") == 1


WRITES = (
    "import json, sys; print(json.dumps(dict(section='batch', kind='row', value=dict(n=1))), file=open({0!r}, 'a'))"
)


@pytest.mark.parametrize(
    "ends, said",
    [
        ("sys.exit(0)", None),
        ("sys.exit(1)", None),
        ("import os; os.kill(os.getpid(), 9)", "its process ended with code -9"),
        ("import time; time.sleep(60)", "stopped after 2 s: it did not end by itself"),
    ],
    ids=["well", "a case failed", "killed", "hangs"],
)
def test_rows_are_kept_however_a_section_ends(gpu: ModuleType, tmp_path: Path, ends: str, said: str | None) -> None:
    records = tmp_path / "gpu.jsonl"
    command = [sys.executable, "-c", f"{WRITES.format(str(records))}; {ends}"]
    well = gpu.run_section("batch", 2.0, records, tmp_path, ["batch", "compiled"], command)
    assert well == (ends == "sys.exit(0)")
    results = shown(tmp_path)
    assert results["batch"]["rows"] == [{"n": 1}]
    assert results["batch"]["errors"] == ([said] if said else [])
    assert results["batch"]["seconds"] < 20 and results["compiled"]["seconds"] is None  # not yet
    assert "| n |\n| --- |\n| 1 |" in (tmp_path / "gpu.md").read_text(encoding="utf-8")


def test_a_section_that_fails_as_a_whole_says_why(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_section.py").write_text("import there_is_no_such_package\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(gpu.SECTIONS, "batch", gpu.Section("broken_section", 1, "Broken"))
    args = argparse.Namespace(section="batch", records=tmp_path / "r", seconds=60.0, plan=None, device="cpu", tiny=True)
    assert gpu.run_in_this_process(args) == 1
    (record,) = gpu.read_records(tmp_path / "r")
    assert record.kind == "error" and "No module named 'there_is_no_such_package'" in record.value
    assert "Traceback" in capsys.readouterr().err


def test_sections_that_get_too_little_time_are_skipped_and_said_so(gpu: ModuleType, tmp_path: Path) -> None:
    options = ["--device", "cpu", "--tiny", "--seconds", "10", "--output", str(tmp_path)]
    assert gpu.main([*options, "--sections", "streaming,batch"]) == 0
    for result in shown(tmp_path).values():
        assert "s are left for it, and it needs 15 s or more" in result["skipped"][0] and not result["rows"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--device", "cpu"], "add --tiny"),
        (["--device", "tpu"], "--device must be"),
        (["--sections", "training,dancing"], "--sections takes"),
        (["--seconds", "0"], "--seconds is above 0"),
        (["--device", "cpu", "--tiny", "--plan", "no/such/file"], "--plan: no/such/file"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_refused(
    gpu: ModuleType, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu.main(options)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_plan_of_another_form_is_refused(gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"qlora 2.2B": "5.33 GiB"}', encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--device", "cpu", "--tiny", "--plan", str(plan)])
    assert ended.value.code == 2 and "qlora 2.2B" in capsys.readouterr().err


def test_a_package_that_is_too_old_or_missing_is_named(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(gpu.NEEDED, "transformers", (99, 0))
    assert gpu.main(["--device", "cpu", "--tiny"]) == 2
    assert "is too old; install transformers>=99.0." in capsys.readouterr().err
    monkeypatch.setattr(gpu, "NEEDED", {"no-such-package": (1, 2)})
    assert gpu.missing_package() == "no-such-package is not installed; install no-such-package>=1.2."


@pytest.mark.slow
@pytest.mark.timeout(500)  # about a minute where nothing else runs
def test_every_section_runs_with_tiny_sizes_and_few_packages(repository: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"qlora tiny 2 x 256, text labels at 12 %": 1.5}', encoding="utf-8")
    (tmp_path / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "found = PathFinder.find_spec\n"
        "def find_spec(name, path=None, target=None):\n"
        f"    return None if name.partition('.')[0] in {ABSENT} else found(name, path, target)\n"
        "PathFinder.find_spec = staticmethod(find_spec)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--tiny", "--plan", str(plan), "--output", tmp_path],
        cwd=repository,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{repository}"},
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, result in shown(tmp_path).items():
        assert result["rows"] and not result["errors"] and not result["skipped"], (name, result)
        assert len({tuple(row) for row in result["rows"]}) == 1, name
    (planned,) = [row for row in shown(tmp_path)["training"]["rows"] if row["planned, GiB"] is not None]
    assert planned["planned, GiB"] == 1.5 and planned["step"].startswith("qlora")
