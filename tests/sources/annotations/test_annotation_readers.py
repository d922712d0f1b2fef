"""What the readers of Ego4D Goal-Step, Assembly101 and HoloAssist make of a release: steps, turns, mistakes, split."""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from annotation_fixtures import (
    HOLO_VIDEO,
    MISTAKE_ROWS,
    SEQUENCE,
    goalstep_segment,
    goalstep_video,
    holo_coarse,
    holo_event,
    holo_fine,
    holo_record,
    holo_speech,
    write,
    write_goalstep,
    write_holo,
    write_mistakes,
)
from PIL import Image

from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.segments import (
    ABOUT_RECORDING,
    BELOW_SEGMENT,
    CORRECTION,
    IRRELEVANT,
    NO_TEXT,
    NO_VALID_TIME,
    NOT_AFTER_START,
    SUMMARY,
    WITHOUT_WORDS,
)
from prospect_hf.labels.spans import ONE_SPAN
from prospect_hf.sessions import Mistake, Session, frames_file, recording_id
from prospect_hf.sources.annotations import assembly101, ego4d, holoassist
from prospect_hf.sources.annotations.read import hashed_split, read_annotations
from prospect_hf.sources.annotations.video import MISTAKE_NO_INTERVAL
from prospect_hf.sources.report import SessionsReport


def steps(session: Session) -> list[str]:
    return [step.text for step in session.steps]


def read_one(root: Path, source: str) -> tuple[Session, SessionsReport]:
    report = read_annotations(root, source, "train")
    (session,) = report.sessions
    return session, report


# --- Ego4D Goal-Step ---


def test_goalstep_steps_are_the_relevant_top_level_segments(tmp_path: Path) -> None:
    below = [goalstep_segment(1, 2, "sub")]
    write_goalstep(
        tmp_path,
        goalstep_video(
            goalstep_segment(0, 10, "Boil water", segments=below),
            goalstep_segment(10, 12, "use the phone", is_relevant="irrelevant"),
            goalstep_segment(12, 20, "pour", is_relevant="optional"),
        ),
    )
    session, report = read_one(tmp_path, "ego4d")
    assert (session.goal, steps(session)) == ("Make tea", ["Boil water", "pour"])
    assert report.left_out_lines == {BELOW_SEGMENT: 1, IRRELEVANT: 1} and report.unusable_segments == 0
    assert (session.num_frames, session.turns, session.mistakes) == (120, (), ())


def test_goalstep_a_continued_segment_joins_its_description_then_its_category(tmp_path: Path) -> None:
    def continued(start: int, text: str, category: str) -> dict[str, Any]:
        return goalstep_segment(start, start + 4, text, category=category, is_continued=True)

    write_goalstep(
        tmp_path,
        goalstep_video(
            continued(50, "stir the rice", "other"),  # of the same description
            goalstep_segment(0, 4, "stir the rice", category="stir"),
            continued(10, "stir rice in a pan", "stir"),  # in other words; not the first in the file
            continued(20, "wash", "wash"),  # of nothing that is annotated
            goalstep_segment(30, 34, "stir the soup", category="stir"),  # not continued: a step of its own
        ),
    )
    session, report = read_one(tmp_path, "ego4d")
    assert steps(session) == ["stir the rice", "wash", "stir the soup"]
    assert report.repairs[ego4d.CONTINUED] == 1 and report.repairs[ego4d.CONTINUES_NOTHING] == 1
    assert report.repairs[ONE_SPAN] == 2 and session.state_rule == "monotone"


def test_goalstep_a_segment_without_a_valid_start_upsets_no_order(tmp_path: Path) -> None:
    write_goalstep(
        tmp_path,
        goalstep_video(
            goalstep_segment(30, 34, "pour it", category="pour", is_continued=True),
            goalstep_segment(math.nan, 9, "boil"),
            goalstep_segment(8, 20, "pour", category="pour"),
        ),
    )
    session, report = read_one(tmp_path, "ego4d")
    assert steps(session) == ["pour"] and report.left_out_lines == {NO_VALID_TIME: 1}


def test_goalstep_the_category_stands_for_an_empty_description(tmp_path: Path) -> None:
    video = goalstep_video(goalstep_segment(0, 4, "", category="Boil water"), goalstep_segment(9, 12, "", category=""))
    write_goalstep(tmp_path, video | {"goal_description": None})
    session, report = read_one(tmp_path, "ego4d")
    assert (session.goal, steps(session)) == ("COOKING:TEA", ["Boil water"])
    assert report.left_out_lines == {NO_TEXT: 1}


