"""``prospect report PAGE.html RESULTS ...``: one page of several evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prospect_hf.errors import DataError, UsageError
from prospect_hf.evaluation.report.page import write_report
from prospect_hf.evaluation.report.results import read_results
from prospect_hf.terminal import say


def run(page: Path, results: Sequence[str]) -> None:
    """Write the page.

    Args:
        page: the file to write; it must end in ``.html``.
        results: folders or ``results.json`` files.

    Raises:
        UsageError: ``page`` is no name of a page, a path is given twice, or it has no results.
        DataError: a file that holds no results, or two runs of one name.
    """
    if page.suffix != ".html":
        raise UsageError(f"report writes its first argument, {page}, which must end in .html: PAGE.html RESULTS ...")
    if page.is_dir():
        raise UsageError(f"report writes a page, but its first argument, {page}, is a folder: give a new page's name.")
    twice = [path for path in results if list(results).count(path) > 1]
    if twice:
        raise UsageError(f"report was given {twice[0]} twice: give each of the results once.")
    read = {path: read_results(Path(path)) for path in results}
    runs = named_runs(read)
    write_report(page, {**next(iter(read.values())), "runs": list(runs.values())})
    say(page)


def named_runs(read: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The runs of several results by name, with the folder's name before it where there are several results.

    A baseline that was made on the same data with the same encoder, seed and training sources occurs once.

    Args:
        read: path -> ``results.json``.

    Raises:
        DataError: two runs of one name.
    """
    runs: dict[str, dict[str, Any]] = {}
    for path, run_of in ((path, one) for path, results in read.items() for one in results["runs"]):
        name, baseline = run_of["name"], run_of["stamp"]["mode"] == "baseline"
        twin = runs.get(name) if baseline else None
        same = ("data_fingerprint", "encoder", "baseline_seed", "held_out_sources")
        if twin is not None and all(run_of["stamp"].get(key) == twin["stamp"].get(key) for key in same):
            continue
        if len(read) > 1 and (not baseline or twin is not None):
            name = f"{Path(path).name}: {name}"
        if name in runs:
            raise DataError(f"run {name!r} occurs in two of the results; give their folders different names.")
        runs[name] = {**run_of, "name": name}
    return runs
