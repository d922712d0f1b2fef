"""Parses the steps of the plan from ProAssist's free text ``inferred_knowledge``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prospect_hf.errors import DataError
from prospect_hf.sessions import Step
from prospect_hf.words import continued

# How the lines of a plan are numbered; a form counts only where the text has no line of the forms before it, so that
# "1) ..." within a step is text of that step. "1.5 cups" is no numbered line, "1.Fill" is one.
_FORMS = (
    re.compile(r"(?P<number>\d{1,4})\.(?:\s+|$|(?=[^\W\d]))(?P<text>.*)"),
    re.compile(r"(?P<number>\d{1,4})\)\s*(?P<text>.*)"),
    re.compile(r"step\s+(?P<number>\d{1,4})\s*[.:)-]\s*(?P<text>.*)", re.IGNORECASE),
)
# Byte order mark, zero-width space, word joiner: they can stand before a number, and nobody sees them.
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060"))


@dataclass
class _Item:
    """A numbered line: its number, its indent in characters, and its text."""

    number: int
    indent: int
    text: str


def parse_steps(knowledge: str, where: str) -> tuple[Step, ...]:
    """The last numbered list of ``knowledge`` as steps S1, S2, ..., in order.

    Text before it (title, ingredients and tools, numbered or not) is ignored. A later line without a number continues
    the step above it, and so does a numbered list that is indented below a step. A paragraph after the last step, after
    a blank line and not indented below that step, is no part of the plan. ``where`` names the record in messages.

    Raises:
        DataError: there is no numbered line, or the list does not count up from 1 by 1.
    """
    items: list[_Item] = []
    for form in _FORMS:
        items = items or _last_list(knowledge, form)
    if not items:
        raise DataError(f"{where} has no numbered step; expected lines such as '1. Fill the kettle.'.")
    for above, item in enumerate(items):
        if item.number != above + 1:
            found = f"number {item.number} follows number {above} in the plan"
            raise DataError(
                f"{where}: {found if above else f'the plan begins with number {item.number}'}; its steps must count up "
                "from 1."
            )
        if not item.text:
            raise DataError(f"{where}: step {item.number} has a number but no text.")
    return tuple(Step(f"S{item.number}", item.text) for item in items)


def _last_list(knowledge: str, form: re.Pattern[str]) -> list[_Item]:
    """The items of the last list whose lines are numbered in this form."""
    items: list[_Item] = []
    before: list[_Item] = []  # the list before this one
    apart: list[str] = []  # text after a blank line: of the step above it if another step follows
    sublist: int | None = None  # indent of a numbered list below a step
    blank = False
    for line in knowledge.translate(_INVISIBLE).expandtabs().splitlines():
        text = line.strip()
        if not text:
            blank = True
            continue
        indent = len(line) - len(line.lstrip())
        found = form.match(text)
        if found and items and not blank and int(found["number"]) == 1 and indent > items[-1].indent:
            sublist = indent
        if found and (sublist is None or indent < sublist):
            if int(found["number"]) == 1 and not (items and items[-1].number == 0):
                before, items = items, []
            elif items:
                for more in apart:
                    items[-1].text = continued(items[-1].text, more)
            items.append(_Item(int(found["number"]), indent, found["text"].strip()))
            apart, sublist = [], None
        elif items and (apart or (blank and indent <= items[-1].indent)):
            apart.append(text)
        elif items:
            items[-1].text = continued(items[-1].text, text)
        blank = False
    # Lists of one item each are one list whose lines all have the number 1.
    return before + items if len(before) == len(items) == 1 else items
