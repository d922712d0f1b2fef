"""The model card: the template ``model_card.md`` filled from the facts of a run, and from nothing else."""

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
    "store": "the sources' own frames",
    "rendered": "simple pictures drawn from the labels, because the videos were not available: "
    "the model has learned nothing about seeing real video",
    "blank": "one grey picture throughout: this is a control that sees nothing",
}


def write_card(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write ``README.md`` into a model folder.

    Args:
        folder: the saved model.
        facts: ``settings`` (the composed groups), ``results`` and ``balance`` of the run.

    Raises:
        jinja2.UndefinedError: the template asks for a fact that the run does not have.
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
    """(label, value) of each described figure among ``scores``, in the order of a report."""
    return [
        (
            f"{figure.group}: {figure.label}" + (f", {figure.unit}" if figure.unit else ""),
            "undefined" if scores[name] is None else f"{scores[name]:.{figure.digits}f}",
        )
        for name, figure in FIGURES.items()
        if name in scores
    ]


def template() -> str:
    """The card's template: ``model_card.md`` of the repository, or the copy that an installed package carries."""
    if TEMPLATE.is_file():
        return TEMPLATE.read_text(encoding="utf-8")
    return (files("prospect_hf") / "model_card.md").read_text(encoding="utf-8")
