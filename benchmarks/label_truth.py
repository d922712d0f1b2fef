"""Videos whose steps are known: Ego4D Goal-Step and HoloAssist, with the grouping of their actions hidden.

Both releases have actions on two levels. The upper one is taken as the plan and as the truth; an aligner is given the
lower one, without its grouping, and has to find it again.

- Plan: the distinct texts of the upper level, by their first start; actions without one below are left out.
- Truth: the spans of each text under the rule "monotone", the state rule of both sources: a step is in progress from
  its first start to its last end.
- Segments: in Goal-Step the substeps; in HoloAssist "verb adjective noun" of each fine action, which belongs to the
  first coarse action that its middle lies in. Fine actions outside all coarse ones are left out.
- Frames: 2 a second from 0 to the last end of a segment or step.
- Videos: those with two steps or more.

All top-level segments count, those that are marked irrelevant to the goal too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prospect_hf.align.alignment import Task
from prospect_hf.annotate.agreement import Agreement, compare_spans
from prospect_hf.errors import DataError
from prospect_hf.labels.annotation_lines import Annotation, AnnotationLine
from prospect_hf.labels.spans import Span
from prospect_hf.sessions import FPS, MONOTONE, Step

NONE = "none"


@dataclass(frozen=True)
class TruthVideo:
    """A video with known steps.

    Args:
        source: "ego4d" or "holoassist".
        task: the plan and the segments, by start.
        spans: the truth.
        owners: the true step of each segment.
    """

    source: str
    task: Task
    spans: tuple[Span, ...]
    owners: NDArray[np.int64]

    @property
    def lines(self) -> tuple[AnnotationLine, ...]:
        return self.task.annotation.lines

    @property
    def num_frames(self) -> int:
        ends = [line.end for line in self.lines] + [span.end for span in self.spans]
        return math.ceil(max(end for end in ends if end is not None) * FPS)

    def agreement(self, spans: Sequence[Span]) -> Agreement:
        """How far ``spans`` agree with the truth."""
        where = self.task.origin
        return compare_spans(
            self.spans, spans, steps=len(self.task.steps), num_frames=self.num_frames, rule=MONOTONE, where=where
        )

    def spans_of(self, steps: Iterable[int]) -> list[Span]:
        """The spans that segments have which are assigned to ``steps``, one for each; negative: to none."""
        pairs = zip(self.lines, steps, strict=True)
        return [Span(int(step), line.start, line.end) for line, step in pairs if step >= 0]


@dataclass(frozen=True)
class _Action:
    start: float
    end: float
    text: str


def truth_videos(annotations: Path) -> list[TruthVideo]:
    """The videos of both sources, by source and id; ``annotations`` has the folders ego4d and holoassist."""
    found = [*_goal_step(annotations / "ego4d"), *_holoassist(annotations / "holoassist" / "labels")]
    if not found:
        raise DataError(
            f"{annotations} has neither ego4d/goalstep_*.json nor holoassist/labels/*.json; give the folder of the "
            "releases' annotations."
        )
    return sorted(found, key=lambda video: (video.source, video.task.origin))


def with_foreign(video: TruthVideo, other: TruthVideo) -> tuple[Task, NDArray[np.int64]]:
    """``video`` with as many lines of ``other`` as a fifth of its own, and the step of each line; -1 for those.

    They are said of the last hundredth of a second before the middle line, so that they change no pause.
    """
    middle = len(video.lines) // 2
    count = min(max(2, len(video.lines) // 5), len(other.lines))
    at = video.lines[middle].start
    foreign = [replace(line, start=max(at - 0.01, 0.0), end=at + 1e-3) for line in other.lines[:count]]
    lines = (*video.lines[:middle], *foreign, *video.lines[middle:])
    owners = np.concatenate([video.owners[:middle], np.full(count, -1), video.owners[middle:]])
    return replace(video.task, annotation=Annotation(lines)), owners


def _goal_step(folder: Path) -> Iterator[TruthVideo]:
    for path in sorted(folder.glob("goalstep_*.json")):
        for video in json.loads(path.read_text(encoding="utf-8"))["videos"]:
            upper = [_goal_step_action(one) for one in video["segments"]]
            lower = [
                (_goal_step_action(below), owner)
                for owner, one in enumerate(video["segments"])
                for below in one["segments"]
            ]
            goal = video["goal_description"] or video["goal_category"]
            yield from _video("ego4d", video["video_uid"], goal, upper, lower)


def _goal_step_action(one: dict[str, Any]) -> _Action:
    return _Action(one["start_time"], one["end_time"], one["step_description"] or one["step_category"])


def _holoassist(folder: Path) -> Iterator[TruthVideo]:
    for path in sorted(folder.glob("*.json")):
        video = json.loads(path.read_text(encoding="utf-8"))
        upper, fine = [], []
        for event in video["events"]:
            said = event["attributes"]
            if event["label"] == "Coarse grained action":
                upper.append(_Action(event["start"], event["end"], said["Action sentence"]))
            elif event["label"] == "Fine grained action":
                words = [said[key].replace("_", " ") for key in ("Verb", "Adjective", "Noun") if said[key] != NONE]
                fine.append(_Action(event["start"], event["end"], " ".join(words)))
        lower = []
        for one in fine:
            middle = (one.start + one.end) / 2
            owners = [number for number, above in enumerate(upper) if above.start <= middle <= above.end]
            lower += [(one, owners[0])] if owners else []
        yield from _video("holoassist", video["video_name"], video["taskType"], upper, lower)


def _video(
    source: str, uid: str, goal: str, upper: Sequence[_Action], lower: Sequence[tuple[_Action, int]]
) -> Iterator[TruthVideo]:
    """The video, if it has two steps or more."""
    lower = [(one, owner) for one, owner in lower if one.end > one.start and one.text.strip()]
    parents = sorted({owner for _, owner in lower}, key=lambda owner: (upper[owner].start, owner))
    texts: dict[str, str] = {}
    for owner in parents:
        texts.setdefault(_key(upper[owner].text), " ".join(upper[owner].text.split()))
    step_of = {key: step for step, key in enumerate(texts)}
    if len(texts) < 2:
        return
    lower = sorted(lower, key=lambda pair: (pair[0].start, pair[0].end))
    lines = tuple(
        AnnotationLine(number, one.start, one.end, " ".join(one.text.split()))
        for number, (one, _) in enumerate(lower, start=1)
    )
    spans = tuple(
        Span(step_of[_key(upper[owner].text)], upper[owner].start, upper[owner].end)
        for owner in parents
        if upper[owner].end > upper[owner].start
    )
    steps = tuple(Step(f"S{number}", text) for number, text in enumerate(texts.values(), start=1))
    owners = np.array([step_of[_key(upper[owner].text)] for _, owner in lower])
    yield TruthVideo(source, Task(uid, goal, steps, Annotation(lines)), spans, owners)


def _key(text: str) -> str:
    return " ".join(text.split()).casefold()
