"""The judge's part of an evaluation: sessions and predictions as transcripts, votes as counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.judge.agreement import agreement
from prospect_hf.evaluation.judge.judge import JudgedSession, Line, judge_counts, judge_sessions
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.scored_run import ScoredRun
from prospect_hf.llm.client import LLMClient
from prospect_hf.metrics.counts import Counts


@dataclass(frozen=True)
class Judged:
    """The marks that a judge gave to a run.

    Args:
        counts: of each session.
        votes: by session id: ``votes`` (mark -> 1 to 5 each) and ``reasons``.
        agreement: ``judge_exact`` and so on; None where there is one vote only, or where the judge is asked at
            temperature 0, where all votes are copies of one.
    """

    counts: list[Counts]
    votes: dict[str, dict[str, Any]]
    agreement: dict[str, float | None]


def judge_run(client: LLMClient, votes: int, run: ScoredRun) -> Judged:
    """Ask the judge for its votes on the dialogue of each session of ``run``."""
    judged = [judged_session(scored.session, scored.prediction, run.fps) for scored in run.sessions]
    judgements = judge_sessions(client, judged, votes)
    agreed = agreement(judgements)
    if not client.arguments.temperature:
        agreed = dict.fromkeys(agreed)
    return Judged(
        [judge_counts(judgement) for judgement in judgements],
        {one.session_id: {"votes": list(one.votes), "reasons": list(one.reasons)} for one in judgements},
        {f"judge_{name}": value for name, value in agreed.items()},
    )


def judged_session(session: SessionRows, prediction: Prediction, fps: float) -> JudgedSession:
    """Reference and prediction as transcripts; the time of an utterance is the end of its frame."""

    def lines(said: Mapping[int, str]) -> tuple[Line, ...]:
        user = [(at, Line((at + 1) / fps, "user", i.user_text)) for at, i in session.items.items() if i.user_text]
        ours = [(at, Line((at + 1) / fps, "assistant", text)) for at, text in said.items()]
        return tuple(line for _, line in sorted([*user, *ours], key=lambda pair: pair[0]))

    reference = {at: item.response for at, item in session.items.items() if item.response}
    return JudgedSession(
        session.session_id, session.goal, tuple(session.steps), lines(reference), lines(prediction.spoken)
    )
