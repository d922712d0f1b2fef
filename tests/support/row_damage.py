"""Damage to the rows of a dataset, and the promise that each breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dataset_fixtures import (
    EGO4D,
    SAMPLE_FILE,
    WTAG,
    WTAG_2,
    WTAG_TEST,
    Rows,
)

from prospect_hf.sessions import COMPLETED, IN_PROGRESS

REPEAT_ROW = 17  # step 1 of session a starts again
UPDATE_ROW = 5  # step 1 starts on frame 5 of session a, and completes on frame 11, where step 2 starts


def of_session(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Rows], None]:
    def apply(rows: Rows) -> None:
        for row in rows:
            if row["session_id"] == name:
                change(row)

    return apply


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda row: row.update({key: value})


def at(row: int, **values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[row].update(values)


def add_move(row: int, step: int, transition: str) -> Callable[[Rows], None]:
    def apply(rows: Rows) -> None:
        rows[row]["transitions"].append({"step": step, "transition": transition})
        rows[row]["dst_update"] = 1

    return apply


def states_from(row: int, step: int, state: int) -> Callable[[Rows], None]:
    """From ``row`` to the end of session a."""

    def apply(rows: Rows) -> None:
        for number in range(row, 40):
            rows[number]["states_before"][step] = rows[number]["states_after"][step] = state

    return apply


def shift(row: dict[str, Any]) -> None:
    row["frame_index"] -= 100
    row["timestamp"] -= 50


def no_plan(row: dict[str, Any]) -> None:
    row.update(steps=[], states_before=[], states_after=[], transitions=[], dst_update=0)


def second_start_of_a_completed_step(rows: Rows) -> None:
    """In a session whose rule is monotone; all other promises are kept."""
    begin = next(n for n, row in enumerate(rows) if row["states_after"][0] == COMPLETED) + 3
    for row in rows[begin:]:
        row["states_after"][0] = IN_PROGRESS
    for row in rows[begin + 1 :]:
        row["states_before"][0] = IN_PROGRESS
    add_move(begin, 0, "start")(rows)


def done_again_within_a_frame(rows: Rows) -> None:
    """A completed step starts and completes on one frame, though the rule is monotone; no state shows it."""
    add_move(20, 0, "start")(rows)
    add_move(20, 0, "complete")(rows)


def completed_without_a_start(rows: Rows) -> None:
    for row in rows[20:40]:
        row["states_after"][2] = COMPLETED
    for row in rows[21:40]:
        row["states_before"][2] = COMPLETED
    add_move(20, 2, "complete")(rows)


def split_run(rows: Rows) -> Rows:
    """Session a before its first change, then session b, then the rest of a."""
    return [*rows[:4], *rows[40:], *rows[4:40]]


def unlabelled(begin: int, end: int) -> Callable[[Rows], None]:
    def apply(rows: Rows) -> None:
        for row in rows[begin:end]:
            row.update(states_before=[-100] * 3, states_after=[-100] * 3, dst_update=-100, transitions=[])

    return apply


ROW_DAMAGE: list[tuple[str, str, Callable[[Rows], Rows | None], set[str]]] = [
    ("no_nulls", WTAG, at(3, goal=None), set()),
    ("no_nulls", WTAG, at(3, speaking=None), set()),
    ("no_nulls", WTAG, at(3, frame_index=None), set()),
    ("no_nulls", WTAG, at(3, session_id=None), {"consecutive_frames"}),
    ("no_nulls", WTAG, at(3, steps=["Fill.", None, "Pour."]), set()),
    ("no_nulls", WTAG, at(3, states_after=[0, None, 0]), set()),
    ("no_nulls", WTAG, at(3, transitions=None), set()),
    ("no_nulls", WTAG, at(3, transitions=[None]), set()),
    ("no_nulls", WTAG, at(3, transitions=[{"step": None, "transition": "start"}]), set()),
    ("one_source", WTAG, of_session("a", put("source", "ego4d")), set()),
    ("license", WTAG, of_session("a", put("license", "Apache-2.0")), set()),
    ("frames_file", WTAG, of_session("a", put("frames_file", "../../secret.arrow")), set()),
    ("frames_file", WTAG, of_session("a", put("frames_file", "/etc/passwd")), set()),
    ("frames_file", WTAG, of_session("a", put("frames_file", "")), set()),
    ("one_run_a_session", WTAG, split_run, set()),
    ("one_run_a_session", WTAG_2, of_session("f", put("session_id", "a")), {"sample"}),
    ("one_run_a_session", WTAG_TEST, of_session("c", put("session_id", "a")), set()),
    ("recording_in_one_split", WTAG_TEST, of_session("g", put("recording", "r-a")), set()),
    ("session_constant", WTAG, at(3, goal="Make coffee"), set()),
    ("session_constant", WTAG, at(3, steps=["Fill.", "Boil!", "Pour."]), set()),
    ("session_constant", WTAG, at(3, user_type="no_talk"), set()),
    ("session_constant", WTAG, at(3, fps=3.0), {"timestamps"}),
    ("session_constant", WTAG, at(3, state_rule="monotone"), set()),
    ("session_constant", WTAG, at(3, video_uid="w"), set()),
    ("plan_shape", WTAG, at(3, states_after=[0, 0]), set()),
    ("plan_shape", WTAG, at(3, states_before=[0, 0, 0, 0]), set()),
    ("plan_shape", WTAG, of_session("a", no_plan), set()),
    ("one_row_a_frame", WTAG, lambda rows: [*rows[:4], *rows[3:]], {"timestamps"}),
    ("one_row_a_frame", WTAG, lambda rows: rows[4].update(frame_index=3), {"timestamps", "consecutive_frames"}),
    ("consecutive_frames", WTAG, lambda rows: [*rows[:3], *rows[4:]], set()),
    ("consecutive_frames", WTAG, lambda rows: [*rows[:2], rows[3], rows[2], *rows[4:]], {"timestamps"}),
    ("timestamps", WTAG, at(3, timestamp=1.75), set()),
    ("timestamps", WTAG, at(3, timestamp=float("nan")), set()),
    ("timestamps", WTAG, of_session("a", put("fps", 0.0)), set()),
    ("timestamps", WTAG, of_session("a", put("fps", float("nan"))), {"session_constant"}),
    ("frames_in_video", WTAG, of_session("a", shift), set()),
    ("speaking", WTAG, at(4, speaking=0), set()),
    ("speaking", WTAG, at(3, speaking=0), set()),
    ("speaking", WTAG, at(3, speaking=1), set()),
    ("speaking", WTAG, at(6, speaking=1), set()),
    ("speaking", WTAG, at(6, speaking=2), set()),
    ("speaking", WTAG, at(4, user_text="Both at once."), set()),
    ("state_rule", WTAG, of_session("a", put("state_rule", "sometimes")), set()),
    ("state_values", WTAG, at(38, states_after=[2, 2, 3]), {"state_chain", "transitions_match_states"}),
    ("state_values", WTAG, states_from(0, 2, -1), {"first_states"}),
    ("unlabelled_sessions", WTAG, unlabelled(20, 21), {"state_chain"}),
    ("unlabelled_sessions", WTAG, unlabelled(20, 40), {"state_chain"}),
    ("unlabelled_sessions", WTAG, at(38, dst_update=-100), set()),
    ("unlabelled_sessions", WTAG, at(38, states_after=[2, 2, -100]), {"state_chain", "transitions_match_states"}),
    ("unlabelled_sessions", WTAG_TEST, at(3, transitions=[{"step": 0, "transition": "start"}]),
     {"transitions_match_states", "legal_transitions"}),
    ("first_states", WTAG, states_from(0, 2, IN_PROGRESS), set()),
    ("state_chain", WTAG, states_from(20, 2, IN_PROGRESS), set()),
    ("transition_values", WTAG, add_move(UPDATE_ROW, 3, "start"), set()),
    ("transition_values", WTAG, add_move(UPDATE_ROW, -1, "start"), set()),
    ("transition_values", WTAG, add_move(UPDATE_ROW, 0, "undo"), set()),
    ("transitions_match_states", WTAG, add_move(UPDATE_ROW, 2, "start"), set()),
    ("transitions_match_states", WTAG, at(UPDATE_ROW, transitions=[], dst_update=0), set()),
    ("legal_transitions", WTAG, add_move(UPDATE_ROW + 2, 0, "start"), set()),
    ("legal_transitions", WTAG, completed_without_a_start, set()),
    ("legal_transitions", WTAG, states_from(20, 1, 0), {"state_chain", "transitions_match_states"}),
    ("legal_transitions", EGO4D, second_start_of_a_completed_step, {"sample"}),
    ("legal_transitions", WTAG, at(38, states_after=[2, 0, 0]), {"state_chain", "transitions_match_states"}),
    ("legal_transitions", EGO4D, at(20, states_after=[1, 1, 0]),
     {"state_chain", "transitions_match_states", "sample"}),
    ("legal_transitions", EGO4D, done_again_within_a_frame, {"sample"}),
    ("dst_update", WTAG, at(UPDATE_ROW, dst_update=0), set()),
    ("dst_update", WTAG, at(UPDATE_ROW + 1, dst_update=1), set()),
    ("dst_update", WTAG, at(UPDATE_ROW, dst_update=2), set()),
    ("no_nulls", WTAG, at(3, deviations=None), set()),
    ("no_nulls", WTAG, at(3, deviations=[{"kind": "repeated", "step": 0, "other": None}]), set()),
    ("deviations", WTAG, at(3, deviations=[{"kind": "repeated", "step": 0, "other": -1}]), set()),
    ("deviations", WTAG_TEST, at(3, deviations=[{"kind": "unfinished", "step": 0, "other": -1}]), set()),
    ("deviations", WTAG, at(REPEAT_ROW, deviations=[]), set()),
    ("deviations", WTAG, at(REPEAT_ROW, deviations=[{"kind": "repeated", "step": 1, "other": -1}]), set()),
    ("deviations", WTAG, at(REPEAT_ROW, deviations=[{"kind": "skipped", "step": 0, "other": -1}]), set()),
    ("sample", SAMPLE_FILE, of_session("f", put("goal", "Make coffee")), set()),
    ("sample", SAMPLE_FILE, of_session("f", put("session_id", "z")), set()),
    ("sample", SAMPLE_FILE, lambda rows: rows[:-1], {"deviations"}),  # those of the end are on the last row
]  # fmt: skip