def test_goalstep_files_state_their_split(tmp_path: Path) -> None:
    write_goalstep(tmp_path, goalstep_video(goalstep_segment(0, 4, "a"), uid="v1"), split="train")
    write_goalstep(tmp_path, goalstep_video(goalstep_segment(0, 4, "a"), uid="v2"), split="val")
    write(tmp_path / "ego4d/goalstep_test_unannotated.json", "not read")
    found = {
        split: [session.video_uid for session in read_annotations(tmp_path, "ego4d", split).sessions]
        for split in ("train", "validation", "test")
    }
    assert found == {"train": ["v1"], "validation": ["v2"], "test": []}


# --- Assembly101 ---


def test_assembly101_rows_are_steps_mistakes_and_corrections(tmp_path: Path) -> None:
    write_mistakes(tmp_path)
    session, report = read_one(tmp_path, "assembly101")
    assert steps(session) == ["attach wheel to chassis", "attach interior to chassis"]
    assert session.mistakes == (Mistake(20.0, 30.0, "attach cabin to chassis: wrong order"),)
    assert session.events is not None
    assert [(event.time, event.transition) for event in session.events if event.step == 0] == [
        (10.0, "start"),
        (20.0, "complete"),
    ]
    assert report.left_out_lines == {CORRECTION: 1} and report.repairs == {assembly101.NO_REMARK: 1}


def test_assembly101_sequences_have_the_names_that_proassist_gives_their_recordings(tmp_path: Path) -> None:
    write_mistakes(tmp_path)
    session, _ = read_one(tmp_path, "assembly101")
    assert session.recording == SEQUENCE
    for part in ("assembly", "disassembly"):  # as ProAssist names a camera view
        assert recording_id("assembly101", f"{part}_{SEQUENCE}__HMC_21179183_mono10bit") == session.recording
    assert session.frames_file == f"frames/{SEQUENCE}.arrow" == frames_file("assembly101", session.video_uid)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("1300,1290,attach,roof,cabin,correct,", NOT_AFTER_START),
        ("1300,1300,detach,roof,cabin,correction,", NOT_AFTER_START),
        ("1300,1300,detach,roof,cabin,mistake,why", MISTAKE_NO_INTERVAL),
        ("x,1400,attach,roof,cabin,correct,", NO_VALID_TIME),
        ("1_3,1_4,attach,roof,cabin,correct,", NO_VALID_TIME),
        ("start,end,verb,this,that,label,remark", assembly101.OTHER_LABEL),
        ("1300,1400,attach,roof,,correct,", NO_TEXT),
        ("1300,1400,attach,roof,cabin,right,", assembly101.OTHER_LABEL),
        ("1300,1400,attach", assembly101.TOO_SHORT),
    ],
)
def test_assembly101_a_row_that_cannot_be_used_is_counted(tmp_path: Path, row: str, kind: str) -> None:
    write_mistakes(tmp_path, f"{MISTAKE_ROWS}{row}\n")
    session, report = read_one(tmp_path, "assembly101")
    assert len(session.steps) == 2 and len(session.mistakes) == 1
    assert report.left_out_lines == Counter([CORRECTION, kind])


def test_assembly101_cells_beyond_the_last_column_belong_to_the_remark(tmp_path: Path) -> None:
    write_mistakes(tmp_path, f"{MISTAKE_ROWS} 1200 ,1500, attach,roof,cabin ,MISTAKE,too early, and crooked\n\n,,,\n")
    session, report = read_one(tmp_path, "assembly101")
    assert session.mistakes[1] == Mistake(40.0, 50.0, "attach roof to cabin: too early, and crooked")
    assert report.repairs[assembly101.MORE_COLUMNS] == 1


# --- HoloAssist ---

INSTRUCT = "instructor-start-conversation_describing high-level instruction"
ASK = "student-start-conversation_ask questions"


def test_holoassist_coarse_actions_are_steps_and_wrong_fine_actions_mistakes(tmp_path: Path) -> None:
    record = holo_record(
        holo_event("Narration", 0, 50, **{"Long form description": "All of it."}),
        holo_coarse(5, 20, "The student opens the box."),
        holo_fine(6, 7),
        holo_fine(8, 9, "Wrong Action, corrected by student", "The wrong button."),
        holo_fine(9, 10, "otherwise"),
        holo_fine(11, 12, "none"),
        holo_coarse(30, 40, "none"),
        holo_event("Gesture", 9, 10),
    )
    write_holo(tmp_path, record)
    session, report = read_one(tmp_path, "holoassist")
    assert (session.goal, steps(session)) == ("setup switch", ["The student opens the box."])
    assert session.mistakes == (
        Mistake(8, 9, "press green power button: The wrong button."),
        Mistake(9, 10, "press green power button"),
    )
    assert report.left_out_lines == Counter(
        [SUMMARY, BELOW_SEGMENT, holoassist.UNKNOWN_EVENT, holoassist.UNKNOWN_CORRECTNESS, NO_TEXT]
    )
    assert session.num_frames == 121  # of 60.52 s, not of the whole seconds


