"""``results.json``: each run's stamp, figures with intervals, curves and sessions; written and read here.

A run is the predictions of one model in one mode on one set of sessions. The counts of every session are kept, so that
results can be compared, pooled and resampled without the model or the corpus.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prospect_hf.checked_json import as_dict, load_json
from prospect_hf.errors import UsageError
from prospect_hf.evaluation.calibrated import DECISIONS, calibrated, decision, pooled
from prospect_hf.evaluation.judge.judged_runs import Judged
from prospect_hf.evaluation.report.schema import KIND, VERSION, check_results
from prospect_hf.evaluation.report.sessions import delays, session_figures, session_scores, session_views
from prospect_hf.evaluation.score import figures
from prospect_hf.evaluation.scored_run import ScoredRun
from prospect_hf.files import write_json
from prospect_hf.metrics.bootstrap import draw_weights, drawn_sums, interval, recording_sums
from prospect_hf.metrics.calibration import counted_bins
from prospect_hf.metrics.catalogue import FIGURES
from prospect_hf.metrics.counts import Counts, plain, ratio, total
from prospect_hf.metrics.decisions import (
    average_precision,
    best_threshold,
    labelled_scores,
    precision_recall_curve,
)
from prospect_hf.metrics.states import state_confusion
from prospect_hf.metrics.texts import distinct

# Average precision is resampled on at most this many thresholds, at quantiles of the positives' scores.
THRESHOLDS = 2000
DRAWS_AT_A_TIME = 100
# Figures that are counts: they have no interval.
NUMBERS = ("matching_pairs",)
# Scopes of a model that some sources were held out from, beside "all" and each source.
SEEN, UNSEEN = "sources learned from", "held-out sources"

Shown = dict[str, dict[str, float | None]]


def run_result(
    name: str,
    stamp: Mapping[str, Any],
    run: ScoredRun,
    fingerprints: Mapping[str, str],
    draws: int,
    judged: Judged | None = None,
) -> dict[str, Any]:
    """One run of ``results.json``.

    Args:
        name: of the run.
        stamp: which model was evaluated on which data, and with which settings.
        run: the scored sessions.
        fingerprints: of each session, by its id.
        draws: of the bootstrap; 0: no intervals.
        judged: an LLM judge's votes, where there was one; their marks are among the counts already.
    """
    run = calibrated(run)
    sources = list(dict.fromkeys(scored.session.source for scored in run.sessions))
    scopes = {"all": run, **{source: run.of_source(source) for source in sources}}
    scopes |= {name: run.of_sources(some) for name, some in held_out_scopes(stamp, sources).items()}
    scores = {scope: scope_scores(part, draws) for scope, part in scopes.items()}
    if judged is not None:
        scores["all"] |= {name: {"value": value, "low": None, "high": None} for name, value in judged.agreement.items()}
    sums = total(run.counts)
    ranks, ranked_by = session_scores(run)
    views = session_views(run, ranks)
    sessions = [
        {
            "id": scored.session.session_id,
            "source": scored.session.source,
            "recording": scored.recording,
            "frames": len(scored.session),
            "fingerprint": fingerprints[scored.session.session_id],
            "score": rank,
            "figures": session_figures(scored),
            "counts": dict(scored.counts),
        }
        for scored, rank in zip(run.sessions, ranks, strict=True)
    ]
    if judged is not None:
        for entry in (*sessions, *views):
            entry["judgement"] = judged.votes[entry["id"]]
    return {
        "name": name,
        "stamp": dict(stamp),
        "scores": scores,
        "sessions": sessions,
        "views": views,
        "ranked_by": ranked_by,
        "curves": {
            head: precision_recall_curve(*pooled(run, head)) | {"reliability": reliability_curve(sums, head)}
            for head in DECISIONS
        },
        "confusion": confusions(sums),
        "delays_s": delays(run),
    }


def held_out_scopes(stamp: Mapping[str, Any], sources: Sequence[str]) -> dict[str, list[str]]:
    """The sources that the model learned from and those that were held out, by name of the scope; none without both."""
    unseen = [source for source in sources if source in (stamp.get("held_out_sources") or [])]
    seen = [source for source in sources if source not in unseen]
    return {SEEN: seen, UNSEEN: unseen} if seen and unseen else {}


def scope_scores(part: ScoredRun, draws: int) -> Shown:
    """figure -> value, low, high: pooled over the sessions, with the bootstrap's interval.

    The bins of the calibration errors are those of these sessions, in each draw too.
    """
    part = calibrated(part)
    values: dict[str, float | None] = plain(figures(total(part.counts)))
    for name in DECISIONS:
        scores, labels = pooled(part, name)
        values[f"{name}_average_precision"] = average_precision(scores, labels)
        values[f"{name}_best_threshold"], values[f"{name}_best_f1"] = best_threshold(scores, labels)
        if values[f"{name}_best_f1"] is None:
            values[f"{name}_best_threshold"] = None  # without a positive label no threshold is the best
    if part.sessions[0].tracked and not part.sessions[0].prediction.wordless:
        said = [one.text for scored in part.sessions for one in scored.said]
        values |= {"distinct_1": distinct(said, 1), "distinct_2": distinct(said, 2)}
    intervals = _intervals(part, draws) if draws else {}
    return {
        name: {
            "value": _finite(values[name]),
            "low": intervals[name][0] if name in intervals else None,
            "high": intervals[name][1] if name in intervals else None,
        }
        for name in FIGURES
        if name in values
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _intervals(part: ScoredRun, draws: int) -> dict[str, tuple[float, float]]:
    weights = draw_weights(part.recordings, draws)
    drawn = dict(figures(drawn_sums(part.counts, weights)))
    alone = dict(figures(recording_sums(part.counts, part.recordings)))
    for name in DECISIONS:
        drawn[f"{name}_average_precision"] = drawn_average_precision(part, name, weights)
        alone[f"{name}_average_precision"] = alone[f"{name}_recall"]  # both need a positive
    found = {}
    for name, values in drawn.items():
        showing = int(np.sum(~np.isnan(alone[name])))
        bounds = None if name in NUMBERS else interval(np.where(np.isinf(values), np.nan, values), showing)
        if bounds is not None:
            found[name] = bounds
    return found


def drawn_average_precision(part: ScoredRun, name: str, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[draws]``, the average precision of each draw, exact up to ``THRESHOLDS`` distinct scores of positives.

    Args:
        part: the sessions.
        name: of the decision.
        weights: ``[draws, sessions]``.
    """
    pairs = [labelled_scores(*decision(scored, name)) for scored in part.sessions]
    positive = np.concatenate([score[truth] for score, truth in pairs])
    if not len(positive):
        return np.full(len(weights), np.nan)
    edges = np.unique(positive)
    if len(edges) > THRESHOLDS:
        edges = np.unique(np.quantile(edges, np.linspace(0, 1, THRESHOLDS), method="nearest"))
    # From the highest threshold down: frames of each session at or over it, by label.
    found = np.zeros((2, len(pairs), len(edges)))
    for row, (score, truth) in enumerate(pairs):
        for kind in (0, 1):
            ordered = np.sort(score[truth == kind])
            found[kind, row] = len(ordered) - np.searchsorted(ordered, edges[::-1], "left")
    precisions = []
    for begin in range(0, len(weights), DRAWS_AT_A_TIME):
        some = weights[begin : begin + DRAWS_AT_A_TIME]
        misses, hits = some @ found[0], some @ found[1]
        gained = np.diff(hits, axis=1, prepend=0)
        steps = np.nan_to_num(ratio(hits, hits + misses)) * gained
        precisions.append(ratio(steps.sum(1), hits[:, -1]))
    return np.concatenate(precisions)


