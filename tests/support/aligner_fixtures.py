"""A sentence encoder and an aligner for tests: deterministic, made in no time, and without a package of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from prospect_hf.align import named
from prospect_hf.align.alignment import Alignment, Task, Visit
from prospect_hf.labels.spans import Span
from prospect_hf.words import words

SIZE = 64


class WordHashEncoder:
    """The embedding of a text is the sum of a random vector for each of its words, which the word's hash determines."""

    def __init__(self, name: str, cache_dir: Path | None = None) -> None:
        self.identity = f"{name} @ 0123456789ab"

    def __call__(self, texts: Iterable[str]) -> dict[str, np.ndarray]:
        return {text: self._vector(text) for text in texts}

    def _vector(self, text: str) -> np.ndarray:
        vector = np.full(SIZE, 1e-3)
        for word in words(text):
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
            vector += np.random.default_rng(seed).normal(size=SIZE)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


class FixedAligner:
    """Gives every task the same visits, ``(step, start, end)`` each."""

    def __init__(self, visits: Sequence[tuple[int, float, float | None]]) -> None:
        self.visits = visits

    def __call__(self, task: Task) -> Alignment:
        visits = (Visit(Span(*visit), (0,), 0.5, "fixed") for visit in self.visits)
        return Alignment(tuple(visits), {}, 0.5)


def use_word_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sentence encoder of an aligner is a ``WordHashEncoder``, whether packages are installed or not."""
    named.named_aligner.cache_clear()
    monkeypatch.setattr(named, "SentenceEncoder", WordHashEncoder)
    monkeypatch.setattr(named, "PACKAGED", {})
    monkeypatch.setattr(named, "NEEDED", {})
