"""The ProAssist readers: real records reproduce, and each kind of bad record is named or counted."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from proassist_fixtures import make_record, write_corpus, write_store

from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.spans import JOINED
from prospect_hf.sessions import DSTEvent
from prospect_hf.sources.prepared import read_prepared
from prospect_hf.sources.proassist import REPEATED, read_sessions
from prospect_hf.sources.report import SessionsReport
from prospect_hf.sources.splits import check_splits
from prospect_hf.sources.training_records import read_training_record
from prospect_hf.timeline import build_timeline

SPLITS = {"egoexolearn": "validation"}


# --- real records ---


@pytest.mark.parametrize(
    ("source", "sessions", "turns", "first", "rows", "labelled", "steps"),
    [
        ("assembly101", 1, 32, 425, 839, 8, 8),
        ("ego4d", 2, 123, 0, 13370, 2, 5),
        ("egoexolearn", 1, 21, 0, 532, 2, 5),
        ("epickitchens", 1, 49, 0, 3283, 6, 9),
        ("holoassist", 1, 23, 0, 472, 3, 8),
        ("wtag", 1, 25, 0, 627, 11, 12),
    ],
)
def test_the_real_records_are_read(
    shared_data: Path, source: str, sessions: int, turns: int, first: int, rows: int, labelled: int, steps: int
) -> None:
    report = read_sessions(shared_data / "proassist", source, SPLITS.get(source, "train"), dst="words")
    assert len(report.sessions) == sessions and not report.skipped and report.beyond_turns == 0
    assert sum(len(session.turns) for session in report.sessions) == turns
    assert {session.first_frame for session in report.sessions} == {first}
    assert sum(session.num_frames - session.first_frame for session in report.sessions) == rows
    assert (report.labelled_steps, report.steps) == (labelled, steps)
    for session in report.sessions:
        timeline = build_timeline(session)
        assert not timeline.beyond and len(timeline.turns) == len(session.turns)
        assert timeline.dst_update.sum() == len(timeline.events) > 0


def test_the_real_prepared_rows_reproduce_without_a_mismatch(shared_data: Path) -> None:
    """Frames items of the rows tell each turn's frame; the reader refuses a row that our rules do not reproduce."""
    report = read_prepared(shared_data / "proassist", "assembly101", "train")
    timelines = [build_timeline(session) for session in report.sessions]
    assert len(report.sessions) == report.unlabelled == 6
    assert sum(len(timeline.turns) for timeline in timelines) == 227
    assert sum(len(timeline.speaking) for timeline in timelines) == 2809
    speaking = sum(int((timeline.speaking == 1).sum()) for timeline in timelines)
    assert round(100 * speaking / 2809, 2) == 6.27
    assert all(timeline.num_frames - 1 == max(timeline.turns) for timeline in timelines)
    assert all(turn.progress for session in report.sessions for turn in session.turns if turn.role == "assistant")


def test_the_real_training_record_agrees_with_its_spans(shared_data: Path) -> None:
    (session,) = read_training_record(shared_data / "dst/assembly101_9011-c03f_training_record.json")
    assert session.events is not None and len(session.events) == 12 and len(session.turns) == 9
    timeline = build_timeline(session)
    # 97.2 s; its own start_frame fields put the second and later events of a frame's run elsewhere.
    assert [event.transition for event in timeline.events[193]] == ["start"] and timeline.states_after[-1].min() == 2


# --- what is read ---


def test_a_record_becomes_sessions(tmp_path: Path) -> None:
    write_corpus(tmp_path, [make_record()])
    report = read_sessions(tmp_path, "wtag", "train", dst="files")
    one, two = report.sessions
    assert [step.text for step in one.steps] == ["Fill the kettle with cold water.", "Boil the water."]
    assert one.fps == 2.0 and one.first_frame == 0 and one.num_frames == 40 and one.user_type == "talk_some"
    assert one.session_id != two.session_id and one.turns[2].progress == "Filled."
    assert one.events is not None
    assert set(one.events) == {
        DSTEvent(3.0, 0, "start"),
        DSTEvent(9.0, 0, "complete"),
        DSTEvent(9.0, 1, "start"),
        DSTEvent(20.0, 1, "complete"),
    }
    assert all(session.events is None for session in read_sessions(tmp_path, "wtag", "train").sessions)


def test_without_state_labels_a_session_ends_with_its_last_turn(tmp_path: Path) -> None:
    write_corpus(tmp_path, [make_record()])
    assert [session.num_frames for session in read_sessions(tmp_path, "wtag", "train").sessions] == [19, 8]


