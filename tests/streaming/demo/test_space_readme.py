"""A Space's front matter is data: a model's name that YAML reads as another type stays a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from prospect_hf.hub.front_matter import read_card


@pytest.mark.parametrize("name", ["1.0", "null", "yes", "2026-11-27", "model"])
def test_the_title_is_the_models_name(tmp_path: Path, name: str) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed (extra demo)")
    from prospect_hf.streaming.demo.space import write_space

    write_space(tmp_path, f"owner/{name}")
    head, _ = read_card(tmp_path / "README.md")
    assert head["title"] == name and head["models"] == [f"owner/{name}"]
