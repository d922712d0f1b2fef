"""Readers: turns that go back in time, numbers of any size or type, and counts of what is not used."""

from __future__ import annotations

import copy
import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proassist_fixtures import make_record, make_row, write_corpus, write_prepared

from prospect_hf.errors import DataError
from prospect_hf.sources.prepared import read_prepared
from prospect_hf.sources.proassist import read_sessions
from prospect_hf.sources.report import OnError, SessionsReport
from prospect_hf.sources.training_records import read_training_record
from prospect_hf.timeline import build_timeline, frame_at

# --- turns whose time goes back ---


def test_a_prepared_row_whose_turns_go_back_in_time_is_taken_in_its_order(tmp_path: Path) -> None:
    """A real row says 394.9 s and then 394.1 s; its frames items have the second turn after the first."""
    row = make_row() | {"start_frame_idx": 780, "end_frame_idx": 800}
    row["conversation"] = [
        {"role": "system", "content": "Help."},
        {"role": "frames", "start": 780, "end": 789},
        {"role": "assistant", "time": 394.9, "content": "Turn it."},
        {"role": "frames", "start": 789, "end": 790},
        {"role": "assistant", "time": 394.1, "content": "Slowly."},
        {"role": "frames", "start": 790, "end": 800},
    ]
    write_prepared(tmp_path, row)
    report = read_prepared(tmp_path, "wtag", "train")
    assert report.turns_back == 1
    turns = build_timeline(report.sessions[0]).turns
    assert {frame: turn.text for frame, turn in turns.items()} == {788: "Turn it.", 789: "Slowly."}


@given(st.lists(st.integers(0, 300).map(lambda tenth: tenth / 10), min_size=1, max_size=12))
def test_turns_in_any_order_of_time_keep_the_order_of_the_conversation(times: list[float]) -> None:
    record = make_record()
    record["conversations"] = [
        {
            "user_type": "x",
            "conversation": [
                {"role": "assistant", "time": time, "content": f"Turn {number}."} for number, time in enumerate(times)
            ],
        }
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder), [record])
        report = read_sessions(Path(folder), "wtag", "train")
    timeline = build_timeline(report.sessions[0])
    assert [timeline.turns[frame].text for frame in sorted(timeline.turns)] == [
        f"Turn {number}." for number in range(len(times))
    ]
    assert report.beyond_turns == 0
    assert report.turns_back == sum(later < earlier for earlier, later in pairwise(times))
    assert all(frame >= frame_at(turn.time, 2.0) - 1 for frame, turn in timeline.turns.items())


# --- sizes do not follow from unchecked labels ---

NUMBERS: list[Any] = [
    *(float(word) for word in ("nan", "inf", "-inf", "1e308")),
    *(-1, -0.5, 0, 0.1, 10**9, 10**15, 10**400, 1.7e12, True, False, "2", "", None, [], [2], {}),
]
PLACES: dict[str, list[list[Any]]] = {
    "dialogs": [
        ["conversations", 0, "conversation", 2, "time"],
        ["dst", 0, "start_ts"],
        ["dst", 1, "end_ts"],
        ["parsed_video_anns", "video_start_time"],
        ["parsed_video_anns", "duration"],
        ["parsed_video_anns", "fps"],
    ],
    "prepared": [
        ["fps"],
        ["clip_idx"],
        ["max_seq_len"],
        ["start_frame_idx"],
        ["end_frame_idx"],
        ["conversation", 2, "time"],
        ["conversation", 5, "end"],
        ["conversation", 3, "start"],
    ],
}


def put(record: Any, place: list[Any], value: Any) -> None:
    for key in place[:-1]:
        record = record[key]
    record[place[-1]] = value


@pytest.mark.parametrize("form", PLACES)
def test_a_number_of_any_size_or_type_is_read_or_one_sentence(tmp_path: Path, form: str) -> None:
    """Each number at each place: either a session of a few frames, or ``DataError``; no traceback, no huge array."""

    def read(on_error: OnError) -> SessionsReport:
        if form == "dialogs":
            return read_sessions(tmp_path, "wtag", "train", dst="files", on_error=on_error)
        return read_prepared(tmp_path, "wtag", "train", on_error=on_error)

    for place in PLACES[form]:
        for value in NUMBERS:
            good, bad = (make_record(), make_record("v2")) if form == "dialogs" else (make_row(), make_row())
            bad["video_uid"] = "v2"
            put(bad, place, value)
            if form == "dialogs":
                write_corpus(tmp_path, [good, bad])
            else:
                write_prepared(tmp_path, good, bad)
            report = read("skip")
            for session in report.sessions:
                assert session.num_frames - session.first_frame < 1500, (place, value)
                build_timeline(session)
            if report.skipped:
                with pytest.raises(DataError) as error:
                    read("raise")
                assert str(error.value) in [reason for _, reason in report.skipped] and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("end", "words"),
    [(10**12, "more than a day"), (10**300, "no time, rate or index is over"), (172_801, "more than a day")],
)
def test_a_prepared_row_of_absurd_length_is_refused_although_it_agrees_with_itself(
    tmp_path: Path, end: int, words: str
) -> None:
    row = make_row() | {"end_frame_idx": end}
    row["conversation"][-1]["end"] = end
    write_prepared(tmp_path, row)
    with pytest.raises(DataError, match=words):
        read_prepared(tmp_path, "wtag", "train")


