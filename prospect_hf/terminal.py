"""Texts of others on a terminal: what would move its cursor, colour it or turn its lines around is shown as a code.

Names of files, goals, plans, utterances and the messages of libraries all come from somewhere else. A terminal obeys
the escape sequences in them, and invisible marks of direction make a name look like another one.
"""

from __future__ import annotations

import logging
import re
import sys
import unicodedata
from typing import TextIO

# Marks of direction: embeddings, overrides, isolates and their ends.
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def visible_lines(text: str) -> str:
    r"""``text`` whose control characters other than line feeds are codes: ``\x1b``, ``\u202e``, ``\u2028``."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(_code(character) if _hidden(character) else character for character in text)


def visible(text: str) -> str:
    """``text`` on one line with single spaces, its other control characters as codes."""
    return visible_lines(re.sub(r"(?:\r?\n|[ \t])+", " ", text).strip(" "))


def _hidden(character: str) -> bool:
    # Cc: control characters (C0, DEL, C1); Zl, Zp: separators of lines; Cs: halves of characters.
    return character != "\n" and (unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") or character in BIDI)


def _code(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def say(*parts: object, file: TextIO | None = None) -> None:
    """Print texts with spaces between them; their own line feeds count."""
    print(visible_lines(" ".join(map(str, parts))), file=file)


def complain(text: object) -> None:
    """Print one line on standard error."""
    print(visible(str(text)), file=sys.stderr)


class VisibleFormatter(logging.Formatter):
    """The plain message of a record, in lines that a terminal only shows."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        return visible_lines(super().format(record))


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as one line; where in the code it was given is of no use to whom it is shown."""
    return f"warning: {visible(str(message))}\n"
