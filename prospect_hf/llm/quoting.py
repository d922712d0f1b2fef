"""Texts of others in a prompt: data on one line, in quotation marks that no text can close."""

from __future__ import annotations

import json
import unicodedata
from typing import Any


def plain_line(text: str) -> str:
    """Text on one line, without invisible characters: control and format characters, half surrogates."""
    seen = "".join(c for c in " ".join(text.split()) if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    return " ".join(seen.split())


def json_without_tags(value: Any) -> str:
    """``value`` as JSON without angle brackets, so that no text in it can close a tag round it."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")
