"""The YAML at the head of a model card: written and read as data, never as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from prospect_hf.errors import DataError

FENCE = "---\n"


class _OneLineTexts(yaml.SafeDumper):
    """Writes each text on one line, so that no line of a text is taken for the end of the front matter."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text.isprintable() and "---" not in text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_OneLineTexts.add_representer(str, _text)


def with_front_matter(data: Mapping[str, Any], body: str) -> str:
    """A card: ``data`` between two lines of three dashes, then ``body``."""
    head = yaml.dump(dict(data), Dumper=_OneLineTexts, sort_keys=False, allow_unicode=True, width=float("inf"))
    return f"{FENCE}{head}{FENCE}{body}"


def read_card(path: Path) -> tuple[dict[str, Any], str]:
    """The front matter of a card and the text after it.

    Raises:
        DataError: the file does not begin with front matter that is a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if not text.startswith(FENCE) or f"\n{FENCE}" not in text:
            raise DataError(f"{path} does not begin with front matter between two lines ---; train again.")
        head, body = text.removeprefix(FENCE).split(f"\n{FENCE}", 1)
        data = yaml.safe_load(head)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: the front matter cannot be read ({' '.join(str(error).split())}).") from error
    if not isinstance(data, dict):
        raise DataError(f"{path}: the front matter is {type(data).__name__} and not a mapping of keys.")
    return data, body
