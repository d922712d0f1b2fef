"""What the tests of scores share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.score import Embeddings, score_session
from prospect_hf.evaluation.scored_run import ScoredRun
from prospect_hf.metrics.counts import Counts

HALF = (0.5, 0.5)


def tally(session: SessionRows, prediction: Prediction, *settings: Any) -> Counts:
    """The counts of a scored session."""
    return score_session(session, prediction, *settings).counts


def scored_run(
    sessions: Sequence[SessionRows], predictions: Sequence[Prediction], embeddings: Embeddings | None = None
) -> ScoredRun:
    """A run at 2 frames a second and thresholds of one half; with embeddings, their texts are the corpus."""
    frequencies = None
    if embeddings is not None:
        pytest.importorskip("nltk")
        pytest.importorskip("rouge_score")
        from prospect_hf.metrics.texts import document_frequencies

        frequencies = document_frequencies(list(embeddings))
    pairs = zip(sessions, predictions, strict=True)
    return ScoredRun(
        [score_session(one, made, 2.0, HALF, "reopen", embeddings, frequencies) for one, made in pairs], 2.0
    )


def words_apart(sessions: list[SessionRows]) -> Embeddings:
    """An encoder for which equal texts say the same and different ones have nothing in common."""
    texts = sorted({item.response for session in sessions for item in session.items.values() if item.response})
    return {text: vector.astype(np.float32) for text, vector in zip(texts, np.eye(len(texts)), strict=True)}
