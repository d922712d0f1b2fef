"""The table that an evaluation prints: one column a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prospect_hf.evaluation.report.results import SEEN, UNSEEN
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
    "table_transition_f1_2s",
    "chunk_macro_f1",
    "speaking_calibration_error",
    "dst_update_calibration_error",
    "table_transition_abs_delay_s",
    "deviation_f1_2s",
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

    With at most ``WIDE`` runs, each figure is followed by half the width of its 95 % interval. Of more runs, the
    baselines have a table of their own.
    """
    baselines = [run for run in runs if run["stamp"]["mode"] == "baseline"] if len(runs) > WIDE else []
    models = [run for run in runs if run not in baselines]
    sessions = len(runs[0]["sessions"])
    stamp = runs[0]["stamp"]
    head = visible(f"{sessions} sessions of {stamp['data']} ({stamp['split']}), encoder: {stamp['encoder'] or 'none'}")
    parts = [_columns(part, len(runs) <= WIDE) for part in (models, baselines) if part]
    return "\n".join(["", head, "\n\n".join(parts), *_held_out_table(runs)])


def _columns(runs: Sequence[Mapping[str, Any]], intervals: bool) -> str:
    rows = [["", *(run["name"].removeprefix(f"{run['stamp']['mode']}, ") for run in runs)]]
    for name in MAIN:
        scores = [run["scores"]["all"].get(name) for run in runs]
        if any(score is not None for score in scores):
            figure = FIGURES[name]
            cells = [_cell(score, figure.digits, intervals) for score in scores]
            rows.append([f"{figure.group}: {figure.label}", *cells])
    return table(rows)


def _held_out_table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """How far the first stream falls from the sources that its model learned from to those that were held out."""
    run = next((run for run in runs if run["stamp"]["mode"] == "stream" and {SEEN, UNSEEN} <= set(run["scores"])), None)
    if run is None:
        return []
    rows = [["", SEEN, UNSEEN, "gap"]]
    for name in MAIN:
        seen, unseen = (run["scores"][scope].get(name, {}).get("value") for scope in (SEEN, UNSEEN))
        if seen is not None and unseen is not None:
            figure = FIGURES[name]
            values = ((seen, ""), (unseen, ""), (unseen - seen, "+"))
            cells = [f"{value:{sign}.{figure.digits}f}" for value, sign in values]
            rows.append([f"{figure.group}: {figure.label}", *cells])
    held_out = ", ".join(run["stamp"].get("held_out_sources") or ["not recorded"])
    return ["", visible(f"{run['name']}, held out: {held_out}"), table(rows)]


def _cell(score: Mapping[str, float | None] | None, digits: int, intervals: bool) -> str:
    if score is None:
        return ""
    if score["value"] is None:
        return "–"
    if not intervals or score["low"] is None or score["high"] is None:
        return f"{score['value']:.{digits}f}"
    return f"{score['value']:.{digits}f} ±{(score['high'] - score['low']) / 2:.{digits}f}"
