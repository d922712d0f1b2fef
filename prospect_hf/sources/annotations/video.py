"""An annotated video as a reader of a release finds it, and the rules that make a session of it.

A release is not clean: segments overlap, are out of order, end before they start, or have no end. Each such fault is
repaired by a rule that has a name and is counted (``SessionsReport.repairs``), or the segment is left out and counted
(``SessionsReport.left_out_lines``), or the video is refused and listed (``SessionsReport.skipped``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from prospect_hf.errors import DataError
from prospect_hf.labels.segments import NEGATIVE, NO_INTERVAL, NO_TEXT, NO_VALID_TIME, NOT_AFTER_START, reasons
from prospect_hf.labels.spans import STATE_RULES, Span, merge_spans, span_events
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

# Repairs of segments: what was found, and the rule that mends it.
UNSORTED = "starts before the segment above it: sorted by time"
MISSING_END = "no end: lasts until the next segment"
OVERLAP = "overlaps another step: both are in progress"
BEYOND_END = "ends after the video: cut to its end"
BEFORE_START = "starts before the annotated part: cut to its start"
MISTAKE_CUT = "mistake reaches beyond the video: cut"
# Why a segment is left out, besides the reasons of ``labels.segments``.
OUTSIDE = "lies outside the video"
MISTAKE_OUTSIDE = "mistake lies outside the video"
MISTAKE_NO_INTERVAL = "mistake whose end is not after its start"


@dataclass(frozen=True)
class AnnotatedSegment:
    """An action from ``start`` to ``end`` (seconds of the video); ``end`` is None where the release has none.

    ``text`` names the step: segments with the same text, but for case and blanks, belong to one step.
    """

    start: float
    end: float | None
    text: str


@dataclass(frozen=True)
class AnnotatedVideo:
    """One video of a release, as annotated.

    Args:
        video_uid: id of the video, as ProAssist writes it where it has the video too.
        goal: what the person does.
        segments: in the order of the release; times need not be valid.
        turns: what was said, in the order of the conversation.
        mistakes: what was done wrongly.
        start: where the annotated part begins, in seconds; the session has no frame before it.
        duration: the end of the video in seconds, counted from its beginning; None where the release does not state it.
        user_type: "annotation", or "dialogue" where the turns are what two people said.
        origin: file and record, for messages.
        repairs: faults that the reader itself repaired, by kind.
        left_out: annotations that the reader itself left out, by reason.
    """

    video_uid: str
    goal: str
    segments: Sequence[AnnotatedSegment]
    turns: Sequence[Turn] = ()
    mistakes: Sequence[Mistake] = ()
    start: float = 0.0
    duration: float | None = None
    user_type: str = "annotation"
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


def step_key(text: str) -> str:
    """What makes two texts the same step: the words, whatever their case and the blanks between them."""
    return " ".join(text.split()).casefold()


def session(video: AnnotatedVideo, source: str, report: SessionsReport) -> Session:
    """The session of ``video``; what was repaired and left out is counted in ``report``.

    The plan is the distinct texts of the segments, ordered by their first start; the spans of a step are its segments,
    joined by the state rule of the source (``STATE_RULES``). The session ends with the stated end of the video, else
    with its last label. Counts are added only if the session is valid.

    Raises:
        DataError: no segment is usable, a time is over a day, or a field is invalid.
    """
    check_time(video.start, f"{video.origin}: the start of the annotated part")
    if video.duration is not None:
        check_time(video.duration, f"{video.origin}: the duration")
    for number, turn in enumerate(video.turns):
        check_time(turn.time, f"{video.origin}: turns[{number}].time")
    repairs, left_out = Counter(video.repairs), Counter(video.left_out)
    usable = [one for one in _with_ends(video, repairs) if _usable(one, video.origin, left_out)]
    segments = _within(usable, video, repairs, left_out)
    if not segments:
        counted = f" (left out: {reasons(left_out)})" if left_out else ""
        raise DataError(f"{video.origin}: the video has no usable segment{counted}.")
    segments.sort(key=lambda one: (one.start, one.end))
    names = [step_key(one.text) for one in segments]
    plan = list(dict.fromkeys(names))
    first_text = {name: one.text for name, one in zip(reversed(names), reversed(segments), strict=True)}
    steps = tuple(Step(f"S{number}", " ".join(first_text[name].split())) for number, name in enumerate(plan, start=1))
    place = {name: step for step, name in enumerate(plan)}
    repairs[OVERLAP] += _overlaps(segments, names)
    spans, merged = merge_spans(
        [Span(place[name], one.start, one.end) for name, one in zip(names, segments, strict=True)],
        STATE_RULES[source],
        pause=1 / FPS,
    )
    repairs += merged
    mistakes = _mistakes(video, repairs, left_out)
    first_frame = frame_at(video.start, FPS)
    if video.duration is None:
        ends = [one.end for one in segments] + [one.end for one in mistakes]
        turns = turn_frames([turn.time for turn in video.turns], FPS, first_frame)
        num_frames = max(frame_at(max(ends), FPS), *(frame + 1 for frame in turns), first_frame + 1)
    else:
        num_frames = max(frame_at(video.duration, FPS), first_frame + 1)
    made = Session(
        session_id=f"{source}.{video.video_uid}.{video.user_type}",
        source=source,
        video_uid=video.video_uid,
        recording=recording_id(source, video.video_uid),
        user_type=video.user_type,
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
    report.repairs += repairs  # "+" drops kinds whose count is 0
    report.left_out_lines += left_out
    report.segments += len(segments)
    report.steps += len(steps)
    report.labelled_steps += len({span.step for span in spans})
    return made


@dataclass(frozen=True)
class _Segment:
    start: float
    end: float
    text: str


def _with_ends(video: AnnotatedVideo, repairs: Counter[str]) -> list[AnnotatedSegment]:
    """The segments, a missing end replaced by the next start, or by the end of the video after the last start."""
    starts = sorted(one.start for one in video.segments if math.isfinite(one.start))
    repairs[UNSORTED] += sum(below.start < above.start for above, below in pairwise(video.segments))
    found = []
    for one in video.segments:
        if one.end is None:
            end = next((start for start in starts if start > one.start), video.duration)
            repairs[MISSING_END] += end is not None
            one = AnnotatedSegment(one.start, end, one.text)
        found.append(one)
    return found


def _usable(one: AnnotatedSegment, origin: str, left_out: Counter[str]) -> bool:
    """Whether a segment has a text and a valid time; counts the reason why not. Raises for a time over a day."""
    end = one.start if one.end is None else one.end
    if not one.text.strip():
        reason = NO_TEXT
    elif not math.isfinite(one.start + end):
        reason = NO_VALID_TIME
    elif min(one.start, end) < 0:
        reason = NEGATIVE
    elif one.end is None:
        reason = NO_INTERVAL
    elif end <= one.start:
        reason = NOT_AFTER_START
    else:
        check_time(end, f"{origin}: the end of segment '{one.text}'")
        return True
    left_out[reason] += 1
    return False


def _within(
    usable: Sequence[AnnotatedSegment], video: AnnotatedVideo, repairs: Counter[str], left_out: Counter[str]
) -> list[_Segment]:
    """The segments, cut to the annotated part of the video."""
    last = math.inf if video.duration is None else video.duration
    found = []
    for one in usable:
        end = math.inf if one.end is None else one.end
        if one.start >= last or end <= video.start:
            left_out[OUTSIDE] += 1
            continue
        repairs[BEYOND_END] += end > last
        repairs[BEFORE_START] += one.start < video.start
        found.append(_Segment(max(one.start, video.start), min(end, last), one.text))
    return found


def _mistakes(video: AnnotatedVideo, repairs: Counter[str], left_out: Counter[str]) -> list[Mistake]:
    last = math.inf if video.duration is None else video.duration
    found = []
    for one in video.mistakes:
        if not one.end > one.start:
            left_out[MISTAKE_NO_INTERVAL] += 1
        elif one.start >= last or one.end <= video.start:
            left_out[MISTAKE_OUTSIDE] += 1
        else:
            repairs[MISTAKE_CUT] += one.start < video.start or one.end > last
            found.append(Mistake(max(one.start, video.start), min(one.end, last), one.text))
    return found
