"""Reads ProAssist's prepared rows: clips whose turns are already placed on frames.

They check our label rules: a row with a turn on another frame than the rules give is an error.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import (
    as_dict,
    get_dict,
    get_index,
    get_list,
    get_number,
    get_text,
    json_lines,
    parse_json,
)
from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.opened import VIDEO_SUFFIXES, count_frames, find_frames
from prospect_hf.labels.label_files import LabelFiles
from prospect_hf.labels.segments import SUMMARY
from prospect_hf.labels.spans import span_events
from prospect_hf.sessions import FPS, Session, Turn, frames_file, recording_id
from prospect_hf.sources.knowledge import parse_steps
from prospect_hf.sources.proassist import check_length, parse_turn, source_folder, stated_spans
from prospect_hf.sources.report import FILE_SPLITS, OnError, SessionsReport, start_report
from prospect_hf.timeline import frame_at, turn_frames

PREPARED_FILES = "dialog_{split}_*.jsonl"


def prepared_files(root: Path, source: str, split: str, pattern: str = PREPARED_FILES) -> list[Path]:
    """The sorted files in ``prepared/`` that match ``pattern``, with ProAssist's split name for ``{split}``."""
    folder = root / "processed_data" / source / "prepared"
    return sorted(folder.glob(pattern.replace("{split}", FILE_SPLITS[split])))


def read_prepared(
    root: Path,
    source: str,
    split: str,
    *,
    pattern: str = PREPARED_FILES,
    dst_root: Path | None = None,
    on_error: OnError = "raise",
) -> SessionsReport:
    """Read each prepared row of one source and split as a session, ``start_frame_idx`` to ``end_frame_idx``.

    Prepared rows contain no state labels. With ``dst_root``, labels come from the label files there, and a session is
    extended to its last state event. Label files need rows of whole videos (``max_seq_len`` 0), since a clip does not
    contain the events before it.

    Raises:
        UsageError: no file matches ``pattern``.
        DataError: a row is invalid, two rows have the same clip, or a turn is on another frame than the label rules of
            ``timeline`` give.
    """
    report = start_report(source, split, on_error)
    folder = source_folder(root, source)
    paths = prepared_files(root, source, split, pattern)
    if not paths:
        raise UsageError(f"{root / 'processed_data' / source / 'prepared'}: no file for {split} matches '{pattern}'.")
    labels = LabelFiles(dst_root, source, FILE_SPLITS[split], report.refuse) if dst_root is not None else None
    seen: dict[str, str] = {}
    for path in paths:
        for number, line in json_lines(path):
            origin = f"{path}: line {number}"
            try:
                session = _session(as_dict(parse_json(line, origin), origin), source, origin, labels, report)
                if session.session_id in seen:
                    raise DataError(
                        f"{origin}: the same clip as {seen[session.session_id]}; set pattern to match one file only."
                    )
                _check_store(session, folder)
                seen[session.session_id] = origin
                report.add(session)
            except DataError as error:
                report.refuse(origin, error)
    report.unused_labels = 0 if labels is None else labels.unused
    return report.closed(", ".join(map(str, paths)))


def _session(
    row: dict[str, Any], source: str, origin: str, labels: LabelFiles | None, report: SessionsReport
) -> Session:
    uid = get_text(row, "video_uid", origin)
    origin = f"{origin} ({uid})"
    named = get_text(row, "dataset", origin)
    if named != source:
        raise DataError(f"{origin}: 'dataset' is '{named}', but the file is in the folder of {source}.")
    metadata = get_dict(row, "metadata", origin)
    where = f"{origin}: metadata"
    user_id = get_text(metadata, "user_id", where)
    items, end, summarised = _conversation(row, metadata, origin)
    first = get_index(row, "start_frame_idx", origin)
    turns, row_frames = _turns(items, first, end, origin)
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
        first_frame=first,
        num_frames=end,
        frames_file=frames_file(source, uid),
        origin=origin,
    )
    rule_frames = turn_frames([turn.time for turn in turns], session.fps, session.first_frame)
    for turn, row_frame, rule_frame in zip(turns, row_frames, rule_frames, strict=True):
        if row_frame != rule_frame:
            raise DataError(
                f"{origin}: the turn at {turn.time} s is on frame {row_frame}, but the label rules put it on "
                f"{rule_frame}."
            )
    if summarised:
        report.left_out_lines[SUMMARY] += 1
    return session if labels is None else _labelled(session, row, labels, report)


