"""An aligner that needs no encoder: matches annotated segments with the plan's steps by words and order.

Annotated segments describe actions and their times, in other words than the plan. A dynamic programme assigns each
top-level segment to one step or to none: it maximises the summed word similarity under the condition that steps do not
go backwards in time. A step lasts from the start of its first segment to the end of its last one.

Order alone must not make a match: "attach roof" is no part of "Attach the wheels", even where the roof cannot come
next. So a segment can be assigned only to a step with all words that it shares with the step most similar to it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prospect_hf.align.alignment import Alignment, Task, Visit
from prospect_hf.align.similarity import content_words
from prospect_hf.errors import DataError
from prospect_hf.labels.segments import reasons
from prospect_hf.labels.spans import Span
from prospect_hf.sessions import Step

NAME = "words"
# Changes whenever the same annotation could get other labels.
REVISION = 2
# A segment is assigned to a step only where their similarity is at least this.
MIN_SIMILARITY = 0.2
# Added to the similarity where segment and step open with the same word, usually the verb.
SAME_VERB = 0.15

# No alignment by words is surer than this: on Ego4D Goal-Step and HoloAssist, 44 % and 23 % of the frames are right.
MOST_CONFIDENCE = 0.5

# Why a segment is assigned to no step.
UNDOES = "a mistake or its correction"
NO_MATCH = "matches no step"
OUT_OF_ORDER = "matches no step in order"


def similarity(texts: Sequence[str], steps: Sequence[Step]) -> NDArray[np.float64]:
    """Cosine similarity ``[texts, steps]`` of word sets, with words weighted by inverse document frequency.

    The steps of the plan are the documents: weight = log(1 + steps / (1 + steps that use the word)). ``SAME_VERB`` is
    added where text and step open with the same word.
    """
    plan = [content_words(step.text) for step in steps]
    used = Counter(word for words in plan for word in set(words))

    def norm(words: set[str]) -> float:
        return math.sqrt(sum(weight(word) ** 2 for word in sorted(words)))

    def weight(word: str) -> float:
        return math.log(1 + len(steps) / (1 + used[word]))

    table = np.zeros((len(texts), len(steps)))
    for row, text in enumerate(texts):
        words = content_words(text)
        for column, step in enumerate(plan):
            shared = norm(set(words) & set(step))
            if shared:
                cosine = shared**2 / (norm(set(words)) * norm(set(step)))
                table[row, column] = cosine + (SAME_VERB if words[0] == step[0] else 0.0)
    return table


def matches(texts: Sequence[str], steps: Sequence[Step], table: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which steps a text can mean, ``[texts, steps]``, from its similarities ``table``.

    A step can be meant if it has all words that the text shares with its most similar step (one of them, where several
    are equally similar), and if the similarity is at least ``MIN_SIMILARITY``. The plan's order chooses between them.
    """
    plan = [set(content_words(step.text)) for step in steps]
    can_mean = table >= MIN_SIMILARITY
    for row, text in enumerate(texts):
        words = set(content_words(text))
        closest = np.flatnonzero(np.isclose(table[row], table[row].max(), rtol=0, atol=1e-9))
        shared = [words & plan[column] for column in closest]
        for column in np.flatnonzero(can_mean[row]):
            can_mean[row, column] = any(needed <= plan[column] for needed in shared)
    return can_mean


def _monotone(gain: NDArray[np.float64]) -> list[int | None]:
    """Assign each row to a column or to None (gain 0): columns do not decrease, and the summed gain is largest."""
    rows, columns = gain.shape
    best = np.zeros((rows + 1, columns))  # best[i, k]: largest gain of the first i rows with columns up to k
    for row in range(rows):
        best[row + 1] = np.maximum.accumulate(np.maximum(best[row], best[row] + gain[row]))
    assigned: list[int | None] = [None] * rows
    column = columns - 1
    for row in reversed(range(rows)):
        while column > 0 and best[row + 1, column] == best[row + 1, column - 1]:
            column -= 1
        if best[row + 1, column] != best[row, column]:
            assigned[row] = column
    return assigned


def assign(
    texts: Sequence[str], steps: Sequence[Step], undoes: Sequence[bool]
) -> tuple[list[int | None], list[str | None]]:
    """The step of each text, which stand in the order of their times, or None; and why it has none, or None.

    ``undoes`` marks texts that mean no step, whatever their words.
    """
    table = similarity(texts, steps)
    can_mean = matches(texts, steps, table)
    can_mean[list(undoes)] = False
    assigned = _monotone(np.where(can_mean, table - MIN_SIMILARITY, -1.0))
    why = [
        None if owner is not None else UNDOES if undone else OUT_OF_ORDER if can_mean[row].any() else NO_MATCH
        for row, (undone, owner) in enumerate(zip(undoes, assigned, strict=True))
    ]
    return assigned, why


class WordAligner:
    """Assigns segments to steps by their words; a step is one visit, from its first segment to its last one.

    Mistakes and corrections are assigned to no step, nor is a segment that matches no step in order.
    """

    version = f"{NAME} {REVISION}"

    def __call__(self, task: Task) -> Alignment:
        """The alignment of a task.

        Raises:
            DataError: there is no segment, or no step has one.
        """
        lines = task.annotation.lines
        order = [place for place, line in enumerate(lines) if line.kind == "segment"]
        order.sort(key=lambda place: (lines[place].start, _end(task, place)))
        if not order:
            counted = reasons(Counter(line.reason for line in task.annotation.left_out))
            raise DataError(
                f"{task.origin}: all_step_descriptions has no valid segment line such as '[1.0s-2.5s] turn it'"
                f"{f' (left out: {counted})' if counted else ''}."
            )
        texts = [lines[place].text for place in order]
        assigned, why = assign(texts, task.steps, [lines[place].remark is not None for place in order])
        abstained = {place: reason for place, reason in zip(order, why, strict=True) if reason is not None}
        if len(abstained) == len(order):
            raise DataError(
                f"{task.origin}: none of the {len(order)} annotated segments matches a step of the plan "
                f"({reasons(Counter(abstained.values()))})."
            )
        table = similarity(texts, task.steps)
        visits = []
        for step in range(len(task.steps)):
            mine = [row for row, owner in enumerate(assigned) if owner == step]
            if mine:
                places = tuple(order[row] for row in mine)
                span = Span(step, lines[places[0]].start, max(_end(task, place) for place in places))
                alike = min(1.0, float(table[mine, step].mean()))
                visits.append(Visit(span, places, MOST_CONFIDENCE * alike, NAME))
        visits.sort(key=lambda visit: (visit.span.start, visit.span.step))
        seconds = [_end(task, place) - lines[place].start for place in order]
        if not any(seconds):  # where no segment lasts, each counts the same
            seconds = [1.0] * len(order)
        taken = sum(length for length, owner in zip(seconds, assigned, strict=True) if owner is not None)
        return Alignment(tuple(visits), abstained, MOST_CONFIDENCE * taken / sum(seconds))


def _end(task: Task, place: int) -> float:
    """The end of a segment, which always has one."""
    end = task.annotation.lines[place].end
    assert end is not None
    return end
