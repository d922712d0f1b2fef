"""Does an utterance name the right part? Checked with the words that tell the steps of the plan apart.

"Screw the yellow tile onto the wall" and "Screw the yellow wedge onto the wall" have nearly equal sentence embeddings,
so stream matching pairs them. One word makes the first sentence an instruction for another step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prospect_hf.metrics.counts import Counts, Figures, Sums, ratio
from prospect_hf.words import words


def step_words(steps: Sequence[str]) -> frozenset[str]:
    """The words that occur in some of the steps but not in all of them: they tell the steps apart.

    Words are those of :mod:`prospect_hf.words`. A plan of one step has none.
    """
    of_steps = [frozenset(words(step)) for step in steps]
    every: frozenset[str] = frozenset().union(*of_steps)
    return every - frozenset.intersection(*of_steps) if of_steps else every


def named_part_counts(pairs: Iterable[tuple[str, str]], steps: Sequence[str]) -> Counts:
    """``parts_named`` and ``parts_right`` of one session.

    With D the :func:`step_words` of the plan and W(text) the words of a text, a pair (prediction, reference) counts
    where ``W(reference) & D`` is not empty, and is right where ``W(prediction) & D == W(reference) & D``. The order and
    the number of the words do not matter. Every word of D counts, also "the" where only some of the steps have it.

    Args:
        pairs: (prediction, reference) texts of the matched pairs.
        steps: of the plan.
    """
    telling = step_words(steps)
    named = right = 0
    for prediction, reference in pairs:
        wanted = telling.intersection(words(reference))
        named += bool(wanted)
        right += bool(wanted) and telling.intersection(words(prediction)) == wanted
    return {"parts_named": float(named), "parts_right": float(right)}


def named_part_figures(sums: Sums) -> Figures:
    """``names_right_part = parts_right / parts_named``, NaN where no reference of a pair names a part."""
    return {"names_right_part": ratio(sums["parts_right"], sums["parts_named"])}
