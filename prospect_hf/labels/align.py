"""State labels without a language model: matches annotated segments with the plan's steps by words and order.

Annotated segments describe actions and their times, in other words than the plan. A dynamic programme assigns each
top-level segment to one step or to none: it maximises the summed word similarity under the condition that steps do not
go backwards in time. A step lasts from the start of its first segment to the end of its last one.

Order alone must not make a match: "attach roof" is no part of "Attach the wheels", even where the roof cannot come
next. So a segment can be assigned only to a step with all words that it shares with the step most similar to it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prospect_hf.errors import DataError
from prospect_hf.labels.segments import Segment, parse_segments, reasons
from prospect_hf.labels.spans import Span
from prospect_hf.sessions import Step
from prospect_hf.words import words

# A segment is assigned to a step only where their similarity is at least this.
MIN_SIMILARITY = 0.2
# Added to the similarity where segment and step open with the same word, usually the verb.
SAME_VERB = 0.15

# Why a segment is assigned to no step.
UNDOES = "a mistake or its correction"
NO_MATCH = "matches no step"
OUT_OF_ORDER = "matches no step in order"

_LETTERS = re.compile("[a-z]+")
_STOP_WORDS = frozenset(
    """a an and as at be by for from in into is it its of off on onto or other out some that the their them then this
    through to together up use user using with you your""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Alignment:
    """The result of an alignment.

    Args:
        spans: step spans in plan order.
        segments: the annotated segments, by time.
        assigned: ``assigned[i]`` is the step of segment i, or None.
        abstained: how many segments are assigned to no step, by reason.
        left_out: how many lines with a time are no segment, by reason (see ``parse_segments``).
    """

    spans: tuple[Span, ...]
    segments: tuple[Segment, ...]
    assigned: tuple[int | None, ...]
    abstained: Counter[str]
    left_out: Counter[str]


def _words(text: str) -> list[str]:
    # Of English, runs of letters; of other alphabets the words as the metrics know them.
    found = _LETTERS.findall(text.lower()) if text.isascii() else [w for w in words(text) if not w.isdigit()]
    return [_stem(word) for word in found if word not in _STOP_WORDS]


def _stem(word: str) -> str:
    """The word without its most common endings: wheels -> wheel, attaching and attached -> attach."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word.removesuffix(ending)
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


def similarity(texts: Sequence[str], steps: Sequence[Step]) -> NDArray[np.float64]:
    """Cosine similarity ``[texts, steps]`` of word sets, with words weighted by inverse document frequency.

    The steps of the plan are the documents: weight = log(1 + steps / (1 + steps that use the word)). ``SAME_VERB`` is
    added where text and step open with the same word.
    """
    plan = [_words(step.text) for step in steps]
    used = Counter(word for words in plan for word in set(words))

    def norm(words: set[str]) -> float:
        return math.sqrt(sum(weight(word) ** 2 for word in sorted(words)))

    def weight(word: str) -> float:
        return math.log(1 + len(steps) / (1 + used[word]))

    table = np.zeros((len(texts), len(steps)))
    for row, text in enumerate(texts):
        words = _words(text)
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
    plan = [set(_words(step.text)) for step in steps]
    can_mean = table >= MIN_SIMILARITY
    for row, text in enumerate(texts):
        words = set(_words(text))
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
) -> tuple[list[int | None], Counter[str]]:
    """The step of each text, which stand in the order of their times, or None; and how many have none, by reason.

    ``undoes`` marks texts that mean no step, whatever their words.
    """
    table = similarity(texts, steps)
    can_mean = matches(texts, steps, table)
    can_mean[list(undoes)] = False
    assigned = _monotone(np.where(can_mean, table - MIN_SIMILARITY, -1.0))
    abstained = Counter(
        UNDOES if undone else OUT_OF_ORDER if can_mean[row].any() else NO_MATCH
        for row, (undone, owner) in enumerate(zip(undoes, assigned, strict=True))
        if owner is None
    )
    return assigned, abstained


def align(descriptions: str, steps: Sequence[Step], origin: str) -> Alignment:
    """Match the annotated segments in ``descriptions`` to ``steps``; ``origin`` names the record in messages.

    Mistakes and corrections are assigned to no step, nor is a segment that matches no step in order. A step without a
    segment has no span. Raises ``DataError`` where there is no segment, or no step has one.
    """
    segments, left_out = parse_segments(descriptions)
    if not segments:
        counted = f" (lines with a time: {reasons(left_out)})" if left_out else ""
        raise DataError(
            f"{origin}: all_step_descriptions has no valid segment line such as '[1.0s-2.5s] turn it'{counted}."
        )
    assigned, abstained = assign([one.text for one in segments], steps, [one.undoes for one in segments])
    spans: list[Span] = []
    for step in range(len(steps)):
        mine = [segment for segment, owner in zip(segments, assigned, strict=True) if owner == step]
        if mine:
            spans.append(Span(step, min(one.start for one in mine), max(one.end for one in mine)))
    if not spans:
        raise DataError(
            f"{origin}: none of the {len(segments)} annotated segments matches a step of the plan "
            f"({reasons(abstained)})."
        )
    return Alignment(tuple(spans), segments, tuple(assigned), abstained, left_out)
