"""Time and peak memory of a training step with four losses, against the stock model's step with one loss.

Our step is ``DSTTrainer.compute_loss`` (text, speaking, DST update and states) with its backward pass; the stock step
is ``SmolVLMForConditionalGeneration`` with ``labels=`` and its backward pass. Both have the same weights, ids, frames
and text labels, and the same text loss, which is checked. tokens_per_frame is "full", the stock model's only mode. The
optimiser, the same for both, is left out. CPU, float32.

* time: the two steps alternate in one process; ratio of the medians. Each shape runs with the text labels of a stream
  (about 12 % of the positions), and with a label at every position.
* memory: a vocabulary of 49,280 and 4,096 positions; frames enter as features, as from a feature cache. Each side runs
  in a new process; the figure is the peak resident memory of the first step minus the memory before it. It includes the
  gradients, and no optimiser states.

Examples:
    python benchmarks/step_cost.py
    python benchmarks/step_cost.py --repeats 3 --part time --shapes tiny
    python benchmarks/step_cost.py --part memory --positions 512

Exit codes: 0 done, 1 the two text losses differ, 2 a bad argument or a system without /proc/self/status.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
import transformers
from fresh_process import measured, peak_bytes, reset_peak, resident_bytes
from step_cost_sides import WORKS, Work, our_step, stock_step

from prospect_hf.sessions import IGNORE
from prospect_hf.tables import table


def time_row(name: str, work: Work, all_labelled: bool, repeats: int, folder: str) -> tuple[list[str], bool]:
    """The row of the time table, and whether both sides had the same text loss."""
    batch = work.batch(all_labelled)
    ours, model = our_step(work, batch, folder)
    stock, stock_forward = stock_step(work, batch, model)
    with torch.no_grad():
        text = {name: batch[name] for name in ("input_ids", "attention_mask", "labels", "pixel_values")}
        same = math.isclose(float(model(**text).loss), float(stock_forward()), rel_tol=1e-4)
    ours(), stock()  # warm-up
    times: dict[str, list[float]] = {"ours": [], "stock": []}
    for repeat in range(repeats):
        # The sides alternate and take turns in running first, so that load and caches affect both equally.
        for side, step in (("ours", ours), ("stock", stock))[:: 1 if repeat % 2 == 0 else -1]:
            start = time.perf_counter()
            step()
            times[side].append(time.perf_counter() - start)
    our_median, stock_median = statistics.median(times["ours"]), statistics.median(times["stock"])
    return [
        name,
        f"{model.num_parameters() / 1e6:.1f} M",
        f"{work.rows} x {work.positions}",
        f"{batch['frame_positions'].numel()}",
        labelled_share(batch),
        f"{our_median * 1000:.0f} ms",
        f"{stock_median * 1000:.0f} ms",
        f"{our_median / stock_median:.2f} x",
    ], same


def labelled_share(batch: dict[str, torch.Tensor]) -> str:
    """The share of positions with a text label, in percent."""
    return f"{100 * float((batch['labels'] != IGNORE).float().mean()):.0f} %"


def measure(side: str, positions: int, all_labelled: bool) -> dict[str, float]:
    """Peak memory that one step of one side adds in this process (bytes), and the time of a second step (seconds)."""
    work = replace(WORKS["memory"], positions=positions)
    batch = work.batch(all_labelled)
    with tempfile.TemporaryDirectory() as folder:
        step = our_step(work, batch, folder)[0] if side == "ours" else stock_step(work, batch, None)[0]
        reset_peak()
        before = resident_bytes()
        step()
        added = peak_bytes() - before
        # The second step is timed, since the first one also allocates its memory.
        start = time.perf_counter()
        step()
    return {"bytes": added, "seconds": time.perf_counter() - start}


def memory_row(positions: int, all_labelled: bool, repeats: int) -> list[str]:
    """The row of the memory table: medians over new processes."""
    medians: dict[str, dict[str, float]] = {}
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "stock": []}
    for _ in range(repeats):
        for side, results in runs.items():
            everywhere = ["--all-labelled"] if all_labelled else []
            results.append(measured(__file__, [side, "--positions", str(positions), *everywhere]))
    for side, results in runs.items():
        medians[side] = {key: statistics.median(result[key] for result in results) for key in ("bytes", "seconds")}
    work = replace(WORKS["memory"], positions=positions)
    ours, stock = medians["ours"], medians["stock"]
    return [
        f"{work.shape.vocab}",
        f"{positions}",
        labelled_share(work.batch(all_labelled)),
        f"{ours['bytes'] / 2**20:.0f} MiB",
        f"{stock['bytes'] / 2**20:.0f} MiB",
        f"{ours['bytes'] / stock['bytes']:.2f} x",
        f"{ours['seconds']:.2f} s",
        f"{stock['seconds']:.2f} s",
        f"{ours['seconds'] / stock['seconds']:.2f} x",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("time", "memory", "both"), default="both")
    parser.add_argument("--shapes", default="tiny,mid", help="shapes of the time table (default tiny,mid)")
    parser.add_argument("--repeats", type=int, default=9, help="timed steps of each side (default 9)")
    parser.add_argument("--processes", type=int, default=3, help="new processes of each side (default 3)")
    parser.add_argument("--positions", type=int, default=4096, help="tokens of the memory table (default 4096)")
    parser.add_argument("--measure", choices=("ours", "stock"), help=argparse.SUPPRESS)
    parser.add_argument("--all-labelled", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    names = args.shapes.split(",")
    if not set(names) <= {"tiny", "mid"} or args.repeats < 1 or args.processes < 1 or args.positions < 256:
        parser.error("--shapes takes tiny and mid, counts are 1 or more, --positions is 256 or more")
    transformers.logging.set_verbosity_error()
    if args.measure:
        print(json.dumps(measure(args.measure, args.positions, args.all_labelled)))
        return 0

    all_same = True
    if args.part in ("time", "both"):
        head = ["shape", "parameters", "batch x tokens", "frames", "labelled", "ours", "stock", "time"]
        rows = [head]
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                for all_labelled in (False, True):
                    row, same = time_row(name, WORKS[name], all_labelled, args.repeats, folder)
                    rows.append(row)
                    all_same &= same
        print(f"Step time (forward + backward), median of {args.repeats}, {torch.get_num_threads()} threads")
        print(table(rows), end="\n\n")
    if args.part in ("memory", "both"):
        head = ["vocabulary", "tokens", "labelled", "ours", "stock", "memory", "ours", "stock", "time"]
        try:
            peak_bytes()
            rows = [head, *(memory_row(args.positions, everywhere, args.processes) for everywhere in (False, True))]
        except OSError as error:
            print(f"error: peak memory cannot be measured ({error}); run this on Linux.", file=sys.stderr)
            return 2
        print(f"Peak memory that one step adds, median of {args.processes} new processes")
        print(table(rows))
    if not all_same:
        print("error: the two text losses differ, so the steps are not comparable.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
