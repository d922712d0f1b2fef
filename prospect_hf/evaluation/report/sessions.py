"""What a run shows of single sessions: delays of its pairs, and the best and worst sessions as they are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from prospect_hf.evaluation.score import figures, match_session
from prospect_hf.evaluation.scored_run import ScoredRun
from prospect_hf.metrics.catalogue import TOLERANCES_S
from prospect_hf.metrics.counts import plain
from prospect_hf.metrics.events import match_events, match_transitions
from prospect_hf.metrics.states import transitions

SHOWN = 10
DELAYS = 2000


def delays(evaluated: ScoredRun) -> dict[str, list[float]]:
    """Seconds from reference to prediction over pairs within the widest tolerance, ``DELAYS`` of each kind at most."""
    widest = int(max(TOLERANCES_S) * evaluated.fps)
    moves: list[tuple[int, int]] = []
    words: list[tuple[int, int]] = []
    for session, prediction in zip(evaluated.sessions, evaluated.predictions, strict=True):
        table = prediction.states if prediction.table is None else prediction.table
        if session.labelled:
            moves += match_transitions(transitions(table), transitions(session.states_after), widest)
        wanted = np.flatnonzero(session.speaking == 1).tolist()
        words += match_events(sorted(prediction.spoken), wanted, widest)
    found = {}
    for name, pairs in (("transition", moves), ("speaking", words)):
        late = np.array([predicted - reference for predicted, reference in pairs], np.float64) / evaluated.fps
        if len(late) > DELAYS:  # every so manieth of the sorted ones keeps the histogram's shape
            late = np.sort(late)[np.linspace(0, len(late) - 1, DELAYS).astype(int)]
        found[name] = late.tolist()
    return found


def shown_sessions(evaluated: ScoredRun) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
    """The best and the worst sessions, ``SHOWN`` of each at most and each once, and what they are ranked by."""
    talk = ("speaking_f1_1s", "speaking F1 within 1 s")
    if evaluated.embeddings is not None:
        talk = ("matching_f1", "stream-matching F1")
    offline = evaluated.predictions[0].table is None
    state = "joint_state_accuracy" if offline else "table_joint_state_accuracy"
    if offline:
        talk = ("speaking_f1", "speaking F1 on the frame")
    ranks = []
    for index, counts in enumerate(evaluated.counts):
        of_session = plain(figures(counts))
        known = [value for value in (of_session.get(state), of_session.get(talk[0])) if value is not None]
        if known:
            ranks.append((sum(known) / len(known), index))
    ranks.sort(key=lambda rank: (-rank[0], evaluated.sessions[rank[1]].session_id))
    half = min(SHOWN, (len(ranks) + 1) // 2)
    best, worst = ranks[:half], ranks[half:][::-1][:SHOWN]
    words = f"mean of joint state accuracy{'' if offline else ' of the table'} and {talk[1]}"
    return [view(evaluated, *rank) for rank in best], [view(evaluated, *rank) for rank in worst], words


def view(evaluated: ScoredRun, score: float, index: int) -> dict[str, Any]:
    """A session as its timeline is drawn."""
    session, prediction = evaluated.sessions[index], evaluated.predictions[index]
    table = prediction.states if prediction.table is None else prediction.table
    wanted, said = np.flatnonzero(session.speaking == 1).tolist(), sorted(prediction.spoken)
    verdicts: list[list[str | None]] = [[None] * len(said), [None] * len(wanted)]
    if evaluated.embeddings is not None and prediction.table is not None:
        match = match_session(session, prediction, evaluated.fps, evaluated.embeddings)
        verdicts = [["redundant"] * len(said), ["missed"] * len(wanted)]
        for (ours, theirs), correct in zip(match.matched, match.correct, strict=True):
            verdicts[0][ours] = verdicts[1][theirs] = "correct" if correct else "wrong"
    return {
        "id": session.session_id,
        "source": session.source,
        "goal": session.goal,
        "score": round(score, 4),
        "frames": len(session),
        "fps": evaluated.fps,
        "first_frame": session.first_frame,
        "steps": session.steps,
        "reference_states": [list(move) for move in transitions(session.states_after)] if session.labelled else None,
        "predicted_states": [list(move) for move in transitions(table)],
        "p_speak": np.round(prediction.p_speak, 3).tolist(),
        "p_update": np.round(prediction.p_update, 3).tolist(),
        "said": [
            {"frame": frame, "text": prediction.spoken[frame], "verdict": verdict}
            for frame, verdict in zip(said, verdicts[0], strict=True)
        ],
        "reference": [
            {"frame": frame, "text": session.item(frame).response, "verdict": verdict}
            for frame, verdict in zip(wanted, verdicts[1], strict=True)
        ],
        "user": [
            {"frame": frame, "text": item.user_text} for frame, item in sorted(session.items.items()) if item.user_text
        ],
    }
