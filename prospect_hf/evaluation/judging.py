"""The judge's part of an evaluation: sessions and predictions as transcripts, marks as counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prospect_hf.data.rows import SessionRows
from prospect_hf.evaluation.judge import JudgedSession, Line, agreement, judge_counts, judge_sessions
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.sums import Counts
from prospect_hf.llm import LLMClient


def add_judgements(
    client: LLMClient,
    votes: int,
    sessions: Sequence[SessionRows],
    predictions: Sequence[Prediction],
    counts: Sequence[Counts],
    fps: float,
) -> float | None:
    """Let the judge vote on each session's dialogue, add the marks to its counts, and return the votes' agreement."""
    judged = [judged_session(session, made, fps) for session, made in zip(sessions, predictions, strict=True)]
    judgements = judge_sessions(client, judged, votes)
    for of_session, judgement in zip(counts, judgements, strict=True):
        of_session |= judge_counts(judgement)
    return agreement(judgements)["alpha"]


def judged_session(session: SessionRows, prediction: Prediction, fps: float) -> JudgedSession:
    """Reference and prediction as transcripts; an utterance on frame i is heard at its end."""

    def lines(said: Mapping[int, str]) -> tuple[Line, ...]:
        user = [(at, Line((at + 1) / fps, "user", i.user_text)) for at, i in session.items.items() if i.user_text]
        ours = [(at, Line((at + 1) / fps, "assistant", text)) for at, text in said.items()]
        return tuple(line for _, line in sorted([*user, *ours], key=lambda pair: pair[0]))

    reference = {at: item.response for at, item in session.items.items() if item.response}
    return JudgedSession(
        session.session_id, session.goal, tuple(session.steps), lines(reference), lines(prediction.spoken)
    )
