"""Reads Markdown pages: their code blocks, inline code, links and headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\S*) *(.*)$")
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        page: the page's name.
        line: of its first line of code, from 1.
        language: the first word after the fence.
        mark: the other words after it.
        code: its text.
    """

    page: str
    line: int
    language: str
    mark: str
    code: str

    def commands(self) -> list[str]:
        """The command lines of a shell block; a line that ends with a backslash continues on the next one."""
        return [line for line in self.code.replace("\\\n", " ").splitlines() if line.strip()]


@dataclass(frozen=True)
class Page:
    """A Markdown page: its name in messages, its fenced blocks, and its prose without them."""

    name: str
    blocks: list[Block]
    prose: str

    @property
    def has_python(self) -> bool:
        """Whether it has Python blocks."""
        return any(block.language == "python" for block in self.blocks)

    def inline_code(self) -> list[str]:
        """What stands in backticks."""
        return _INLINE.findall(self.prose)

    def links(self) -> list[str]:
        """The targets of links and pictures."""
        return _LINK.findall(_INLINE.sub("", self.prose))

    def anchors(self) -> set[str]:
        """The names by which GitHub's links find the headings."""
        headings = re.findall(r"^#+ +(.+?) *$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def read_page(path: Path, name: str) -> Page:
    """The page in ``path``, which is called ``name`` in messages."""
    blocks: list[Block] = []
    prose: list[str] = []
    opened: tuple[int, str, str] | None = None
    code: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened is not None and line.startswith("```"):
            blocks.append(Block(name, opened[0], opened[1], opened[2], "".join(f"{row}\n" for row in code)))
            opened, code = None, []
        elif opened is not None:
            code.append(line)
        elif fence:
            opened = number + 1, fence[1], fence[2]
        else:
            prose.append(line)
    assert opened is None, f"{name}: the block that begins at line {opened and opened[0]} has no end"
    return Page(name, blocks, "\n".join(prose))
