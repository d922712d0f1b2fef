"""The columns of ``dst_frames``, and the rows of a session: one per frame, made as arrays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prospect_hf.dataset.licenses import LICENSES
from prospect_hf.sessions import Session
from prospect_hf.timeline import Timeline, build_timeline, frame_at
from tracking_dst_smolvlm import Deviation, session_deviations

# First frame, frame after the last one, text.
_Interval = tuple[int, int, str]

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
        "steps": [datasets.Value("string")],
        "user_text": datasets.Value("string"),
        "speaking": datasets.Value("int8"),
        "response": datasets.Value("string"),
        "dst_update": datasets.Value("int8"),
        "transitions": [{"step": datasets.Value("int32"), "transition": datasets.Value("string")}],
        "states_before": [datasets.Value("int8")],
        "states_after": [datasets.Value("int8")],
        "deviations": [
            {"kind": datasets.Value("string"), "step": datasets.Value("int32"), "other": datasets.Value("int32")}
        ],
        "state_rule": datasets.Value("string"),
        "mistake": datasets.Value("string"),
        "progress": datasets.Value("string"),
        "license": datasets.Value("string"),
    }
)
SCHEMA = FEATURES.arrow_schema
# With the pictures themselves, which only their owner may do.
FEATURES_WITH_IMAGES = datasets.Features({**FEATURES, "image": datasets.Image()})
SCHEMA_WITH_IMAGES = FEATURES_WITH_IMAGES.arrow_schema
# A row repeats the plan. A table of a session ends before its texts are larger than this, so that the longest video
# with the longest plan needs no more memory than others, and no text column passes the 2 GB that Arrow can address.
TABLE_BYTES = 32 << 20


def session_table(session: Session) -> pa.Table:
    """The rows of ``session`` with the schema ``SCHEMA``: one per frame, in order.

    ``timestamp`` is the end of the frame's interval, in seconds. ``mistake`` is the text of the mistakes that the frame
    shows, empty where there is none. ``deviations`` follow from the states and the order of the plan; those that only
    the session's end shows are on its last frame.
    """
    return pa.concat_tables(session_tables(session))


def session_tables(session: Session) -> Iterator[pa.Table]:
    """``session_table`` in parts of bounded size."""
    timeline = build_timeline(session)
    mistakes = _mistakes(session)
    deviations = _deviations(timeline) if session.events is not None else {}
    each = rows_at_once(session)
    for first in range(timeline.first_frame, timeline.num_frames, each):
        yield _table(session, timeline, mistakes, deviations, range(first, min(first + each, timeline.num_frames)))


def rows_at_once(session: Session) -> int:
    """How many rows of ``session`` have about ``TABLE_BYTES`` of texts and states."""
    texts = [session.goal, session.frames_file, *(step.text for step in session.steps)]
    return max(1, TABLE_BYTES // (sum(len(text.encode("utf-8", "replace")) + 10 for text in texts) + 200))


def _table(
    session: Session,
    timeline: Timeline,
    mistakes: Sequence[_Interval],
    deviations: Mapping[int, Sequence[Deviation]],
    frames: range,
) -> pa.Table:
    """The rows of the absolute frames ``frames``."""
    count, steps = len(frames), len(session.steps)
    rows = slice(frames.start - timeline.first_frame, frames.stop - timeline.first_frame)
    turns = {frame: timeline.turns[frame] for frame in frames if frame in timeline.turns}
    indices = np.arange(frames.start, frames.stop, dtype=np.int32)
    plan = pa.array([step.text for step in session.steps], pa.string())
    columns: dict[str, pa.Array | NDArray[np.generic]] = {
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
        "frame_index": indices,
        "timestamp": ((indices + 1) / session.fps).astype(np.float32),
        "fps": np.full(count, session.fps, np.float32),
        "steps": _lists(plan.take(pa.array(np.tile(np.arange(steps), count))), steps, count),
        "user_text": _texts(frames, {frame: turn.text for frame, turn in turns.items() if turn.role == "user"}),
        "speaking": timeline.speaking[rows],
        "response": _texts(frames, {frame: turn.text for frame, turn in turns.items() if turn.role == "assistant"}),
        "dst_update": timeline.dst_update[rows],
        "transitions": _structs(
            "transitions",
            frames,
            {
                frame: [{"step": one.step, "transition": one.transition} for one in events]
                for frame, events in timeline.events.items()
            },
        ),
        "deviations": _structs(
            "deviations",
            frames,
            {frame: [row_deviation(one) for one in of_frame] for frame, of_frame in deviations.items()},
        ),
        "states_before": _lists(pa.array(timeline.states_before[rows].ravel()), steps, count),
        "states_after": _lists(pa.array(timeline.states_after[rows].ravel()), steps, count),
        "mistake": _texts(frames, _mistake_texts(mistakes, frames)),
        "progress": _texts(frames, {frame: turn.progress for frame, turn in turns.items()}),
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def _lists(values: pa.Array, each: int, count: int) -> pa.ListArray:
    """``count`` lists of ``each`` values."""
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * each), values)


def _texts(frames: range, texts: Mapping[int, str]) -> pa.Array:
    """The text of each frame, empty where ``texts`` has none."""
    indices = np.zeros(len(frames), np.int32)
    indices[np.fromiter(texts, np.int64, len(texts)) - frames.start] = np.arange(1, len(texts) + 1)
    return pa.array(["", *texts.values()], pa.string()).take(pa.array(indices))


def row_deviation(deviation: Deviation) -> dict[str, Any]:
    """A deviation as in the column ``deviations``, which has no empty values."""
    return {
        "kind": deviation.kind,
        "step": deviation.step,
        "other": -1 if deviation.other is None else deviation.other,
    }


def _structs(name: str, frames: range, values: Mapping[int, Sequence[Mapping[str, Any]]]) -> pa.ListArray:
    """A column of lists of structs; ``values`` has the frames with any, also outside of ``frames``."""
    given = [frame for frame in frames if frame in values]
    lengths = np.zeros(len(frames) + 1, np.int32)
    lengths[[frame - frames.start + 1 for frame in given]] = [len(values[frame]) for frame in given]
    kind = SCHEMA.field(name).type
    structs = pa.array([one for frame in given for one in values[frame]], kind.value_type)
    return pa.ListArray.from_arrays(pa.array(lengths.cumsum(dtype=np.int32)), structs, type=kind)


def _deviations(timeline: Timeline) -> dict[int, list[Deviation]]:
    """Absolute frame -> its deviations from the plan, in a session with state labels."""
    frames = [*sorted(timeline.events), timeline.num_frames - 1]
    tables = timeline.states_after[np.array(frames) - timeline.first_frame].tolist()
    found = defaultdict(list)
    for index, deviation in session_deviations(tables, timeline.states_after.shape[1]):
        found[frames[index]].append(deviation)
    return found


def _mistakes(session: Session) -> list[_Interval]:
    """The frames of each mistake: those whose interval overlaps that of the mistake."""
    return [
        (frame_at(mistake.start, session.fps), -frame_at(-mistake.end, session.fps), mistake.text)
        for mistake in session.mistakes
    ]


def _mistake_texts(mistakes: Sequence[_Interval], frames: range) -> dict[int, str]:
    """The text of the mistakes of each frame of ``frames`` that shows one."""
    texts: dict[int, str] = {}
    for first, end, text in mistakes:
        for frame in range(max(first, frames.start), min(end, frames.stop)):
            texts[frame] = f"{texts[frame]}; {text}" if frame in texts else text
    return texts
