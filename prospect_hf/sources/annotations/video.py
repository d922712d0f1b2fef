"""An annotated video as a reader of a release finds it, and the rules that make a session of it.

A release is not clean: segments overlap, are out of order, end before they start, or have no end. Each such fault is
repaired by a rule that has a name and is counted (``SessionsReport.repairs``), or the segment is left out and counted
(``SessionsReport.left_out_lines``), or the video is refused and listed (``SessionsReport.skipped``).
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from prospect_hf.errors import DataError
from prospect_hf.labels.segments import NEGATIVE, NO_INTERVAL, NO_TEXT, NO_VALID_TIME, NOT_AFTER_START, reasons
from prospect_hf.labels.spans import STATE_RULES, Span, merge_spans, overlaps, span_events
from prospect_hf.sessions import (
    FPS,
    Mistake,
    Session,
    Step,
    Turn,
    check_time,
    frames_file,
    recording_id,
)
from prospect_hf.sources.report import SessionsReport
from prospect_hf.timeline import frame_at, turn_frames

# What a session of a release is called: of what two people said, or of what was done alone.
DIALOGUE, ANNOTATION = "dialogue", "annotation"
# Repairs of segments: what was found, and the rule that mends it.
UNSORTED = "starts before the segment above it: sorted by time"
MISSING_END = "no end: lasts until the next segment, or the end of the video"
OVERLAP = "overlaps another step: both are in progress"
BEYOND_END = "ends after the video: cut to its end"
BEFORE_START = "starts before the annotated part: cut to its start"
NO_LENGTH = "the length of the video is not stated: it ends with its last label"
MISTAKE_CUT = "mistake reaches beyond the video: cut"
# Why a segment is left out, besides the reasons of ``labels.segments``.
OUTSIDE = "lies outside the video"
MISTAKE_OUTSIDE = "mistake lies outside the video"
MISTAKE_NO_INTERVAL = "mistake without a valid start and end"
# Stored frames may end this much before the labels: the last part of a second is not always sampled.
STORED_SLACK_S = 1.0


@dataclass(frozen=True)
class AnnotatedSegment:
    """An action from ``start`` to ``end`` (seconds of the video); ``end`` is None where the release has none.

    ``text`` names the step: segments with the same text, but for case and blanks, belong to one step. In a video whose
    plan is known, ``step`` is its place there.
    """

    start: float
    end: float | None
    text: str
    step: int | None = None


def by_start(one: AnnotatedSegment) -> float:
    """Sort key of segments: the start; last where it is no number, which would upset the order of the others."""
    return math.inf if math.isnan(one.start) else one.start


@dataclass(frozen=True)
class AnnotatedVideo:
    """One video of a release, as annotated.

    Args:
        video_uid: id of the video, as ProAssist writes it where it has the video too.
        goal: what the person does.
        segments: in the order of the release; times need not be valid.
        plan: the steps, where the release has a plan; then every segment has a ``step``. Empty: the segments' texts.
        turns: what was said, in the order of the conversation.
        mistakes: what was done wrongly.
        start: where the annotated part begins, in seconds; the session has no frame before it.
        duration: the end of the video in seconds, counted from its beginning; None where the release does not state it.
        user_type: "dialogue" where the turns are what two people said; "annotation" where speech is not annotated.
        origin: file and record, for messages.
        repairs: faults that the reader itself repaired, by kind.
        left_out: annotations that the reader itself left out, by reason.
    """

    video_uid: str
    goal: str
    segments: Sequence[AnnotatedSegment]
    plan: Sequence[str] = ()
    turns: Sequence[Turn] = ()
    mistakes: Sequence[Mistake] = ()
    start: float = 0.0
    duration: float | None = None
    user_type: str = ANNOTATION
    origin: str = ""
    repairs: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class VideoRecord:
    """A video of a release before it is parsed: enough to say in which split it is.

    Args:
        video_uid: as in ``AnnotatedVideo``.
        origin: file and record, for messages.
        parse: reads the annotations; raises ``DataError`` where they are invalid.
        split: train, validation or test, where the release states it.
    """

    video_uid: str
    origin: str
    parse: Callable[[], AnnotatedVideo]
    split: str | None = None


@dataclass(frozen=True)
class _Segment:
    """A valid segment: it has an end after its start, and one blank between words."""

    start: float
    end: float
    text: str
    step: int | None


def step_key(text: str) -> str:
    """What makes two texts the same step: the words, whatever their case and the blanks between them."""
    return " ".join(text.split()).casefold()


def session(video: AnnotatedVideo, source: str, report: SessionsReport, *, stored_frames: int | None = None) -> Session:
    """Make the session of ``video`` and add it to ``report``, with the counts of what was repaired and left out.

    The plan is that of the video, else the distinct texts of the segments, ordered by their first start. The spans of a
    step are its segments, joined by the state rule of the source (``STATE_RULES``); segments with less than a frame
    between them are one span. The session ends with the stored frames, else with the stated end of the video, else with
    its last label.

    Args:
        video: the annotations.
        source: name of the source.
        report: gets the session and the counts; nothing is counted where the video is refused.
        stored_frames: the number of the video's stored frames, where they are at hand.

    Raises:
        DataError: no segment is usable, a time is over a day, a field is invalid, the labels lie over a second beyond
            the stored frames, or ``report`` has a session of the video.
    """
    check_time(video.start, f"{video.origin}: the start of the annotated part")
    if video.duration is not None:
        check_time(video.duration, f"{video.origin}: the duration")
    for number, turn in enumerate(video.turns):
        check_time(turn.time, f"{video.origin}: turns[{number}].time")
    repairs, left_out = Counter(video.repairs), Counter(video.left_out)
    last = _last(video, stored_frames)
    segments = _segments(video, last, repairs, left_out)
    steps, spans = _plan(segments, video.plan, STATE_RULES[source], repairs)
    mistakes = _mistakes(video, last, repairs, left_out)
    first_frame = frame_at(video.start, FPS)
    if math.isinf(last):
        turns = turn_frames([turn.time for turn in video.turns], FPS, first_frame)
        ends = [one.end for one in segments] + [one.end for one in mistakes]
        num_frames = max(frame_at(max(ends), FPS), *(frame + 1 for frame in turns), first_frame + 1)
    else:
        num_frames = stored_frames or max(frame_at(last, FPS), first_frame + 1)
    made = Session(
        session_id=f"{source}.{video.video_uid}.{video.user_type}",
        source=source,
        video_uid=video.video_uid,
        recording=recording_id(source, video.video_uid),
        user_type=video.user_type,
        speech=video.user_type == DIALOGUE,
        goal=video.goal,
        steps=steps,
        turns=tuple(video.turns),
        events=span_events(spans),
        fps=FPS,
        first_frame=first_frame,
        num_frames=num_frames,
        frames_file=frames_file(source, video.video_uid),
        origin=video.origin,
        mistakes=tuple(mistakes),
        state_rule=STATE_RULES[source],
    )
    report.add(made)
    report.repairs += repairs  # "+=" drops kinds whose count is 0
    report.left_out_lines += left_out
    report.segments += len(segments)
    report.steps += len(steps)
    report.labelled_steps += len({span.step for span in spans})
    return made


def _last(video: AnnotatedVideo, stored_frames: int | None) -> float:
    """The end of the video in seconds: of its stored frames, else as stated; infinite where neither is known."""
    if stored_frames is None:
        return math.inf if video.duration is None else video.duration
    stored = stored_frames / FPS
    finite = [one.end for one in video.segments if one.end is not None and math.isfinite(one.end)]
    labelled = max(finite, default=0.0)
    if labelled > stored + STORED_SLACK_S:
        raise DataError(
            f"{video.origin}: the video has {stored_frames} stored frames, which end at {stored:g} s, but its labels "
            f"end at {labelled:g} s; sample the video again, or skip it."
        )
    return stored


def _segments(video: AnnotatedVideo, last: float, repairs: Counter[str], left_out: Counter[str]) -> list[_Segment]:
    """The usable segments, cut to the annotated part of the video, by time.

    Raises ``DataError`` where there is none, or a time is over a day.
    """
    starts = sorted(one.start for one in video.segments if math.isfinite(one.start))
    repairs[UNSORTED] += sum(below.start < above.start for above, below in pairwise(video.segments))
    found = []
    for one in video.segments:
        end = one.end
        if end is None:
            after = bisect.bisect_right(starts, one.start)
            end = starts[after] if after < len(starts) else last
        reason = _fault(one, end)
        if reason is None:
            check_time(end, f"{video.origin}: the end of segment '{one.text.strip()[:40]}'")
            reason = OUTSIDE if one.start >= last or end <= video.start else None
        if reason is not None:
            left_out[reason] += 1
            continue
        repairs[MISSING_END] += one.end is None
        repairs[BEYOND_END] += end > last
        repairs[BEFORE_START] += one.start < video.start
        found.append(_Segment(max(one.start, video.start), min(end, last), " ".join(one.text.split()), one.step))
    if not found:
        counted = f" (left out: {reasons(left_out)})" if left_out else ""
        raise DataError(f"{video.origin}: the video has no usable segment{counted}.")
    return sorted(found, key=lambda one: (one.start, one.end))


def _fault(one: AnnotatedSegment, end: float) -> str | None:
    """Why a segment has no text or no valid time."""
    if not one.text.strip():
        return NO_TEXT
    if one.end is None and math.isinf(end):
        return NO_INTERVAL
    if not math.isfinite(one.start + end):
        return NO_VALID_TIME
    if min(one.start, end) < 0:
        return NEGATIVE
    return NOT_AFTER_START if end <= one.start else None


def _plan(
    segments: Sequence[_Segment], plan: Sequence[str], rule: str, repairs: Counter[str]
) -> tuple[tuple[Step, ...], tuple[Span, ...]]:
    """The steps of the segments and their spans; counts the segments that overlap another step, and joined spans."""
    place: dict[str, int] = {}
    texts = list(plan)
    spans: list[Span] = []
    for one in segments:
        if one.step is not None:
            spans.append(Span(one.step, one.start, one.end))
            continue
        key = step_key(one.text)
        if key not in place:
            place[key] = len(texts)
            texts.append(one.text)
        spans.append(Span(place[key], one.start, one.end))
    repairs[OVERLAP] += overlaps(spans)
    merged, joined = merge_spans(spans, rule, pause=1 / FPS)
    repairs.update(joined)
    return tuple(Step(f"S{number}", text) for number, text in enumerate(texts, start=1)), merged


def _mistakes(video: AnnotatedVideo, last: float, repairs: Counter[str], left_out: Counter[str]) -> list[Mistake]:
    found = []
    for one in video.mistakes:
        if not one.end > one.start >= 0 or math.isinf(one.end):
            left_out[MISTAKE_NO_INTERVAL] += 1
        elif one.start >= last or one.end <= video.start:
            left_out[MISTAKE_OUTSIDE] += 1
        else:
            repairs[MISTAKE_CUT] += one.start < video.start or one.end > last
            found.append(Mistake(max(one.start, video.start), min(one.end, last), one.text))
    return found
