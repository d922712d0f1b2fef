"""Figures for the Hub: ``model-index`` entries, and ``.eval_results`` files where the data set is on the Hub.

``model-index.yaml`` and ``.eval_results`` have every figure of every run and how it was made. The card's front matter
has only the main figures of two runs, so that a person can still read it. A streamed and a teacher-forced figure never
share a name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml
from huggingface_hub.repocard_data import eval_results_to_model_index

from prospect_hf.errors import UsageError
from prospect_hf.files import write_text
from prospect_hf.hub.front_matter import read_card, with_front_matter
from prospect_hf.hub.weights import WEIGHTS_KEY, check_weights
from prospect_hf.metrics.catalogue import FIGURES

CARD_FIGURES = (
    "joint_state_accuracy",
    "table_joint_state_accuracy",
    "speaking_f1_1s",
    "dst_update_f1_1s",
    "transition_f1_1s",
    "table_transition_f1_1s",
    "transition_f1_2s",
    "table_transition_f1_2s",
    "chunk_macro_f1",
    "speaking_calibration_error",
    "dst_update_calibration_error",
    "deviation_precision_2s",
    "deviation_recall_2s",
    "deviation_f1_2s",
    "matching_precision",
    "matching_recall",
    "matching_f1",
    "text_exact_match",
    "names_right_part",
    "text_bleu4",
    "text_similarity",
    "perplexity",
    "token_accuracy",
    "judge_overall",
)
# The figures in the front matter of README.md, of the main stream run and of the offline run.
MAIN_FIGURES = (
    "table_joint_state_accuracy",
    "joint_state_accuracy",
    "speaking_f1_1s",
    "dst_update_f1_1s",
    "table_transition_f1_1s",
    "table_transition_f1_2s",
    "chunk_macro_f1",
    "matching_f1",
    "names_right_part",
    "perplexity",
)
TASK, TASK_NAME = "video-text-to-text", "Dialog state tracking and proactive speech"
FRAMES = {"store": "its own frames", "rendered": "frames drawn from the labels", "blank": "blank frames"}


def write_entries(
    output: Path, results: Mapping[str, Any], dataset_id: str | None, model_folder: Path | None
) -> list[Path]:
    """Write the entries into ``output`` and, where it is given, into a model's folder.

    Args:
        output: gets ``model-index.yaml`` and, with a ``dataset_id``, ``eval_results.yaml``.
        results: of ``results.json``.
        dataset_id: of the data set on the Hub; None for other data, which ``.eval_results`` cannot name.
        model_folder: its ``README.md`` gets the main figures as ``model-index``; with a ``dataset_id`` it gets
            ``.eval_results/prospect.yaml``.

    Returns:
        The files.

    Raises:
        UsageError: the model's folder has no card, or the card or the results are about other weights.
        DataError: the card's front matter cannot be read.
    """
    # A control is not what the model reaches, and must not be taken for it.
    runs = [run for run in results["runs"] if run["stamp"]["mode"] in ("stream", "offline")]
    listed = [entry for run in runs for entry in model_index(run, dataset_id)]
    name = Path(runs[0]["stamp"]["model"]).name
    written = [_write(output / "model-index.yaml", {"model-index": eval_results_to_model_index(name, listed)})]
    benchmark: list[EvalResultEntry] = []
    if dataset_id is not None:
        benchmark = [entry for run in runs for entry in hub_entries(run, dataset_id, results["written"])]
        written.append(_write(output / "eval_results.yaml", eval_result_entries_to_yaml(benchmark)))
    if model_folder is not None:
        card, head, body = card_of(model_folder)
        weights = runs[0]["stamp"].get(WEIGHTS_KEY)
        check_weights(model_folder, weights, output / "results.json")
        head |= {
            WEIGHTS_KEY: weights,
            "model-index": eval_results_to_model_index(name, card_entries(results["runs"], dataset_id)),
        }
        write_text(card, with_front_matter(head, body))
        written.append(card)
        if benchmark:
            folder = model_folder / ".eval_results"
            folder.mkdir(exist_ok=True)
            written.append(_write(folder / "prospect.yaml", eval_result_entries_to_yaml(benchmark)))
    return written


def card_of(model_folder: Path) -> tuple[Path, dict[str, Any], str]:
    """The card of a model's folder: its file, front matter and text.

    A card that somebody wrote, which names no weights, is taken as it is.

    Raises:
        UsageError: there is no card, or it is about other weights.
        DataError: its front matter cannot be read.
    """
    card = model_folder / "README.md"
    if not card.is_file():
        raise UsageError(f"{card} is not there: evaluate.card=true adds the figures to an existing card.")
    head, body = read_card(card)
    if WEIGHTS_KEY in head:
        check_weights(model_folder, head[WEIGHTS_KEY], card)
    return card, head, body


def model_index(run: Mapping[str, Any], dataset_id: str | None) -> list[EvalResult]:
    """A run's figures over all sources and over each, as ``model-index`` entries; undefined ones are left out."""
    return [
        replace(_entry(run, scope, figure, dataset_id), metric_args=settings(run["stamp"]))
        for scope, scores in run["scores"].items()
        for figure in CARD_FIGURES
        if figure in scores and scores[figure]["value"] is not None
    ]


