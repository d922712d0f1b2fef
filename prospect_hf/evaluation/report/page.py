"""The results of an evaluation as one HTML file: which run is better, by how much, and in which sessions it goes wrong.

The file has no external resources and works from a disk without network. All text of the results is data: it travels
as JSON whose markup characters are escaped, and the page's script only ever sets it as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from prospect_hf.evaluation.report.schema import RUN_KEYS, STAMP_KEYS, check_results
from prospect_hf.html import write_html
from prospect_hf.metrics.catalogue import FIGURES

# The columns of the overview: figure, head of the column, head over several columns.
OVERVIEW = (
    ("table_joint_state_accuracy", "table", "Joint state accuracy"),
    ("joint_state_accuracy", "head", "Joint state accuracy"),
    ("speaking_f1_1s", "speaking", "F1 within 1 s"),
    ("dst_update_f1_1s", "DST update", "F1 within 1 s"),
    ("table_transition_f1_1s", "transition", "F1 within 1 s"),
    ("matching_precision", "P", "Stream matching"),
    ("matching_recall", "R", "Stream matching"),
    ("matching_f1", "F1", "Stream matching"),
    ("matching_redundant_rate", "redundant", "Stream matching"),
    ("matching_missing_rate", "missing", "Stream matching"),
    ("matching_time_diff_s", "distance, s", "Stream matching"),
    ("matching_correct_pairs", "pairs", "Texts of correct pairs"),
    ("text_bleu4", "BLEU-4", "Texts of correct pairs"),
    ("text_similarity", "similarity", "Texts of correct pairs"),
    ("judge_overall", "overall", "Judge"),
)

# The table of dialogue generation in the ProAssist paper; I is the number of tokens a frame.
PUBLISHED: dict[str, Any] = {
    "source": "ProAssist: Proactive Assistant Dialogue Generation from Streaming Egocentric Videos, arXiv 2506.05904",
    "scale": "Other data, other scale: Llama-3.1-8B + SigLIP on the full corpus, percent",
    "columns": ["precision, %", "recall, %", "F1, %", "LLM judge overall, 1-5"],
    "rows": [
        ["I=1", [51.3, 24.7, 32.6, 2.11]],
        ["I=1 + knowledge", [49.6, 28.6, 35.4, 2.36]],
        ["I=5 + knowledge", [44.2, 31.5, 36.3, 2.41]],
        ["I=10 + knowledge", [37.5, 34.9, 36.1, 2.42]],
    ],
}


def write_report(path: Path, results: Mapping[str, Any]) -> None:
    """Write the results of an evaluation (``results.json``, version 1) as one self-contained HTML file.

    The sessions' tallies stay behind: of them the page needs only how many sessions and frames there are. The file is
    written beside its place, then renamed.

    Raises:
        DataError: as :func:`check_results`.
    """
    check_results(results, str(path))
    data = {
        "figures": {key: asdict(figure) for key, figure in FIGURES.items()},
        "overview": OVERVIEW,
        "published": PUBLISHED,
        "stamp_keys": STAMP_KEYS,
        "results": {**results, "runs": [_shown_run(run) for run in results["runs"]]},
    }
    template = resources.files("prospect_hf.evaluation.report").joinpath("report.html").read_text(encoding="utf-8")
    write_html(path, template, data)


def _shown_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """The run without its tallies: ``counts`` are [sessions, frames] by scope; scores to 6 digits after the point."""
    counts = {"all": [0, 0]}
    for session in run["sessions"]:
        for scope in ("all", session["source"]):
            count = counts.setdefault(scope, [0, 0])
            count[0] += 1
            count[1] += session["frames"]
    scores = {
        scope: {
            figure: {name: number if number is None else round(number, 6) for name, number in score.items()}
            for figure, score in of_scope.items()
        }
        for scope, of_scope in run["scores"].items()
    }
    return {key: run[key] for key in RUN_KEYS if key != "sessions"} | {"scores": scores, "counts": counts}
