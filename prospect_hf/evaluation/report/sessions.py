"""The sessions of a run in ``results.json``: their figures, their rank, and what their timelines show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prospect_hf.evaluation.score import figures
from prospect_hf.evaluation.scored_run import ScoredRun, ScoredSession, Utterance
from prospect_hf.metrics.counts import plain
from prospect_hf.metrics.states import transitions
from tracking_dst_smolvlm import session_deviations

# The figures of each single session, in the order of the sessions' table.
SESSION_FIGURES = (
    "table_joint_state_accuracy",
    "joint_state_accuracy",
    "speaking_f1_1s",
    "matching_f1",
    "response_exact_match",
    "names_right_part",
)
PROBABILITY_UNITS = 1000  # probabilities are whole numbers of 1 / 1000
DELAYS = 2000


def delays(run: ScoredRun) -> dict[str, list[float]]:
    """Seconds from reference to prediction over pairs within the widest tolerance, ``DELAYS`` of each kind at most."""
    found = {}
    for name, pairs in (
        ("transition", [delay for scored in run.sessions for delay in scored.transition_delays_s]),
        ("speaking", [delay for scored in run.sessions for delay in scored.speaking_delays_s]),
    ):
        late = np.array(pairs, np.float64)
        if len(late) > DELAYS:  # evenly spaced ones of the sorted delays keep the histogram's shape
            late = np.sort(late)[np.linspace(0, len(late) - 1, DELAYS).astype(int)]
        found[name] = late.tolist()
    return found


def session_figures(scored: ScoredSession) -> dict[str, float | None]:
    """The session's own ``SESSION_FIGURES``, None where undefined; one that was not computed is left out."""
    found = plain(figures(scored.counts))
    return {name: found[name] for name in SESSION_FIGURES if name in found}


def session_scores(run: ScoredRun) -> tuple[list[float | None], str]:
    """The score that ranks each session, None where nothing is defined, and what the score is, in words."""
    tracked = run.sessions[0].tracked
    state, speech = "joint_state_accuracy", ("speaking_f1", "speaking F1 on the frame")
    if tracked:
        state = "table_joint_state_accuracy"
        speech = ("speaking_f1_1s", "speaking F1 within 1 s")
        if "matching_matched" in run.sessions[0].counts:
            speech = ("matching_f1", "stream-matching F1")
    scores: list[float | None] = []
    for scored in run.sessions:
        found = plain(figures(scored.counts))
        known = [value for value in (found.get(state), found.get(speech[0])) if value is not None]
        scores.append(sum(known) / len(known) if known else None)
    return scores, f"mean of joint state accuracy{' of the table' if tracked else ''} and {speech[1]}"


def session_views(run: ScoredRun, scores: Sequence[float | None]) -> list[dict[str, Any]]:
    """What the timeline of each session shows: the worst session first, those without a score last."""
    order = sorted(
        zip(run.sessions, scores, strict=True),
        key=lambda pair: (pair[1] is None, pair[1] or 0.0, pair[0].session.session_id),
    )
    return [view(scored, run.fps, score) for scored, score in order]


def view(scored: ScoredSession, fps: float, score: float | None) -> dict[str, Any]:
    """What the timeline of one session shows."""
    session, prediction = scored.session, scored.prediction
    table = prediction.states if prediction.table is None else prediction.table
    return {
        "id": session.session_id,
        "source": session.source,
        "goal": session.goal,
        "score": None if score is None else round(score, 4),
        "frames": len(session),
        "fps": fps,
        "first_frame": session.first_frame,
        "steps": session.steps,
        "reference_states": [list(move) for move in transitions(session.states_after)] if session.labelled else None,
        "predicted_states": [list(move) for move in transitions(table)],
        "deviations": [] if prediction.table is None else _deviations(table),
        "reference_deviations": _deviations(session.states_after) if session.labelled else None,
        "p_speak": _units(prediction.p_speak),
        "p_update": _units(prediction.p_update),
        "said": [_utterance(one) for one in scored.said],
        "reference": [_utterance(one) for one in scored.reference],
        "user": [
            {"frame": frame, "text": item.user_text} for frame, item in sorted(session.items.items()) if item.user_text
        ],
    }


def _deviations(states: NDArray[Any]) -> list[tuple[int, int, str]]:
    """(frame, step, words) of the deviations from the plan in ``states`` ``[frames, steps]``."""
    return [(frame, one.step, str(one)) for frame, one in session_deviations(states.tolist(), states.shape[1])]


def _units(probabilities: NDArray[Any]) -> list[int]:
    whole: list[int] = np.round(np.asarray(probabilities, np.float64) * PROBABILITY_UNITS).astype(int).tolist()
    return whole


def _utterance(one: Utterance) -> Mapping[str, Any]:
    """An utterance; partner, cosine and exact are given for pairs alone."""
    shown: dict[str, Any] = {"frame": one.frame, "text": one.text, "verdict": one.verdict}
    if one.partner is not None and one.cosine is not None:
        shown |= {"partner": one.partner, "cosine": round(one.cosine, 3), "exact": one.exact}
    return shown