def confusions(sums: Counts) -> dict[str, list[list[int]]]:
    """The confusion of states of ``head`` and ``table``, where they were counted (``metrics.states``)."""
    return {
        name: state_confusion(sums, prefix)
        for name, prefix in (("head", ""), ("table", "table_"))
        if f"{prefix}state_00" in sums
    }


def reliability_curve(sums: Counts, name: str) -> list[list[float]]:
    """[frames, mean p(yes), share of "yes" labels] of each bin, by rising probability."""
    return [[one.count, round(one.confidence, 6), round(one.accuracy, 6)] for one in counted_bins(sums, name)]


def write_results(path: Path, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Write ``results.json`` beside its place, then rename; returns its content.

    Raises:
        DataError: a run without its stamp.
    """
    written = datetime.now(timezone.utc).isoformat(timespec="seconds")
    results = {"kind": KIND, "version": VERSION, "written": written, "runs": [dict(run) for run in runs]}
    check_results(results, str(path))
    write_json(path, results, indent=None)
    return results


def read_results(path: Path) -> dict[str, Any]:
    """A checked ``results.json``, or that of a folder.

    Raises:
        UsageError: there is no such file.
        DataError: it is not a ``results.json`` of this version.
    """
    file = path / "results.json" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise UsageError(f"{path} holds no results.json; give a folder that scripts/evaluate.py wrote.")
    if not file.exists():
        raise UsageError(f"{file}: no such file; give a folder that scripts/evaluate.py wrote.")
    results = as_dict(load_json(file), str(file))
    check_results(results, str(file))
    return results