def test_the_frame_store_says_how_many_frames_there_are(tmp_path: Path) -> None:
    write_corpus(tmp_path, [make_record()])
    write_store(tmp_path, "v1", 55)
    assert {session.num_frames for session in read_sessions(tmp_path, "wtag", "train").sessions} == {55}


def test_a_part_of_a_video_ends_where_the_part_ends(tmp_path: Path) -> None:
    record = make_record()
    record["parsed_video_anns"] |= {"video_start_time": 1.3, "duration": 21.0}
    write_corpus(tmp_path, [record])
    write_store(tmp_path, "v1", 200)
    for session in read_sessions(tmp_path, "wtag", "train", dst="files").sessions:
        assert (session.first_frame, session.num_frames) == (2, 45)


def test_a_conversation_that_is_repeated_in_its_record_is_kept_and_counted(tmp_path: Path) -> None:
    """ProAssist's filter writes the conversations of a record twice where a source is to weigh twice as much."""
    record = make_record()
    record["conversations"] *= 2
    write_corpus(tmp_path, [record, make_record("v2")])
    report = read_sessions(tmp_path, "wtag", "train")
    assert len(report.sessions) == 6 and report.repairs == {REPEATED: 2}


def test_turns_that_only_queue_past_the_end_are_counted(tmp_path: Path) -> None:
    record = make_record()
    record["conversations"][1]["conversation"] = [{"role": "assistant", "time": 10.0, "content": "Go."}] * 3
    write_corpus(tmp_path, [record])
    write_store(tmp_path, "v1", 20)
    assert read_sessions(tmp_path, "wtag", "train").beyond_turns == 2


def test_turns_whose_time_goes_back_keep_their_place_and_are_counted(tmp_path: Path) -> None:
    record = make_record()
    record["conversations"][0]["conversation"].reverse()
    write_corpus(tmp_path, [record])
    report = read_sessions(tmp_path, "wtag", "train")
    assert report.turns_back == 1
    session = report.sessions[0]
    assert [turn.text for turn in session.turns] == ["Boil.", "Fill it.", "I want tea."]
    assert {frame: turn.text for frame, turn in build_timeline(session).turns.items()} == {
        18: "Boil.",
        19: "Fill it.",
        20: "I want tea.",
    }


def test_a_step_id_twice_is_a_step_opened_again_and_a_missing_end_never_completes(tmp_path: Path) -> None:
    record = make_record()
    record["dst"] += [{"type": "step", "id": "S1", "start_ts": 25.0, "end_ts": None}]
    write_corpus(tmp_path, [record])
    (session, _) = read_sessions(tmp_path, "wtag", "train", dst="files").sessions
    timeline = build_timeline(session)
    assert timeline.states_after[[4, 5, 16, 17, 48, 49], 0].tolist() == [0, 1, 1, 2, 2, 1]


@pytest.mark.parametrize(
    "name",
    ["wtag/train.json", "wtag/train_filtered.json", "wtag/generated_dialogs/train_x.json", "wtag/v1.json", "v1.json"],
)
def test_state_labels_are_found_under_their_own_root(tmp_path: Path, name: str) -> None:
    record = make_record()
    labels = {"video_uid": "v1", "dst": record.pop("dst")[:1]}
    write_corpus(tmp_path, [record])
    path = tmp_path / "labels" / name
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(labels if name.endswith("v1.json") else [labels]))
    report = read_sessions(tmp_path, "wtag", "train", dst="files", dst_root=tmp_path / "labels")
    assert report.labelled_steps == 1
    assert all(session.events is not None and len(session.events) == 2 for session in report.sessions)


def test_missing_or_contradicting_state_labels_are_an_error(tmp_path: Path) -> None:
    record = make_record()
    write_corpus(tmp_path, [record])
    labels = tmp_path / "labels"
    with pytest.raises(UsageError, match="labels"):
        read_sessions(tmp_path, "wtag", "train", dst="files", dst_root=labels)
    (labels / "wtag").mkdir(parents=True)
    with pytest.raises(DataError, match=r"v1.*expected in.*wtag/v1.json|v1.*expected in.*wtag/train"):
        read_sessions(tmp_path, "wtag", "train", dst="files", dst_root=labels)
    other = copy.deepcopy(record)
    other["dst"][0]["start_ts"] = 3.5
    (labels / "wtag/train_a.json").write_text(json.dumps([record, record]))
    (labels / "wtag/train_b.json").write_text(json.dumps([other]))
    with pytest.raises(DataError, match="state labels differ"):
        read_sessions(tmp_path, "wtag", "train", dst="files", dst_root=labels)


# --- bad records ---

Change = Callable[[dict[str, Any]], Any]