def test_holoassist_speech_becomes_turns_in_the_order_of_their_starts(tmp_path: Path) -> None:
    record = holo_record(
        holo_coarse(0, 50, "The student opens the box."),
        holo_speech(10, 14, ASK, "This one?"),
        holo_speech(13, 15, "instructor-reply-to-student_confirming past or future action", "Yes."),
        holo_speech(2, 4, INSTRUCT, "Open it. *unintelligible*"),
        holo_speech(20, 20, "instructor-start-conversation_correct the wrong action", "Not that."),
        holo_speech(30, None, "instructor-start-conversation_opening remarks", "Hello."),
    )
    write_holo(tmp_path, record)
    session, report = read_one(tmp_path, "holoassist")
    assert session.user_type == "dialogue"
    assert [(turn.role, turn.time, turn.labels) for turn in session.turns] == [
        ("assistant", 2, "initiative|instruction"),
        ("user", 14, ""),  # known at its end
        ("assistant", 13, "responsive|feedback"),
        ("assistant", 20, "initiative|correction"),
        ("assistant", 30, "initiative|other"),
    ]
    assert report.turns_back == 1
    assert report.repairs == {holoassist.SPEECH_OVERLAP: 1, holoassist.SPEECH_UNSORTED: 1}


@pytest.mark.parametrize(
    ("speech", "reason"),
    [
        (holo_speech(1, 2, "instructor-start-conversation_closing remarks", "You can press stop."), ABOUT_RECORDING),
        (
            holo_speech(1, 2, "instructor-start-conversation_adjusting to capture better quality video", "Lower."),
            ABOUT_RECORDING,
        ),
        (holo_speech(1, 2, INSTRUCT, "*unintelligible*"), WITHOUT_WORDS),
        (holo_speech(1, 2, INSTRUCT, " ... *unintellgible* "), WITHOUT_WORDS),
        (holo_speech(1, 2, INSTRUCT, "none"), WITHOUT_WORDS),
        (holo_speech(1, 2, INSTRUCT, ""), WITHOUT_WORDS),
        (holo_speech(1, 2, "", "Go."), holoassist.UNKNOWN_SPEAKER),
        (holo_speech(math.nan, 2, INSTRUCT, "Go."), NO_VALID_TIME),
        (holo_speech(-1, 2, ASK, "Go?"), NO_VALID_TIME),
        (holo_speech(1, 2, "a bystander says something", "Go."), holoassist.UNKNOWN_SPEAKER),
    ],
)
def test_holoassist_speech_that_is_no_turn_is_counted(tmp_path: Path, speech: Any, reason: str) -> None:
    write_holo(tmp_path, holo_record(holo_coarse(0, 50, "The student opens the box."), speech))
    session, report = read_one(tmp_path, "holoassist")
    assert session.turns == () and report.left_out_lines == {reason: 1}


def test_holoassist_reads_the_one_file_of_the_release_and_its_lists_of_splits(tmp_path: Path) -> None:
    records = [holo_record(holo_coarse(0, 9, "a"), name=name) for name in ("v1", "v2", "v3", "v4")]
    write(tmp_path / "holoassist/data-annotation-trainval-v1_1.json", records)
    for file_split, names in (("train", "v1\nv2\n"), ("val", "v3\r\n"), ("test", "v4")):
        write(tmp_path / f"holoassist/{file_split}-v1_2.txt", names)
    found = [
        [session.video_uid for session in read_annotations(tmp_path, "holoassist", split).sessions]
        for split in ("train", "validation", "test")
    ]
    assert found == [["v1", "v2"], ["v3"], ["v4"]]
    write(tmp_path / "holoassist/test-v1_2.txt", "v3")
    with pytest.raises(DataError, match=r"test-v1_2\.txt: video 'v3' is in the list of validation too"):
        read_annotations(tmp_path, "holoassist", "test")


# --- splits ---


