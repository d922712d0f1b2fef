"""The compare-dst job: figures on the terminal, what is written, exit codes, and messages of one sentence."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from proassist_fixtures import make_record, write_corpus

from prospect_hf.cli import main
from prospect_hf.simulator.corpus import write_corpus as simulate
from prospect_hf.simulator.scene import SceneConfig


def later(record: dict[str, Any], seconds: float) -> dict[str, Any]:
    """A line of a label file: the record's labels, some seconds later."""
    times = ("start_ts", "end_ts")
    dst = [entry | {key: entry[key] + seconds for key in times} for entry in record["dst"]]
    made = {"aligner": "semantic", "version": "1a2b"}
    return {"video_uid": record["video_uid"], "dst": dst, "source": "wtag", "provenance": made}


@pytest.fixture()
def sets(tmp_path: Path) -> Path:
    """``a`` is a corpus with labels, ``b`` a folder of label files; they have two videos in common."""
    write_corpus(tmp_path / "a", [make_record("v1"), make_record("v2")])
    (tmp_path / "b/wtag").mkdir(parents=True)
    write(tmp_path, [later(make_record("v1"), 0), later(make_record("v2"), 3)])
    return tmp_path


def write(folder: Path, records: list[dict[str, Any]]) -> None:
    (folder / "b/wtag/train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))


def compare(folder: Path, *arguments: str) -> int:
    return main(["compare-dst", *arguments, f"compare_dst.output_dir={folder / 'out'}"])


def test_two_sets_are_compared(sets: Path, capsys: Any) -> None:
    assert compare(sets, str(sets / "a"), str(sets / "b")) == 0
    told = capsys.readouterr().out
    assert "B: " in told and "(2 records; semantic 1a2b: 2)" in told
    # v1 agrees; of v2 all steps agree but for 6 frames after each of the three transitions' times.
    (line,) = [line.split() for line in told.splitlines() if line.startswith("all")]
    assert line[:4] == ["all", "2", f"{(1 + 62 / 80) / 2:.3f}", f"{142 / 160:.3f}"]
    assert "Of 4 steps 4 have labels in both sets, 0 in A only, 0 in B only, 0 in none." in told
    assert sorted(path.name for path in (sets / "out").iterdir()) == [
        "agreement.csv",
        "agreement.json",
        "comparison.html",
    ]
    facts = json.loads((sets / "out/agreement.json").read_text())
    assert [one["video_uid"] for one in facts["videos"]] == ["v2", "v1"] and facts["left"] == []
    assert facts["figures"]["wtag"]["boundary_error_p90_s"] == 3.0 and facts["b"]["made_by"] == {"semantic 1a2b": 2}


def test_a_row_for_each_video_and_the_exit_code_1(sets: Path, capsys: Any) -> None:
    write(sets, [later(make_record("v1"), 0), later(make_record("v2"), 0) | {"dst": []}, later(make_record("v3"), 0)])
    assert compare(sets, str(sets / "a"), str(sets / "b")) == 1
    told = capsys.readouterr().out
    assert "Not compared: 1 cannot be compared, 1 only in B." in told and "'dst' is an empty list" in told
    with (sets / "out/agreement.csv").open(newline="") as file:
        rows = {row["video_uid"]: row for row in csv.DictReader(file)}
    assert {uid: row["status"] for uid, row in rows.items()} == {
        "v1": "compared", "v2": "cannot be compared", "v3": "only in B",
    }  # fmt: skip
    assert rows["v1"]["step_iou"] == "1.0" and rows["v2"]["step_iou"] == "" and "empty list" in rows["v2"]["reason"]
    assert compare(sets, str(sets / "b"), str(sets / "a")) == 1
    assert "1 only in A" in capsys.readouterr().out


def test_names_of_videos_move_no_cursor(sets: Path, capsys: Any) -> None:
    names = ["\x1b[31mred", "two\tcells\r\nand lines", "\u202eturned"]
    for folder, shown in (("a", names), ("b", names[:2])):
        (sets / f"{folder}.json").write_text(json.dumps([later(make_record(name), 0) for name in shown]))
    assert compare(sets, str(sets / "a.json"), str(sets / "b.json")) == 1
    table = (sets / "out/agreement.csv").read_text(encoding="utf-8")
    for text in (table, capsys.readouterr().out):
        assert not any(character in text for character in ("\x1b", "\t", "\u202e")) and "\\u202eturned" in text
    assert "\\x1b[31mred" in table and "two cells and lines" in table and len(table.splitlines()) == 4


def test_what_cannot_be_compared_is_one_sentence_and_the_exit_code_is_2(sets: Path, capsys: Any) -> None:
    a, b = str(sets / "a"), str(sets / "b")
    (sets / "c").symlink_to(sets / "a")
    (sets / "empty").mkdir()
    for arguments, message in (
        ([], "Give two label sets: prospect compare-dst A B, or compare_dst.a=A compare_dst.b=B."),
        ([a], "Give two label sets"),
        ([a, b, a], "give A and B, not "),
        ([a, a], "A and B are both "),
        ([a, str(sets / "c")], "A and B are both "),
        ([a, f"{a}#dst"], "A and B are both "),
        ([a, str(sets / "nowhere")], "nowhere: no such file or folder"),
        ([a, str(sets / "empty")], "no label file; expected records with 'video_uid' and 'dst'"),
        ([a, b, "compare_dst.state_rule=last"], "must be reopen or monotone"),
        ([a, b, "compare_dst.worst=-1"], "compare_dst.worst=-1 must be 0 or more."),
        ([a, b, f"compare_dst.root={sets / 'nowhere'}"], "give the one that holds processed_data"),
        ([a, b, "compare_dst.videos=[v9]"], "compare_dst.videos: v9 is no video that is compared."),
        ([a, b, "compare_dst.video=[v9]"], "did you mean compare_dst.videos?"),
    ):
        assert compare(sets, *arguments) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1, told
    assert not (sets / "out").exists()
    write(sets, [later(make_record("v9"), 0)])
    assert compare(sets, a, b) == 2 and "no video that can be compared" in capsys.readouterr().err


def test_settings_and_places_name_the_same(sets: Path, capsys: Any) -> None:
    assert compare(sets, f"compare_dst.b={sets / 'b'}", str(sets / "a")) == 0
    first = capsys.readouterr().out
    assert compare(sets, f"compare_dst.a={sets / 'a'}", f"compare_dst.b={sets / 'b'}") == 0
    assert capsys.readouterr().out == first
    assert main(["compare-dst", "--help"]) == 0
    assert "usage: prospect compare-dst A B [GROUP=NAME ...] [GROUP.KEY=VALUE ...]" in capsys.readouterr().out


def test_a_corpus_against_its_own_labels_in_lines(tmp_path: Path, capsys: Any) -> None:
    simulate(tmp_path / "a", ["wtag", "ego4d"], {"train": 3, "val": 1}, 0, SceneConfig(steps=(2, 3)), progress=False)
    for path in sorted((tmp_path / "a").rglob("*_filtered.json")):
        lines = tmp_path / "b" / path.parents[1].name / f"{path.name.split('_')[0]}.jsonl"
        lines.parent.mkdir(parents=True, exist_ok=True)
        kept = [{key: record[key] for key in ("video_uid", "dst")} for record in json.loads(path.read_text())]
        lines.write_text("".join(json.dumps(one) + "\n" for one in kept))
    assert compare(tmp_path, str(tmp_path / "a"), str(tmp_path / "b"), f"compare_dst.root={tmp_path / 'a'}") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("all", "ego4d", "wtag"))]
    assert [row[0] for row in rows] == ["all", "ego4d", "wtag"]
    assert all(row[2:6] == ["1.000"] * 4 and row[6:8] == ["0.00"] * 2 for row in rows)


def test_the_versions_of_the_real_record(shared_data: Path, tmp_path: Path, capsys: Any) -> None:
    path = shared_data / "dst/assembly101_9011-c03f_annotation_and_spans.json"
    assert compare(tmp_path, f"{path}#dst_hybrid_llm", f"{path}#dst_plan_doc") == 0
    figures = json.loads((tmp_path / "out/agreement.json").read_text())["figures"]["all"]
    assert figures["order_agreement"] == 1.0 and figures["boundary_error_median_s"] == 0.0
    assert figures["boundary_error_p90_s"] > 5
