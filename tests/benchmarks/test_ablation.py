"""``benchmarks/ablation.py``: every cell once, each into its file, and a table of pairs."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from job_fixtures import SETTINGS

from prospect_hf.files import write_json


@pytest.fixture
def ablation(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import ablation

    return ablation


def write_cell(ablation: ModuleType, folder: Path, cell: tuple[str, str, int], value: float, **figures: Any) -> None:
    path = ablation.cell_path(folder, cell)
    path.parent.mkdir(exist_ok=True)
    every = dict.fromkeys(ablation.FIGURES, value) | {"speaking ECE": None, "update ECE": None} | figures
    write_json(path, {"settings": ablation.cell_settings(folder, *cell, None), "figures": every, "seconds": 1.0})


def test_every_variant_differs_from_the_baseline_in_one_setting(ablation: ModuleType) -> None:
    for variant, changed in ablation.VARIANTS.items():
        assert len(changed) == (variant != ablation.BASELINE)
    assert set(ablation.STEPS) == set(ablation.CORPORA)


def test_the_table_compares_pairs_and_leaves_out_what_is_missing(ablation: ModuleType, tmp_path: Path) -> None:
    for seed, (focal, balanced) in enumerate([(0.5, 0.6), (0.9, 0.8)]):
        write_cell(ablation, tmp_path, ("5", "focal", seed), focal)
        write_cell(ablation, tmp_path, ("5", "balanced", seed), balanced)
    write_cell(ablation, tmp_path, ("5", "lm", 1), 0.95)
    lines = ablation.corpus_table(tmp_path, "5", [0, 1, 2]).splitlines()
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[2:]}
    assert list(rows) == ["focal", "balanced", "lm"]
    assert rows["focal"][:4] == ["2", "0.700 ± 0.283", "", "0.700 ± 0.283"]
    assert rows["balanced"][:3] == ["2", "0.700 ± 0.141", "+0.000 ± 0.141"]
    assert rows["lm"][:3] == ["1", "0.950", "+0.050"] and rows["lm"][-1] == "-"
    assert {line.count("|") for line in lines} == {len(ablation.FIGURES) + 5}


def test_a_cell_is_done_with_its_settings_alone(ablation: ModuleType, tmp_path: Path) -> None:
    cell = ("1", "lm", 2)
    assert not ablation.done(tmp_path, cell, None)
    write_cell(ablation, tmp_path, cell, 0.5)
    assert ablation.done(tmp_path, cell, None) and not ablation.done(tmp_path, cell, 7)


def test_cells_are_chosen_by_name(ablation: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(ablation.chosen_cells(None, [0, 1, 2])) == 2 * 8 * 3
    assert ablation.chosen_cells("1/lm,5/focal", [4]) == [("5", "focal", 4), ("1", "lm", 4)]
    with pytest.raises(SystemExit):
        ablation.main(["folder", "--only", "5/dice"])
    assert "--only 5/dice: write CORPUS/VARIANT, of 5, 1 and focal, balanced" in capsys.readouterr().err


@pytest.mark.slow
def test_two_variants_are_trained_from_one_start(
    ablation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = [one for one in SETTINGS if not one.startswith(("training.", "data.recordings"))]
    small = dict(one.split("=", 1) for one in tiny) | {"data.recordings": "{train:2,val:1,test:1}"}
    monkeypatch.setattr(ablation, "CORPORA", {"5": small})
    monkeypatch.setattr(ablation, "LOOK_STEPS", 2)
    assert ablation.balance_line(tmp_path, "5").startswith("Corpus 5: 4 training sessions, 130 frames; positive labels")
    lines = ablation.train_cells(tmp_path, "5", 0, ["focal", "lm", "no_feedback"], 2)
    assert len(lines) == 3
    for variant in ("focal", "lm", "no_feedback"):
        cell = json.loads(ablation.cell_path(tmp_path, ("5", variant, 0)).read_text())
        assert ablation.done(tmp_path, ("5", variant, 0), 2)
        assert isinstance(cell["figures"]["joint state"], float) and isinstance(cell["figures"]["update ECE"], float)
    assert [path.name for path in (tmp_path / "starts").iterdir() if path.is_dir()] == ["0"]
    assert len(list((tmp_path / "cache" / "features").iterdir())) >= 1
    assert not list((tmp_path / "runs").glob("5-*"))
