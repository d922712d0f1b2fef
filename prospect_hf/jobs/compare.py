"""``prospect compare A B``: is B better than A?"""

from __future__ import annotations

from prospect_hf.evaluation.report.differences import compare_command


def run(a: str, b: str) -> int:
    """Print the paired differences of two results; each is a folder, a ``results.json``, or ``FILE#RUN``."""
    return compare_command([a, b])
