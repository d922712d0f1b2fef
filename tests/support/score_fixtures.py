"""What the tests of scores share."""

from __future__ import annotations

import numpy as np

from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.score import Embeddings

HALF = (0.5, 0.5)


def words_apart(sessions: list[SessionRows]) -> Embeddings:
    """An encoder for which equal texts say the same and different ones have nothing in common."""
    texts = sorted({item.response for session in sessions for item in session.items.values() if item.response})
    return {text: vector.astype(np.float32) for text, vector in zip(texts, np.eye(len(texts)), strict=True)}
