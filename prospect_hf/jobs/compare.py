"""``prospect compare A B``: is B better than A?"""

from __future__ import annotations

from prospect_hf.evaluation.report.differences import difference_table, paired_differences, read_side, run_pairs
from prospect_hf.terminal import say


def run(a: str, b: str) -> None:
    """Print the paired differences of every run that both results have, streams first.

    Args:
        a, b: a folder or a ``results.json``; ``FILE#RUN`` chooses one run of it.

    Raises:
        UsageError: a file or a run that does not exist, or no run in common.
        DataError: a file that holds no results, or sessions that differ in the two.
    """
    for ours, theirs in run_pairs(read_side(a), read_side(b)):
        say(difference_table(ours, theirs, paired_differences(ours, theirs)))
