"""Reads ProAssist's prepared rows: clips whose frames and turns somebody else has already put in order.

They are the judge of our label rules: a row whose turns are not where the rules put them is refused.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import as_dict, get_dict, get_index, get_list, get_number, get_text, load_json_lines
from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.store import FrameStore
from prospect_hf.labels.label_files import LabelFiles, parse_spans
from prospect_hf.labels.spans import span_events
from prospect_hf.sessions import Session, Turn, frames_file, recording_id
from prospect_hf.sources.knowledge import parse_steps
from prospect_hf.sources.proassist import parse_turn, source_folder
from prospect_hf.sources.report import FILE_SPLITS, OnError, SessionsReport, start_report
from prospect_hf.timeline import frame_at, turn_frames

PREPARED_FILES = "dialog_{split}_*.jsonl"


def prepared_files(root: Path, source: str, split: str, pattern: str = PREPARED_FILES) -> list[Path]:
    """The prepared files of ``split``: ``pattern`` with ProAssist's name of the split, in ``prepared/``."""
    folder = root / "processed_data" / source / "prepared"
    return sorted(folder.glob(pattern.format(split=FILE_SPLITS[split])))


def read_prepared(
    root: Path,
    source: str,
    split: str,
    *,
    pattern: str = PREPARED_FILES,
    dst_root: Path | None = None,
    on_error: OnError = "raise",
) -> SessionsReport:
    """Every prepared row of one source and split as a session, from its ``start_frame_idx`` to its ``end_frame_idx``.

    Rows have no state labels of their own; with ``dst_root`` they get those of its label files, and a session then goes
    on to its last state event. Such labels need whole videos (``max_seq_len`` 0): a clip does not say what came before.

    Raises ``UsageError`` where no file matches, ``DataError`` for bad rows, for the same clip in two rows (name one
    file by ``pattern``), and for a turn that the label rules of ``timeline`` put on another frame than the row does.
    """
    report = start_report(source, split, on_error)
    folder = source_folder(root, source)
    paths = prepared_files(root, source, split, pattern)
    if not paths:
        raise UsageError(f"{root / 'processed_data' / source / 'prepared'}: no file for {split} matches '{pattern}'.")
    labels = LabelFiles(dst_root, source, FILE_SPLITS[split]) if dst_root is not None else None
    seen: dict[str, str] = {}
    for path in paths:
        for number, value in load_json_lines(path):
            origin = f"{path}: line {number}"
            try:
                session = _session(as_dict(value, origin), source, origin, labels, report)
                if session.session_id in seen:
                    raise DataError(f"{origin}: the same clip as {seen[session.session_id]}; read one file of the two.")
                _check_store(session, folder)
                seen[session.session_id] = origin
                report.add(session)
            except DataError as error:
                report.refuse(origin, error)
    return report.closed(", ".join(map(str, paths)))


def _session(
    row: dict[str, Any], source: str, origin: str, labels: LabelFiles | None, report: SessionsReport
) -> Session:
    uid = get_text(row, "video_uid", origin)
    origin = f"{origin} ({uid})"
    named = get_text(row, "dataset", origin)
    if named != source:
        raise DataError(f"{origin}: 'dataset' is '{named}', but the row lies in the folder of {source}.")
    metadata = get_dict(row, "metadata", origin)
    where = f"{origin}: metadata"
    user_id = get_text(metadata, "user_id", where)
    turns, placed = _turns(row, origin)
    session = Session(
        session_id=f"{source}.{uid}.{user_id}.clip_{get_index(row, 'clip_idx', origin)}",
        source=source,
        video_uid=uid,
        recording=recording_id(source, uid),
        user_type=get_text(metadata, "user_type", where),
        goal=get_text(metadata, "task_goal", where),
        steps=parse_steps(get_text(metadata, "knowledge", where), f"{where}: 'knowledge'"),
        turns=tuple(turns),
        events=None,
        fps=get_number(row, "fps", origin),
        first_frame=get_index(row, "start_frame_idx", origin),
        num_frames=get_index(row, "end_frame_idx", origin),
        frames_file=frames_file(source, uid),
        origin=origin,
    )
    ruled = turn_frames([turn.time for turn in turns], session.fps, session.first_frame)
    for turn, here, rule in zip(turns, placed, ruled, strict=True):
        if here != rule:
            raise DataError(
                f"{origin}: the turn at {turn.time} s is on frame {here}, but by the label rules on {rule}."
            )
    return session if labels is None else _labelled(session, row, labels, report)


def _check_store(session: Session, folder: Path) -> None:
    """Raise ``DataError`` where the video's frame store exists and ends before the session does."""
    store = folder / session.frames_file
    if store.is_file() and len(FrameStore(store)) < session.num_frames:
        raise DataError(
            f"{session.origin}: frame file has {len(FrameStore(store))} frames, labels need {session.num_frames} "
            f"({session.frames_file}); sample the video again, or skip the record."
        )


def _turns(row: dict[str, Any], origin: str) -> tuple[list[Turn], list[int]]:
    """The turns of a row, and the frame that each follows: the last one of the frames item before it."""
    start, end = get_index(row, "start_frame_idx", origin), get_index(row, "end_frame_idx", origin)
    turns: list[Turn] = []
    placed: list[int] = []
    shown = start
    for number, value in enumerate(get_list(row, "conversation", origin)):
        where = f"{origin}: conversation[{number}]"
        item = as_dict(value, where)
        role = get_text(item, "role", where)
        if role == "frames":
            begin, shown_before = get_index(item, "start", where), shown
            shown = get_index(item, "end", where)
            if begin != shown_before or shown <= begin:
                raise DataError(f"{where}: frames {begin} to {shown} do not follow on frame {shown_before}.")
        elif role != "system":
            turns.append(parse_turn(item, where))
            placed.append(shown - 1)
    if shown != end:
        raise DataError(f"{origin}: 'end_frame_idx' is {end}, but the frames items end at {shown}.")
    return turns, placed


def _labelled(session: Session, row: dict[str, Any], labels: LabelFiles, report: SessionsReport) -> Session:
    if get_index(row, "max_seq_len", session.origin) != 0:
        raise DataError(
            f"{session.origin}: 'max_seq_len' is not 0, so the row is a clip, and state labels need whole videos; "
            "use the generated dialogs instead."
        )
    record, where = labels.find(session.video_uid, session.origin)
    spans = parse_spans(record, session.steps, where)
    report.steps += len(session.steps)
    report.labelled_steps += len({span.step for span in spans})
    last = max(span.end if span.end is not None else span.start for span in spans)
    return dataclasses.replace(
        session, events=span_events(spans), num_frames=max(session.num_frames, frame_at(last, session.fps))
    )
