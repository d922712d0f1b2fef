"""Reads ProAssist's ``processed_data``: generated dialogues, with or without state labels.

Frames are sampled at 2 per second; ``parsed_video_anns.fps`` is the camera's rate and is not used.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, Literal, get_args

from prospect_hf.align.alignment import Task
from prospect_hf.align.named import ALIGNERS, ENCODER, NamedAligner, named_aligner
from prospect_hf.checked_json import (
    as_dict,
    get_dict,
    get_list,
    get_number,
    get_optional_text,
    get_text,
)
from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.opened import count_frames, find_frames
from prospect_hf.frames.stored_features import stored_length
from prospect_hf.labels.annotation_lines import parse_annotation
from prospect_hf.labels.label_files import LabelFiles, made_by, parse_spans, segment_text
from prospect_hf.labels.segments import BELOW_SEGMENT
from prospect_hf.labels.spans import JOINED, STATE_RULES, STATED_SPANS, Span, merge_spans, span_events
from prospect_hf.sessions import (
    FPS,
    LONGEST_S,
    Session,
    Step,
    Turn,
    check_name,
    check_time,
    frames_file,
    recording_id,
)
from prospect_hf.sources.dialog_files import FILTERED, PER_VIDEO, dialog_files, dialog_records
from prospect_hf.sources.knowledge import parse_steps
from prospect_hf.sources.report import FILE_SPLITS, OnError, SessionsReport, start_report
from prospect_hf.timeline import FRAME_TOLERANCE, frame_at, turn_frames

# Labels of a video without a frame file may lie this many seconds beyond twice its stated end.
LENGTH_SLACK_S = 600.0

DST = Literal["files", "semantic", "words", "none"]

# ProAssist repeats conversations of two sources (epickitchens, wtag) to give them more weight in training.
REPEATED = "conversation stands in its record twice: both kept"


def check_dst(dst: str, key: str) -> None:
    """Raise ``UsageError`` where the setting ``key`` names no place that state labels come from."""
    if dst == "align":
        raise UsageError(
            f"{key}=align is gone: {key}=semantic aligns the annotation with the plan by meaning, "
            f"{key}=words does what align did, by words."
        )
    if dst not in get_args(DST):
        raise UsageError(f"{key} must be one of {', '.join(get_args(DST))}, not {dst!r}.")


def source_folder(root: Path, source: str) -> Path:
    """``{root}/processed_data/{source}``. Raises ``UsageError`` naming the first folder of the path that is missing."""
    for folder in (root, root / "processed_data", root / "processed_data" / source):
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; data.root is the folder that holds processed_data/{source}.")
    return root / "processed_data" / source


def read_sessions(
    root: Path,
    source: str,
    split: str,
    *,
    dst: DST = "none",
    dst_root: Path | None = None,
    dst_encoder: str = ENCODER,
    suffix: str = FILTERED,
    on_error: OnError = "raise",
) -> SessionsReport:
    """Read each conversation of one source and split as a session.

    A session starts at frame floor(video_start_time * fps), or at 0. It ends with the video's frame store, or with its
    stored features where there is none; with the last turn or state event where there is neither. A record with
    ``video_start_time`` is a part of its video: it ends with its ``duration``, or with its last label where that is
    later.

    Args:
        root: folder that holds ``processed_data``.
        source: name of the source.
        split: train, validation or test.
        dst: "none" = no state labels; "files" = the record's ``dst`` list or, with ``dst_root``, the label files there
            (see ``LabelFiles``); "semantic" or "words" = annotated segments aligned with the plan, by meaning or by
            words alone.
        dst_root: folder of label files.
        dst_encoder: sentence encoder of "semantic".
        suffix: which dialog files are read, see ``dialog_files``.
        on_error: "raise" on the first bad record, or "skip" bad records and list them.

    Raises:
        UsageError: a folder or file is missing, or the sentence encoder is.
        DataError: a record is invalid, or a label is after the end of the frame store. A turn that has no free frame
            before the end, since a frame takes one turn, is not an error; it is counted in ``beyond_turns``.
    """
    report = start_report(source, split, on_error)
    check_dst(dst, "dst")
    folder = source_folder(root, source)
    paths = dialog_files(root, source, split, suffix)
    if not paths:
        wanted = f"{FILE_SPLITS[split]}{'/*' if suffix == PER_VIDEO else suffix}.json"
        raise UsageError(f"{folder / 'generated_dialogs' / wanted}: no such file.")
    labels = None
    if dst == "files" and dst_root is not None:
        labels = LabelFiles(dst_root, source, FILE_SPLITS[split], report.refuse)
    aligner = named_aligner(dst, dst_encoder) if dst in ALIGNERS else None
    rule = STATED_SPANS if aligner is None else STATE_RULES[source]
    for origin, record in dialog_records(paths, report.refuse):
        try:
            video = DialogRecord(record, folder, source, origin)
            spans: tuple[Span, ...] | None = None
            if aligner is not None:
                spans = _aligned_spans(video, aligner, rule, report)
            elif dst == "files":
                listed = (record, video.origin) if labels is None else labels.find(video.uid, video.origin)
                spans = stated_spans(*listed, video.steps, report)
            conversations = get_list(video.record, "conversations", video.origin)
        except DataError as error:
            report.refuse(origin, error)
            continue
        said: set[tuple[Turn, ...]] = set()
        for index, conversation in enumerate(conversations):
            origin = f"{video.origin}: conversation {index}"
            try:
                session = _session(video, spans, rule, as_dict(conversation, origin), index, origin)
                report.add(session)
            except DataError as error:
                report.refuse(origin, error)
                continue
            if session.turns in said:
                report.repairs[REPEATED] += 1
            said.add(session.turns)
    report.unused_labels = 0 if labels is None else labels.unused
    return report.closed(str(paths[0] if len(paths) == 1 else paths[0].parent))


class DialogRecord:
    """The fields of a record that its conversations share."""

    def __init__(self, record: dict[str, Any], folder: Path, source: str, origin: str) -> None:
        self.uid = get_text(record, "video_uid", origin)
        check_name(self.uid, f"{origin}: video_uid")
        self.origin = f"{origin} ({self.uid})"
        self.record = record
        self.source = source
        self.goal = get_text(record, "inferred_goal", self.origin)
        knowledge = get_text(record, "inferred_knowledge", self.origin)
        self.steps = parse_steps(knowledge, f"{self.origin}: 'inferred_knowledge'")
        annotation = get_dict(record, "parsed_video_anns", self.origin)
        where = f"{self.origin}: parsed_video_anns"
        named = get_text(annotation, "dataset", where)
        if named.split("-")[0] != source:  # ego4d's records say "ego4d-goalstep"
            raise DataError(f"{where}: 'dataset' is '{named}', but the file is in the folder of {source}.")
        self.first_frame = 0
        self.part_end: int | None = None  # end frame (exclusive) of a record that is a part of its video
        if annotation.get("video_start_time") is not None:
            start = _seconds(annotation, "video_start_time", where)
            self.first_frame = frame_at(start, FPS)
            self.part_end = math.ceil((start + _seconds(annotation, "duration", where)) * FPS - FRAME_TOLERANCE)
        self.stated_end: float | None = None
        if annotation.get("duration") is not None:
            self.stated_end = self.first_frame / FPS + _seconds(annotation, "duration", where)
        stored = find_frames(folder / frames_file(source, self.uid))
        self.stored_in = "feature file" if stored is None else "frame file"
        if stored is None:
            self.stored_frames = stored_length(folder, Path(frames_file(source, self.uid)).name)
        else:
            self.stored_frames = count_frames(stored)

    def num_frames(self, times: list[float], spans: tuple[Span, ...], origin: str) -> int:
        """The end frame (exclusive) of a session whose turns are at ``times`` (seconds)."""
        span_ends = [span.end if span.end is not None else span.start for span in spans]
        last = max([*times, *span_ends])
        check_length(last, self.stated_end if self.stored_frames is None else None, origin)
        needed = frame_at(last, FPS)
        queued = turn_frames(times, FPS, self.first_frame)[-1] + 1
        if self.stored_frames is None:
            return max(needed, queued, self.first_frame + 1)
        if needed > self.stored_frames:
            raise DataError(
                f"{origin}: {self.stored_in} has {self.stored_frames} frames, labels need {needed} "
                f"({frames_file(self.source, self.uid)}); sample the video again, or skip the record."
            )
        if self.part_end is None:
            return self.stored_frames
        return min(self.stored_frames, max(needed, queued, self.part_end))


def _seconds(record: dict[str, Any], key: str, where: str) -> float:
    """A time or a length in seconds, of a day at most."""
    seconds = get_number(record, key, where)
    check_time(seconds, f"{where}: '{key}'")
    return seconds


def check_length(seconds: float, stated_end: float | None, origin: str) -> None:
    """Refuse a label at ``seconds`` that lies a day or more, or far beyond the stated end of the video, from its start.

    Without a frame file, labels alone set the length of a session.
    """
    most = LONGEST_S if stated_end is None else min(LONGEST_S, 2 * stated_end + LENGTH_SLACK_S)
    if seconds > most:
        end = "no video is so long" if stated_end is None else f"the video ends at {stated_end:g} s"
        raise DataError(
            f"{origin}: a label is at {seconds:g} s, but {end}; give times in seconds of the video, not in "
            "milliseconds or since 1970."
        )


def _aligned_spans(video: DialogRecord, aligner: NamedAligner, rule: str, report: SessionsReport) -> tuple[Span, ...]:
    """The spans of the annotation's lines, as the aligner assigns them; several of one step as the state rule says.

    As in the sources' own annotations, spans with less than a frame between them are one.
    """
    annotation = parse_annotation(segment_text(video.record, video.origin))
    alignment = aligner.align(Task(video.origin, video.goal, video.steps, annotation))
    segments = sum(line.kind == "segment" for line in annotation.lines)
    report.segments += segments
    report.abstained.update(alignment.abstained.values())
    report.left_out_lines.update(line.reason for line in annotation.left_out)
    report.left_out_lines += Counter({BELOW_SEGMENT: len(annotation.lines) - segments})
    spans, repairs = merge_spans([visit.span for visit in alignment.visits], rule, pause=1 / FPS)
    report.repairs += repairs
    report.labelled_by[aligner.version] += 1
    _count_steps(spans, video.steps, report)
    return spans


def _count_steps(spans: tuple[Span, ...], steps: tuple[Step, ...], report: SessionsReport) -> None:
    report.steps += len(steps)
    report.labelled_steps += len({span.step for span in spans})


def stated_spans(
    record: dict[str, Any], where: str, steps: tuple[Step, ...], report: SessionsReport
) -> tuple[Span, ...]:
    """The spans of ``parse_spans``, counted in ``report``; those of one step that overlap or touch are joined."""
    spans, repairs = merge_spans(parse_spans(record, steps, where), STATED_SPANS)
    report.repairs += Counter({JOINED: repairs[JOINED]})
    report.labelled_by[made_by(record)] += 1
    _count_steps(spans, steps, report)
    return spans


def _session(
    video: DialogRecord,
    spans: tuple[Span, ...] | None,
    state_rule: str,
    conversation: dict[str, Any],
    index: int,
    origin: str,
) -> Session:
    turns = [
        parse_turn(as_dict(value, f"{origin}: turn {number}"), f"{origin}: turn {number}")
        for number, value in enumerate(get_list(conversation, "conversation", origin))
    ]
    user_type = get_text(conversation, "user_type", origin)
    return Session(
        session_id=f"{video.source}.{video.uid}.{user_type}_{index}",
        source=video.source,
        video_uid=video.uid,
        recording=recording_id(video.source, video.uid),
        user_type=user_type,
        goal=video.goal,
        steps=video.steps,
        turns=tuple(turns),
        events=None if spans is None else span_events(spans),
        fps=FPS,
        first_frame=video.first_frame,
        num_frames=video.num_frames([turn.time for turn in turns], spans or (), origin),
        frames_file=frames_file(video.source, video.uid),
        origin=origin,
        state_rule=state_rule,
    )


def parse_turn(value: dict[str, Any], where: str) -> Turn:
    """Parse one turn of the user or the assistant; ``where`` names the record in messages."""
    role = get_text(value, "role", where)
    if role not in ("user", "assistant"):
        raise DataError(f"{where}: 'role' is '{role}'; it must be user or assistant.")
    return Turn(
        role=role,
        time=get_number(value, "time", where),
        text=get_text(value, "content", where),
        labels=get_optional_text(value, "labels", where),
        progress=get_optional_text(value, "progress", where),
    )
