"""The table of what was read of plans and annotations: every video and every line is in it once."""

from __future__ import annotations

from pathlib import Path

from proassist_fixtures import make_record, write_corpus

from prospect_hf.annotate.corpus import Corpus
from prospect_hf.annotate.parsing import annotation_table
from prospect_hf.sources.dialog_files import dialog_files

HEADER = ["read", "videos", "unusable", "steps", "segments", "children", "speech", "remarks", "left out"]


def table_of(root: Path, *parts: tuple[str, str]) -> list[list[str]]:
    return annotation_table(Corpus(root, {part: dialog_files(root, *part) for part in parts}).videos())


def test_what_was_read_is_counted_by_source(tmp_path: Path) -> None:
    record, other, without_plan = make_record("v1"), make_record("v2"), make_record("v3")
    record["parsed_video_anns"]["all_step_descriptions"] = (
        "[1s-3s] fill kettle (mistake: too\n full)\n - [2s] lift\n - [2.5s] user: so?\n[9s-3s] boil\n[3s-9s] boil\n"
        "Summary: tea\nit was."
    )
    without_plan["inferred_knowledge"] = "Tea"
    write_corpus(tmp_path, [record, other, without_plan])
    ego4d = make_record("v4")
    ego4d["parsed_video_anns"]["dataset"] = "ego4d"
    write_corpus(tmp_path, [ego4d], source="ego4d")
    assert table_of(tmp_path, ("wtag", "train"), ("ego4d", "train")) == [
        HEADER,
        [
            *("wtag", "2", "1", "4", "4", "1", "1", "1"),
            "a summary: 2, continues the line above: 1, the end is not after the start: 1",
        ],
        ["ego4d", "1", "0", "2", "2", "0", "0", "0", "-"],
    ]


def test_the_real_records_are_read_whole(shared_data: Path) -> None:
    root = shared_data / "proassist"
    splits = [(source, "train") for source in ("assembly101", "ego4d", "epickitchens", "holoassist", "wtag")]
    assert table_of(root, *splits, ("egoexolearn", "validation")) == [
        HEADER,
        ["assembly101", "1", "0", "8", "22", "0", "0", "5", "-"],
        ["ego4d", "1", "0", "5", "10", "267", "0", "0", "-"],
        ["epickitchens", "1", "0", "9", "329", "0", "0", "0", "-"],
        ["holoassist", "1", "0", "8", "9", "33", "48", "3", "a summary: 1"],
        ["wtag", "1", "0", "12", "12", "0", "21", "0", "start or done: 2"],
        ["egoexolearn", "1", "0", "5", "79", "0", "0", "0", "-"],
    ]
