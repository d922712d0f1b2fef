"""A run scored: the predictions of one run beside their sessions, with the counts of each."""

from __future__ import annotations

from collections.abc import Sequence

from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.score import Embeddings
from prospect_hf.metrics.counts import Counts
from prospect_hf.sessions import recording_id


class ScoredRun:
    """The predictions of one run beside their sessions.

    Args:
        sessions, predictions, counts: one each.
        fps: frames a second.
        embeddings: of all utterances, None without a sentence encoder.
    """

    def __init__(
        self,
        sessions: Sequence[SessionRows],
        predictions: Sequence[Prediction],
        counts: Sequence[Counts],
        fps: float,
        embeddings: Embeddings | None,
    ) -> None:
        self.sessions, self.predictions, self.counts = list(sessions), list(predictions), list(counts)
        self.fps, self.embeddings = fps, embeddings
        self.recordings = [f"{one.source} {recording_id(one.source, one.video_uid)}" for one in self.sessions]

    def of_source(self, source: str) -> ScoredRun:
        """The part of one source."""
        chosen = [index for index, session in enumerate(self.sessions) if session.source == source]
        return ScoredRun(
            [self.sessions[index] for index in chosen],
            [self.predictions[index] for index in chosen],
            [self.counts[index] for index in chosen],
            self.fps,
            self.embeddings,
        )
