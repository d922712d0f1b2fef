"""Rows that are built from annotation releases: their columns, their splits, and the report of what was not read."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from annotation_fixtures import (
    MISTAKE_ROWS,
    SEQUENCE,
    goalstep_segment,
    goalstep_video,
    write,
    write_goalstep,
    write_mistakes,
)

from prospect_hf.dataset.build import build_rows
from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.dataset.report import load_report, report_lines
from prospect_hf.errors import DataError


def config(root: Path) -> DstFramesConfig:
    return DstFramesConfig(name="all", root=str(root), form="annotations")


def write_releases(root: Path) -> None:
    write_mistakes(root, MISTAKE_ROWS + "1200,1500,attach,wheel,chassis,correct,\n")
    repeated = goalstep_segment(20, 30, "boil", is_continued=True)
    write_goalstep(root, goalstep_video(goalstep_segment(0, 9, "boil"), repeated), split="val")
    write(root / "wtag/recipe_tea.txt", "Tea\n\n1. Boil water.\n")


def test_rows_of_annotations_show_the_state_rule_and_the_mistakes(tmp_path: Path) -> None:
    write_releases(tmp_path / "in")
    build_rows(config(tmp_path / "in"), tmp_path / "out", progress=False)
    toy, boil = (
        pq.read_table(path).to_pydict()
        for path in (
            tmp_path / "out/data/assembly101/train-00000-of-00001.parquet",
            tmp_path / "out/data/ego4d/validation-00000-of-00001.parquet",
        )
    )
    assert set(toy["state_rule"]) == {"reopen"} and set(boil["state_rule"]) == {"monotone"}
    wheel = [states[0] for states in toy["states_after"]]
    assert [wheel[index] for index in (18, 19, 39, 79, 99)] == [0, 1, 2, 1, 2]  # 10 to 20 s, again from 40 to 50 s
    assert [boil["states_after"][index][0] for index in (0, 30, 58, 59)] == [1, 1, 1, 2]  # in progress until 30 s
    assert toy["mistake"][40:60] == ["attach cabin to chassis: wrong order"] * 20
    assert not any(toy["mistake"][:40]) and not any(toy["mistake"][60:])
    assert set(toy["speaking"]) == {-100} and set(toy["recording"]) == {SEQUENCE}


def test_a_source_without_a_session_is_told(tmp_path: Path) -> None:
    write_releases(tmp_path / "in")
    build_rows(config(tmp_path / "in"), tmp_path / "out", progress=False)
    report = load_report(tmp_path / "out/report.json")
    # A recipe alone has no times; the others have no folder.
    assert set(report["absent"]) == {"wtag", "egoexolearn", "epickitchens", "holoassist"}
    told = report_lines(report)
    assert "wtag" in told[0] and "no session of" in told[0]
    assert any("repairs: 2 (row without its last column: no remark: 1, step is taken up again" in line for line in told)


def test_a_recording_that_files_of_two_splits_have_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_goalstep(tmp_path, goalstep_video(goalstep_segment(0, 9, "boil")), split=split)
    with pytest.raises(DataError, match=r"recording 'v1' is in split train, but .* has it in split validation"):
        build_rows(config(tmp_path), tmp_path / "out", progress=False)
    assert not (tmp_path / "out/manifest.json").exists()
