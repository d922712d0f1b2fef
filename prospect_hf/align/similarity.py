"""How similar the texts of a video's segments are to the steps of its plan: by meaning, and by shared words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from prospect_hf.words import words

Floats = NDArray[np.float64]
_LETTERS = re.compile("[a-z]+")
_STOP_WORDS = frozenset(
    """a an and as at be by for from in into is it its of off on onto or other out some that the their them then this
    through to together up use user using with you your""".split()  # noqa: SIM905
)


class Encode(Protocol):
    """What ``metrics.encoders.SentenceEncoder`` is: ``identity`` names the encoder and its weights."""

    @property
    def identity(self) -> str: ...

    def __call__(self, texts: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """The embedding ``[size]``, of length 1, of each distinct text."""
        ...


def embeddings(texts: Sequence[str], encode: Encode) -> Floats:
    """The embeddings ``[texts, size]``."""
    vectors = encode(texts)
    return np.stack([vectors[text] for text in texts]).astype(np.float64)


def unit(vectors: Floats) -> Floats:
    """``vectors [texts, size]`` at length 1; those of length 0 stay so."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.where(lengths > 1e-6, vectors / np.maximum(lengths, 1e-6), 0.0), np.float64)


def centred(table: Floats) -> Floats:
    """``table [texts, steps]`` without what a text or a step has in common with everything; its mean is 0."""
    return np.asarray(table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean(), np.float64)


def cohesion(alike: Floats, longest: int) -> Floats:
    """How alike the texts of each run are, ``[texts, longest]``: the sum over its pairs divided by its texts.

    ``alike [texts, texts]`` is symmetric. A run of n texts that are all the same has (n - 1) / 2, one text 0.
    """
    count = len(alike)
    first = np.arange(count)[:, None]
    end = np.minimum(first + 1 + np.arange(longest), count)
    total = np.zeros((count + 1, count + 1))
    total[1:, 1:] = alike.cumsum(0).cumsum(1)
    own = np.append(0.0, np.diag(alike).cumsum())
    block = total[end, end] - 2 * total[first, end] + total[first, first]
    return np.asarray((block - (own[end] - own[first])) / (2 * (end - first)), np.float64)


def best_of_runs(table: Floats, longest: int) -> Floats:
    """The largest value ``[texts, longest, steps]`` of ``table [texts, steps]`` in each run, cut at the last text."""
    last = np.minimum(np.arange(len(table))[:, None] + np.arange(longest), len(table) - 1)
    return np.asarray(np.maximum.accumulate(table[last], axis=1), np.float64)


def word_similarity(texts: Sequence[str], steps: Sequence[str]) -> Floats:
    """Cosine similarity ``[texts, steps]`` of the sets of words, which weigh more the fewer steps have them.

    The steps are the documents: weight = log(1 + steps / steps that have the word).
    """
    plan = [set(content_words(step)) for step in steps]
    used = Counter(word for step in plan for word in step)

    def norm(some: set[str]) -> float:
        return math.sqrt(sum(math.log(1 + len(steps) / max(used[word], 1)) ** 2 for word in sorted(some)))

    norms = [norm(step) for step in plan]
    table = np.zeros((len(texts), len(steps)))
    for row, text in enumerate(texts):
        own = set(content_words(text))
        for column, step in enumerate(plan):
            if shared := norm(own & step):
                table[row, column] = shared**2 / (norm(own) * norms[column])
    return table


def named_steps(texts: Sequence[str], steps: Sequence[str]) -> Floats:
    """``[texts, steps]``: 1 where a text names a step, else 0; a text names one step at most.

    It names the step that has the same words. If there is none, then the only step that has all of its words, which are
    two at least; if there is none of these either, the step all of whose words it has, and of several the one that has
    all words of the others, and more.
    """
    plan = [set(content_words(step)) for step in steps]
    table = np.zeros((len(texts), len(steps)))
    for row, text in enumerate(texts):
        own = set(content_words(text))
        meant = [column for column, step in enumerate(plan) if step and step == own]
        if not meant and len(own) >= 2:
            meant = [column for column, step in enumerate(plan) if own < step]
        if not meant:
            inside = [column for column, step in enumerate(plan) if step and step < own]
            meant = [one for one in inside if all(plan[other] <= plan[one] for other in inside)]
        if len(meant) == 1:
            table[row, meant[0]] = 1.0
    return table


def content_words(text: str) -> list[str]:
    """The stems of the words of a text that mean something by themselves."""
    # Of English, runs of letters; of other alphabets the words as the metrics know them.
    found = _LETTERS.findall(text.lower()) if text.isascii() else [word for word in words(text) if not word.isdigit()]
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
