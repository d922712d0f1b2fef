"""The table that an evaluation prints: one column a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prospect_hf.metrics.catalogue import FIGURES
from prospect_hf.tables import table
from prospect_hf.terminal import visible

MAIN = (
    "joint_state_accuracy",
    "table_joint_state_accuracy",
    "state_macro_f1",
    "speaking_average_precision",
    "speaking_f1_1s",
    "dst_update_f1_1s",
    "table_transition_f1_1s",
    "table_transition_abs_delay_s",
    "illegal_transitions_per_hour",
    "matching_precision",
    "matching_recall",
    "matching_f1",
    "matching_time_diff_s",
    "matching_pairs",
    "response_exact_match",
    "text_exact_match",
    "names_right_part",
    "response_bleu",
    "text_bleu4",
    "text_similarity",
    "perplexity",
    "token_accuracy",
    "fluency",
    "judge_overall",
)


# With more runs than this, the intervals do not fit on a screen.
WIDE = 5


def overview_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """The main figures over all sources, one column a run; – is undefined.

    With at most ``WIDE`` runs, each figure is followed by half the width of its 95 % interval.
    """
    rows = [["", *(run["name"].removeprefix("stream, ").removeprefix("baseline, ") for run in runs)]]
    for name in MAIN:
        scores = [run["scores"]["all"].get(name) for run in runs]
        if any(score is not None for score in scores):
            figure = FIGURES[name]
            cells = [_cell(score, figure.digits, len(runs) <= WIDE) for score in scores]
            rows.append([f"{figure.group}: {figure.label}", *cells])
    sessions = len(runs[0]["sessions"])
    stamp = runs[0]["stamp"]
    head = visible(f"{sessions} sessions of {stamp['data']} ({stamp['split']}), encoder: {stamp['encoder'] or 'none'}")
    return f"\n{head}\n{table(rows)}"


def _cell(score: Mapping[str, float | None] | None, digits: int, intervals: bool) -> str:
    if score is None:
        return ""
    if score["value"] is None:
        return "–"
    if not intervals or score["low"] is None or score["high"] is None:
        return f"{score['value']:.{digits}f}"
    return f"{score['value']:.{digits}f} ±{(score['high'] - score['low']) / 2:.{digits}f}"