def test_a_recording_is_in_one_split_whatever_its_views_and_parts() -> None:
    view = f"assembly_{SEQUENCE}__HMC_21179183_mono10bit"
    assert {hashed_split("assembly101", uid) for uid in (f"assembly_{SEQUENCE}", view, f"dis{view}")} == {"train"}
    parts = [f"R{number}-5July-ATV" for number in range(200)]
    for stem in parts:
        names = (stem, f"{stem}-Part1", f"{stem}-part2", f"{stem}_part 12")
        assert len({hashed_split("holoassist", name) for name in names}) == 1
    assert {recording_id("holoassist", name) for name in ("R1-partition", "R1-Part", "Part1")} == {
        "R1-partition",
        "R1-Part",
        "Part1",
    }


def test_the_hashed_split_is_fixed_and_in_the_stated_shares() -> None:
    # Another result would move recordings between the splits of data sets that are out.
    letters = {"train": "r", "validation": "a", "test": "e"}
    found = "".join(letters[hashed_split("wtag", f"T{number}")] for number in range(1, 41))
    assert found == "rrrrrarrrrrrerrrrarrrrrrrrrrrrrrarrrrrer"
    shares = Counter(hashed_split("wtag", str(number)) for number in range(10_000))
    assert abs(shares["train"] - 8_000) < 150
    assert abs(shares["validation"] - 1_000) < 100 and abs(shares["test"] - 1_000) < 100


# --- the folder, and bad input of each kind ---


def test_stored_frames_say_how_long_the_video_is(tmp_path: Path) -> None:
    write_goalstep(tmp_path, goalstep_video(goalstep_segment(0, 4, "a"), end=4))
    frames = tmp_path / "ego4d/frames/v1"
    frames.mkdir(parents=True)
    for number in range(9):
        Image.new("RGB", (8, 8)).save(frames / f"{number:06d}.jpg")
    assert read_one(tmp_path, "ego4d")[0].num_frames == 9
    for number in range(3, 9):
        (frames / f"{number:06d}.jpg").unlink()
    with pytest.raises(DataError, match=r"3 stored frames, which end at 1\.5 s, but its labels end at 4 s"):
        read_annotations(tmp_path, "ego4d", "train")


@pytest.mark.parametrize("source", ["ego4d", "assembly101", "holoassist"])
def test_a_missing_or_empty_folder_is_named(tmp_path: Path, source: str) -> None:
    with pytest.raises(UsageError, match=f"{source}: no such folder; data.root"):
        read_annotations(tmp_path, source, "train")
    (tmp_path / source).mkdir()
    with pytest.raises(UsageError, match=f"{source}.*: no "):
        read_annotations(tmp_path, source, "train")


