"""The table of docs/robustness.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path


def test_every_row_names_tests_that_exist(repository: Path) -> None:
    rows = [
        line
        for line in (repository / "docs" / "robustness.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| what holds")
    ]
    assert len(rows) > 20
    known: dict[str, set[str]] = {}
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        # Nothing else stands in code: a name with a slip is not passed over.
        assert named and len(named) == row.count("`") // 2, row
        for file, test in named:
            if file not in known:
                tree = ast.parse((repository / file).read_text(encoding="utf-8"))
                known[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert test in known[file], f"{file} has no {test}"
