"""The results of an evaluation as one HTML file: which run is better, by how much, and in which sessions it goes wrong.

The file has no external resources and works from a disk without network. All text of the results is data: it travels
as JSON whose markup characters are escaped, and the page's script only ever sets it as text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from prospect_hf.errors import DataError
from prospect_hf.evaluation.figures import FIGURES
from prospect_hf.html import write_html

KIND, VERSION = "prospect_hf_evaluation", 1
MODES = ("offline", "stream", "baseline")
STAMP_KEYS = (
    "mode", "model", "model_revision", "data", "data_fingerprint", "split", "sources", "frames", "dst", "fps",
    "speaking_threshold", "dst_update_threshold", "context", "tracking", "decoding", "encoder", "prospect_hf", "torch",
)  # fmt: skip
RUN_KEYS = ("name", "stamp", "scores", "sessions", "curves", "confusion", "delays_s", "shown", "ranked_by")
SESSION_KEYS = ("id", "source", "recording", "frames", "fingerprint", "tally")
VIEW_KEYS = (
    "id", "source", "goal", "score", "frames", "fps", "first_frame", "steps", "reference_states", "predicted_states",
    "p_speak", "p_update", "said", "reference", "user",
)  # fmt: skip

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
    template = resources.files("prospect_hf.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    write_html(path, template, data)


def check_results(results: Any, where: str) -> None:
    """Whether ``results`` are an evaluation of version 1 that says of every run what was run on what.

    Args:
        results: the content of ``results.json``.
        where: the file, for the message.

    Raises:
        DataError: another kind or version, no run, a name twice, a run, stamp or session that lacks a key, an unknown
            mode, a model without revision, a score that is not in ``FIGURES``, a session shown whose lists do not fit
            its frames, a number that is not finite, or something of another type than ``scripts/evaluate.py`` writes.
    """
    try:
        _check(results, where)
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        told = f"{type(error).__name__}: {error}"
        raise DataError(f"{where} is not as scripts/evaluate.py writes results ({told}).") from error


def _check(results: Any, where: str) -> None:
    _require(results, ("kind", "version"), where)
    kind, version = results["kind"], results["version"]
    if kind != KIND or version != VERSION:
        raise DataError(
            f"{where}: kind {kind!r} and version {version!r}, where {KIND!r} and {VERSION} are needed; "
            "write the results anew with scripts/evaluate.py."
        )
    _require(results, ("written", "runs"), where)
    if not results["runs"]:
        raise DataError(f"{where}: runs is empty, so there is nothing to show.")
    _check_finite({key: value for key, value in results.items() if key != "runs"}, where)
    names: set[str] = set()
    for number, run in enumerate(results["runs"]):
        _require(run, ("name",), f"{where}, run {number}")
        at = f"{where}, run {run['name']!r}"
        if run["name"] in names:
            raise DataError(f"{at}: the name stands for two runs; each needs its own.")
        names.add(run["name"])
        _require(run, RUN_KEYS, at)
        _check_stamp(run["stamp"], f"{at}, stamp")
        _check_finite(run, at)
        _check_scores(run["scores"], at)
        for session in run["sessions"]:
            _require(session, SESSION_KEYS, f"{at}, sessions")
            if not all(isinstance(value, (int, float)) for value in session["tally"].values()):
                raise DataError(f"{at}, session {session['id']!r}: tally holds something that is no number.")
        for side in ("best", "worst"):
            _require(run["shown"], (side,), f"{at}, shown")
            for view in run["shown"][side]:
                _check_view(view, f"{at}, shown.{side}")


def _require(mapping: Any, keys: Sequence[str], where: str) -> None:
    if not isinstance(mapping, Mapping):
        raise DataError(f"{where}: {type(mapping).__name__} instead of an object with the key {keys[0]!r}.")
    missing = [key for key in keys if key not in mapping]
    if missing:
        raise DataError(f"{where}: the key {missing[0]!r} is missing.")


def _check_stamp(stamp: Any, where: str) -> None:
    _require(stamp, STAMP_KEYS, where)
    if stamp["mode"] not in MODES:
        raise DataError(f"{where}: mode {stamp['mode']!r} is none of {', '.join(MODES)}.")
    if stamp["model_revision"] is None and stamp["mode"] != "baseline":
        raise DataError(f"{where}: model_revision is null, but only a baseline has no model to name.")
    if not stamp["fps"] > 0:
        raise DataError(f"{where}: fps {stamp['fps']!r} is not above 0.")


def _check_finite(value: Any, where: str, key: str = "") -> None:
    if isinstance(value, Mapping):
        for name, part in value.items():
            _check_finite(part, where, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            _check_finite(part, where, f"{key}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where}: {key} is {value}; what is undefined is null.")


def _check_scores(scores: Mapping[str, Mapping[str, Any]], where: str) -> None:
    for scope, of_scope in scores.items():
        for figure, score in of_scope.items():
            if figure not in FIGURES:
                raise DataError(
                    f"{where}, scores.{scope}: {figure!r} is not in FIGURES, so nobody knows what it means."
                )
            _require(score, ("value", "low", "high"), f"{where}, scores.{scope}.{figure}")
            if not all(score[key] is None or isinstance(score[key], (int, float)) for key in ("value", "low", "high")):
                raise DataError(f"{where}, scores.{scope}.{figure}: a value or bound is no number.")


def _check_view(view: Any, where: str) -> None:
    """Frames count from 0 in the session; ``first_frame`` only moves the clock."""
    _require(view, VIEW_KEYS, where)
    at, frames, steps = f"{where}, session {view['id']!r}", view["frames"], len(view["steps"])
    if frames < 1 or not view["fps"] > 0:
        raise DataError(f"{at}: {frames} frames at {view['fps']} fps, so there is nothing to show.")
    for key in ("p_speak", "p_update"):
        if len(view[key]) not in (0, frames):  # a baseline decides without probabilities
            raise DataError(f"{at}: {key} has {len(view[key])} values for {frames} frames.")
    for key in ("said", "reference", "user"):
        for utterance in view[key]:
            if not 0 <= utterance["frame"] < frames:
                raise DataError(f"{at}: {key} has frame {utterance['frame']}, but its frames are 0 to {frames - 1}.")
    for key in ("reference_states", "predicted_states"):
        for frame, step, state in view[key] or ():
            if not (0 <= frame < frames and 0 <= step < steps and state in (0, 1, 2)):
                raise DataError(
                    f"{at}: {key} has [frame, step, state] {[frame, step, state]}, but there are {frames} frames, "
                    f"{steps} steps and the states 0, 1, 2."
                )


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
