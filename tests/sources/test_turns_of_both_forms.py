"""One conversation gives the same frames as a generated dialog and as a prepared row, whatever the order of its times.

ProAssist's own prepared rows check the rule from the other side: a row whose turns are elsewhere is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from proassist_fixtures import make_record, make_row, write_corpus, write_prepared

from prospect_hf.dataset.row_maker import session_table
from prospect_hf.sessions import Session
from prospect_hf.sources.prepared import read_prepared
from prospect_hf.sources.proassist import read_sessions
from prospect_hf.timeline import build_timeline

FPS = 2


def placed(times: Sequence[float], first: int) -> list[int]:
    """The rule again, apart from the code: the frame before the one that covers the time, but after the turn above."""
    frames: list[int] = []
    for time in times:
        wanted = int(round(time * 1000) * FPS // 1000) - 1
        frames.append(max([wanted, first, *(frame + 1 for frame in frames[-1:])]))
    return frames


def as_row(turns: list[dict[str, Any]], first: int, facts: dict[str, Any]) -> dict[str, Any]:
    """The prepared row of a conversation, as ProAssist lays out frames and turns."""
    conversation: list[dict[str, Any]] = [{"role": "system", "content": "Help."}]
    at = first
    for turn, frame in zip(turns, placed([turn["time"] for turn in turns], first), strict=True):
        conversation += [{"role": "frames", "start": at, "end": frame + 1}, turn]
        at = frame + 1
    return make_row() | facts | {"start_frame_idx": first, "end_frame_idx": at, "conversation": conversation}


def both_forms(root: Path, turns: list[dict[str, Any]], start: float) -> tuple[Session, Session]:
    record = make_record()
    record["conversations"] = [{"user_type": "no_talk", "conversation": turns}]
    if start:
        record["parsed_video_anns"] |= {"video_start_time": start, "duration": 400.0}
    write_corpus(root, [record])
    write_prepared(root, as_row(turns, int(start * FPS), {}))
    (dialog,) = read_sessions(root, "wtag", "train").sessions
    (row,) = read_prepared(root, "wtag", "train").sessions
    return dialog, row


def turn_frames(session: Session) -> dict[int, str]:
    return {frame: turn.text for frame, turn in build_timeline(session).turns.items()}


milliseconds = st.integers(0, 60_000).map(lambda time: time / 1000)


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), milliseconds), min_size=1, max_size=14),
    st.sampled_from([0.0, 0.5, 12.5]),
)
@example([("assistant", 394.9), ("assistant", 394.1)], 0.0)  # in a real file
@example([("assistant", 5.0)] * 14, 12.5)  # all before the session
@example([("user", 0.5), ("assistant", 0.499), ("assistant", 60.0), ("user", 0.0)], 0.0)
def test_turns_in_any_order_get_the_same_frames_in_both_forms(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, float]], start: float
) -> None:
    turns = [{"role": role, "time": time, "content": f"Turn {number}."} for number, (role, time) in enumerate(said)]
    dialog, row = both_forms(tmp_path_factory.getbasetemp() / "forms", turns, start)
    frames = turn_frames(dialog)
    assert turn_frames(row) == frames
    # Each turn has a frame of its own, in the order of the conversation, never before the rule's frame.
    assert list(frames.values()) == [turn["content"] for turn in turns]
    assert all(below > above for above, below in pairwise(frames))
    wanted = [int(round(time * 1000) * FPS // 1000) - 1 for _, time in said]
    assert all(frame >= max(one, int(start * FPS)) for frame, one in zip(frames, wanted, strict=True))
    assert list(frames) == placed([time for _, time in said], int(start * FPS))
    # A turn moves only to make room: without the turn above, it would be where the rule has it.
    for number, frame in enumerate(frames):
        above = list(frames)[number - 1] if number else int(start * FPS) - 1
        assert frame in (wanted[number], above + 1)
    assert dialog.turns_back == row.turns_back == sum(below < above for (_, above), (_, below) in pairwise(said))


def rows_of(session: Session) -> list[tuple[Any, ...]]:
    columns = session_table(session).select(["frame_index", "speaking", "user_text", "response"]).to_pydict()
    return list(zip(*columns.values(), strict=True))


def test_the_rows_of_both_forms_say_the_same(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "time": 3.0, "content": "Now?"},
        {"role": "assistant", "time": 8.9, "content": "Turn it."},
        {"role": "assistant", "time": 8.1, "content": "Slowly."},
    ]
    dialog, row = both_forms(tmp_path, turns, 0.0)
    shared = min(dialog.num_frames, row.num_frames)
    assert rows_of(dialog)[:shared] == rows_of(row)[:shared]
    assert [(frame, said) for frame, speaking, _, said in rows_of(row) if speaking == 1] == [
        (16, "Turn it."),
        (17, "Slowly."),
    ]


# --- the real conversations ---


@pytest.mark.parametrize(
    ("source", "file", "back"),
    [
        ("assembly101", "train", 0),
        ("ego4d", "train", 0),
        ("egoexolearn", "val", 0),
        ("epickitchens", "train", 0),
        ("holoassist", "train", 0),
        ("wtag", "train", 0),
    ],
)
def test_real_dialogs_laid_out_as_rows_have_the_same_frames(
    shared_data: Path, tmp_path: Path, source: str, file: str, back: int
) -> None:
    """No conversation at hand is there in both forms, so its row is laid out here."""
    path = shared_data / "proassist/processed_data" / source / f"generated_dialogs/{file}_filtered.json"
    split = {"train": "train", "val": "validation"}[file]
    sessions = read_sessions(shared_data / "proassist", source, split).sessions
    conversations = [one for record in json.loads(path.read_text()) for one in record["conversations"]]
    for session, conversation in zip(sessions, conversations, strict=True):
        write_prepared(tmp_path, as_row(conversation["conversation"], session.first_frame, {}))
        (row,) = read_prepared(tmp_path, "wtag", "train").sessions
        assert turn_frames(row) == turn_frames(session)
    assert sum(session.turns_back for session in sessions) == back


def test_real_rows_told_as_dialogs_have_the_same_frames(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "proassist/processed_data/assembly101/prepared/dialog_train_L0_I1.jsonl"
    rows = read_prepared(shared_data / "proassist", "assembly101", "train").sessions
    turns = 0
    for line, row in zip(path.read_text().splitlines(), rows, strict=True):
        said = [item for item in json.loads(line)["conversation"] if "time" in item]
        dialog, again = both_forms(tmp_path, said, row.first_frame / FPS)
        assert turn_frames(dialog) == turn_frames(row) == turn_frames(again)
        turns += len(said)
    assert turns == 227
