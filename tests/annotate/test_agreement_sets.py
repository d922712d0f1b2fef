"""Label sets in all forms, and videos paired between two of them: compared, or listed with the reason why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from proassist_fixtures import make_record, write_corpus

from prospect_hf.annotate.comparison.compare import ONLY_A, ONLY_B, UNUSABLE, Comparison, compare_sets
from prospect_hf.annotate.comparison.label_sets import LabelSet, read_corpus, read_label_set
from prospect_hf.errors import DataError, UsageError

DST = [
    {"type": "step", "id": "S1", "start_ts": 3.0, "end_ts": 9.0, "name": "Fill"},
    {"type": "step", "id": "S2", "start_ts": 9.0, "end_ts": 20.0, "name": "Boil"},
]


def labels(uid: str = "v1", **others: Any) -> dict[str, Any]:
    return {"video_uid": uid, "dst": DST, **others}


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(one) + "\n" for one in value) if path.suffix == ".jsonl" else json.dumps(value)
    path.write_text(text, encoding="utf-8")
    return path


def compare(a: Any, b: Any, folder: Path, corpus: LabelSet | None = None, rule: str = "reopen") -> Comparison:
    """The comparison of two lists of records."""
    paths = [str(write(folder / name, records)) for name, records in (("a.json", a), ("b.json", b))]
    return compare_sets(read_label_set(paths[0]), read_label_set(paths[1]), corpus, rule)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wtag/train.jsonl", [labels()]),
        ("wtag/train-00001-of-00002.jsonl", [labels()]),
        ("wtag/val_filtered.json", [labels()]),
        ("wtag/generated_dialogs/train_filtered.json", [labels()]),
        ("wtag/generated_dialogs/train/v1.json", labels()),
        ("processed_data/wtag/generated_dialogs/test_filtered.json", [labels()]),
        ("wtag/train/v1.json", {"dst": DST}),
        ("wtag/v1.json", {"dst": DST}),
        ("wtag/v1.json", [labels()]),
        ("v1.json", {"dst": DST}),
        ("train.jsonl", [labels(source="wtag")]),
    ],
)
def test_a_folder_in_every_form(name: str, value: Any, tmp_path: Path) -> None:
    write(tmp_path / "set" / name, value)
    write(tmp_path / "set" / "report.json", {"videos": 1})
    found = read_label_set(str(tmp_path / "set"))
    assert list(found.records) == [("" if name == "v1.json" else "wtag", "v1")] and not found.refused
    assert [path.name for path in found.files] == [Path(name).name]
    assert [path.name for path in found.ignored] == ["report.json"]
    alone = read_label_set(str(tmp_path / "set" / name))
    assert [uid for _, uid in alone.records] == ["v1"]


def test_the_source_of_a_record(tmp_path: Path) -> None:
    records = [
        labels("a", source="wtag"),
        labels("b", source="notes of somebody", parsed_video_anns={"dataset": "ego4d-goalstep"}),
        labels("c", source="notes of somebody"),
    ]
    found = read_label_set(str(write(tmp_path / "holoassist" / "train.json", records)))
    assert list(found.records) == [("wtag", "a"), ("ego4d", "b"), ("holoassist", "c")]
    assert ("", "c") in read_label_set(str(write(tmp_path / "train.json", records))).records


def test_labels_at_another_key_and_as_lists(tmp_path: Path) -> None:
    record = {"video_uid": "v", "dst": DST, "first": [["S1", 3.0, 9.0], ["S2", 9.0, None]], "second": DST[:1]}
    path = write(tmp_path / "one#two.json", record)
    assert read_label_set(str(path)).key == "dst"
    a, b = read_label_set(f"{path}#first"), read_label_set(f"{path}#second")
    (video,) = compare_sets(a, b, None, "reopen").videos
    assert [(span.step, span.start, span.end) for span in video.a] == [(0, 3.0, 9.0), (1, 9.0, None)]
    assert len(video.b) == 1 and [step.text for step in video.steps] == ["Fill", ""]
    with pytest.raises(DataError, match=r"none of 1 records has labels; the first: .* the record has no 'third'"):
        read_label_set(f"{path}#third")


def test_of_two_records_of_a_video_the_one_with_labels_counts(tmp_path: Path) -> None:
    write(tmp_path / "failed/wtag/train.jsonl", [{"source": "wtag", "video_uid": "v1", "reason": "the model said no"}])
    write(tmp_path / "failed/wtag/val.jsonl", [{"source": "wtag", "video_uid": "v2", "reason": "the model said no"}])
    write(tmp_path / "wtag/train.jsonl", [labels("v3", dst=[]), labels(), labels(), labels("v3")])
    found = read_label_set(str(tmp_path))
    for uid in ("v1", "v3"):  # before or behind one without labels
        assert found.records["wtag", uid].entries == DST and not found.records["wtag", uid].fault
    assert found.records["wtag", "v2"].fault.endswith("no labels (the model said no)")


def test_two_different_labels_of_a_video_are_a_fault(tmp_path: Path) -> None:
    found = compare([labels(), labels("v2")], [labels(), labels() | {"dst": DST[:1]}, labels("v2")], tmp_path)
    assert [video.uid for video in found.videos] == ["v2"]
    (left,) = found.left
    assert left.kind == UNUSABLE and "record 0 and " in left.reason
    assert left.reason.endswith("record 1 have different labels of v1; keep one of the two.")


def test_videos_of_one_set_are_listed(tmp_path: Path) -> None:
    found = compare([labels(), labels("a")], [labels("b"), labels()], tmp_path)
    assert [(one.uid, one.kind) for one in found.left] == [("a", ONLY_A), ("b", ONLY_B)]
    assert found.agreements["all"].counts["videos"] == 1


def test_videos_without_a_source_are_paired_by_uid(tmp_path: Path) -> None:
    found = compare([labels("x", source="wtag"), labels("y")], [labels("x"), labels("y", source="ego4d")], tmp_path)
    assert [(video.source, video.uid) for video in found.videos] == [("ego4d", "y"), ("wtag", "x")]
    assert list(found.figures) == ["all", "ego4d", "wtag"] and not found.left
    # The same uid in two sources: which of the two it is cannot be told.
    both = [labels("x", source="wtag"), labels("x", source="ego4d"), labels("y")]
    assert [(one.uid, one.kind) for one in compare(both, [labels("x"), labels("y")], tmp_path).left] == [
        ("x", ONLY_A),
        ("x", ONLY_A),
        ("x", ONLY_B),
    ]
    assert len(compare(both, [labels("x", source="ego4d"), labels("y")], tmp_path).videos) == 2


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"dst": []}, "'dst' is an empty list"),
        ({"dst": None}, "'dst' is null; expected a list"),
        ({"dst": "S1"}, "'dst' is text; expected a list"),
        ({"dst": [{**DST[0], "id": "S3"}]}, "'id' is 'S3'; the plan has the steps S1 to S2."),
        ({"dst": [{**DST[0], "id": 1}]}, "'id' is a number; expected text"),
        ({"dst": [{**DST[0], "type": "substep"}]}, "only steps have a state"),
        ({"dst": [{**DST[0], "start_ts": float("nan")}]}, "'start_ts' is nan; expected a finite number"),
        ({"dst": [{**DST[0], "end_ts": 3.0}]}, "'end_ts' 3.0 is not after 'start_ts' 3.0."),
        ({"dst": [{**DST[0], "end_ts": 97_000.0}]}, "a label is at 97000 s, but the video ends at 40 s"),
        ({"dst": [["S1", 3.0]]}, "dst[0] is a list; expected an object"),
        ({"inferred_knowledge": "1. Fill.\n2. Boil.\n3. Drink."}, "A has 2 steps, and B has 3."),
        ({"inferred_knowledge": "no list"}, "has no numbered step"),
        ({"steps": ["Fill the kettle with cold water.", "Drink"]}, "S2 is 'Boil the water.' in A and 'Drink' in B"),
        ({"parsed_video_anns": {"duration": 1e6}}, "'duration' is 1e+06 s, but no video is so long"),
        ({"parsed_video_anns": {"duration": -1}}, "'duration' is -1; it must not be negative"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_used_are_listed(broken: dict[str, Any], reason: str, tmp_path: Path) -> None:
    found = compare([make_record(), make_record("v2")], [make_record() | broken, make_record("v2")], tmp_path)
    assert [video.uid for video in found.videos] == ["v2"]
    (left,) = found.left
    assert (left.uid, left.kind) == ("v1", UNUSABLE) and reason in left.reason


@pytest.mark.parametrize("value", ["text", ["v1"], {"dst": DST}, {"video_uid": "a/b", "dst": DST}])
def test_what_is_no_record_is_listed(value: Any, tmp_path: Path) -> None:
    found = compare([labels()], [labels(), value], tmp_path)
    assert len(found.videos) == 1 and [one.uid for one in found.left] == [""] and "record 1" in found.left[0].reason


def test_a_damaged_line_is_listed(tmp_path: Path) -> None:
    (tmp_path / "set/wtag").mkdir(parents=True)
    (tmp_path / "set/wtag/train.jsonl").write_text('{"video_uid": "v0", "dst\n' + json.dumps(labels()) + "\n")
    found = read_label_set(str(tmp_path / "set"))
    assert list(found.records) == [("wtag", "v1")]
    assert len(found.refused) == 1 and "line 1" in found.refused[0][0] and "invalid JSON" in found.refused[0][1]


def test_names_of_steps_tell_plans_apart_where_no_plan_is_stated(tmp_path: Path) -> None:
    other = [{**DST[0], "name": "fill the kettle."}, {**DST[1], "name": "Cut"}]
    found = compare([labels("a"), labels("b")], [labels("a", dst=other), labels("b", dst=other[:1])], tmp_path)
    assert [video.uid for video in found.videos] == ["b"]  # an abbreviation is no other plan
    assert "different plans: S2 is 'Boil' in A and 'Cut' in B; compare labels of one plan." in found.left[0].reason


def test_a_corpus_tells_what_label_files_leave_out(tmp_path: Path) -> None:
    part = make_record("v2")
    part["parsed_video_anns"] |= {"video_start_time": 3.0, "duration": 30.0}
    part["inferred_knowledge"] += "3. Drink the tea."
    write_corpus(tmp_path / "corpus", [make_record(), part])
    bare, drunk = [{**entry, "name": ""} for entry in DST], {"type": "step", "id": "S3", "start_ts": 21, "end_ts": 22}
    a = [{"video_uid": uid, "dst": bare} for uid in ("v1", "v2")]
    b = [{"video_uid": "v1", "dst": bare}, {"video_uid": "v2", "dst": [*bare, drunk]}]
    found = compare(a, b, tmp_path, read_corpus(tmp_path / "corpus"))
    second, first = found.videos
    assert found.not_in_corpus == 0
    assert compare([labels()], [labels()], tmp_path, read_corpus(tmp_path / "corpus")).not_in_corpus == 0
    assert compare([labels("x")], [labels("x")], tmp_path, read_corpus(tmp_path / "corpus")).not_in_corpus == 1
    assert (first.source, first.goal, first.num_frames, first.first_frame) == ("wtag", "Make tea", 80, 0)
    assert (second.num_frames, second.first_frame) == (66, 6)
    assert [step.text for step in first.steps] == ["Fill the kettle with cold water.", "Boil the water."]
    assert "fill kettle" in first.annotation and second.figures["steps_covered_a"] == pytest.approx(2 / 3)


def test_no_video_in_common(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no video that can be compared; of 2, 1 only in A, 1 only in B"):
        compare([labels("a")], [labels("b")], tmp_path)


def test_what_holds_no_labels(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "other/a.json", {"x": 1})
    write(tmp_path / "list.json", [])
    write(tmp_path / "plain.json", [make_record() | {"dst": []}])
    (tmp_path / "bad.json").write_text("[{")
    for name, kind, message in (
        ("nowhere", UsageError, "no such file or folder"),
        ("empty", UsageError, "no label file; expected records with 'video_uid' and 'dst'"),
        ("other", UsageError, "no label file \\(1 JSON files hold no records of videos\\)"),
        ("list.json", UsageError, "no label file"),
        ("plain.json", DataError, "none of 1 records has labels; the first: .*'dst' is an empty list"),
        ("bad.json", DataError, "invalid JSON"),
    ):
        with pytest.raises(kind, match=message):
            read_label_set(str(tmp_path / name))


def test_a_key_must_have_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(UsageError, match=r"a\.json#: give the key of the labels after #"):
        read_label_set(f"{tmp_path / 'a.json'}#")


def test_the_rule_joins_visits(tmp_path: Path) -> None:
    visits = [*DST, {**DST[0], "start_ts": 30.0, "end_ts": 31.0}]
    whole = [{**DST[0], "end_ts": 31.0}, DST[1]]
    for rule, joint in (("reopen", False), ("monotone", True)):
        (video,) = compare([labels(dst=visits)], [labels(dst=whole)], tmp_path, rule=rule).videos
        assert (video.figures["joint_state_accuracy_mean"] == 1.0) is joint
        assert len(video.a) == (2 if joint else 3)
