"""Writes the model card: fills the template ``model_card.md`` with the facts of a run.

Values of a run are data. The front matter is dumped from a dict, and every text that the template shows is escaped
(``escaped``), so that no name or goal ends a table, opens a tag or is read as a template.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import as_dict, load_json
from prospect_hf.files import write_text
from prospect_hf.hub.front_matter import with_front_matter
from prospect_hf.hub.markdown import Markdown, fenced_json, rendered
from prospect_hf.hub.weights import WEIGHTS_KEY
from prospect_hf.metrics.catalogue import FIGURES

TEMPLATE = Path(__file__).resolve().parents[2] / "model_card.md"
FRAMES = {
    "store": "the video frames of the corpus",
    "rendered": "simple pictures drawn from the labels, because the videos were not available: "
    "the model has not learned to understand real video",
    "blank": "one grey picture for every frame: this model is a control without visual input",
}
TAGS = ["dialog-state-tracking", "egocentric-video", "proactive-assistant", "streaming", "smolvlm"]


def write_card(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write ``README.md`` into a model folder.

    Args:
        folder: the saved model.
        facts: ``settings`` (the composed groups), ``results`` and ``balance`` of the run; ``weights_sha256`` and
            ``machine`` where they are known.

    Raises:
        jinja2.UndefinedError: the template uses a fact that the run does not have.
    """
    base = base_model(facts["settings"]["model"]["name_or_path"])
    config = folder / "config.json"
    model = as_dict(load_json(config), str(config)) if config.is_file() else {}
    adapter = model.get("adapter")
    text = rendered(
        template(),
        **facts,
        base_model=base,
        adapter=adapter,
        packages=packages(adapter),
        trained=None if adapter is None else trained_parts(adapter),
        merged=model.get("merged"),
        blind=model.get("blind", False),
        decision_source=model.get("decision_source", "heads"),
        frozen=None if base is None else frozen_parts(facts["settings"]),
        frames=FRAMES[facts["settings"]["data"]["frames"]],
        decisions=decision_rows(facts["results"].get("calibration", {})),
        figures=figure_rows(facts["results"].get("free_run", {}), facts["results"].get("free_run_held_out")),
        settings_json=Markdown(fenced_json(facts["settings"])),
    )
    write_text(folder / "README.md", with_front_matter(front_matter(base, facts.get(WEIGHTS_KEY)), text))
    return folder / "README.md"


def front_matter(base: str | None, weights: str | None) -> dict[str, Any]:
    """What the Hub reads of a card: library, task, licence, base model, tags; and the hash of the weights."""
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "video-text-to-text"}
    head |= {"license": "apache-2.0", "language": "en"}
    if base is not None:
        head["base_model"] = base
    head["tags"] = TAGS
    if weights is not None:
        head[WEIGHTS_KEY] = weights
    return head


def base_model(name_or_path: str | None) -> str | None:
    """The base model as the card names it: its id on the Hub, or the name of its folder."""
    if not name_or_path:
        return None
    name = name_or_path
    if name.startswith(".") or os.path.isabs(name):
        name = Path(os.path.abspath(name)).name or name
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def packages(adapter: Mapping[str, Any] | None) -> str:
    """What a folder needs to be opened, as the card says it; ``adapter`` is that of its configuration."""
    if adapter is None or adapter["rank"] is None:
        return "torch and transformers"
    if adapter["quantization"] is None:
        return "torch, transformers and peft"
    return "torch, transformers, peft and bitsandbytes"


def trained_parts(adapter: Mapping[str, Any]) -> str:
    """What was trained of a model whose folder holds no base weights."""
    heads = [name for name in adapter["modules"] if name.endswith("_head")]
    parts = ["the heads" if len(heads) > 1 else "the DST-state head"]
    if len(heads) < len(adapter["modules"]):
        parts.append("the connector")
    if adapter["rank"] is not None:
        parts.append(f"LoRA layers of rank {adapter['rank']} in the text model")
    return ", ".join(parts)


def frozen_parts(settings: Mapping[str, Any]) -> str | None:
    """The parts of the base model that see and were not trained; every mode but ``full`` freezes the vision tower."""
    training = settings["training"]
    if training["mode"] == "full":
        return "vision tower and connector" if settings["model"]["freeze_vision"] else None
    return "vision tower" if training["train_connector"] else "vision tower and connector"


def figure_rows(scores: Mapping[str, Any], unseen: Mapping[str, Any] | None = None) -> list[list[str]]:
    """Label and value of each figure in ``scores`` that the catalogue describes, in the order of the report.

    Args:
        scores: of the sources that the model learned from.
        unseen: of sources that it did not learn from, for a second value.
    """
    sides = [scores] if unseen is None else [scores, unseen]
    return [
        [
            f"{figure.group}: {figure.label}" + (f", {figure.unit}" if figure.unit else ""),
            *("undefined" if side.get(name) is None else f"{side[name]:.{figure.digits}f}" for side in sides),
        ]
        for name, figure in FIGURES.items()
        if any(name in side for side in sides)
    ]


def decision_rows(calibration: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table of thresholds: decision, threshold, precision, recall, F1, temperature, calibration error."""
    rows = []
    for name, label in (("speaking", "speaking"), ("dst_update", "DST update")):
        if name in calibration:
            chosen = calibration[name]
            kept = f" (kept: {chosen['kept']})" if chosen["kept"] else ""
            keys = ("precision", "recall", "f1", "temperature", "calibration_error")
            values = ("undefined" if chosen[key] is None else f"{chosen[key]:.3f}" for key in keys)
            rows.append([label, f"{chosen['threshold']:.3f}{kept}", *values])
    return rows


def template() -> str:
    """The template: ``model_card.md`` of the repository, or the copy inside an installed package."""
    if TEMPLATE.is_file():
        return TEMPLATE.read_text(encoding="utf-8")
    return (files("prospect_hf") / "model_card.md").read_text(encoding="utf-8")
