"""The videos of a corpus: in all forms of dialog files the same, each once, with what their labels follow from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from proassist_fixtures import make_record, write_corpus, write_store

from prospect_hf.annotate.corpus import Corpus, Unusable, Video
from prospect_hf.annotate.validation import Bounds
from prospect_hf.errors import DataError
from prospect_hf.sessions import SOURCES
from prospect_hf.sources.dialog_files import dialog_files
from prospect_hf.sources.report import FILE_SPLITS


def videos(root: Path, suffix: str = "_filtered", source: str = "wtag") -> list[Video | Unusable]:
    files = {(source, split): dialog_files(root, source, split, suffix) for split in FILE_SPLITS}
    return list(Corpus(root, files).videos())


def labelled(root: Path, *records: Any) -> list[Video]:
    write_corpus(root, list(records))
    found = videos(root)
    assert all(isinstance(one, Video) for one in found), found
    return [one for one in found if isinstance(one, Video)]


def test_all_forms_of_files_hold_the_same_videos(tmp_path: Path) -> None:
    records = [make_record(uid) for uid in ("a", "b", "c")]
    folder = write_corpus(tmp_path, records).parent
    (folder / "val_filtered.json").write_text(json.dumps(records[:1]))
    (folder / "train.json").write_text(json.dumps(records))
    (folder / "train").mkdir()
    for record in records:
        (folder / "train" / f"{record['video_uid']}.json").write_text(json.dumps(record))
    filtered, lists, files = videos(tmp_path), videos(tmp_path, ""), videos(tmp_path, "/")
    assert [one.key for one in filtered] == [
        ("wtag", "train", "a"), ("wtag", "train", "b"), ("wtag", "train", "c"), ("wtag", "validation", "a")
    ]  # fmt: skip
    assert [(one.key, one.inputs) for one in lists if isinstance(one, Video)] == [
        (one.key, one.inputs) for one in filtered[:3] if isinstance(one, Video)
    ]
    assert [(one.key, one.inputs) for one in files if isinstance(one, Video)] == [
        (one.key, one.inputs) for one in lists if isinstance(one, Video)
    ]


def test_a_task_is_what_the_record_says(tmp_path: Path) -> None:
    (one,) = labelled(tmp_path, make_record())
    assert one.task.goal == "Make tea" and one.task.origin.endswith("train_filtered.json: record 0 (v1)")
    assert [step.text for step in one.task.steps] == ["Fill the kettle with cold water.", "Boil the water."]
    assert [(line.start, line.text) for line in one.task.annotation.lines] == [(3.0, "fill kettle"), (9.0, "boil")]
    assert one.bounds == Bounds() and one.stated_end == 40.0


def test_the_frame_store_and_the_start_of_a_part_bound_the_labels(tmp_path: Path) -> None:
    write_corpus(tmp_path, [])
    write_store(tmp_path, "v1", 70)
    record = make_record()
    (whole,) = labelled(tmp_path, record)
    record["parsed_video_anns"]["video_start_time"] = 2.7
    (part,) = labelled(tmp_path, record)
    assert whole.bounds == Bounds(0.0, 35.0) and part.bounds == Bounds(2.5, 35.0)
    assert whole.inputs != part.inputs and whole.inputs.split("-")[0] == part.inputs.split("-")[0]
    record["parsed_video_anns"]["video_start_time"] = 50.0  # behind the end of the store
    write_corpus(tmp_path, [record])
    (late,) = videos(tmp_path)
    assert isinstance(late, Unusable) and "is not after its start" in late.reason


CHANGES: dict[str, dict[str, Any]] = {
    "goal": {"inferred_goal": "Make coffee"},
    "plan": {"inferred_knowledge": "1. Fill.\n2. Boil."},
    "annotation": {"parsed_video_anns": {"dataset": "wtag", "all_step_descriptions": "[3s-9s] fill", "duration": 40.0}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_labels_follow_from_changes_the_hash(tmp_path: Path, name: str) -> None:
    (one,) = labelled(tmp_path, make_record())
    (other,) = labelled(tmp_path, make_record() | CHANGES[name])
    assert one.inputs.split("-")[0] != other.inputs.split("-")[0]


def test_what_labels_do_not_follow_from_changes_nothing(tmp_path: Path) -> None:
    (one,) = labelled(tmp_path, make_record())
    (other,) = labelled(tmp_path, make_record() | {"conversations": [], "dst": [], "video_labels": {"a": 1}})
    assert one.inputs == other.inputs


@pytest.mark.parametrize("name", CHANGES)
def test_two_records_of_one_video_must_agree(tmp_path: Path, name: str) -> None:
    assert len(labelled(tmp_path, make_record(), make_record("v2"), make_record())) == 2
    write_corpus(tmp_path, [make_record(), make_record() | CHANGES[name]])
    with pytest.raises(DataError, match=r"record 1: video_uid 'v1' is that of .*record 0 too, but their goals"):
        videos(tmp_path)
    # Two splits may hold a video; that is another check's business.
    write_corpus(tmp_path, [make_record()])
    write_corpus(tmp_path, [make_record() | CHANGES[name]], "val")
    assert len(videos(tmp_path)) == 2


@pytest.mark.parametrize(
    "record, uid, reason",
    [
        (7, "", "is a number; expected an object."),
        ({}, "", "key 'video_uid' is missing."),
        (make_record("a/b"), "", "video_uid is 'a/b'; it must be a valid file name, without path separators."),
        (make_record() | {"inferred_knowledge": "Tea"}, "v1", "'inferred_knowledge' has no numbered step"),
        (make_record() | {"inferred_goal": ""}, "v1", "'inferred_goal' is empty text."),
        (make_record() | {"parsed_video_anns": {"dataset": "wtag"}}, "v1", "'all_step_descriptions' is missing."),
        (
            make_record() | {"parsed_video_anns": {"dataset": "wtag", "all_step_descriptions": "Summary: tea"}},
            "v1",
            "all_step_descriptions has no timed line (a summary: 1).",
        ),
        (make_record() | {"parsed_video_anns": {"dataset": "ego4d"}}, "v1", "'dataset' is 'ego4d'"),
    ],
)
def test_a_record_of_no_use_has_a_reason_without_its_place(tmp_path: Path, record: Any, uid: str, reason: str) -> None:
    write_corpus(tmp_path, [make_record("good"), record])
    good, found = videos(tmp_path)
    assert isinstance(good, Video) and isinstance(found, Unusable)
    assert found.key.uid == uid and reason in found.reason
    assert str(tmp_path) not in found.reason and found.origin.endswith("record 1")


def test_the_real_records_are_tasks(shared_data: Path) -> None:
    root = shared_data / "proassist"
    found = [one for source in SOURCES for one in videos(root, source=source)]
    assert [one.key.source for one in found] == list(SOURCES) and all(isinstance(one, Video) for one in found)
    assert all(
        len(one.task.steps) > 2 and len(one.task.annotation.lines) > 8 for one in found if isinstance(one, Video)
    )
