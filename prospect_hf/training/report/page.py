"""Writes the page of a run: one HTML file without external resources, in the folder of the trained model.

It is made from what ``results.json`` holds (settings as they may be published), the logs of the trainers and the
sessions that the model followed. All text is data: it is embedded as JSON whose markup characters are escaped, and the
page's script sets it only as text.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

from prospect_hf.evaluation.report.sessions import PROBABILITY_UNITS
from prospect_hf.evaluation.scored_run import ScoredRun
from prospect_hf.html import write_html
from prospect_hf.hub.published import REMOVED, is_secret, public
from prospect_hf.hub.weights import WEIGHTS_KEY
from prospect_hf.metrics.catalogue import FIGURES
from prospect_hf.training.report.curves import Log, evaluation_curves, stage_curves
from prospect_hf.training.report.examples import examples

PAGE = "train_report.html"
HEADLINE = (
    "table_joint_state_accuracy",
    "joint_state_accuracy",
    "state_macro_f1",
    "speaking_f1_1s",
    "dst_update_f1_1s",
    "table_transition_f1_1s",
    "response_exact_match",
    "response_bleu",
)
DECISIONS = {"speaking": "Speaking", "dst_update": "DST update"}


def write_train_report(
    folder: Path, facts: Mapping[str, Any], log: Log, run: ScoredRun | None, command: Sequence[str]
) -> Path:
    """Write ``train_report.html`` into the folder of a model, in one step; returns its path.

    Args:
        folder: the model's folder; paths on the page are relative to it.
        facts: the content of ``results.json``.
        log: ``log_history`` of the trainer, over all parts of a resumed run.
        run: the held-out sessions as the model followed them; None where there were none.
        command: the program and the settings that the run was started with; empty where it was no command.
    """
    results, free = facts["results"], facts["results"].get("free_run")
    written = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("T", " ").replace("+00:00", " UTC")
    stages = [{"name": "Whole sessions", "curves": stage_curves(log)}]
    if "look_seconds" in results:
        stages.insert(0, {"name": "First stage: pairs of frames", "curves": stage_curves(results["look_history"])})
    elif facts["settings"]["training"].get("look_steps"):
        stages.insert(0, {"name": "First stage: pairs of frames", "curves": []})
    data = {
        "name": folder.resolve().name,
        "facts": [["written", written], *_facts(facts)],
        "result": _result_rows(results),
        "split": f"{free['sessions']} held-out sessions ({free['split']})" if free else None,
        "stages": stages,
        "evaluations": evaluation_curves(log),
        "calibration": results.get("calibration"),
        "decisions": DECISIONS,
        "confusions": _confusions(results),
        "examples": examples(run) if run else [],
        "thresholds": [free[f"{name}_threshold"] for name in DECISIONS] if free else None,
        "probability_units": PROBABILITY_UNITS,
        "command": public_command(command, folder),
        "parts": results.get("earlier_parts", []),
        "settings": flat(facts["settings"]),
        "balance": _balance_rows(facts["balance"]),
    }
    template = resources.files("prospect_hf.training.report").joinpath(PAGE).read_text(encoding="utf-8")
    write_html(folder / PAGE, template, data)
    return folder / PAGE


def public_command(command: Sequence[str], folder: Path) -> str | None:
    """The command as a shell takes it, without secrets and without absolute paths; None where there was none."""
    if not command:
        return None
    program, *settings = command
    return " ".join([program, *(shlex.quote(_public_setting(one, folder)) for one in settings)])


def _public_setting(setting: str, folder: Path) -> str:
    key, equals, value = setting.partition("=")
    if equals and is_secret(key.rpartition(".")[2]):
        return f"{key}={REMOVED}"
    return str(public(key + equals, folder)) + str(public(value, folder))


def flat(settings: Mapping[str, Any], above: str = "") -> list[list[str]]:
    """[dotted name, value] of nested settings, in their order."""
    rows: list[list[str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += flat(value, f"{above}{name}.")
        else:
            rows.append([above + name, _words(value)])
    return rows


def _words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value)) or "none"
    return "none" if value == {} else str(value)


def _facts(facts: Mapping[str, Any]) -> list[list[str]]:
    """[name, value] of what was trained, on what, and where."""
    results, settings, machine = facts["results"], facts["settings"], facts["machine"]
    seconds = f"{results['train_seconds']:.0f} s"
    if "look_seconds" in results:
        seconds = f"{results['look_seconds']:.0f} s first stage, {seconds} whole sessions"
    rows = [
        ["model", settings["model"]["name_or_path"] or "trained from scratch"],
        ["data", f"{settings['data']['name']} ({', '.join(settings['data']['sources'])})"],
        ["held-out sources", _words(settings["data"].get("held_out_sources", []))],
        ["frames", settings["data"]["frames"]],
        ["steps", str(results["steps"])],
        ["time", seconds],
        ["seed", str(settings["training"].get("seed", "42, the default"))],
        ["weights, SHA-256", facts[WEIGHTS_KEY]],
        *([f"{split} sessions, SHA-256", digest] for split, digest in facts["sessions"].items()),
    ]
    return [*rows, *([name.replace("_", " "), _words(value)] for name, value in machine.items())]


def _result_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Head and rows of the table of results: figure, model, majority baseline; no rows without held-out sessions."""
    rows = [["figure", "model", "majority baseline"]]
    sides = [results.get("free_run", {}), results.get("majority", {})]
    if "free_run_held_out" in results:
        unseen = results["free_run_held_out"]
        rows[0].append(f"model, held-out sources ({', '.join(unseen['sources'])})")
        sides.append(unseen)
    for name in HEADLINE:
        if name in sides[0]:
            figure = FIGURES[name]
            label = f"{figure.group}: {figure.label}" + (f", {figure.unit}" if figure.unit else "")
            rows.append([label, *(_figure(of.get(name), name in of, figure.digits) for of in sides)])
    return rows


def _figure(value: float | None, known: bool, digits: int) -> str:
    if not known:
        return "·"
    return "–" if value is None else f"{value:.{digits}f}"


def _confusions(results: Mapping[str, Any]) -> list[list[Any]]:
    """[name, counts] of each confusion of states."""
    named = {"head": "State head, followed freely", "table": "Tracked table, followed freely"}
    found = [[named[key], counts] for key, counts in results.get("free_run_confusion", {}).items()]
    if "validation_confusion" in results:
        found.insert(0, ["State head on validation, with the reference's texts", results["validation_confusion"]])
    return [pair for pair in found if any(map(any, pair[1]))]


def _balance_rows(balance: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    rows = [["rows of", "videos", "sessions", "frames", "frames that speak", "frames with an update"]]
    keys = ("videos", "sessions", "rows", "speaking_1", "dst_update_1")
    return rows + [[name, *(str(counts[key]) for key in keys)] for name, counts in balance.items()]
