"""Writes the model card: fills the template ``model_card.md`` with the facts of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from prospect_hf.files import write_text
from prospect_hf.metrics.catalogue import FIGURES

TEMPLATE = Path(__file__).resolve().parents[2] / "model_card.md"
FRAMES = {
    "store": "the video frames of the corpus",
    "rendered": "simple pictures drawn from the labels, because the videos were not available: "
    "the model has not learned to understand real video",
    "blank": "one grey picture for every frame: this model is a control without visual input",
}


def write_card(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write ``README.md`` into a model folder.

    Args:
        folder: the saved model.
        facts: ``settings`` (the composed groups), ``results`` and ``balance`` of the run.

    Raises:
        jinja2.UndefinedError: the template uses a fact that the run does not have.
    """
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    text = environment.from_string(template()).render(
        **facts,
        frames=FRAMES[facts["settings"]["data"]["frames"]],
        figures=figure_rows(facts["results"].get("free_run", {})),
        settings_json=json.dumps(facts["settings"], indent=1),
    )
    write_text(folder / "README.md", text)
    return folder / "README.md"


def figure_rows(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(label, value) of each figure in ``scores`` that the catalogue describes, in the order of the report."""
    return [
        (
            f"{figure.group}: {figure.label}" + (f", {figure.unit}" if figure.unit else ""),
            "undefined" if scores[name] is None else f"{scores[name]:.{figure.digits}f}",
        )
        for name, figure in FIGURES.items()
        if name in scores
    ]


def template() -> str:
    """The template: ``model_card.md`` of the repository, or the copy inside an installed package."""
    if TEMPLATE.is_file():
        return TEMPLATE.read_text(encoding="utf-8")
    return (files("prospect_hf") / "model_card.md").read_text(encoding="utf-8")
