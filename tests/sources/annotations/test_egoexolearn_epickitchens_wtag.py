"""What the readers of EgoExoLearn, EPIC-KITCHENS-100 and WTaG make of a release: steps, turns, length, split."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from annotation_fixtures import (
    EPIC_HEAD,
    EPIC_INFO,
    EPIC_ROWS,
    EXO_VIDEO,
    RECIPE,
    epic_row,
    exo_segment,
    write,
    write_epic,
    write_exo,
    write_recording,
)
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.align.by_words import NO_MATCH
from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.segments import NO_TEXT, NO_VALID_TIME, NOT_AFTER_START, START_OR_DONE, WITHOUT_WORDS
from prospect_hf.labels.spans import REOPENED
from prospect_hf.sessions import Session
from prospect_hf.sources.annotations import egoexolearn, epickitchens, wtag
from prospect_hf.sources.annotations.fields import clock_seconds
from prospect_hf.sources.annotations.read import hashed_split, read_annotations
from prospect_hf.sources.annotations.video import BEYOND_END, NO_LENGTH, UNSORTED
from prospect_hf.sources.report import FILE_SPLITS, SessionsReport
from prospect_hf.sources.splits import check_splits
from prospect_hf.timeline import build_timeline


def read_one(root: Path, source: str) -> tuple[Session, SessionsReport]:
    reports = [read_annotations(root, source, split) for split in FILE_SPLITS]
    ((session, report),) = [(session, report) for report in reports for session in report.sessions]
    return session, report


def refused(root: Path, source: str) -> str:
    """The one sentence, which skipping lists or raises too."""
    told = set()
    for split in FILE_SPLITS:
        try:
            read_annotations(root, source, split)
        except DataError as error:
            told.add(str(error))
            with pytest.raises(DataError) as skipping:
                read_annotations(root, source, split, on_error="skip")
            assert str(error) in str(skipping.value)
    assert len(told) == 1
    return told.pop()


def steps(session: Session) -> list[str]:
    return [step.text for step in session.steps]


# --- EgoExoLearn ---

EXO = [
    exo_segment(8.5, 20, "1. Hold the tomato.\n2. Cut it."),
    exo_segment(2, 8, "1. Wash the tomato."),
    exo_segment(30, 90, "1.  hold the tomato. \n2. Cut it."),
]


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_coarse_annotations_become_steps_without_their_numbers(tmp_path: Path, form: str) -> None:
    if form == "archive":
        write_exo(tmp_path, (f"l1/{EXO_VIDEO}.json", EXO))
    else:
        write(tmp_path / f"egoexolearn/l1/{EXO_VIDEO}.json", EXO)
    session, report = read_one(tmp_path, "egoexolearn")
    assert steps(session) == ["Wash the tomato.", "Hold the tomato. Cut it."]
    assert (session.video_uid, session.goal, session.num_frames) == (EXO_VIDEO, egoexolearn.GOAL, 121)
    assert report.repairs == {UNSORTED: 1, BEYOND_END: 1, REOPENED: 1} and not session.turns
    assert report.split == hashed_split("egoexolearn", EXO_VIDEO)
    assert build_timeline(session).states_after[[2, 3, 38, 39, 59, 120], 1].tolist() == [0, 0, 1, 2, 1, 2]


def test_odd_segments_of_egoexolearn_are_counted(tmp_path: Path) -> None:
    """As in the real archive: two segments of no length whose text is no description, and no duration."""
    odd = exo_segment(0.122614, 0.122614, "I'm ready to translate!", type=1)
    del odd["duration"]
    nan = exo_segment(1, 2, "x", duration=math.nan)
    write_exo(
        tmp_path, ("l1/v.json", [*EXO, odd, exo_segment(None, 4, "y"), exo_segment(1, 2, None, duration=61), nan])
    )
    session, report = read_one(tmp_path, "egoexolearn")
    assert report.left_out_lines == {NOT_AFTER_START: 1, NO_VALID_TIME: 1, NO_TEXT: 1}
    assert report.repairs[egoexolearn.NO_DURATION] == 2 and report.repairs[egoexolearn.DURATIONS] == 1
    assert session.num_frames == 122


def test_without_any_duration_a_video_ends_with_its_last_label(tmp_path: Path) -> None:
    write_exo(tmp_path, ("l1/v.json", [exo_segment(2, 8, "Wash.", duration=None)]))
    session, report = read_one(tmp_path, "egoexolearn")
    assert session.num_frames == 16 and report.repairs == {NO_LENGTH: 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[", "l1/v.json: invalid JSON"),
        (b"{}", "l1/v.json: expected a list of segments"),
        ([], "expected a list of segments with at least one"),
        ([7], "segment 0 is a number; expected an object"),
        ([{"start": "8.3"}], "segment 0: 'start' is no number"),
        ([exo_segment(1, 2, ["x"])], "segment 0: 'textAttribute_en' is a list; expected text"),
        (json.dumps(EXO).encode("utf-16"), "l1/v.json: not UTF-8 text"),
        ("[é]".encode("latin-1"), "l1/v.json: not UTF-8 text"),
        ([exo_segment(1, 10**400, "x")], "no usable segment"),
        ([exo_segment(1, 90_000, "x", duration=1e9)], "no video is so long"),
    ],
)
def test_a_bad_file_in_the_archive_is_named(tmp_path: Path, content: Any, words: str) -> None:
    write_exo(tmp_path, ("l1/v.json", content))
    assert words in refused(tmp_path, "egoexolearn")


def test_a_folder_of_egoexolearn_without_its_files_is_named(tmp_path: Path) -> None:
    write(tmp_path / "egoexolearn/README.md", "x")
    with pytest.raises(UsageError, match=r"no coarse_annotations\.tar\.gz and no l1/\*\.json"):
        read_annotations(tmp_path, "egoexolearn", "train")


# --- EPIC-KITCHENS-100 ---


def test_narrations_become_steps_that_are_done_again(tmp_path: Path) -> None:
    write_epic(tmp_path)
    write_epic(tmp_path, EPIC_INFO, "EPIC_100_video_info.csv")
    session, report = read_one(tmp_path, "epickitchens")
    assert steps(session) == ["open door", "turn on light"] and session.num_frames == 84
    assert report.split == "train" and report.repairs[REOPENED] == 1 and report.repairs[UNSORTED] == 1
    assert build_timeline(session).states_after[[5, 6, 38, 39, 43, 44], 0].tolist() == [2, 2, 2, 1, 1, 2]


def test_the_name_of_the_file_says_the_split_and_other_files_are_not_read(tmp_path: Path) -> None:
    write_epic(tmp_path, EPIC_HEAD + epic_row(0, "00:00:01.00", "01:00:02.50", "cut", "P02_01"), "part_validation.csv")
    write_epic(tmp_path, "participant_id\nP01\n", "EPIC_100_unseen_participant_ids_validation.csv")
    write_epic(tmp_path, "narration_id\nx\n", "EPIC_100_test_timestamps.csv")
    session, report = read_one(tmp_path, "epickitchens")
    assert report.split == "validation" and session.num_frames == 7205 and report.repairs == {NO_LENGTH: 1}


def test_a_narration_in_two_files_counts_once(tmp_path: Path) -> None:
    write_epic(tmp_path)
    write_epic(tmp_path, EPIC_HEAD + EPIC_ROWS + epic_row(11, "00:00:30.00", "00:00:31.00", "sit"), "a_train.csv")
    session, report = read_one(tmp_path, "epickitchens")
    assert steps(session)[-1] == "sit" and report.repairs[epickitchens.NARRATED_TWICE] == 3


def test_a_video_in_two_splits_is_refused(tmp_path: Path) -> None:
    write_epic(tmp_path)
    write_epic(tmp_path, EPIC_HEAD + EPIC_ROWS, "EPIC_100_validation.csv")
    with pytest.raises(DataError, match="recording 'P01_01' is in split validation, but"):
        check_splits([read_annotations(tmp_path, "epickitchens", split) for split in ("train", "validation")])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a;b;c\n1;2;3\n", "the column narration_id and video_id and start_timestamp and"),
        (EPIC_HEAD.replace("narration,verb", "text,verb") + EPIC_ROWS, "the column narration must be there once"),
        (EPIC_HEAD.replace("verb_class", "narration") + EPIC_ROWS, "the column narration must be there once"),
        ("", "the file's columns are none"),
        (EPIC_HEAD.encode("utf-16") + EPIC_ROWS.encode("utf-16"), "not UTF-8 text"),
        ((EPIC_HEAD + EPIC_ROWS.replace("open", "öffne")).encode("latin-1"), "not UTF-8 text"),
        (EPIC_HEAD + "P01_01_0\n", "line 2: the row names no video"),
        (EPIC_HEAD + 'x,"y\n', "no valid csv"),
        ("\0" + EPIC_HEAD, "null characters"),
        (EPIC_HEAD + epic_row(0, "00:00:01.00", "00:00:02.00", "cut", "../P01"), "video"),
        (EPIC_HEAD + epic_row(0, "1.0", "00:00:02.00", "cut"), "no usable segment (left out: no valid time: 1)"),
    ],
)
def test_a_bad_file_of_narrations_is_named(tmp_path: Path, content: Any, words: str) -> None:
    path = write_epic(tmp_path, content)
    with pytest.raises(DataError) as error:
        read_annotations(tmp_path, "epickitchens", "train")
    assert words in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_byte_order_mark_and_short_rows(tmp_path: Path) -> None:
    write_epic(tmp_path, ("\ufeff" + EPIC_HEAD + EPIC_ROWS + "P01_01_9,P01\n").encode())
    _, report = read_one(tmp_path, "epickitchens")
    assert report.left_out_lines == {epickitchens.TOO_SHORT: 1}


@pytest.mark.parametrize(
    "text", ["P01_01,x,1,1\n", "P01_01,-1,1,1\n", "P01_01\n", "P01_01,nan,1,1\n", "P01_01,inf,1\n"]
)
def test_a_bad_duration_is_named(tmp_path: Path, text: str) -> None:
    write_epic(tmp_path)
    write_epic(tmp_path, "video_id,duration,fps,resolution\n" + text, "EPIC_100_video_info.csv")
    with pytest.raises(DataError, match=r"video_info\.csv: line 2: no duration in seconds"):
        read_annotations(tmp_path, "epickitchens", "train")


@given(st.floats(0, 86_000))
def test_a_clock_time_is_the_seconds_that_it_was_made_of(seconds: float) -> None:
    hundredths = round(seconds * 100)
    text = f"{hundredths // 360_000:02}:{hundredths // 6000 % 60:02}:{hundredths // 100 % 60:02}.{hundredths % 100:02}"
    assert clock_seconds(text) == pytest.approx(hundredths / 100)


# --- WTaG ---


def test_a_recording_follows_the_recipe_that_its_steps_are_words_of(tmp_path: Path) -> None:
    write(tmp_path / "wtag/recipe_tea.txt", RECIPE)
    write(tmp_path / "wtag/recipe_cake.txt", "Cake\n\n1. Mix flour.\n2. Bake.\n")
    write_recording(tmp_path)
    session, report = read_one(tmp_path, "wtag")
    assert session.goal == "Tea" and session.num_frames == 120 and session.user_type == "dialogue"
    assert steps(session) == ["Fill the kettle with cold water.", "Boil the water.", "Drink it."]
    assert [(turn.role, turn.time, turn.text) for turn in session.turns] == [
        ("user", 3.0, "I want tea."),
        ("assistant", 2.5, "Fill the kettle."),
        ("assistant", 9.0, "Now boil it."),
    ]
    assert report.left_out_lines == {START_OR_DONE: 1} and (report.labelled_steps, report.steps) == (2, 3)
    states = build_timeline(session).states_after
    assert states[[4, 5, 17, 39, 119]].tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 2, 0], [2, 2, 0]]


def test_two_steps_of_the_same_words_stay_two(tmp_path: Path) -> None:
    plan = "1. Spread butter.\n2. Clean the knife.\n3. Add jam.\n4. Clean the knife.\n"
    write(tmp_path / "wtag/recipe_x.txt", f"Rolls\n\n{plan}")
    done = [(1, 2, "Spread butter"), (3, 4, "Clean knife"), (5, 6, "jam"), (7, 8, "Clean knife")]
    write_recording(tmp_path, steps=done)
    session, _ = read_one(tmp_path, "wtag")
    assert build_timeline(session).states_after[-1].tolist() == [2, 2, 2, 2] and len(session.events or ()) == 8


def test_where_no_recipe_matches_the_steps_are_the_plan(tmp_path: Path) -> None:
    write(tmp_path / "wtag/recipe_cake.txt", "Cake\n\n1. Mix flour.\n2. Bake.\n")
    write_recording(tmp_path)
    session, report = read_one(tmp_path, "wtag")
    assert steps(session) == ["Fill kettle", "Boil water"] and session.goal == wtag.GOAL
    assert report.repairs[wtag.NO_RECIPE] == 1


def test_odd_rows_of_a_recording_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "wtag/recipe_tea.txt", RECIPE)
    folder = write_recording(
        tmp_path,
        steps=[(3, 9, "Fill kettle"), (30, 20, "Drink"), (40, 50, "sneeze")],
        user="x\ty\tHello\n\nno columns\n" + "1\t2\t...\n" + "1\t2\t \n",
    )
    (folder / "TextASR/InstructorAnnotations_intent.txt").unlink()
    session, report = read_one(tmp_path, "wtag")
    assert report.left_out_lines == {
        NOT_AFTER_START: 1,
        NO_MATCH: 1,
        NO_VALID_TIME: 1,
        wtag.TOO_SHORT: 1,
        WITHOUT_WORDS: 1,
        NO_TEXT: 1,
    }
    assert report.repairs == {wtag.NO_SPEECH: 1} and session.turns == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timing": "5\n"}, "VideoMpegTiming.txt: expected the ticks"),
        ({"timing": "9\n5\n"}, "expected the ticks"),
        ({"timing": "a\nb\n"}, "expected the ticks"),
        ({"timing": "1\ninf\n"}, "expected the ticks"),
        ({"timing": "0\n9" + "0" * 18}, "the duration is 9e+11 s, but no video is so long"),
        ({"steps": b"\xff\xfe1"}, "StepDetection.txt: not UTF-8 text"),
        ({"steps": "\n"}, "no usable segment"),
    ],
)
def test_a_bad_recording_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    write(tmp_path / "wtag/recipe_tea.txt", RECIPE)
    write_recording(tmp_path, **change)
    assert words in refused(tmp_path, "wtag")


def test_a_missing_part_of_a_recording_or_a_bad_recipe_is_named(tmp_path: Path) -> None:
    folder = write_recording(tmp_path)
    (folder / wtag.TIMING).unlink()
    assert "VideoMpegTiming.txt: no such file" in refused(tmp_path, "wtag")
    write(tmp_path / "wtag/recipe_tea.txt", "Tea\nNo list.\n")
    assert "recipe_tea.txt has no numbered step" in refused(tmp_path, "wtag")


def test_a_folder_without_wtags_files_is_named(tmp_path: Path) -> None:
    write(tmp_path / "wtag/README.md", "x")
    with pytest.raises(UsageError, match=r"no recipe_\*\.txt and no recording such as T1/"):
        read_annotations(tmp_path, "wtag", "train")