def _check_store(session: Session, folder: Path) -> None:
    """Raise ``DataError`` where the video's stored frames exist and end before the session does."""
    stored = find_frames(folder / session.frames_file)
    if stored is None:
        return
    if session.fps != FPS and stored.suffix.lower() in VIDEO_SUFFIXES:
        raise DataError(
            f"{session.origin}: the row has {session.fps:g} frames per second, but {stored} is read at {FPS:g}; sample "
            f"the video into a frame file with sample.fps={session.fps:g}."
        )
    count = count_frames(stored)
    if count < session.num_frames:
        raise DataError(
            f"{session.origin}: frame file has {count} frames, labels need {session.num_frames} "
            f"({session.frames_file}); sample the video again, or skip the record."
        )


def _turns(items: list[dict[str, Any]], start: int, end: int, origin: str) -> tuple[list[Turn], list[int]]:
    """The turns of a row, and the frame of each: the last frame of the preceding "frames" item."""
    turns: list[Turn] = []
    turn_frame_indices: list[int] = []
    frames_end = start
    for number, item in enumerate(items):
        where = f"{origin}: conversation[{number}]"
        role = get_text(item, "role", where)
        if role == "frames":
            begin, expected = get_index(item, "start", where), frames_end
            frames_end = get_index(item, "end", where)
            if begin != expected or frames_end <= begin:
                raise DataError(f"{where}: frames {begin} to {frames_end} must start at {expected} and be non-empty.")
        elif role != "system":
            turns.append(parse_turn(item, where))
            turn_frame_indices.append(frames_end - 1)
    if frames_end != end:
        raise DataError(f"{origin}: 'end_frame_idx' is {end}, but the frames items end at {frames_end}.")
    return turns, turn_frame_indices


def _conversation(row: dict[str, Any], metadata: dict[str, Any], origin: str) -> tuple[list[dict[str, Any]], int, bool]:
    """The items of a row's conversation, the frame after its last one, and whether a summary was cut off.

    A clip that goes on in another row (``has_summary``) ends with the request for a summary, the next clip's first
    frame, and the summary. They are no part of the conversation. In a row that is a summary alone (``summary_only``)
    the assistant's turns are missing: it is refused.
    """
    values = get_list(row, "conversation", origin)
    items = [as_dict(value, f"{origin}: conversation[{number}]") for number, value in enumerate(values)]
    if metadata.get("summary_only") is True:
        raise DataError(
            f"{origin}: metadata: 'summary_only' is true, so the assistant's turns are missing; set pattern to match "
            "other files."
        )
    end = get_index(row, "end_frame_idx", origin)
    if metadata.get("has_summary") is not True:
        return items, end, False
    if [item.get("role") for item in items[-3:]] != ["system", "frames", "assistant"]:
        raise DataError(f"{origin}: metadata: 'has_summary' is true, but the conversation does not end with a summary.")
    return items[:-3], get_index(items[-2], "start", f"{origin}: conversation[{len(items) - 2}]"), True


def _labelled(session: Session, row: dict[str, Any], labels: LabelFiles, report: SessionsReport) -> Session:
    if get_index(row, "max_seq_len", session.origin) != 0:
        raise DataError(
            f"{session.origin}: 'max_seq_len' is not 0, so the row is a clip, but state labels need whole videos; "
            "use the generated dialogs."
        )
    record, where = labels.find(session.video_uid, session.origin)
    spans = stated_spans(record, where, session.steps, report)
    last = max(span.end if span.end is not None else span.start for span in spans)
    check_length(last, session.num_frames / session.fps, where)
    return dataclasses.replace(
        session, events=span_events(spans), num_frames=max(session.num_frames, frame_at(last, session.fps))
    )
