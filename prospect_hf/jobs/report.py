"""``prospect report PAGE.html RESULTS ...``: one page of several evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prospect_hf.evaluation.report.differences import report_command


def run(page: Path, results: Sequence[str]) -> int:
    """Write the page; each of ``results`` is a folder or a ``results.json``."""
    return report_command([str(page), *results])
