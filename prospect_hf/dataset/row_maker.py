"""The columns of ``dst_frames``, and the rows of a session: one per frame, made as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prospect_hf.dataset.licenses import LICENSES
from prospect_hf.sessions import Session
from prospect_hf.timeline import Timeline, build_timeline, frame_at

FEATURES = datasets.Features(
    {
        "source": datasets.Value("string"),
        "video_uid": datasets.Value("string"),
        "session_id": datasets.Value("string"),
        "recording": datasets.Value("string"),
        "user_type": datasets.Value("string"),
        "frame_index": datasets.Value("int32"),
        "timestamp": datasets.Value("float32"),
        "fps": datasets.Value("float32"),
        "frames_file": datasets.Value("string"),
        "goal": datasets.Value("string"),
        "steps": datasets.List(datasets.Value("string")),
        "user_text": datasets.Value("string"),
        "speaking": datasets.Value("int8"),
        "response": datasets.Value("string"),
        "dst_update": datasets.Value("int8"),
        "transitions": datasets.List({"step": datasets.Value("int32"), "transition": datasets.Value("string")}),
        "states_before": datasets.List(datasets.Value("int8")),
        "states_after": datasets.List(datasets.Value("int8")),
        "state_rule": datasets.Value("string"),
        "mistake": datasets.Value("string"),
        "progress": datasets.Value("string"),
        "license": datasets.Value("string"),
    }
)
SCHEMA = FEATURES.arrow_schema


def session_table(session: Session) -> pa.Table:
    """The rows of ``session`` with the schema ``SCHEMA``: one per frame, in order.

    ``timestamp`` is the end of the frame's interval, in seconds. ``mistake`` is the text of the mistakes that the frame
    shows, empty where there is none.
    """
    timeline = build_timeline(session)
    count = timeline.num_frames - timeline.first_frame
    frames = np.arange(timeline.first_frame, timeline.num_frames, dtype=np.int32)
    user, response, progress = ([""] * count for _ in range(3))
    for frame, turn in timeline.turns.items():
        (response if turn.role == "assistant" else user)[frame - timeline.first_frame] = turn.text
        progress[frame - timeline.first_frame] = turn.progress
    steps = len(session.steps)
    plan = pa.array([step.text for step in session.steps], pa.string())
    columns: dict[str, pa.Array | NDArray[np.generic] | Sequence[str]] = {
        **{
            name: pa.repeat(pa.scalar(text, pa.string()), count)
            for name, text in {
                "source": session.source,
                "video_uid": session.video_uid,
                "session_id": session.session_id,
                "recording": session.recording,
                "user_type": session.user_type,
                "frames_file": session.frames_file,
                "goal": session.goal,
                "state_rule": session.state_rule,
                "license": LICENSES[session.source],
            }.items()
        },
        "frame_index": frames,
        "timestamp": ((frames + 1) / session.fps).astype(np.float32),
        "fps": np.full(count, session.fps, np.float32),
        "steps": _lists(plan.take(pa.array(np.tile(np.arange(steps), count))), steps, count),
        "user_text": user,
        "speaking": timeline.speaking,
        "response": response,
        "dst_update": timeline.dst_update,
        "transitions": _transitions(timeline, count),
        "states_before": _lists(pa.array(timeline.states_before.ravel()), steps, count),
        "states_after": _lists(pa.array(timeline.states_after.ravel()), steps, count),
        "mistake": _mistakes(session, count),
        "progress": progress,
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def _lists(values: pa.Array, each: int, count: int) -> pa.ListArray:
    """``count`` lists of ``each`` values."""
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * each), values)


def _transitions(timeline: Timeline, count: int) -> pa.ListArray:
    frames = sorted(timeline.events)
    lengths = np.zeros(count + 1, np.int32)
    lengths[[frame - timeline.first_frame + 1 for frame in frames]] = [len(timeline.events[frame]) for frame in frames]
    events = [event for frame in frames for event in timeline.events[frame]]
    kind = SCHEMA.field("transitions").type
    structs = pa.array([{"step": one.step, "transition": one.transition} for one in events], kind.value_type)
    return pa.ListArray.from_arrays(pa.array(lengths.cumsum(dtype=np.int32)), structs, type=kind)


def _mistakes(session: Session, count: int) -> list[str]:
    """The text of each frame's mistakes; a frame shows a mistake where their intervals overlap."""
    texts = [""] * count
    for mistake in session.mistakes:
        first = max(frame_at(mistake.start, session.fps) - session.first_frame, 0)
        end = min(-frame_at(-mistake.end, session.fps) - session.first_frame, count)
        for row in range(first, end):
            texts[row] = f"{texts[row]}; {mistake.text}" if texts[row] else mistake.text
    return texts
