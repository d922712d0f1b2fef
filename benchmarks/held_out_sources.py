"""What a model knows of a source that it never saw: one model for each source, trained on the others.

    python benchmarks/held_out_sources.py FOLDER                        # the models of all sources, then the table
    python benchmarks/held_out_sources.py FOLDER training.max_steps=50 training.seed=1
    python benchmarks/held_out_sources.py FOLDER --table                # the table of the rows that are there

Settings are those of ``prospect train``. Each model is trained by that job with ``data.held_out_sources=[SOURCE]``, and
follows the test sessions of all sources. A row of the table is a source: the figures of the model that did not learn
from it, the mean of those of the models that did, on the same sessions, and the difference. Each model leaves one file,
``FOLDER/rows/SOURCE.json``; the same command goes on where it stopped. Its log is ``FOLDER/logs/SOURCE.txt``.

Exit codes: 0 done, 1 a training failed, 2 a bad argument.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from ablation import arguments
from one_sentence import exit_code

from prospect_hf.checked_json import as_dict, get_dict, get_number, load_json
from prospect_hf.cli import main as prospect
from prospect_hf.errors import UsageError
from prospect_hf.files import write_json
from prospect_hf.tables import table

FIGURES = {
    "joint": "table_joint_state_accuracy",
    "speaking F1": "speaking_f1_1s",
    "update F1": "dst_update_f1_1s",
}
OURS = ("data.held_out_sources", "training.output_dir", "training.resume_from_checkpoint")

Row = Mapping[str, Mapping[str, float | None]]  # source -> figure -> value


def sources_of(settings: Sequence[str]) -> list[str]:
    """The sources of ``data.sources``, each of which is held out once.

    Raises:
        UsageError: a setting is wrong or set here, or there are fewer than two sources.
    """
    for setting in settings:
        name = setting.split("=", 1)[0].lstrip("+~")
        if name in OURS:
            raise UsageError(f"{setting}: {name} is set by this script; leave it out.")
    sources = arguments(settings)[1].sources
    if len(sources) < 2:
        raise UsageError(f"data.sources has {len(sources)} source; to hold one out, at least two are needed.")
    return sources


def row_path(folder: Path, source: str) -> Path:
    """The file of the model that did not learn from ``source``."""
    return folder / "rows" / f"{source}.json"


def read_row(folder: Path, source: str) -> dict[str, Any] | None:
    """The file's content; None where it is missing.

    Raises:
        DataError: it is no row.
    """
    path = row_path(folder, source)
    if not path.is_file():
        return None
    row = as_dict(load_json(path), str(path))
    for of_source in get_dict(row, "figures", str(path)):
        figures = get_dict(row["figures"], of_source, f"{path}: figures")
        for label in figures:
            if figures[label] is not None:
                get_number(figures, label, f"{path}: figures of {of_source}")
    return row


def train_without(folder: Path, source: str, settings: Sequence[str]) -> bool:
    """Train one model and write its row; returns whether that succeeded. A training that was stopped goes on."""
    # Of other settings is another folder: a run that was stopped goes on with its own settings alone.
    output = folder / "runs" / f"{source}-{hashlib.sha256(' '.join(settings).encode()).hexdigest()[:8]}"
    log = folder / "logs" / f"{source}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    ours = [f"data.held_out_sources=[{source}]", f"training.output_dir={output}"]
    ours += ["training.resume_from_checkpoint=true"]
    with log.open("a", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        code = prospect(["train", *settings, *ours])
    if code:
        last = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()][-1:]
        print(f"{source}: the training ended with code {code} ({log}): {' '.join(last)}", file=sys.stderr, flush=True)
        return False
    results = load_json(output / "results.json")["results"]
    figures = {
        name: {label: scores.get(key) for label, key in FIGURES.items()}
        for name, scores in results["free_run_by_source"].items()
    }
    row_path(folder, source).parent.mkdir(exist_ok=True)
    seconds = time.perf_counter() - started
    write_json(row_path(folder, source), {"settings": list(settings), "figures": figures, "seconds": seconds})
    shutil.rmtree(output)
    return True


def source_rows(found: Mapping[str, Row]) -> list[list[str]]:
    """The cells of the table; – where a figure is undefined, or no other model is there yet."""
    rows = [["source", *(f"{label}, {kind}" for label in FIGURES for kind in ("held out", "in source", "gap"))]]
    for source, row in found.items():
        cells = [source]
        for label in FIGURES:
            out = row.get(source, {}).get(label)
            seen = [other.get(source, {}).get(label) for name, other in found.items() if name != source]
            known = [value for value in seen if value is not None]
            inside = statistics.mean(known) if known else None
            gap = None if out is None or inside is None else out - inside
            cells += [_shown(out), _shown(inside), _shown(gap, "+")]
        rows.append(cells)
    return rows


def _shown(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.3f}"


def run(args: argparse.Namespace) -> int:
    """Train what is missing and print the table.

    Raises:
        UsageError: only the table is wanted, and no row is there for it.
    """
    folder, settings = args.folder.resolve(), args.settings
    sources = sources_of(settings)
    failed = False
    for source in sources if not args.table else ():
        row = read_row(folder, source)
        if row is None or row.get("settings") != settings:
            failed |= not train_without(folder, source, settings)
    rows = {source: row for source in sources if (row := read_row(folder, source)) is not None}
    apart = [source for source, row in rows.items() if row.get("settings") != settings]
    if apart:
        print(f"Left out, since they are of other settings: {', '.join(apart)}.", file=sys.stderr)
    shown = {source: row["figures"] for source, row in rows.items() if source not in apart}
    if not shown and args.table:
        raise UsageError(f"{folder / 'rows'} holds no row of these settings; run without --table first.")
    print(table(source_rows(shown)))
    return int(failed)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where rows, logs and unfinished runs are kept")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="of prospect train")
    parser.add_argument("--table", action="store_true", help="only print the table of the rows that are there")
    args = parser.parse_args(argv)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