ENCODINGS = {
    "UTF-16": ("é".encode("utf-16") + b"\0", "null characters|not UTF-8"),
    "UTF-16 without mark": ("attach".encode("utf-16-le"), "null characters|invalid JSON"),
    "Latin-1": (b'"caf\xe9"', "not UTF-8"),
    "empty": (b"", "no usable segment|invalid JSON"),
    "blank": (b" \n\n", "no usable segment|invalid JSON"),
    "another file": (b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8"),
    "open quote": (b'1,2,"attach', "no valid csv|invalid JSON"),
    "one line": (b"x" * 200_000, "no valid csv|invalid JSON"),
    "wrong columns": (b"a,b\n1;2;3\n", "no usable segment|invalid JSON"),
    "a list": (b"[1, 2]", "no usable segment|is a list"),
    "a number": (b"7", "no usable segment|is a number"),
}


@pytest.mark.parametrize("kind", ENCODINGS)
@pytest.mark.parametrize("source", ["ego4d", "assembly101", "holoassist"])
def test_a_file_that_is_something_else_is_one_sentence(tmp_path: Path, source: str, kind: str) -> None:
    content, words = ENCODINGS[kind]
    if source == "ego4d":
        path = write(tmp_path / "ego4d/goalstep_train.json", content)
    else:
        path = (write_mistakes if source == "assembly101" else write_holo)(tmp_path, content)
    with pytest.raises(DataError, match=words) as error:
        read_annotations(tmp_path, source, "train")
    assert str(path) in str(error.value) and len(str(error.value)) < 600


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    write_mistakes(tmp_path, mark + MISTAKE_ROWS.encode())
    write_holo(tmp_path, mark + json.dumps(holo_record(holo_coarse(0, 9, "a"))).encode())
    assert len(read_one(tmp_path, "assembly101")[0].steps) == 2
    assert len(read_one(tmp_path, "holoassist")[0].steps) == 1


@pytest.mark.parametrize("name", ["..", "../x", "/etc/passwd", "a/b", "", "x" * 300, 7, None, "\ud800", "a\0b"])
def test_a_video_name_that_is_no_file_name_is_refused_and_listed(tmp_path: Path, name: Any) -> None:
    good = goalstep_video(goalstep_segment(0, 4, "a"), uid="good")
    write_goalstep(tmp_path, good, goalstep_video(goalstep_segment(0, 4, "a"), uid=name))
    with pytest.raises(DataError, match=r"videos\[1\]"):
        read_annotations(tmp_path, "ego4d", "train")
    report = read_annotations(tmp_path, "ego4d", "train", on_error="skip")
    assert [session.video_uid for session in report.sessions] == ["good"] and len(report.skipped) == 1
    write_holo(tmp_path, holo_record(holo_coarse(0, 9, "a")) | {"video_name": name})
    with pytest.raises(DataError, match="video_name"):
        read_annotations(tmp_path, "holoassist", "train")


def test_a_video_name_does_not_lead_to_frames_outside_the_folder(tmp_path: Path) -> None:
    write_goalstep(tmp_path, goalstep_video(goalstep_segment(0, 4, "a"), uid="../v1"))
    (tmp_path / "ego4d/frames").mkdir()
    write(tmp_path / "ego4d/v1.arrow", "opened")
    with pytest.raises(DataError, match=r"the id of the video is '\.\./v1'; it must be a valid file name"):
        read_annotations(tmp_path, "ego4d", "train")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_a_file_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    path = os.fsencode(write_mistakes(tmp_path))
    os.rename(path, path.replace(b"nusar", b"nus\xffr"))
    refused = 0
    for split in ("train", "validation", "test"):
        report = None
        try:
            report = read_annotations(tmp_path, "assembly101", split)
        except DataError as error:
            refused += "no UTF-8 text; name the file in UTF-8" in str(error)
        assert report is None or not report.sessions
    assert refused == 1


BAD_GOALSTEP: dict[str, tuple[Any, str]] = {
    "no list": ({"videos": {}}, "'videos' is an object; expected a list"),
    "no split": ({"split": None}, "'split' is null"),
    "other split": ({"split": "dev"}, "'split' is 'dev'; it must be one of train, val, test"),
    "no videos": ({"videos": []}, "empty list"),
    "a number": ({"videos": [7]}, r"videos\[0\] is a number"),
    "no segments": ({"videos": [{"video_uid": "v", "segments": []}]}, "'segments' is an empty list"),
}


@pytest.mark.parametrize("kind", BAD_GOALSTEP)
def test_json_of_another_kind_names_its_place(tmp_path: Path, kind: str) -> None:
    changes, words = BAD_GOALSTEP[kind]
    release = {"split": "train", "videos": [goalstep_video(goalstep_segment(0, 4, "a"))]} | changes
    write(tmp_path / "ego4d/goalstep_train.json", release)
    with pytest.raises(DataError, match=words):
        read_annotations(tmp_path, "ego4d", "train")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start_time": "1.0"}, r"segments\[0\]: 'start_time' is no number"),
        ({"start_time": True}, "'start_time' is no number"),
        ({"end_time": 1e9}, "milliseconds"),
        ({"step_description": "", "step_category": None}, "no usable segment.*no text: 1"),
        ({"step_description": 7}, "'step_description' is a number"),
        ({"is_continued": "no"}, "'is_continued' is neither true nor false"),
        ({"segments": None}, "'segments' is no list"),
        ({"start_time": math.nan}, "no usable segment.*no valid time: 1"),
        ({"end_time": 10**400}, "no usable segment.*no valid time: 1"),
        ({"start_time": -3}, "no usable segment.*a negative time: 1"),
        ({"start_time": None}, "no usable segment.*no valid time: 1"),
    ],
)
def test_a_bad_segment_names_its_place(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    write_goalstep(tmp_path, goalstep_video(goalstep_segment(0, 4, "a") | change, end=None))
    with pytest.raises(DataError, match=rf"goalstep_train\.json: videos\[0\] \(v1\).*{words}"):
        read_annotations(tmp_path, "ego4d", "train")


def test_a_file_of_another_video_is_refused(tmp_path: Path) -> None:
    write_holo(tmp_path, holo_record(holo_coarse(0, 9, "a"), name="R1"), name=HOLO_VIDEO)
    with pytest.raises(DataError, match="'video_name' is 'R1', but the file is named after another video"):
        read_annotations(tmp_path, "holoassist", "train")
