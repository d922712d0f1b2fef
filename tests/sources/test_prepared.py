"""Prepared rows and training records: their turns and spans are checked against the label rules."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from frame_fixtures import FORMS, video
from proassist_fixtures import make_record, make_row, write_corpus, write_prepared, write_store

from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.spans import JOINED
from prospect_hf.sources.prepared import read_prepared
from prospect_hf.sources.proassist import read_sessions
from prospect_hf.sources.training_records import read_training_record
from prospect_hf.timeline import build_timeline

Change = Callable[[dict[str, Any]], Any]


def summarised() -> dict[str, Any]:
    """A clip that goes on in another row: it ends with a request, a frame of the next clip, and a summary."""
    row = make_row() | {"max_seq_len": 4096, "end_frame_idx": 21}
    row["metadata"]["has_summary"] = True
    row["conversation"] += [
        {"role": "system", "content": "Please summarize the progress."},
        {"role": "frames", "start": 20, "end": 21},
        {"role": "assistant", "content": "The kettle is full."},
    ]
    return row


def test_the_summary_at_the_end_of_a_clip_is_no_turn_and_is_counted(tmp_path: Path) -> None:
    write_prepared(tmp_path, make_row() | {"video_uid": "v2"}, summarised())
    report = read_prepared(tmp_path, "wtag", "train")
    whole, clip = report.sessions
    assert (clip.turns, clip.first_frame, clip.num_frames) == (whole.turns, whole.first_frame, whole.num_frames)
    assert report.left_out_lines == {"a summary": 1}
    row = summarised()
    row["conversation"].pop()
    write_prepared(tmp_path, row)
    with pytest.raises(DataError, match="'has_summary' is true, but the conversation does not end with a summary"):
        read_prepared(tmp_path, "wtag", "train")


def test_a_row_without_the_turns_of_the_assistant_is_refused(tmp_path: Path) -> None:
    row = summarised()
    row["metadata"]["summary_only"] = True
    write_prepared(tmp_path, row)
    with pytest.raises(DataError, match=r"line 1 \(v1\): metadata: 'summary_only' is true"):
        read_prepared(tmp_path, "wtag", "train")


BAD_ROWS: list[tuple[Change, str]] = [
    (lambda r: r["conversation"][2].update(time=1.5), "on frame 3, but the label rules put it on 2"),
    (lambda r: r["conversation"][4].update(time=30.0), "the label rules put it on 59"),
    (lambda r: r["conversation"][3].update(start=6), "must start at"),
    (lambda r: r.update(end_frame_idx=25), "end_frame_idx"),
    (lambda r: r["metadata"].pop("knowledge"), "knowledge"),
    (lambda r: r.update(start_frame_idx=1.5), "whole number"),
    (lambda r: r["conversation"].insert(1, {"role": "user", "time": 0.0, "content": "hm"}), "label rules"),
]


@pytest.mark.parametrize(("change", "words"), BAD_ROWS)
def test_a_prepared_row_that_the_rules_do_not_reproduce_is_refused(tmp_path: Path, change: Change, words: str) -> None:
    row = make_row()
    write_prepared(tmp_path, row)
    (session,) = read_prepared(tmp_path, "wtag", "train").sessions
    assert (session.first_frame, session.num_frames) == (1, 20) and list(build_timeline(session).turns) == [3, 4]
    change(row)
    write_prepared(tmp_path, row)
    with pytest.raises(DataError, match=words):
        read_prepared(tmp_path, "wtag", "train")


def test_prepared_rows_take_state_labels_from_label_files(tmp_path: Path) -> None:
    write_prepared(tmp_path, make_row())
    (tmp_path / "v1.json").write_text(json.dumps(make_record()))
    (session,) = read_prepared(tmp_path, "wtag", "train", dst_root=tmp_path).sessions
    assert session.events is not None and session.num_frames == 40
    write_prepared(tmp_path, make_row() | {"max_seq_len": 4096})
    with pytest.raises(DataError, match="whole videos"):
        read_prepared(tmp_path, "wtag", "train", dst_root=tmp_path)


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_every_form_of_frames_sets_the_number_of_frames(tmp_path: Path, make: Callable[[Path, str, int], Path]) -> None:
    write_corpus(tmp_path, [make_record("v1")])
    write_prepared(tmp_path, make_row())
    path = make(tmp_path / "processed_data/wtag/frames", "v1", 25)
    assert {session.num_frames for session in read_sessions(tmp_path, "wtag", "train").sessions} == {25}
    assert len(read_prepared(tmp_path, "wtag", "train").sessions) == 1
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(tmp_path / "processed_data/wtag/frames", "v1", 15)
    with pytest.raises(DataError, match="frame file has 15 frames, labels need 19"):
        read_sessions(tmp_path, "wtag", "train")
    with pytest.raises(DataError, match="frame file has 15 frames, labels need 20"):
        read_prepared(tmp_path, "wtag", "train")


def test_a_video_is_read_at_one_rate_only(tmp_path: Path) -> None:
    video(tmp_path / "processed_data/wtag/frames", "v1", 25)
    row = make_row() | {"fps": 4}
    row["conversation"] = [row["conversation"][0], {"role": "frames", "start": 1, "end": 20}]
    write_prepared(tmp_path, row)
    with pytest.raises(DataError, match=r"has 4 frames per second, but .*v1\.mp4 is read at 2; sample the video"):
        read_prepared(tmp_path, "wtag", "train")


def test_prepared_files_are_checked(tmp_path: Path) -> None:
    write_prepared(tmp_path, make_row(), '{"dataset": ')
    with pytest.raises(DataError, match="line 2"):
        read_prepared(tmp_path, "wtag", "train")
    with pytest.raises(UsageError, match="validation"):
        read_prepared(tmp_path, "wtag", "validation")
    write_prepared(tmp_path, "\n")
    with pytest.raises(DataError, match="no usable session"):
        read_prepared(tmp_path, "wtag", "train", on_error="skip")
    write_prepared(tmp_path, make_row())
    write_prepared(tmp_path, make_row(), name="dialog_train_L0_I5.jsonl")
    with pytest.raises(DataError, match="the same clip"):
        read_prepared(tmp_path, "wtag", "train")
    assert len(read_prepared(tmp_path, "wtag", "train", pattern="dialog_{split}_L0_I5.jsonl").sessions) == 1
    write_store(tmp_path, "v1", 19)
    with pytest.raises(DataError, match="19 frames, labels need 20"):
        read_prepared(tmp_path, "wtag", "train", pattern="dialog_{split}_L0_I5.jsonl")


def test_a_training_record_whose_turns_and_spans_disagree_is_refused(tmp_path: Path) -> None:
    record = make_record() | {"dataset": "wtag", "fps": 2, "start_frame_idx": 0, "end_frame_idx": 60}
    record["conversation"] = [
        {"role": "system", "content": "Help."},
        {"role": "DST_UPDATE", "time": 3.0, "content": [{"id": "S1", "transition": "start"}], "start_frame": 0},
        {"role": "assistant", "time": 3.0, "content": "Go."},
        {
            "role": "DST_UPDATE",
            "time": 9.0,
            "content": [{"id": "S1", "transition": "complete"}, {"id": "S2", "transition": "start"}],
        },
        {"role": "DST_UPDATE", "time": 20.0, "content": [{"id": "S2", "transition": "complete"}]},
    ]
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record))
    (session,) = read_training_record(path)
    assert [turn.text for turn in session.turns] == ["Go."]
    assert list(build_timeline(session).events) == [5, 17, 39]
    for change, words in (
        (lambda r: r["conversation"].pop(), "S2 at 20.0 s is only in the dst spans"),
        (lambda r: r["conversation"][1].update(time=2.0), "is only in"),
        (lambda r: r["conversation"][1]["content"][0].update(id="S9"), "S9"),
        (lambda r: r.update(end_frame_idx=39), "labels need 40"),
    ):
        bad = copy.deepcopy(record)
        change(bad)
        path.write_text(json.dumps(bad))
        with pytest.raises(DataError, match=words):
            read_training_record(path)


def test_stated_spans_are_joined_in_training_records_and_prepared_rows_too(tmp_path: Path) -> None:
    joined = [(3.0, "start"), (20.0, "complete")]
    record = make_record() | {"dataset": "wtag", "fps": 2, "start_frame_idx": 0, "end_frame_idx": 60}
    record["dst"][1] |= {"id": "S1"}  # touches the span above it
    times = ((3.0, "start"), (9.0, "complete"), (9.0, "start"), (20.0, "complete"))
    record["conversation"] = [
        {"role": "DST_UPDATE", "time": time, "content": [{"id": "S1", "transition": transition}]}
        for time, transition in times
    ]
    path = tmp_path / "v1.json"
    path.write_text(json.dumps(record))
    (session,) = read_training_record(path)
    assert session.events is not None and [(event.time, event.transition) for event in session.events] == joined
    write_prepared(tmp_path, make_row())
    report = read_prepared(tmp_path, "wtag", "train", dst_root=tmp_path)
    events = report.sessions[0].events
    assert events is not None and [(event.time, event.transition) for event in events] == joined
    assert report.repairs == {JOINED: 1}
