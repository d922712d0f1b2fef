"""A comparison of label sets as one HTML file, as JSON, as a table of the videos and as text for a terminal.

All text of the labels is data: it is embedded as JSON whose markup characters are escaped, and the page's script sets
it only as text.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from prospect_hf.annotate.agreement import TOLERANCES_S
from prospect_hf.annotate.comparison.compare import (
    ALL,
    NO_SOURCE,
    ComparedVideo,
    Comparison,
    LeftVideo,
)
from prospect_hf.annotate.comparison.label_sets import LabelSet
from prospect_hf.files import replacing, write_json
from prospect_hf.html import write_html
from prospect_hf.labels.annotation_lines import AnnotationLine, parse_annotation
from prospect_hf.labels.spans import Span, span_events
from prospect_hf.metrics.states import transitions
from prospect_hf.sessions import FPS
from prospect_hf.tables import table
from prospect_hf.terminal import visible
from prospect_hf.timeline import frame_at, state_table

FORMAT = "compare_dst-1"
# The figures that are shown: head of the column, digits, what it means.
SHOWN = {
    "joint_state_accuracy_mean": ("joint, mean", 3, "Share of frames on which all steps agree, as mean over videos."),
    "joint_state_accuracy_pooled": ("joint, pooled", 3, "The same share of all frames of all videos."),
    "step_accuracy": ("cells", 3, "Share of cells (a step on a frame) that agree."),
    "step_iou": ("IoU", 3, "Mean intersection over union, in time, of the steps that A or B has."),
    "boundary_error_median_s": (
        "error, s",
        2,
        "Median distance of first starts and last ends, of steps that both have.",
    ),
    "boundary_error_p90_s": ("p90, s", 2, "Of nine in ten of those boundaries the distance is at most this."),
    **{
        f"transition_f1_{seconds}s": (f"F1 {seconds} s", 3, f"State changes matched one to one within {seconds} s.")
        for seconds in TOLERANCES_S
    },
    "order_agreement": ("order", 3, "Share of pairs of steps that start in the same order, by first starts."),
    "steps_covered_a": ("steps A", 3, "Share of the plan's steps that have labels in A."),
    "steps_covered_b": ("steps B", 3, "The same in B."),
}
# A page holds so many characters of timelines; then it leaves timelines out, and says so.
VIEW_CHARACTERS = 12_000_000
MOST_CHARACTERS, MOST_STEPS, MOST_LINES, MOST_LEFT = 400, 1_000, 4_000, 200


def figure_table(found: Comparison) -> list[list[str]]:
    """The figures of all videos and of each source, with a header row."""
    rows = [["videos of", "videos", *(head for head, _, _ in SHOWN.values())]]
    scopes = [scope for scope in found.figures if scope != ALL] if len(found.figures) > 2 else []
    for scope in [ALL, *scopes]:
        cells = [number(found.figures[scope][name], digits) for name, (_, digits, _) in SHOWN.items()]
        rows.append([scope, f"{found.agreements[scope].counts['videos']:,.0f}", *cells])
    return rows


def number(value: float | None, digits: int) -> str:
    """A figure as text; "-" where it is undefined."""
    return "-" if value is None else f"{value:.{digits}f}"


def text_report(found: Comparison) -> str:
    """The figures and what they leave out, for a terminal."""
    counts = found.agreements[ALL].counts
    lines = [f"A: {_about(found.a)}", f"B: {_about(found.b)}", "", table(figure_table(found)), ""]
    either = counts["steps_a"] + counts["steps_b"] - counts["steps_both"]
    lines.append(
        f"Of {counts['steps']:,.0f} steps {counts['steps_both']:,.0f} have labels in both sets, "
        f"{counts['steps_a'] - counts['steps_both']:,.0f} in A only, "
        f"{counts['steps_b'] - counts['steps_both']:,.0f} in B only, {counts['steps'] - either:,.0f} in none."
    )
    if counts["open_ends"]:
        lines.append(f"Ends without an error, since A or B gives none: {counts['open_ends']:,.0f}.")
    if found.not_in_corpus:
        lines.append(f"Not in the corpus of compare_dst.root: {found.not_in_corpus:,} of these videos.")
    if found.left:
        kinds = Counter(one.kind for one in found.left)
        lines.append(f"Not compared: {', '.join(f'{count:,} {kind}' for kind, count in kinds.most_common())}.")
        lines += [f"  {_told(one)}" for one in found.left[:10]]
        if len(found.left) > 10:
            lines.append(f"  and {len(found.left) - 10:,} more, in agreement.json")
    ignored = [str(path) for one in (found.a, found.b) for path in one.ignored]
    if ignored:
        more = f" and {len(ignored) - 5:,} more" if len(ignored) > 5 else ""
        lines.append(f"Not read, since they hold no records of videos: {', '.join(ignored[:5])}{more}.")
    return "\n".join(lines)


def write_figures(path: Path, found: Comparison) -> None:
    """Write what was found as JSON, for other programs."""
    facts = {
        "format": FORMAT,
        "a": _set_facts(found.a),
        "b": _set_facts(found.b),
        "state_rule": found.rule,
        "fps": FPS,
        "figures": found.figures,
        "not_in_corpus": found.not_in_corpus,
        "counts": {scope: one.counts for scope, one in found.agreements.items()},
        "left": [vars(one) for one in found.left],
        "videos": [
            {"source": video.source, "video_uid": video.uid, "figures": video.figures, "counts": video.agreement.counts}
            for video in found.videos
        ],
    }
    write_json(path, facts)


def write_csv(path: Path, found: Comparison) -> None:
    """Write a row for each video, those that are not compared after the others."""
    figures = list(found.figures[ALL])
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["source", "video_uid", "status", "steps", "steps_a", "steps_b", "steps_both", *figures, "reason"]
        )
        for video in found.videos:
            counts = [int(video.agreement.counts[name]) for name in ("steps", "steps_a", "steps_b", "steps_both")]
            values = ["" if video.figures[name] is None else video.figures[name] for name in figures]
            rows.writerow([video.source, visible(video.uid), "compared", *counts, *values, ""])
        for one in found.left:
            rows.writerow([one.source, visible(one.uid), one.kind, *[""] * (4 + len(figures)), visible(one.reason)])


def write_page(path: Path, found: Comparison, worst: int, best: int, named: Collection[str]) -> None:
    """Write the comparison as one self-contained HTML file.

    It lists every video, and has the timelines of the ``worst`` and ``best`` and of those ``named`` by uid, as far as
    ``VIEW_CHARACTERS`` reach; the page says how many those are.
    """
    chosen = _chosen(found.videos, worst, best, named)
    views: dict[int, dict[str, Any]] = {}
    used = 0
    for place in chosen:
        view = _view(found.videos[place])
        used += len(json.dumps(view, separators=(",", ":")))
        if views and used > VIEW_CHARACTERS:
            break
        views[place] = view
    data = {
        "a": _short(_about(found.a)),
        "b": _short(_about(found.b)),
        "rule": found.rule,
        "fps": FPS,
        "shown": [[name, *facts] for name, facts in SHOWN.items()],
        "table": figure_table(found),
        "left": [[one.source, _short(one.uid), one.kind, _short(one.reason)] for one in found.left[:MOST_LEFT]],
        "kinds": Counter(one.kind for one in found.left).most_common(),
        "more_left": max(0, len(found.left) - MOST_LEFT),
        "videos": [_video(video) for video in found.videos],
        "views": views,
    }
    template = (
        resources.files("prospect_hf.annotate.comparison").joinpath("comparison.html").read_text(encoding="utf-8")
    )
    write_html(path, template, data)


def _chosen(videos: Sequence[ComparedVideo], worst: int, best: int, named: Collection[str]) -> list[int]:
    """The places, in the list of worst first, of the videos whose timelines are shown: those named come first."""
    asked = [place for place, video in enumerate(videos) if video.uid in named]
    ends = [*range(min(worst, len(videos))), *reversed(range(max(0, len(videos) - best), len(videos)))]
    return list(dict.fromkeys([*asked, *ends]))


def _video(video: ComparedVideo) -> dict[str, Any]:
    counts = video.agreement.counts
    return {
        "source": video.source or NO_SOURCE,
        "uid": _short(video.uid),
        "goal": _short(video.goal),
        "figures": [None if (value := video.figures[name]) is None else round(value, 4) for name in SHOWN],
        "steps": [int(counts[name]) for name in ("steps", "steps_a", "steps_b", "steps_both")],
        "seconds": (video.num_frames - video.first_frame) / FPS,
    }


def _view(video: ComparedVideo) -> dict[str, Any]:
    """A video as ``session_timeline.js`` takes it: B stands for the predicted states, A for the reference.

    Top-level annotation lines stand for what the assistant says, the lines below them for what the user says.
    """
    lines = parse_annotation(video.annotation).lines if video.annotation else ()
    segments = [line for line in lines if line.kind == "segment"]
    below = [line for line in lines if line.kind != "segment"]
    left_out = [
        f"{count:,} more {what}"
        for count, what in (
            (len(video.steps) - MOST_STEPS, "steps"),
            (len(segments) - MOST_LINES, "annotation lines"),
            (len(below) - MOST_LINES, "details"),
        )
        if count > 0
    ]
    return {
        "left_out": ", ".join(left_out),
        "id": _short(video.uid),
        "frames": video.num_frames - video.first_frame,
        "fps": FPS,
        "first_frame": video.first_frame,
        "steps": [_short(step.text or step.id) for step in video.steps[:MOST_STEPS]],
        "predicted_states": _changes(video, video.b),
        "reference_states": _changes(video, video.a),
        "p_speak": [],
        "p_update": [],
        "said": _said(video, segments),
        "reference": None,
        "user": _said(video, below),
    }


def _changes(video: ComparedVideo, spans: Sequence[Span]) -> list[tuple[int, int, int]]:
    states = state_table(span_events(spans), len(video.steps), FPS, video.first_frame, video.num_frames)
    return [change for change in transitions(states) if change[1] < MOST_STEPS]


def _said(video: ComparedVideo, lines: Sequence[AnnotationLine]) -> list[dict[str, Any]]:
    """Annotation lines by time, on frames of the video."""
    last = video.num_frames - video.first_frame - 1
    return [
        {"frame": min(max(frame_at(line.start, FPS) - video.first_frame, 0), last), "text": _short(_line_text(line))}
        for line in sorted(lines, key=lambda line: line.start)[:MOST_LINES]
    ]


def _line_text(line: AnnotationLine) -> str:
    who = "" if line.kind in ("segment", "child") else f"{line.kind}: "
    end = "" if line.end is None else f"-{line.end:g}"
    remark = "" if line.remark is None else f" ({line.remark}{f': {line.remark_text}' if line.remark_text else ''})"
    return f"{who}{line.text}{remark} [{line.start:g}{end} s]"


def _set_facts(one: LabelSet) -> Mapping[str, Any]:
    return {
        "path": one.name,
        "key": one.key,
        "records": len(one.records),
        "made_by": dict(one.makers()),
        "files": [str(path) for path in one.files],
        "ignored": [str(path) for path in one.ignored],
    }


def _about(one: LabelSet) -> str:
    made = ", ".join(f"{maker}: {count:,}" for maker, count in one.makers().most_common(3))
    records = f"{len(one.records):,} record{'s' * (len(one.records) != 1)}"
    return f"{one.name} ({records}{f'; {made}' if made else ''})"


def _told(one: LeftVideo) -> str:
    name = f"{one.source or NO_SOURCE}, {one.uid}: " if one.uid else ""
    return _short(f"{name}{one.reason}")


def _short(text: str) -> str:
    text = visible(text[: MOST_CHARACTERS + 1])
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