def turn(record: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = record["conversations"][0]["conversation"][2]
    return found


BAD: list[tuple[str, Change, list[str]]] = [
    ("no uid", lambda r: r.pop("video_uid"), ["record 1", "video_uid", "missing"]),
    ("no goal", lambda r: r.pop("inferred_goal"), ["record 1 (v2)", "inferred_goal"]),
    ("no plan", lambda r: r.update(inferred_knowledge="Tea"), ["inferred_knowledge", "no numbered step"]),
    ("plan of wrong type", lambda r: r.update(inferred_knowledge=["1. Boil."]), ["inferred_knowledge", "a list"]),
    ("no annotation", lambda r: r.pop("parsed_video_anns"), ["parsed_video_anns", "missing"]),
    ("other source", lambda r: r["parsed_video_anns"].update(dataset="ego4d"), ["dataset", "ego4d", "wtag"]),
    ("NaN start", lambda r: r["parsed_video_anns"].update(video_start_time=float("nan")), ["video_start_time", "nan"]),
    ("no conversations", lambda r: r.update(conversations=[]), ["conversations", "empty"]),
    ("no turns", lambda r: r["conversations"][0].update(conversation=[]), ["conversation 0", "empty"]),
    ("turn is text", lambda r: r["conversations"][0].update(conversation=["hi"]), ["turn 0", "text"]),
    ("no role", lambda r: turn(r).pop("role"), ["conversation 0: turn 2", "role"]),
    ("other role", lambda r: turn(r).update(role="narrator"), ["turn 2", "narrator"]),
    ("NaN time", lambda r: turn(r).update(time=float("nan")), ["turn 2", "time", "nan"]),
    ("infinite time", lambda r: turn(r).update(time=float("inf")), ["turn 2", "time", "inf"]),
    ("negative time", lambda r: turn(r).update(time=-1), ["turn 2", "time", "negative"]),
    ("time is text", lambda r: turn(r).update(time="9.5"), ["turn 2", "time", "text"]),
    ("time is a truth value", lambda r: turn(r).update(time=True), ["turn 2", "time", "true"]),
    ("nothing said", lambda r: turn(r).update(content=""), ["turn 2", "content", "empty"]),
    ("no dst", lambda r: r.pop("dst"), ["dst", "missing"]),
    ("empty dst", lambda r: r.update(dst=[]), ["dst", "empty"]),  # pitfall 17
    ("end before start", lambda r: r["dst"][1].update(end_ts=8.0), ["dst[1]", "end_ts", "8.0", "9.0"]),
    ("end is start", lambda r: r["dst"][1].update(end_ts=9.0), ["dst[1]", "end_ts"]),
    ("no end key", lambda r: r["dst"][1].pop("end_ts"), ["dst[1]", "end_ts", "missing"]),
    ("NaN span", lambda r: r["dst"][0].update(start_ts=float("nan")), ["dst[0]", "start_ts"]),
    ("unknown step", lambda r: r["dst"][0].update(id="S3"), ["dst[0]", "S3", "S1 to S2"]),
]


@pytest.mark.parametrize(("change", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_record_is_named_or_counted_and_never_silent(tmp_path: Path, change: Change, words: list[str]) -> None:
    good, bad = make_record("v1"), make_record("v2")
    change(bad)
    path = write_corpus(tmp_path, [good, bad])
    with pytest.raises(DataError) as error:
        read_sessions(tmp_path, "wtag", "train", dst="files")
    for word in [str(path), *words]:
        assert word in str(error.value)
    report = read_sessions(tmp_path, "wtag", "train", dst="files", on_error="skip")
    assert report.skipped and str(error.value) in [reason for _, reason in report.skipped]
    assert all(origin in reason for origin, reason in report.skipped)
    # Everything is either there or listed: two conversations of v1, and v2's as far as they are sound.
    missing = 4 - len(report.sessions)
    assert {session.video_uid for session in report.sessions} >= {"v1"} and missing > 0
    write_corpus(tmp_path, [bad])
    if missing == 2:
        with pytest.raises(DataError, match="no usable session"):
            read_sessions(tmp_path, "wtag", "train", dst="files", on_error="skip")


@pytest.mark.parametrize("start", [4.0, 9.0])
def test_stated_spans_of_a_step_that_overlap_or_touch_are_joined_and_counted(tmp_path: Path, start: float) -> None:
    record = make_record()
    record["dst"][1] |= {"id": "S1", "start_ts": start}
    write_corpus(tmp_path, [record])
    report = read_sessions(tmp_path, "wtag", "train", dst="files")
    assert report.repairs == {JOINED: 1}  # once for the record, not for each of its conversations
    for session in report.sessions:
        assert session.events is not None
        assert [(event.time, event.transition) for event in session.events] == [(3.0, "start"), (20.0, "complete")]


def test_stated_spans_that_are_apart_open_a_step_again(tmp_path: Path) -> None:
    record = make_record()
    record["dst"][1] |= {"id": "S1", "start_ts": 9.1}
    write_corpus(tmp_path, [record])
    stated = read_sessions(tmp_path, "wtag", "train", dst="files")
    assert {session.state_rule for session in stated.sessions} == {"reopen"} and not stated.repairs
    assert stated.sessions[0].events is not None and len(stated.sessions[0].events) == 4


def test_labels_past_the_frame_store_are_refused_or_skipped(tmp_path: Path) -> None:
    write_corpus(tmp_path, [make_record("v1"), make_record("v2")])
    write_store(tmp_path, "v2", 15)
    with pytest.raises(DataError, match=r"v2.*frame file has 15 frames, labels need 19"):
        read_sessions(tmp_path, "wtag", "train")
    report = read_sessions(tmp_path, "wtag", "train", on_error="skip")
    assert len(report.sessions) == 3 and len(report.skipped) == 1
    # State labels count, too.
    write_store(tmp_path, "v2", 39)
    with pytest.raises(DataError, match="labels need 40"):
        read_sessions(tmp_path, "wtag", "train", dst="files")


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '[{"video_uid": "v1"'])
def test_a_file_that_is_no_list_of_records_is_refused_even_when_skipping(tmp_path: Path, text: str) -> None:
    path = write_corpus(tmp_path, text)
    with pytest.raises(DataError) as error:
        read_sessions(tmp_path, "wtag", "train", on_error="skip")
    assert str(path) in str(error.value)


def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    write_corpus(tmp_path, [make_record()])
    with pytest.raises(UsageError, match="nowhere"):
        read_sessions(tmp_path / "nowhere", "wtag", "train")
    with pytest.raises(UsageError, match="ego4d"):
        read_sessions(tmp_path, "ego4d", "train")
    with pytest.raises(UsageError, match=r"val_filtered\.json"):
        read_sessions(tmp_path, "wtag", "validation")
    with pytest.raises(UsageError, match="youtube"):
        read_sessions(tmp_path, "youtube", "train")
    with pytest.raises(UsageError, match="dev"):
        read_sessions(tmp_path, "wtag", "dev")


def test_a_recording_in_two_splits_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path, [make_record("v1__view0")])
    write_corpus(tmp_path, [make_record("v2__view0")], "val")

    def reports() -> list[SessionsReport]:
        return [read_sessions(tmp_path, "wtag", split) for split in ("train", "validation")]

    check_splits(reports())
    write_corpus(tmp_path, [make_record("v1__view1")], "val")
    with pytest.raises(DataError, match="'v1' is in split validation"):
        check_splits(reports())


