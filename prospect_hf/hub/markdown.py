"""Texts of others in a card: escaped, so that none of them ends a table, opens a tag or is read as a template."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from jinja2 import Environment, StrictUndefined

# Directions of writing that a text could turn round for what follows it.
BIDI_CONTROLS = ("LRE", "LRO", "RLE", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
# As entities, since not every reader of Markdown takes a backslash before them, least of all in a table.
ENTITIES = str.maketrans({mark: f"&#{ord(mark)};" for mark in "\\`|<>&{}"})
# An underscore within a word begins no emphasis.
MARKS = re.compile(r"[*~#$\[\]]|(?<!\w)_|_(?!\w)")


class Markdown(str):
    """A text that is Markdown already, so that the template shows it as it stands."""


def rendered(template: str, **facts: Any) -> str:
    """``template`` filled with ``facts``: each text is shown escaped, except ``Markdown``.

    Raises:
        jinja2.UndefinedError: the template uses a fact that is not given.
    """
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: escaped(value) if type(value) is str else value,
    )
    return environment.from_string(template).render(**facts)


def escaped(text: str) -> str:
    """``text`` as Markdown that shows it on one line, in a paragraph or a table's cell."""
    shown = "".join(" " if unicodedata.category(mark) in ("Cc", "Zl", "Zp") else mark for mark in text)
    shown = "".join(mark for mark in shown if unicodedata.bidirectional(mark) not in BIDI_CONTROLS)
    shown = " ".join(shown.encode("utf-8", "backslashreplace").decode("utf-8").split())
    # Marks first: the entities contain a # of their own.
    return MARKS.sub(lambda found: f"\0{found[0]}", shown).translate(ENTITIES).replace("\0", "\\")


def fenced_json(value: Any) -> str:
    """``value`` as JSON for a block of code; no text in it can end the block or is read as HTML."""
    text = json.dumps(value, indent=1)
    return re.sub(r"[`<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)
