"""The rows of a session: the same as those of a dictionary for each frame, however the session is cut into tables."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.dataset import row_maker
from prospect_hf.dataset.licenses import LICENSES
from prospect_hf.dataset.row_maker import SCHEMA, session_table, session_tables
from prospect_hf.dataset.shards import value_counts
from prospect_hf.sessions import SOURCES, DSTEvent, Mistake, Session, Step, Turn
from prospect_hf.timeline import build_timeline
from tracking_dst_smolvlm import session_deviations

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(str.strip)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Sessions whose steps overlap, re-open or never end, with turns, mistakes and any texts, inside a video."""
    fps = draw(st.sampled_from([2.0, 1.0, 2.13, 10.0]))
    first = draw(st.integers(0, 30))
    times = st.integers(0, 400).map(lambda tenth: tenth / 10)
    steps = draw(st.lists(TEXTS, min_size=1, max_size=4))
    events = [
        DSTEvent(mark, step, ("start", "complete")[i % 2])
        for step in range(len(steps))
        for i, mark in enumerate(sorted(draw(st.lists(times, max_size=4, unique=True))))
    ]
    turn = st.builds(Turn, st.sampled_from(["user", "assistant"]), times, TEXTS, progress=st.just("") | TEXTS)
    mistakes = st.builds(
        lambda start, length, text: Mistake(start, start + length, text), times, times.filter(bool), TEXTS
    )
    return Session(
        session_id="a session",
        source=draw(st.sampled_from(SOURCES)),
        video_uid="a video",
        recording="a recording",
        user_type="talk_some",
        goal=draw(TEXTS),
        steps=tuple(Step(f"S{number}", text) for number, text in enumerate(steps, 1)),
        turns=tuple(draw(st.lists(turn, max_size=12))),
        events=tuple(events) if events or draw(st.booleans()) else None,
        fps=fps,
        first_frame=first,
        num_frames=first + draw(st.integers(1, 90)),
        frames_file="frames/a video.arrow",
        origin="test",
        mistakes=tuple(draw(st.lists(mistakes, max_size=3))),
    )


def rows_by_frame(session: Session) -> list[dict[str, Any]]:
    """The simple way: a dictionary for each frame."""
    timeline = build_timeline(session)
    labelled = session.events is not None
    found = session_deviations(timeline.states_after.tolist(), len(session.steps)) if labelled else []
    rows = []
    for frame in range(session.first_frame, session.num_frames):
        row = frame - session.first_frame
        turn = timeline.turns.get(frame)
        answers = turn is not None and turn.role == "assistant"
        shown = [
            mistake.text
            for mistake in session.mistakes
            if mistake.start * session.fps < frame + 1 - 1e-6 and mistake.end * session.fps > frame + 1e-6
        ]
        rows.append(
            {
                "source": session.source,
                "video_uid": session.video_uid,
                "session_id": session.session_id,
                "recording": session.recording,
                "user_type": session.user_type,
                "frame_index": frame,
                "timestamp": float(np.float32((frame + 1) / session.fps)),
                "fps": float(np.float32(session.fps)),
                "frames_file": session.frames_file,
                "goal": session.goal,
                "steps": [step.text for step in session.steps],
                "user_text": turn.text if turn is not None and not answers else "",
                "speaking": int(timeline.speaking[row]),
                "response": turn.text if turn is not None and answers else "",
                "dst_update": int(timeline.dst_update[row]),
                "transitions": [
                    {"step": event.step, "transition": event.transition} for event in timeline.events.get(frame, ())
                ],
                "states_before": timeline.states_before[row].tolist(),
                "states_after": timeline.states_after[row].tolist(),
                "deviations": [
                    {"kind": one.kind, "step": one.step, "other": -1 if one.other is None else one.other}
                    for at, one in found
                    if at == row
                ],
                "state_rule": session.state_rule,
                "mistake": "; ".join(shown),
                "progress": turn.progress if turn is not None else "",
                "license": LICENSES[session.source],
            }
        )
    return rows


@given(sessions())
def test_the_rows_are_those_of_a_dictionary_for_each_frame(session: Session) -> None:
    table = session_table(session)
    table.validate(full=True)
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert table.to_pylist() == rows_by_frame(session)


@given(sessions(), st.integers(1, 40))
def test_a_session_that_is_cut_has_the_same_rows(session: Session, each: int) -> None:
    whole = session_table(session)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_maker, "rows_at_once", lambda session: each)
        parts = list(session_tables(session))
    assert all(len(part) == each for part in parts[:-1]) and 0 < len(parts[-1]) <= each
    assert pa.concat_tables(parts).equals(whole)


@given(sessions())
def test_values_are_counted_as_a_counter_counts_them(session: Session) -> None:
    table = session_table(session)
    rows = table.to_pylist()
    for column in ("speaking", "dst_update"):
        assert value_counts(table.column(column)) == Counter(row[column] for row in rows)
    assert value_counts(table.column("states_after")) == Counter(s for row in rows for s in row["states_after"])
    cut = table.slice(len(table) // 2)
    assert value_counts(cut.column("states_after")) == Counter(
        s for row in cut.to_pylist() for s in row["states_after"]
    )


def test_the_longest_session_with_the_longest_plan_needs_little_memory() -> None:
    """A table for all of it would have a text column of 2.5 GB, more than Arrow can address."""
    steps = tuple(Step(f"S{number}", "x" * 2500) for number in range(1, 11))
    session = Session("s", "wtag", "v", "v", "", "goal", steps, (), (), 2.0, 0, 100_000, "frames/v.arrow", "test")
    tables = session_tables(session)
    first = next(tables)
    assert first.nbytes < 2 * row_maker.TABLE_BYTES and len(first) > 1000
    assert next(tables).column("frame_index")[0].as_py() == len(first)
