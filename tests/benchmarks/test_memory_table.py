"""``benchmarks/memory.py``: the window of a quarter, rows that are made once, and goals that are checked by seed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from job_fixtures import SETTINGS

from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import write_json
from prospect_hf.simulator import SceneConfig, write_corpus

GOOD = {
    "no limit": (0.95, 0.94, 0.95, 0.92),
    "teacher-forced": (0.96, None, None, None),
    "a quarter, summarize_with_dst": (0.945, 0.94, 0.9, 0.9),
    "a quarter, drop_all": (0.6, 0.7, 0.5, 0.8),
    "frame alone": (0.4, 0.45, 0.3, 0.2),
    "pictures read perfectly": (0.4,),
}
WINDOW = {
    "max_tokens": 235,
    "keep_tokens": 20,
    "session": 415.0,
    "plan": 95.0,
    "quarter": 80.0,
    "reserve": 60,
    "raised": 0,
}


@pytest.fixture
def memory(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import memory

    return memory


def write_row(memory: ModuleType, folder: Path, name: str, minutes: float | None = 9.0, **changed: Any) -> Path:
    figures = {row: dict(zip(memory.COLUMNS, values, strict=False)) for row, values in (GOOD | changed).items()}
    (folder / "rows").mkdir(exist_ok=True)
    path = folder / "rows" / f"{name}.json"
    write_json(path, {"facts": {}, "figures": figures, "window": WINDOW, "minutes": minutes})
    return path


def test_the_tables_show_mean_spread_and_how_many_seeds_meet_a_goal(
    memory: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_row(memory, tmp_path, "0")
    write_row(memory, tmp_path, "1", **{"frame alone": (0.6, 0.65, 0.3, 0.2)})
    assert memory.main([str(tmp_path), "--table", "--seeds", "0,1,2"]) == 1
    shown = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in shown.splitlines()}
    assert lines["no limit"].split("  ")[-1].strip() == "–" and "0.950 ± 0.000" in lines["no limit"]
    assert "0.500 ± 0.141" in lines["frame alone"]
    assert "A session has 415 tokens, 95 of them its plan.\nThe window of a quarter has 235: the plan" in shown
    alone = next(line for line in shown.splitlines() if line.startswith("frame alone, joint: at most"))
    assert alone.endswith("0.600  1 of 2")
    apart = next(line for line in shown.splitlines() if "with drop_all" in line)
    assert "0.345" in apart and apart.endswith("2 of 2")
    assert memory.main([str(tmp_path), "--table", "--seeds", "0"]) == 0


@pytest.mark.parametrize(
    ("row", "values", "goal"),
    [
        ("frame alone", (0.56, 0, 0, 0), "frame alone"),
        ("pictures read perfectly", (0.56,), "pictures read perfectly"),
        ("no limit", (0.92, 0.9, 0.95, 0.92), "no limit, joint"),
        ("no limit", (0.95, 0.9, 0.92, 0.92), "no limit, update"),
        ("no limit", (0.95, 0.9, 0.95, 0.89), "no limit, speaking"),
        ("a quarter, summarize_with_dst", (0.93, 0, 0, 0), "a quarter with summarize_with_dst"),
        ("a quarter, drop_all", (0.75, 0, 0, 0), "a quarter with drop_all"),
        ("teacher-forced", (0.98, 0, 0, 0), "teacher-forced"),
        ("teacher-forced", (0.92, 0, 0, 0), "teacher-forced"),
        ("frame alone", (None, 0, 0, 0), "frame alone"),
    ],
)
def test_each_goal_can_be_missed(memory: ModuleType, row: str, values: tuple[float, ...], goal: str) -> None:
    def missed(rows: dict[str, Any], minutes: float | None = 9.0) -> list[str]:
        figures = {name: dict(zip(memory.COLUMNS, one, strict=False)) for name, one in rows.items()}
        return [name for name, (_, met) in memory.goals(figures, minutes).items() if not met]

    assert missed(GOOD) == []
    assert any(name.startswith(goal) for name in missed(GOOD | {row: values}))
    assert [name[:7] for name in missed(GOOD, 16.0)] == ["minutes"] == [name[:7] for name in missed(GOOD, None)]


def test_a_row_that_is_none_is_named(memory: ModuleType, tmp_path: Path) -> None:
    whole = json.loads(write_row(memory, tmp_path, "0").read_text())
    for damage in (
        [],
        {},
        whole | {"figures": {}},
        whole | {"figures": {"no limit": 3, "teacher-forced": {}}},
        whole | {"window": None},
        whole | {"minutes": "9"},
        whole | {"figures": whole["figures"] | {"blind": {"joint, head": True}}},
    ):
        write_json(tmp_path / "rows" / "0.json", damage)
        with pytest.raises(DataError, match=r"0\.json"):
            memory.main([str(tmp_path), "--table", "--seeds", "0"])
    with pytest.raises(UsageError, match="holds none of 5; run without --table"):
        memory.main([str(tmp_path), "--table", "--seeds", "5"])


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("--seeds 0,x: give whole numbers", ["--seeds", "0,x"]),
        ("--seeds 1,01: give whole numbers with commas between them, each once", ["--seeds", "1,01"]),
        ("--processes 0: give 1 or more", ["--processes", "0"]),
        ("'quick' is no setting: write KEY=VALUE", ["--settings", "quick"]),
        ("leave out --blind and settings of training", ["--blind", "--models", "m"]),
        ("two folders have one name", ["--models", "a/m", "b/m"]),
        ("--models m: no such folder", ["--models", "m"]),
    ],
)
def test_wrong_arguments_are_one_sentence(
    memory: ModuleType, tmp_path: Path, message: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        memory.main([str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


def test_pictures_that_show_everything_are_read_without_an_error(memory: ModuleType, tmp_path: Path) -> None:
    shares = {}
    for name, scene in {"seen": SceneConfig(), "memory": SceneConfig(p_drawer=0.4, p_fixture=0.4, p_pan=0.3)}.items():
        write_corpus(tmp_path / name, ["wtag"], {"train": 6, "test": 3}, 0, scene, progress=False)
        shares[name] = memory.perfect_reader(tmp_path / name)
    assert shares["seen"] == 1.0 and 0.1 < shares["memory"] < 0.6
    recipe = json.loads((tmp_path / "memory" / "simulator.json").read_text())
    for damage in ({"scene": 3}, {"sources": []}, {"recordings": {"train": 2}}, {"seed": "x"}, {"scene": {"p_pan": 2}}):
        write_json(tmp_path / "memory" / "simulator.json", recipe | damage)
        with pytest.raises((DataError, UsageError)):
            memory.perfect_reader(tmp_path / "memory")


@pytest.mark.slow
def test_a_seed_is_trained_and_evaluated_once(
    memory: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    level = logging.getLogger().level
    few = [*SETTINGS, "data.sources=[wtag]", "data.scene.p_drawer=0.5", "data.scene.p_fixture=0.5"]
    assert memory.main([str(tmp_path), "--seeds", "3", "--blind", "--settings", *few]) == 1
    row = json.loads((tmp_path / "rows" / "3.json").read_text())
    assert set(row["figures"]) == {*memory.ROWS, memory.PICTURES} and row["minutes"] > 0
    assert row["figures"]["frame alone"]["exact match"] is None and row["figures"]["blind"]["joint, head"] is not None
    window = row["window"]
    whole = window["plan"] + window["quarter"] + window["reserve"] + window["raised"]
    assert whole <= window["max_tokens"] < whole + 1 and window["max_tokens"] < window["session"] * 2
    assert window["quarter"] == pytest.approx((window["session"] - window["plan"]) / 4)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in (".json", ".safetensors")}
    capsys.readouterr()
    assert memory.main([str(tmp_path), "--seeds", "3", "--blind", "--settings", *few]) == 1
    assert "frame alone" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    logging.getLogger().setLevel(level)
    # A model that is given: the same row, under the folder's name.
    assert memory.main([str(tmp_path / "given"), "--models", str(tmp_path / "models" / "3")]) == 1
    given = json.loads((tmp_path / "given" / "rows" / "3.json").read_text())
    assert given["minutes"] is None and given["figures"]["no limit"] == row["figures"]["no limit"]