def test_label_files_do_not_set_the_length_of_a_prepared_row(tmp_path: Path) -> None:
    write_prepared(tmp_path, make_row())
    labels = make_record()
    labels["dst"][1]["end_ts"] = 20_000.0  # milliseconds
    (tmp_path / "v1.json").write_text(json.dumps(labels))
    with pytest.raises(DataError, match=r"v1\.json: a label is at 20000 s, but the video ends at 10 s"):
        read_prepared(tmp_path, "wtag", "train", dst_root=tmp_path)


@pytest.mark.parametrize("uid", ["../v1", "a/b", "..", "x" * 300, "\0"])
def test_a_video_id_that_is_no_file_name_is_refused_before_files_are_looked_up(tmp_path: Path, uid: str) -> None:
    write_corpus(tmp_path, [make_record(uid)])
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="video_uid"):
        read_sessions(tmp_path, "wtag", "train", dst="files", dst_root=tmp_path / "labels")


@pytest.mark.parametrize("step_id", ["S" + "9" * 5000, "S1\n", "S0", "S01", "S-1", "1"])
def test_a_step_id_of_another_form_is_refused(tmp_path: Path, step_id: str) -> None:
    record = make_record()
    record["dst"][0]["id"] = step_id
    write_corpus(tmp_path, [record])
    with pytest.raises(DataError, match=r"dst\[0\]: 'id' is .*the plan has the steps S1 to S2"):
        read_sessions(tmp_path, "wtag", "train", dst="files")


def test_a_training_record_with_an_absurd_number_is_refused(tmp_path: Path) -> None:
    record = make_record() | {"dataset": "wtag", "fps": 2, "start_frame_idx": 0, "end_frame_idx": 60}
    record["dst"] = record["dst"][:1]
    record["conversation"] = [
        {"role": "DST_UPDATE", "time": 3.0, "content": [{"id": "S1", "transition": "start"}]},
        {"role": "DST_UPDATE", "time": 9.0, "content": [{"id": "S1", "transition": "complete"}]},
        {"role": "assistant", "time": 9.5, "content": "Go."},
    ]
    path = tmp_path / "record.json"
    for place in (["fps"], ["end_frame_idx"], ["start_frame_idx"], ["conversation", 2, "time"]):
        for value in NUMBERS:
            bad = copy.deepcopy(record)
            put(bad, place, value)
            path.write_text(json.dumps(bad))
            try:
                (session,) = read_training_record(path)
            except DataError:
                continue
            assert session.num_frames - session.first_frame < 1500, (place, value)


# --- what is not used is counted ---


def test_bad_and_unused_records_of_label_files_are_counted(tmp_path: Path) -> None:
    write_corpus(tmp_path, [make_record("v1"), make_record("v2")])
    labels = tmp_path / "labels/wtag/train.json"
    labels.parent.mkdir(parents=True)
    labels.write_text(json.dumps([make_record("v1"), {"dst": []}, 7, make_record("v8"), make_record("v9")]))
    with pytest.raises(DataError, match=r"train\.json: record 1.*video_uid"):
        read_sessions(tmp_path, "wtag", "train", dst="files", dst_root=tmp_path / "labels")
    report = read_sessions(tmp_path, "wtag", "train", dst="files", dst_root=tmp_path / "labels", on_error="skip")
    assert [origin.rpartition(": ")[2] for origin, _ in report.skipped] == ["record 1", "record 2", "record 1"]
    assert report.unused_labels == 2 and len(report.sessions) == 2


def test_a_label_file_of_another_video_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path, [make_record("v1")])
    (tmp_path / "v1.json").write_text(json.dumps(make_record("v2")))
    with pytest.raises(DataError, match=r"v1\.json: the labels are those of 'v2', not of v1"):
        read_sessions(tmp_path, "wtag", "train", dst="files", dst_root=tmp_path)


def test_aligned_segments_and_lines_are_counted_in_the_report(tmp_path: Path) -> None:
    record = make_record()
    record["parsed_video_anns"]["all_step_descriptions"] += (
        "\n[21s-22s] fill kettle\n[-1s-3s] fill\n[5s] boil\n - [6s] look\n[23s-24s] sneeze"
    )
    write_corpus(tmp_path, [record])
    report = read_sessions(tmp_path, "wtag", "train", dst="words")
    assert (report.segments, report.abstained) == (4, {"matches no step in order": 1, "matches no step": 1})
    assert report.left_out_lines == {
        "a negative time": 1,
        "a point in time, without an end": 1,
        "below a segment": 1,
    }
    assert report.unusable_segments == 2
