"""Compare two results: paired differences of their figures over the sessions that both have, with intervals.

The bootstrap draws the same sessions for both results, so the difficulty of a session cancels out of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prospect_hf.errors import DataError, UsageError
from prospect_hf.evaluation.report.results import read_results
from prospect_hf.evaluation.score import figures
from prospect_hf.metrics.bootstrap import draw_weights, drawn_sums, interval, recording_sums
from prospect_hf.metrics.catalogue import FIGURES, PAIRS, WITHIN, Figure
from prospect_hf.metrics.counts import plain, total
from prospect_hf.tables import table

DRAWS = 5000


def paired_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], draws: int = DRAWS) -> dict[str, Any]:
    """Two runs of ``results.json``, figure by figure.

    Args:
        ours, theirs: the runs A and B.
        draws: of the bootstrap.

    Returns:
        ``sessions`` (how many both have), ``left_out`` (ids that only one of them has) and ``figures``: name -> ``a``,
        ``b``, ``difference`` (b - a) and its 95 % interval ``low``, ``high``, None where undefined. Figures that only
        one run has are left out; so are those of the sentence encoder or of the judge, if A and B used different ones.

    Raises:
        DataError: no session in common, or one that is not the same in both.
    """
    a, b = ({session["id"]: session for session in run["sessions"]} for run in (ours, theirs))
    common = sorted(a.keys() & b.keys())
    if not common:
        raise DataError(f"{ours['name']!r} and {theirs['name']!r} have no session in common: nothing can be compared.")
    for name in common:
        if a[name]["fingerprint"] != b[name]["fingerprint"]:
            raise DataError(
                f"session {name} is not the same in {ours['name']!r} and {theirs['name']!r}: its plan, words, labels "
                "or frames differ; evaluate both on one corpus."
            )
    weights = draw_weights([a[name]["recording"] for name in common], draws)
    recordings = [a[name]["recording"] for name in common]
    sides = []
    for sessions in (a, b):
        counts = [sessions[name]["counts"] for name in common]
        try:
            alone = figures(recording_sums(counts, recordings))
            sides.append((plain(figures(total(counts))), figures(drawn_sums(counts, weights)), alone))
        except KeyError as error:
            raise DataError(
                f"the sessions of {ours['name']!r} or {theirs['name']!r} have no count {error}, which a figure needs: "
                "the results were changed; evaluate again."
            ) from error
    (value_a, drawn_a, alone_a), (value_b, drawn_b, alone_b) = sides
    measured_alike = {
        "encoder": ("Stream matching", PAIRS),
        "tokenization": (WITHIN, PAIRS),
        "judge": ("Judge",),
    }
    apart = [
        group
        for key, groups in measured_alike.items()
        for group in groups
        if ours["stamp"].get(key) != theirs["stamp"].get(key)
    ]
    found = {}
    for name, figure in FIGURES.items():
        if name not in value_a or name not in value_b:
            continue
        if figure.group in apart:
            continue
        # An infinite perplexity is undefined, here as in results.json.
        before, after = (None if v is None or not math.isfinite(v) else v for v in (value_a[name], value_b[name]))
        difference = None if before is None or after is None else after - before
        with np.errstate(invalid="ignore"):
            drawn = drawn_b[name] - drawn_a[name]
            showing = int(np.sum(np.isfinite(alone_b[name] - alone_a[name])))
        bounds = interval(np.where(np.isfinite(drawn), drawn, np.nan), showing)
        low, high = bounds if bounds is not None and difference is not None else (None, None)
        found[name] = {"a": before, "b": after, "difference": difference, "low": low, "high": high}
    return {"sessions": len(common), "left_out": sorted(a.keys() ^ b.keys()), "figures": found}


def read_side(side: str) -> list[dict[str, Any]]:
    """All runs of ``FILE``, or the chosen one of ``FILE#RUN``.

    Raises:
        UsageError: no such run.
    """
    path, _, name = side.partition("#")
    runs = read_results(Path(path))["runs"]
    if not name:
        return list(runs)
    chosen = [run for run in runs if run["name"] == name]
    if not chosen:
        raise UsageError(f"{path} has no run {name!r}; its runs are {', '.join(repr(run['name']) for run in runs)}.")
    return chosen


def run_pairs(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The pairs of runs to compare: two single runs, or all runs of the same name, streams first, without baselines.

    Raises:
        UsageError: no name in common.
    """
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    by_name = {run["name"]: run for run in theirs}
    pairs = [
        (run, by_name[run["name"]]) for run in ours if run["name"] in by_name and run["stamp"]["mode"] != "baseline"
    ]
    if not pairs:
        raise UsageError("The two results have no run of the same name; choose one of each with FILE#RUN.")
    return sorted(pairs, key=lambda pair: pair[0]["stamp"]["mode"] != "stream")