def test_all_conversations_of_a_real_record_share_their_states(shared_data: Path) -> None:
    one, two = read_sessions(shared_data / "proassist", "ego4d", "train", dst="words").sessions
    assert np.array_equal(build_timeline(one).states_after, build_timeline(two).states_after)


def test_two_records_of_one_video_are_refused_and_not_joined(tmp_path: Path) -> None:
    second = make_record("v1") | {"inferred_goal": "Make coffee"}
    write_corpus(tmp_path, [make_record("v1"), second, make_record("v2")])
    with pytest.raises(DataError, match=r"record 1 \(v1\).* belongs to .*record 0 \(v1\).* too; .*video_uid"):
        read_sessions(tmp_path, "wtag", "train")
    report = read_sessions(tmp_path, "wtag", "train", on_error="skip")
    assert [session.session_id.split(".")[1] for session in report.sessions] == ["v1", "v1", "v2", "v2"]
    assert len(report.skipped) == 2 and {session.goal for session in report.sessions} == {"Make tea"}


@pytest.mark.parametrize(("factor", "stated"), [(1e3, True), (1e6, True), (1e6, False), (1.7e9, False)])
def test_times_that_are_no_seconds_are_refused_before_rows_are_made(
    tmp_path: Path, factor: float, stated: bool
) -> None:
    record = make_record()
    for one in record["conversations"][0]["conversation"]:
        one["time"] *= factor
    if not stated:
        del record["parsed_video_anns"]["duration"]
    write_corpus(tmp_path, [record])
    end = "the video ends at 40 s" if stated else "no video is so long"
    with pytest.raises(DataError, match=rf"conversation 0: a label is at \S+ s, but {end}; give times in seconds"):
        read_sessions(tmp_path, "wtag", "train")


def test_labels_a_little_beyond_the_stated_end_are_taken(tmp_path: Path) -> None:
    record = make_record()
    record["conversations"][0]["conversation"][-1]["time"] = 300.0
    write_corpus(tmp_path, [record])
    assert read_sessions(tmp_path, "wtag", "train").sessions[0].num_frames >= 600
