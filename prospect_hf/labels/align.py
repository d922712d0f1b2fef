"""State labels without a language model: matches annotated segments with the plan's steps by words and order.

Annotated segments describe actions and their times, in other words than the plan. A dynamic programme assigns each
top-level segment to one step or to none: it maximises the summed word similarity under the condition that steps do not
go backwards in time. A step lasts from the start of its first segment to the end of its last one.
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
from prospect_hf.labels.spans import Span
from prospect_hf.sessions import Step

# A segment is assigned to a step only where their similarity is at least this.
MIN_SIMILARITY = 0.2
# Added to the similarity where segment and step open with the same word, usually the verb.
SAME_VERB = 0.15

_SEGMENT = re.compile(r"^\[?(\d+(?:\.\d+)?)s\s*-\s*(\d+(?:\.\d+)?)s\]?:?\s+(.+)$")
_REMARK = re.compile(r"\((?:mistake|correction|error)\b.*$", re.IGNORECASE)
_PSEUDO_STEPS = ("start", "done")
_STOP_WORDS = frozenset(
    """a an and as at be by for from in into is it its of off on onto or other out some that the their them then this
    through to together up use user using with you your""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Segment:
    """One annotated top-level segment, in seconds. ``undoes`` marks mistakes and corrections."""

    start: float
    end: float
    text: str
    undoes: bool


@dataclass(frozen=True)
class Alignment:
    """The result of an alignment.

    Args:
        spans: step spans in plan order.
        segments: the annotated segments, by time.
        assigned: ``assigned[i]`` is the step of segment i, or None.
        unusable: number of segment lines whose end is not after their start; they are not in ``segments``.
    """

    spans: tuple[Span, ...]
    segments: tuple[Segment, ...]
    assigned: tuple[int | None, ...]
    unusable: int


def parse_segments(descriptions: str) -> tuple[tuple[Segment, ...], int]:
    """The top-level segments of ``all_step_descriptions`` by time, and the number of lines with an empty interval.

    A line reads ``[94.4s-105.2s] attach wheel``; some records have no brackets. Child lines (which open with a dash),
    summaries and the pseudo-steps ``start`` and ``Done`` are ignored.
    """
    segments: list[Segment] = []
    unusable = 0
    for line in descriptions.splitlines():
        match = _SEGMENT.match(line)
        if match is None:
            continue
        start, end, text = float(match[1]), float(match[2]), match[3].strip()
        if text.lower() in _PSEUDO_STEPS:
            continue
        if end <= start:
            unusable += 1
            continue
        segments.append(Segment(start, end, _REMARK.sub("", text).strip(), _REMARK.search(text) is not None))
    segments.sort(key=lambda segment: (segment.start, segment.end))
    return tuple(segments), unusable


def _words(text: str) -> list[str]:
    return [_stem(word) for word in re.findall(r"[^\W\d_]+", text.lower()) if word not in _STOP_WORDS]


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


def align(descriptions: str, steps: Sequence[Step], origin: str) -> Alignment:
    """Match the annotated segments in ``descriptions`` to ``steps``; ``origin`` names the record in messages.

    Mistakes and corrections are assigned to no step. A step without a segment has no span. Raises ``DataError`` where
    there is no segment, or no step has one.
    """
    segments, unusable = parse_segments(descriptions)
    if not segments:
        raise DataError(f"{origin}: all_step_descriptions has no valid segment line such as '[1.0s-2.5s] turn it'.")
    gain = similarity([segment.text for segment in segments], steps) - MIN_SIMILARITY
    gain[[segment.undoes for segment in segments]] = -1.0
    assigned = _monotone(gain)
    spans: list[Span] = []
    for step in range(len(steps)):
        mine = [segment for segment, owner in zip(segments, assigned, strict=True) if owner == step]
        if mine:
            spans.append(Span(step, min(one.start for one in mine), max(one.end for one in mine)))
    if not spans:
        raise DataError(f"{origin}: none of the {len(segments)} annotated segments matches a step of the plan.")
    return Alignment(tuple(spans), segments, tuple(assigned), unusable)
