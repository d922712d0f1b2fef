"""The results of an evaluation as one HTML file: which run is better, by how much, and in which sessions it fails.

The file has no external resources and works without network. All text of the results is data: it is embedded as JSON
whose markup characters are escaped, and the page's script sets it only as text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from prospect_hf.evaluation.report.results import SEEN, UNSEEN
from prospect_hf.evaluation.report.schema import STAMP_KEYS, check_results
from prospect_hf.evaluation.report.sessions import PROBABILITY_UNITS, SESSION_FIGURES
from prospect_hf.html import write_html
from prospect_hf.metrics.catalogue import FIGURES

# The columns of the overview: figure, head of the column, head over several columns.
OVERVIEW = (
    ("table_joint_state_accuracy", "table", "Joint state accuracy"),
    ("joint_state_accuracy", "head", "Joint state accuracy"),
    ("speaking_f1_1s", "speaking", "F1 within 1 s"),
    ("dst_update_f1_1s", "DST update", "F1 within 1 s"),
    ("table_transition_f1_1s", "transition", "F1 within 1 s"),
    ("table_transition_f1_2s", "transition", "F1 within 2 s"),
    ("deviation_f1_2s", "deviation", "F1 within 2 s"),
    ("chunk_macro_f1", "macro-F1", "Chunks of 8 s"),
    ("matching_precision", "P", "Stream matching"),
    ("matching_recall", "R", "Stream matching"),
    ("matching_f1", "F1", "Stream matching"),
    ("matching_redundant_rate", "redundant", "Stream matching"),
    ("matching_missing_rate", "missing", "Stream matching"),
    ("matching_time_diff_s", "distance, s", "Stream matching"),
    ("matching_pairs", "pairs", "Texts of matched pairs"),
    ("text_exact_match", "exact", "Texts of matched pairs"),
    ("names_right_part", "right part", "Texts of matched pairs"),
    ("text_bleu4", "BLEU-4", "Texts of matched pairs"),
    ("speaking_calibration_error", "speaking", "Calibration error"),
    ("dst_update_calibration_error", "DST update", "Calibration error"),
    ("judge_overall", "overall", "Judge"),
)

# The timelines of a page have at most this many characters. They are embedded in equal parts for each run, worst
# sessions first, and the page says how many are left out.
VIEW_CHARACTERS = 24_000_000

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
    """Write the results of an evaluation (``results.json``, version 2) as one self-contained HTML file.

    The counts of the sessions are left out: the page shows figures. Timelines past ``VIEW_CHARACTERS`` are left out,
    and the page says how many. The file is written beside its place, then renamed.

    Raises:
        DataError: as :func:`check_results`.
    """
    check_results(results, str(path))
    each = VIEW_CHARACTERS // len(results["runs"])
    data = {
        "figures": {key: asdict(figure) for key, figure in FIGURES.items()},
        "overview": OVERVIEW,
        "session_figures": SESSION_FIGURES,
        "probability_units": PROBABILITY_UNITS,
        "published": PUBLISHED,
        "seen": SEEN,
        "unseen": UNSEEN,
        "stamp_keys": STAMP_KEYS,
        "results": {**results, "runs": [_shown_run(run, each) for run in results["runs"]]},
    }
    template = resources.files("prospect_hf.evaluation.report").joinpath("report.html").read_text(encoding="utf-8")
    write_html(path, template, data)


def _shown_run(run: Mapping[str, Any], characters: int) -> dict[str, Any]:
    """The run as the page needs it: scores to 6 digits, sessions without counts, timelines up to a size."""
    scores = {
        scope: {
            figure: {name: number if number is None else round(number, 6) for name, number in score.items()}
            for figure, score in of_scope.items()
        }
        for scope, of_scope in run["scores"].items()
    }
    sessions = [
        {key: session[key] for key in ("id", "source", "recording", "frames", "score")}
        | {"figures": {name: value if value is None else round(value, 6) for name, value in session["figures"].items()}}
        for session in run["sessions"]
    ]
    return {**run, "scores": scores, "sessions": sessions, "views": _first_views(run["views"], characters)}


def _first_views(views: Sequence[Mapping[str, Any]], characters: int) -> list[Mapping[str, Any]]:
    """The first views that together have at most ``characters`` characters; always one, if there is one."""
    kept: list[Mapping[str, Any]] = []
    used = 0
    for view in views:
        used += len(json.dumps(view, separators=(",", ":")))
        if kept and used > characters:
            break
        kept.append(view)
    return kept