def difference_table(a: Mapping[str, Any], b: Mapping[str, Any], differences: Mapping[str, Any]) -> str:
    """The differences as text, one row for each figure that differs; a star marks intervals that exclude 0."""
    rows = [["B - A", "A", "B", "difference", "95 % interval", ""]]
    equal = 0
    for name, of_figure in differences["figures"].items():
        if of_figure["a"] is None and of_figure["b"] is None:
            continue
        if of_figure["difference"] == 0 and not of_figure["low"] and not of_figure["high"]:
            equal += 1
        else:
            rows.append(_row(FIGURES[name], of_figure))
    out = differences["left_out"]
    names = a["name"] if a["name"] == b["name"] else f"{a['name']} (A) and {b['name']} (B)"
    lines = [
        f"{names}: {differences['sessions']} sessions in both"
        + (f", {len(out)} in only one of them and left out" if out else ""),
        f"A: {_side(a['stamp'])}",
        f"B: {_side(b['stamp'])}",
    ]
    if a["stamp"]["mode"] != b["stamp"]["mode"]:
        lines.append(f"Note: A is {a['stamp']['mode']}, B is {b['stamp']['mode']}: not the same task.")
    measured = {"encoder": "stream matching and the texts of its pairs", "tokenization": "texts", "judge": "marks"}
    for key, what in measured.items():
        if a["stamp"].get(key) != b["stamp"].get(key):
            lines.append(f"A and B used different settings of {key}, so {what} are left out.")
    if len(rows) == 1:
        return "\n".join(["", *lines, f"All {equal} figures are equal in A and B."])
    note = f"* the interval excludes 0; without any real difference, about 1 in 20 of the {len(rows) - 1} rows would"
    same = [f"{equal} more figures are equal in A and B."] if equal else []
    return "\n".join(["", *lines, "", table(rows), *same, note])


def _side(stamp: Mapping[str, Any]) -> str:
    """The model of a run, and the sources that it did not learn from."""
    held_out = stamp.get("held_out_sources")
    return f"{stamp['model']} ({stamp['model_revision']})" + (
        f", trained without {', '.join(held_out)}" if held_out else ""
    )


def _row(figure: Figure, found: Mapping[str, float | None]) -> list[str]:
    """A figure's cells: label, A, B, difference, interval, and a star where the interval excludes 0."""
    before, after = ("–" if found[key] is None else f"{found[key]:.{figure.digits}f}" for key in ("a", "b"))
    change, low, high = found["difference"], found["low"], found["high"]
    label = f"{figure.group}: {figure.label}"
    if change is None:
        return [label, before, after, "–", "", ""]
    if low is None or high is None:
        return [label, before, after, f"{change:+.{figure.digits}f}", "", ""]
    star = ""
    if float(f"{change:.{figure.digits}f}") != 0 and (low > 0 or high < 0):
        star = "*"
        if figure.higher_is_better is not None:
            star += " better" if (low > 0) == figure.higher_is_better else " worse"
    between = f"{low:+.{figure.digits}f} to {high:+.{figure.digits}f}"
    return [label, before, after, f"{change:+.{figure.digits}f}", between, star]
