"""The results of a training run: the free run on held-out sessions, ``results.json`` and the model card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from context_dst_smolvlm import Context
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.arguments import FOLDERS, DataArguments
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.reader import FrameReader
from prospect_hf.evaluation.baselines import majority, majority_response
from prospect_hf.evaluation.calibrated import calibrated
from prospect_hf.evaluation.free_running import follow_in_shares
from prospect_hf.evaluation.report.results import confusions
from prospect_hf.evaluation.score import figures, score, score_session
from prospect_hf.evaluation.scored_run import ScoredRun
from prospect_hf.files import write_json
from prospect_hf.hub.model_card import write_card
from prospect_hf.hub.published import public
from prospect_hf.hub.weights import WEIGHTS_KEY, weights_hash
from prospect_hf.machine import machine
from prospect_hf.metrics.counts import plain, total
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.splits import Splits

# The majority baseline speaks at the reference's times, so only its texts and states can be compared.
MAJORITY_FIGURES = ("joint_state_accuracy", "response_exact_match", "response_bleu")


def evaluate_freely(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    frames: FrameReader | FrameFeatures,
    splits: Splits,
    context: Context,
    progress: bool,
) -> tuple[dict[str, Any], ScoredRun | None]:
    """Let the model follow the held-out sessions by itself, without reference texts or times, and score it.

    Of several processes each follows a share of the sessions, and all return the same figures.

    Returns:
        ``free_run`` (figures and thresholds), ``majority`` (the same figures of the majority baseline) and
        ``free_run_confusion``; and the scored sessions. Empty and None without held-out sessions. With
        ``data.held_out_sources`` these are of the sources that the model learned from; ``free_run_held_out`` has the
        figures of the others, and ``free_run_by_source`` those of each.

    Raises:
        StreamError: a session cannot be followed within the context's limit.
    """
    split, sessions = splits.held_out
    if not sessions:
        return {}, None
    thresholds = (model.config.speaking_threshold, model.config.dst_update_threshold)
    predictions = follow_in_shares(model, processor, frames, sessions, context, progress)
    fps = model.config.fps
    pairs = zip(sessions, predictions, strict=True)
    run = ScoredRun([score_session(session, made, fps, thresholds) for session, made in pairs], fps)
    sources = list(dict.fromkeys(scored.session.source for scored in run.sessions))
    unseen = [source for source in sources if source in splits.held_out_sources]
    seen = run.of_sources([source for source in sources if source not in unseen])
    results: dict[str, Any] = {}
    if seen.sessions:
        known = [scored.session for scored in seen.sessions]
        text = majority_response(splits.learned)
        of_majority = score([majority(session, text) for session in known], known, fps, thresholds)
        results = {
            "free_run": {
                "split": split,
                "sessions": len(known),
                "speaking_threshold": thresholds[0],
                "dst_update_threshold": thresholds[1],
                **_figures_of(seen),
            },
            "majority": {name: of_majority[name] for name in MAJORITY_FIGURES if name in of_majority},
            "free_run_confusion": confusions(total(seen.counts)),
        }
    if unseen:
        held_out = run.of_sources(unseen)
        results["free_run_held_out"] = {
            "sources": unseen,
            "split": split,
            "sessions": len(held_out.sessions),
            **_figures_of(held_out),
        }
        results["free_run_by_source"] = {source: _figures_of(run.of_source(source)) for source in sources}
    return results, run


def _figures_of(run: ScoredRun) -> dict[str, float | None]:
    return plain(figures(total(calibrated(run).counts)))


def write_results(
    folder: Path,
    model: ModelArguments,
    data: DataArguments,
    args: DSTTrainingArguments,
    context: Context,
    results: Mapping[str, Any],
    balance: Mapping[str, Any],
    sessions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write ``results.json`` and the model card into the ``folder`` of a saved model; returns the former's content.

    They hold the hash of the weights, the machine, the settings as far as they may be published, the results, the
    label balance, and ``sessions``, the hashes of the training and the validation sessions (``resume.run_record``). The
    folders of the data are written relative to ``folder`` (``published.public_path``).

    Raises:
        UsageError: the folder has no weights.
    """
    of_data = asdict(data)
    of_data |= {name: str(Path(of_data[name]).absolute()) for name in FOLDERS if of_data[name] is not None}
    settings = {"model": asdict(model), "data": of_data, "training": args.given, "context": asdict(context)}
    facts: dict[str, Any] = {
        WEIGHTS_KEY: weights_hash(folder),
        "machine": machine(),
        "settings": public(settings, folder),
    }
    facts |= {"results": results, "balance": balance, "sessions": dict(sessions or {})}
    facts = finite_or_null(facts)
    write_json(folder / "results.json", facts)
    write_card(folder, facts)
    return facts


def finite_or_null(value: Any) -> Any:
    """``value`` with None for each number in it that is not finite: JSON knows neither NaN nor infinity."""
    if isinstance(value, Mapping):
        return {name: finite_or_null(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_or_null(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
