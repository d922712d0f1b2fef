"""The schema of ``results.json``, version 2, and the check that a file keeps to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from prospect_hf.checked_json import LARGEST
from prospect_hf.errors import DataError
from prospect_hf.evaluation.scored_run import Verdict
from prospect_hf.metrics.catalogue import FIGURES

KIND, VERSION = "prospect_hf_evaluation", 2

# A control is the model without its memory (the last frames alone) or without sight (blank frames).
MODES = ("offline", "stream", "control", "baseline")

STAMP_KEYS = (
    "mode", "model", "model_revision", "data", "data_fingerprint", "split", "sources", "frames", "dst", "fps",
    "speaking_threshold", "dst_update_threshold", "context", "tracking", "decoding", "encoder", "prospect_hf", "torch",
)  # fmt: skip

RUN_KEYS = ("name", "stamp", "scores", "sessions", "views", "ranked_by", "curves", "confusion", "delays_s")

SESSION_KEYS = ("id", "source", "recording", "frames", "fingerprint", "score", "figures", "counts")

VERDICTS: tuple[str, ...] = get_args(Verdict)

VIEW_KEYS = (
    "id", "source", "goal", "score", "frames", "fps", "first_frame", "steps", "reference_states", "predicted_states",
    "p_speak", "p_update", "said", "reference", "user",
)  # fmt: skip


def check_results(results: Any, where: str) -> None:
    """Check that ``results`` are an evaluation of version 2 in which every run has its stamp.

    Args:
        results: the content of ``results.json``.
        where: the file, for the message.

    Raises:
        DataError: another kind or version, no run, a name twice, a run, stamp or session that lacks a key, an unknown
            mode, a model without revision, a score that is not in ``FIGURES``, a view whose lists do not fit its
            frames, a number that is not finite, or a value of another type than ``scripts/evaluate.py`` writes.
    """
    try:
        _check(results, where)
    except DataError:
        raise
    except (TypeError, AttributeError, KeyError, IndexError, ValueError) as error:
        raise DataError(
            f"{where}: a value is not of the type that scripts/evaluate.py writes ({type(error).__name__}: {error})."
        ) from error


def _check(results: Any, where: str) -> None:
    if not isinstance(results, dict) or results.get("kind") != KIND:
        raise DataError(f"{where} holds no results of an evaluation; give a results.json of scripts/evaluate.py.")
    if results.get("version") != VERSION:
        raise DataError(
            f"{where} has version {results.get('version')!r}, but version {VERSION} is needed: run "
            "scripts/evaluate.py again with the same evaluate.output_dir, which reuses the predictions kept there."
        )
    _require(results, ("written", "runs"), where)
    if not results["runs"]:
        raise DataError(f"{where}: runs is empty.")
    _check_finite({key: value for key, value in results.items() if key != "runs"}, where)
    names: set[str] = set()
    for number, run in enumerate(results["runs"]):
        _require(run, ("name",), f"{where}, run {number}")
        at = f"{where}, run {run['name']!r}"
        if run["name"] in names:
            raise DataError(f"{at}: two runs have this name; each needs its own.")
        names.add(run["name"])
        _require(run, RUN_KEYS, at)
        _check_stamp(run["stamp"], f"{at}, stamp")
        _check_finite(run, at)
        _check_scores(run["scores"], at)
        for decision, curve in run["curves"].items():
            _check_reliability(curve.get("reliability", []), f"{at}, curves.{decision}.reliability")
        for session in run["sessions"]:
            _require(session, SESSION_KEYS, f"{at}, sessions")
            _check_id(session["id"], f"{at}, sessions")
            if not all(isinstance(value, (int, float)) for value in session["counts"].values()):
                raise DataError(f"{at}, session {session['id']!r}: counts holds a value that is no number.")
            if not all(value is None or isinstance(value, (int, float)) for value in session["figures"].values()):
                raise DataError(f"{at}, session {session['id']!r}: figures holds a value that is no number.")
        for view in run["views"]:
            _check_view(view, f"{at}, views")


def _require(mapping: Any, keys: Sequence[str], where: str) -> None:
    if not isinstance(mapping, Mapping):
        raise DataError(f"{where}: {type(mapping).__name__} instead of an object with the key {keys[0]!r}.")
    missing = [key for key in keys if key not in mapping]
    if missing:
        raise DataError(f"{where}: the key {missing[0]!r} is missing.")


def _check_id(session_id: Any, where: str) -> None:
    if not isinstance(session_id, str):
        raise DataError(f"{where}: the id of a session is {session_id!r} and no text.")


def _check_stamp(stamp: Any, where: str) -> None:
    _require(stamp, STAMP_KEYS, where)
    for key in ("mode", "model", "data", "split", "frames"):
        if not isinstance(stamp[key], str):
            raise DataError(f"{where}: {key} is {stamp[key]!r} and no text.")
    context = stamp["context"]
    if context is not None and not (isinstance(context, dict) and isinstance(context.get("strategy"), str)):
        raise DataError(f"{where}: context is {context!r} and not null or an object with a strategy.")
    held_out = stamp.get("held_out_sources") or []  # results of an earlier version have none
    if not isinstance(held_out, list) or not all(isinstance(source, str) for source in held_out):
        raise DataError(f"{where}: held_out_sources is {held_out!r} and no list of sources.")
    if stamp["mode"] not in MODES:
        raise DataError(f"{where}: mode {stamp['mode']!r} is none of {', '.join(MODES)}.")
    if stamp["model_revision"] is None and stamp["mode"] != "baseline":
        raise DataError(f"{where}: model_revision is null, which only a baseline may have.")
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
        raise DataError(f"{where}: {key} is {value}; an undefined value must be null.")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise DataError(f"{where}: {key} is over {LARGEST:g}; no count or frame is so large.")


def _check_scores(scores: Mapping[str, Mapping[str, Any]], where: str) -> None:
    for scope, of_scope in scores.items():
        for figure, score in of_scope.items():
            if figure not in FIGURES:
                raise DataError(f"{where}, scores.{scope}: {figure!r} is not in FIGURES, so its meaning is unknown.")
            _require(score, ("value", "low", "high"), f"{where}, scores.{scope}.{figure}")
            if not all(number is None or isinstance(number, (int, float)) for number in score.values()):
                raise DataError(f"{where}, scores.{scope}.{figure}: a value or bound is no number.")


def _check_reliability(bins: Any, where: str) -> None:
    """Check the bins [frames, mean probability, share of yes] of a decision."""
    if not isinstance(bins, list):
        raise DataError(f"{where} is no list of bins.")
    for one in bins:
        frames, *shares = one
        if not (len(shares) == 2 and frames >= 1 and all(0 <= share <= 1 for share in shares)):
            raise DataError(f"{where}: {one} is not [frames, mean probability, share of yes].")


def _check_view(view: Any, where: str) -> None:
    """Check one view. Frames are counted from 0 in the session; ``first_frame`` shifts only the clock."""
    _require(view, VIEW_KEYS, where)
    _check_id(view["id"], where)
    at, frames, steps = f"{where}, session {view['id']!r}", view["frames"], len(view["steps"])
    if frames < 1 or not view["fps"] > 0:
        raise DataError(f"{at}: {frames} frames at {view['fps']} fps; both must be above 0.")
    for key in ("p_speak", "p_update"):
        if len(view[key]) not in (0, frames):  # a baseline decides without probabilities
            raise DataError(f"{at}: {key} has {len(view[key])} values for {frames} frames.")
    for key in ("said", "reference", "user"):
        for utterance in view[key]:
            if not 0 <= utterance["frame"] < frames:
                raise DataError(f"{at}: {key} has frame {utterance['frame']}, but its frames are 0 to {frames - 1}.")
            verdict = utterance.get("verdict")
            if verdict is not None and verdict not in VERDICTS:
                raise DataError(f"{at}: {key} has the verdict {verdict!r}, which is none of {', '.join(VERDICTS)}.")
    for key in ("deviations", "reference_deviations"):  # not in results of earlier versions
        for frame, step, words in view.get(key) or ():
            if not (0 <= frame < frames and 0 <= step < steps and isinstance(words, str)):
                raise DataError(
                    f"{at}: {key} has [frame, step, words] {[frame, step, words]}, but there are {frames} frames and "
                    f"{steps} steps."
                )
    for key in ("reference_states", "predicted_states"):
        for frame, step, state in view[key] or ():
            if not (0 <= frame < frames and 0 <= step < steps and state in (0, 1, 2)):
                raise DataError(
                    f"{at}: {key} has [frame, step, state] {[frame, step, state]}, but there are {frames} frames, "
                    f"{steps} steps and the states 0, 1, 2."
                )
