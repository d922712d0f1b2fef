"""What a language model's answers say: which numbered lines belong to which step, and the visits that follow.

An answer holds numbers of lines and nothing else that is used, so no time and no step can be invented:
``{"S1": {"lines": [{"first": 3, "last": 5}], "certain": "sure"}, "S2": ...}``, each step of the plan once. The schema
makes a server write all steps in order, and ``AnswerCheck`` finds what a schema cannot say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prospect_hf.align.alignment import Alignment, Task
from prospect_hf.align.by_words import UNDOES
from prospect_hf.annotate.visits import Assigned, mean_confidence, plausibility, visits_of
from prospect_hf.annotate.windows import DEFAULT_LIMITS, Limits, Row, Window, rows, windows
from prospect_hf.errors import DataError
from prospect_hf.llm.answers import mismatch
from prospect_hf.sessions import Step

# What the model's own certainty counts as. A guess, not a measurement: models are surer than they are right.
CERTAINTY = {"sure": 0.9, "likely": 0.7, "guess": 0.4}
# Factor on a line that two windows give to different steps (or one of them to none).
DISPUTED = 0.5
# Faults that are told to the model at a time, and lines that one of them names.
TOLD_FAULTS = 5
TOLD_LINES = 8

# Why a segment belongs to no step.
NOT_GIVEN = "the model gave it to no step"
ONLY_BELOW = "the model gave only lines below it to a step"


def answer_schema(steps: Sequence[Step]) -> dict[str, Any]:
    """The strict JSON schema of an answer: one key for each step, in plan order."""
    number = {"type": "integer"}
    step = _strict({"lines": {"type": "array", "items": _strict({"first": number, "last": number})},
                    "certain": {"type": "string", "enum": list(CERTAINTY)}})  # fmt: skip
    return _strict({one.id: step for one in steps})


def _strict(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


@dataclass(frozen=True)
class AnswerCheck:
    """Finds what is wrong with an answer that fits the schema, in words for the model's next try.

    Args:
        first, last: the numbers that an answer may name.
        whole: whether the window is the whole annotation; then at least one line must be given to a step.
    """

    first: int
    last: int
    whole: bool

    def __call__(self, answer: Mapping[str, Any]) -> str | None:
        """The faults as one clause, or None."""
        faults: list[str] = []
        owners: dict[int, list[str]] = {}
        for step, told in answer.items():
            for run in told["lines"]:
                first, last = run["first"], run["last"]
                if first > last:
                    faults.append(f"in {step}, the lines {first} to {last} end before they begin")
                    continue
                missing = {end for end in (first, last) if not self.first <= end <= self.last}
                if missing:
                    faults += [f"in {step}, line {end} does not exist: {self._known()}" for end in sorted(missing)]
                    continue
                for number in range(first, last + 1):
                    if step not in owners.setdefault(number, []):
                        owners[number].append(step)
        shared: dict[tuple[str, ...], list[int]] = {}
        for number in sorted(owners):
            if len(owners[number]) > 1:
                shared.setdefault(tuple(owners[number]), []).append(number)
        for together, numbers in shared.items():
            faults.append(
                f"{_listed(numbers)} given to {' and to '.join(together)}, but a line belongs to one step at most"
            )
        if not faults and self.whole and not owners:
            faults.append(f"no line is given to any step, but at least one must be: {self._known()}")
        return "; ".join(faults[:TOLD_FAULTS]) if faults else None

    def _known(self) -> str:
        return f"the lines are {self.first} to {self.last}"


def _listed(numbers: Sequence[int]) -> str:
    """Such as "line 4 is", "lines 4, 5, 6 are" or "lines 1, 2, ... (31 in all) are"."""
    if len(numbers) == 1:
        return f"line {numbers[0]} is"
    more = f", ... ({len(numbers)} in all)" if len(numbers) > TOLD_LINES else ""
    return f"lines {', '.join(map(str, numbers[:TOLD_LINES]))}{more} are"


def checks(cut: Sequence[Window]) -> list[AnswerCheck]:
    """The check of each window's answer."""
    return [AnswerCheck(window.first, window.last, len(cut) == 1) for window in cut]


def alignment_from(task: Task, answers: Sequence[Mapping[str, Any]], limits: Limits = DEFAULT_LIMITS) -> Alignment:
    """The alignment that the model's answers describe, one answer for each of the task's questions, in their order.

    The answers are checked again, since they may come from a cache or a file.

    Raises:
        DataError: an answer is missing, does not fit or is wrong, or no line is given to any step.
    """
    all_rows = rows(task.annotation)
    cut = windows(all_rows, limits)
    if len(answers) != len(cut):
        raise DataError(f"{task.origin}: there are {len(answers)} answers to {len(cut)} questions; ask again.")
    schema = answer_schema(task.steps)
    for part, (answer, check) in enumerate(zip(answers, checks(cut), strict=True), start=1):
        fault = mismatch(answer, schema, "the answer") or check(answer)
        if fault is not None:
            where = task.origin if len(cut) == 1 else f"{task.origin} (part {part} of {len(cut)})"
            raise DataError(f"{where}: the model's answer is wrong: {fault}.")
    given = merged(task, all_rows, cut, answers)
    if not given:
        raise DataError(f"{task.origin}: the model gave no line of the annotation to any step of the plan.")
    found = visits_of(task, all_rows, given)
    plausible = plausibility(found, len(task.steps))
    visits = tuple(replace(visit, confidence=plausible * visit.confidence) for visit in found)
    return Alignment(visits, _abstained(task, all_rows, given), mean_confidence(visits))


def merged(
    task: Task, all_rows: Sequence[Row], cut: Sequence[Window], answers: Sequence[Mapping[str, Any]]
) -> dict[int, Assigned]:
    """The step of each line that has one, by its index in ``Annotation.lines``.

    Where windows overlap, a row is decided by the window in which it is farthest from an edge, since that window shows
    most of what lies round it; of two equal ones, by the earlier. A line on which two windows differ is disputed.
    """
    votes: dict[int, list[tuple[int, int | None, float]]] = {}
    for window, answer in zip(cut, answers, strict=True):
        owners = {
            number: (step, CERTAINTY[told["certain"]])
            for step, told in enumerate(answer[one.id] for one in task.steps)
            for run in told["lines"]
            for number in range(run["first"], run["last"] + 1)
        }
        for position in range(window.start, window.end):
            number = all_rows[position].number
            if number is not None:
                from_edge = min(position - window.start, window.end - 1 - position)
                step, confidence = owners.get(number, (None, 0.0))
                votes.setdefault(position, []).append((from_edge, step, confidence))
    given: dict[int, Assigned] = {}
    for position, cast in votes.items():
        _, step, confidence = max(cast, key=lambda vote: vote[0])
        if step is not None:
            agreed = all(other == step for _, other, _ in cast)
            given[all_rows[position].index] = Assigned(step, confidence if agreed else confidence * DISPUTED)
    return given


def _abstained(task: Task, all_rows: Sequence[Row], given: Mapping[int, Assigned]) -> dict[int, str]:
    """Why each segment has no step, by its index."""
    with_lines_below = {all_rows[row.above].index for row in all_rows if row.above is not None and row.index in given}
    reasons: dict[int, str] = {}
    for index, line in enumerate(task.annotation.lines):
        if line.kind == "segment" and index not in given:
            reason = NOT_GIVEN if index not in with_lines_below else ONLY_BELOW
            reasons[index] = UNDOES if line.remark else reason
    return reasons
