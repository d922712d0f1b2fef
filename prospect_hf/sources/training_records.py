"""Reads the training records of ProAssist's DST fork: a conversation with the state changes as turns of their own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import (
    as_dict,
    get_index,
    get_list,
    get_number,
    get_optional_text,
    get_text,
    load_json,
)
from prospect_hf.errors import DataError
from prospect_hf.labels.label_files import parse_spans, step_index
from prospect_hf.labels.spans import STATED_SPANS, merge_spans, span_events
from prospect_hf.sessions import DSTEvent, Session, Step, Turn, frames_file, recording_id
from prospect_hf.sources.knowledge import parse_steps
from prospect_hf.sources.proassist import parse_turn
from prospect_hf.timeline import frame_at


def read_training_record(path: Path) -> tuple[Session, ...]:
    """Read training records: one object or a list, each with one ``conversation`` that contains DST_UPDATE turns.

    DST_UPDATE turns repeat the starts and ends of the record's ``dst`` spans; raises ``DataError`` where they differ.
    Frame numbers in turns are ignored: frames are computed from times.
    """
    value = load_json(path)
    records = value if isinstance(value, list) else [value]
    if not records:
        raise DataError(f"{path}: the list of records is empty.")
    sessions = []
    for number, record in enumerate(records):
        where = f"{path}: record {number}"
        sessions.append(_training_session(as_dict(record, where), number, where))
    return tuple(sessions)


def _training_session(record: dict[str, Any], index: int, origin: str) -> Session:
    uid = get_text(record, "video_uid", origin)
    origin = f"{origin} ({uid})"
    source = get_text(record, "dataset", origin)
    steps = parse_steps(get_text(record, "inferred_knowledge", origin), f"{origin}: 'inferred_knowledge'")
    spans = parse_spans(record, steps, origin)
    events = span_events(spans)
    turns: list[Turn] = []
    update_events: list[DSTEvent] = []
    for number, value in enumerate(get_list(record, "conversation", origin)):
        where = f"{origin}: turn {number}"
        turn = as_dict(value, where)
        role = get_text(turn, "role", where)
        if role == "DST_UPDATE":
            update_events += _update_events(turn, steps, where)
        elif role != "system":
            turns.append(parse_turn(turn, where))
    differing = Counter(update_events)
    differing.subtract(events)
    for event, count in differing.items():
        if count:
            side = "the DST_UPDATE turns" if count > 0 else "the dst spans"
            raise DataError(f"{origin}: {event.transition} of S{event.step + 1} at {event.time} s is only in {side}.")
    user_type = get_optional_text(record, "user_type", origin)
    fps, end = get_number(record, "fps", origin), get_index(record, "end_frame_idx", origin)
    session = Session(
        session_id=f"{source}.{uid}.record_{index}",
        source=source,
        video_uid=uid,
        recording=recording_id(source, uid),
        user_type=user_type,
        goal=get_text(record, "inferred_goal", origin),
        steps=steps,
        turns=tuple(turns),
        events=span_events(merge_spans(spans, STATED_SPANS)[0]),
        fps=fps,
        first_frame=get_index(record, "start_frame_idx", origin),
        num_frames=end,
        frames_file=frames_file(source, uid),
        origin=origin,
    )
    needed = frame_at(max([*(turn.time for turn in turns), *(event.time for event in events)]), fps)
    if needed > end:
        raise DataError(f"{origin}: 'end_frame_idx' is {end}, but the labels need {needed} frames.")
    return session


def _update_events(turn: dict[str, Any], steps: tuple[Step, ...], where: str) -> list[DSTEvent]:
    """The state events of a DST_UPDATE turn."""
    time = get_number(turn, "time", where)
    events = []
    for value in get_list(turn, "content", where):
        entry = as_dict(value, where)
        step = step_index(get_text(entry, "id", where), steps, where)
        events.append(DSTEvent(time, step, get_text(entry, "transition", where)))
    return events