def card_entries(runs: Sequence[Mapping[str, Any]], dataset_id: str | None) -> list[EvalResult]:
    """The ``MAIN_FIGURES`` over all sources of the main stream run (the first) and of the offline run."""
    chosen = [next((run for run in runs if run["stamp"]["mode"] == mode), None) for mode in ("stream", "offline")]
    return [
        _entry(run, "all", figure, dataset_id)
        for run in chosen
        if run is not None
        for figure in MAIN_FIGURES
        if figure in run["scores"]["all"] and run["scores"]["all"][figure]["value"] is not None
    ]


def _entry(run: Mapping[str, Any], scope: str, figure: str, dataset_id: str | None) -> EvalResult:
    stamp = run["stamp"]
    data = dataset_id or Path(stamp["data"]).name
    return EvalResult(
        task_type=TASK,
        task_name=TASK_NAME,
        dataset_type=data,
        dataset_name=f"{data}, {scope}, {FRAMES[stamp['frames']]}",
        dataset_config=scope,
        dataset_split=stamp["split"],
        dataset_args={"fingerprint": stamp["data_fingerprint"]},
        metric_type=figure,
        # Entries of one data set share one task, so each figure's name says its run.
        metric_name=f"{FIGURES[figure].group}: {FIGURES[figure].label} ({run['name']})",
        metric_config=run["name"],
        metric_value=round(run["scores"][scope][figure]["value"], 4),
    )


def hub_entries(run: Mapping[str, Any], dataset_id: str, written: str) -> list[EvalResultEntry]:
    """A run's figures over all sources for ``.eval_results``, one task a figure."""
    scores, stamp = run["scores"]["all"], run["stamp"]
    mode = stamp["mode"] if stamp["context"] is None else f"{stamp['mode']}_{stamp['context']['strategy']}"
    return [
        EvalResultEntry(
            dataset_id=dataset_id,
            task_id=f"{mode}_{figure}",
            value=round(scores[figure]["value"], 4),
            date=written,
            notes=json.dumps({"split": stamp["split"], **settings(stamp)}, sort_keys=True),
        )
        for figure in CARD_FIGURES
        if figure in scores and scores[figure]["value"] is not None
    ]


def settings(stamp: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a stamp that a figure depends on beside the model: mode, thresholds, context, data, judge."""
    keys = ("mode", "speaking_threshold", "dst_update_threshold", "context", "encoder", "frames", "prospect_hf")
    return {key: stamp[key] for key in keys} | {key: stamp.get(key) for key in ("sources", "sessions", "judge")}


def _write(path: Path, value: Any) -> Path:
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    return path
