"""Parses the steps of the plan from ProAssist's free text ``inferred_knowledge``."""

from __future__ import annotations

import re

from prospect_hf.errors import DataError
from prospect_hf.sessions import Step

_NUMBERED = re.compile(r"^(\d{1,4})\.\s+(.*)$")


def parse_steps(knowledge: str, where: str) -> tuple[Step, ...]:
    """The last numbered list of ``knowledge`` as steps S1, S2, ..., in order.

    Text before it (title, ingredients and tools, numbered or not) is ignored; a later line without a number continues
    the step above it. ``where`` names the record in messages.

    Raises:
        DataError: there is no numbered line, or a list does not count up from 1 by 1.
    """
    texts: list[str] = []
    for line in knowledge.splitlines():
        numbered = _NUMBERED.match(line.strip())
        if numbered:
            number = int(numbered[1])
            if number == 1:
                texts = []
            elif number != len(texts) + 1:
                raise DataError(
                    f"{where}: number {number} follows number {len(texts)} in the plan; its steps must count up from 1."
                )
            texts.append(numbered[2].strip())
        elif texts and line.strip():
            texts[-1] = f"{texts[-1]} {line.strip()}".strip()
    if not texts:
        raise DataError(f"{where} has no numbered step; expected lines such as '1. Fill the kettle.'.")
    for number, text in enumerate(texts, start=1):
        if not text:
            raise DataError(f"{where}: step {number} has a number but no text.")
    return tuple(Step(f"S{number}", text) for number, text in enumerate(texts, start=1))
