"""Tasks for the language-model aligner, generated ones too, and an oracle that answers its questions from the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from prospect_hf.align.alignment import Task
from prospect_hf.annotate.windows import Limits, Row, rows, windows
from prospect_hf.labels.annotation_lines import Annotation, AnnotationLine
from prospect_hf.sessions import Step

STEPS = ("Attach the wheels.", "Attach the roof.", "Test the car.")
# So small that tasks of a few lines have several windows.
SMALL = Limits(rows=5, characters=400, overlap=2)


def segment(start: float, end: float | None, text: str = "work", **fields: Any) -> AnnotationLine:
    """A line; ``kind``, ``parent`` and ``remark`` may be given."""
    return AnnotationLine(0, start, end, text, **fields)


def task_of(lines: Sequence[AnnotationLine], steps: Sequence[str] = STEPS, goal: str = "a toy car") -> Task:
    """The task of a plan and of annotation lines."""
    plan = tuple(Step(f"S{number}", text) for number, text in enumerate(steps, start=1))
    return Task("records.json, record 7", goal, plan, Annotation(tuple(lines)))


def told(steps: int, runs: Mapping[int, Sequence[tuple[int, int]]], certain: str = "sure") -> dict[str, Any]:
    """An answer: the runs (first, last) of each step (0-based)."""
    return {
        f"S{step + 1}": {
            "lines": [{"first": first, "last": last} for first, last in runs.get(step, ())],
            "certain": certain,
        }
        for step in range(steps)
    }


def oracle(task: Task, limits: Limits, truth: Callable[[Row], int | None]) -> list[dict[str, Any]]:
    """Right answers to a task's questions: ``truth`` gives the step of a row that has a number."""
    all_rows = rows(task.annotation)
    answers = []
    for window in windows(all_rows, limits):
        runs: dict[int, list[tuple[int, int]]] = {}
        for row in all_rows[window.start : window.end]:
            step = None if row.number is None else truth(row)
            if row.number is None or step is None:
                continue
            mine = runs.setdefault(step, [])
            if mine and mine[-1][1] == row.number - 1:
                mine[-1] = mine[-1][0], row.number
            else:
                mine.append((row.number, row.number))
        answers.append(told(len(task.steps), runs))
    return answers


@st.composite
def tasks(draw: st.DrawFn, most_lines: int = 30) -> Task:
    """Any plan and annotation: unsorted, overlapping, nested, with speech, mistakes and points in time."""
    lines: list[AnnotationLine] = []
    parents: list[int | None] = [None]
    for _ in range(draw(st.integers(1, most_lines))):
        kind = draw(st.sampled_from(("segment", "segment", "child", "child", "user", "assistant")))
        start = draw(st.integers(0, 400)) / 2
        length = draw(st.integers(1, 150)) / 2
        point = kind != "segment" and draw(st.booleans())
        remark = (
            draw(st.sampled_from((None, None, None, "mistake", "correction"))) if kind in ("segment", "child") else None
        )
        parent = None if kind == "segment" else draw(st.sampled_from(parents))
        if kind == "segment":
            parents.append(len(lines))
        lines.append(
            segment(
                start,
                None if point else start + length,
                f"w{len(lines)}" + "x" * draw(st.sampled_from((0, 0, 40))),
                kind=kind,
                parent=parent,
                remark=remark,
            )
        )
    return task_of(lines, [f"step {number}" for number in range(draw(st.integers(1, 6)))])
