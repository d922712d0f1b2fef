"""What is set on the validation split after training: the temperatures and the thresholds of both decisions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from configuration_dst_smolvlm import DSTSmolVLMConfig
from prospect_hf.metrics.calibration import (
    LEAST_TEMPERATURE,
    MOST_TEMPERATURE,
    Bin,
    calibration_error,
    fit_temperature,
)
from prospect_hf.metrics.catalogue import CHOICE_TOLERANCE_S
from prospect_hf.training.clip_metrics import Decision, clip_confusion, head_metrics
from prospect_hf.training.losses import DECISIONS
from prospect_hf.training.trainer import DSTTrainer

logger = logging.getLogger(__name__)

SHOWN = {"speaking": "speaking", "dst_update": "DST update"}


def calibrate(trainer: DSTTrainer) -> dict[str, Any]:
    """Set thresholds and temperatures of both decisions in the model's configuration, by its validation clips.

    A threshold is the one with the highest F1 within ``CHOICE_TOLERANCE_S``, events matched as in evaluation. With
    ``training.temperature_scaling`` a temperature is fitted before; without it, both are 1, also where the model came
    with others. A decision for which the split has no label, or one label alone, keeps threshold and temperature.

    Args:
        trainer: with validation clips; its model is trained.

    Returns:
        ``validation``: the metrics at the chosen thresholds; ``calibration``: what was chosen for each decision and how
        good it is; ``validation_confusion``: ``[reference][predicted]`` counts of (frame, step) cells.
    """
    config: DSTSmolVLMConfig = trainer.model.config
    before = {name: _temperature(config, name) for name in DECISIONS}
    for name in DECISIONS:
        _set_temperature(config, name, 1.0)
    rows, owners = trainer.validation_rows()
    raw = {name: Decision(rows, owners, name, config.fps) for name in DECISIONS}
    raw_bins = {name: decision.reliability for name, decision in raw.items()}
    temperatures = dict.fromkeys(DECISIONS, 1.0)
    for name, decision in raw.items():
        if decision.sweep().undefined:
            temperatures[name] = before[name]
        elif trainer.args.temperature_scaling:
            fitted = fit_temperature(decision.pooled("_margin"), decision.pooled("_labels"))
            assert fitted is not None  # both labels occur
            if not 1.01 * LEAST_TEMPERATURE < fitted < 0.99 * MOST_TEMPERATURE:
                logger.warning(
                    "%s: its temperature is at the limit, %.3g: the validation labels do not tell a better one.",
                    _shown(name),
                    fitted,
                )
            temperatures[name] = fitted
    if any(temperature != 1.0 for temperature in temperatures.values()):
        for name, temperature in temperatures.items():
            _set_temperature(config, name, temperature)
        rows, owners = trainer.validation_rows()

    chosen = {name: _choose(config, Decision(rows, owners, name, config.fps), raw_bins[name]) for name in DECISIONS}
    metrics = head_metrics(rows, trainer.args.loss_weights, config, owners)
    validation = {f"eval_{name}": value for name, value in metrics.items()}
    trainer.log(dict(validation))
    return {
        "validation": validation,
        "calibration": {"tolerance_s": CHOICE_TOLERANCE_S, "sessions": len(set(owners)), **chosen},
        "validation_confusion": clip_confusion(rows),
    }


def _choose(config: DSTSmolVLMConfig, decision: Decision, raw_bins: Sequence[Bin]) -> dict[str, Any]:
    """Put the decision's threshold into the configuration; returns what ``results.json`` says about it."""
    name, key = decision.name, f"{decision.name}_threshold"
    swept, on_frame, bins = decision.sweep(), decision.sweep(0).best(), decision.reliability
    best = swept.best()
    if best is None:
        kept = getattr(config, key)
        logger.info("Validation: %s (%s); its threshold stays at %.3f.", SHOWN[name], swept.undefined, kept)
        best = swept.at(kept)
    else:
        setattr(config, key, best.threshold)
    temperature = _temperature(config, name)
    chosen = {
        **vars(best),
        "kept": swept.undefined,
        "frames": swept.frames,
        "events": swept.wanted,
        "at_half": swept.at(0.5).f1,
        "at_best_on_frame": None if on_frame is None else swept.at(on_frame.threshold).f1,
        "temperature": temperature,
        "calibration_error": calibration_error(bins) if bins else None,
        "calibration_error_at_1": calibration_error(raw_bins) if raw_bins else None,
        "curve": swept.curve(),
        "reliability": [list(vars(one).values()) for one in bins],
    }
    if best.f1 is not None and swept.undefined is None:
        logger.info(
            "%s: threshold %.3f by F1 within %d s on validation (%.3f), temperature %.3f, calibration error %.3f.",
            _shown(name),
            best.threshold,
            CHOICE_TOLERANCE_S,
            best.f1,
            temperature,
            chosen["calibration_error"],
        )
    return chosen


def _shown(name: str) -> str:
    """The decision's name at the beginning of a sentence."""
    return SHOWN[name][0].upper() + SHOWN[name][1:]


def _temperature(config: DSTSmolVLMConfig, name: str) -> float:
    return float(getattr(config, f"{name}_temperature"))


def _set_temperature(config: DSTSmolVLMConfig, name: str, temperature: float) -> None:
    setattr(config, f"{name}_temperature", temperature)
