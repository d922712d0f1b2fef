"""Formats tables as aligned text."""

from __future__ import annotations

from collections.abc import Sequence

from prospect_hf.terminal import visible


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned text: a header row first; the first column is left-aligned, the others right.

    What no terminal shows as a character (line ends, control characters, changes of direction) is shown as its code.
    """
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in cells)
        for cells in (list(enumerate(zip(row, widths, strict=True))) for row in rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
