"""Training on packed sessions against per-frame samples in the stock Trainer, and what each part of a step buys.

A model of the sizes of SmolVLM2-256M with random weights, one token a frame, frames as cached features, a frozen vision
tower, AdamW, float32. A step is the trainer's loss, its gradient, clipping and the optimiser. Two tables:

* packed: one step on a whole session, with all four losses (ours), against the stock Trainer on one sample for each
  frame: the session up to the frame, and what follows it as text: its turn, or an end token for silence. A few samples,
  evenly spread over the session, are run; the time of all is their mean times the number of frames.
* parts: one step on a long stream, each line with one change: without the heads; with LM logits at all places; with
  those at the labelled places kept at once; with frames as pixels, whose time is extrapolated from 16 frames; with LoRA
  layers on a frozen base, without and with checkpointed layers.

Ours, LoRA and the stock Trainer have a new process each, in which all kinds of steps take turns. Seconds are those of
the processor, so other load does not count; memory is the peak resident memory of a step, less what was resident before
the model was built. Losses of the changes that must not change it are compared.

Examples:
    OMP_NUM_THREADS=1 python benchmarks/training.py
    OMP_NUM_THREADS=1 python benchmarks/training.py --sizes tiny --repeats 1

Exit codes: 0 done, 1 the losses differ, 2 a bad argument or a system without /proc/self/status.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Sequence

import torch
import transformers
from fresh_process import measured, peak_bytes
from shapes import Shape
from step_cost import labelled_share
from training_sides import LENGTHS, PIXEL_FRAMES, SAME_LOSS, SHARES, SIZES, Figures, frame_sample, measure, session

from prospect_hf.machine import processor
from prospect_hf.tables import table

LONG = 1024  # tokens of the stream of the second table
PARTS = {
    "ours": "ours",
    "heads_off": "without the heads",
    "all_logits": "LM logits at all places",
    "kept_logits": "logits at the labelled places kept",
    "pixels": "frames as pixels",
    "lora": "LoRA, rank 16",
    "lora_checkpoints": "LoRA, checkpointed layers",
}


def figures_of(args: argparse.Namespace, side: str) -> dict[str, Figures]:
    """``measure`` in a new process.

    Raises:
        OSError: it failed.
    """
    given = [side, "--sizes", args.sizes, "--positions", str(args.positions)]
    given += ["--repeats", str(args.repeats), "--samples", str(args.samples)]
    # So that what one step has freed does not count for the next one.
    figures: dict[str, Figures] = measured(__file__, given, {"MALLOC_MMAP_THRESHOLD_": "1048576"})
    print(f"{side}: {json.dumps(figures)}", file=sys.stderr, flush=True)
    return figures


def packed_rows(shape: Shape, samples: int, ours: dict[str, Figures], stock: dict[str, Figures]) -> list[list[str]]:
    """The first table."""
    rows = [["frames", "tokens", "tokens of all samples", "packed", "samples run", "all samples", "ratio"]]
    rows[0] += ["tokens/s, packed", "tokens/s, samples", "memory, packed", "memory, samples"]
    for positions in LENGTHS:
        one, sample = ours[f"session {positions}"], stock[f"session {positions}"]
        packed = session(shape, positions)
        frames = packed["frame_positions"].shape[1]
        tokens = sum(frame_sample(packed, frame)["input_ids"].shape[1] for frame in range(frames))
        of_all = sample["seconds"] * frames
        rows.append(
            [
                f"{frames}",
                f"{positions}",
                f"{tokens:,}",
                f"{one['seconds']:.2f} s",
                f"{samples} of {frames}",
                f"{of_all:.0f} s (estimated)",
                f"{of_all / one['seconds']:.0f} x",
                f"{positions / one['seconds']:.1f}",
                f"{positions / of_all:.2f}",
                mebibytes(one),
                mebibytes(sample),
            ]
        )
    return rows


def part_rows(shape: Shape, positions: int, figures: dict[str, Figures]) -> tuple[list[list[str]], bool]:
    """The second table, and whether the losses that must be equal are."""
    same = True
    rows = [["a step", "text labels at", "seconds", "of ours", "memory", "of ours", "loss"]]
    for share, all_labelled in SHARES.items():
        ours = figures[f"ours {share}"]
        for part, name in PARTS.items():
            if f"{part} {share}" not in figures:
                continue
            one = dict(figures[f"{part} {share}"])
            packed = session(shape, positions, all_labelled)
            if part == "pixels":
                # The other frames take as long each; no more memory, since a pass of the tower takes so many at once.
                frames = len(packed["frame_features"])
                one["seconds"] += (one["seconds"] - ours["seconds"]) * (frames - PIXEL_FRAMES) / PIXEL_FRAMES
            if part in SAME_LOSS:
                same &= math.isclose(one["loss"], ours["loss"], rel_tol=1e-4)
            rows.append(
                [
                    name,
                    labelled_share(packed),
                    f"{one['seconds']:.2f} s" + (" (estimated)" if part == "pixels" else ""),
                    f"{one['seconds'] / ours['seconds']:.2f} x",
                    mebibytes(one),
                    f"{one['bytes'] / ours['bytes']:.2f} x",
                    f"{one['loss']:.4f}",
                ]
            )
    return rows, same


def mebibytes(figures: Figures) -> str:
    """The memory of a step."""
    return f"{figures['bytes'] / 2**20:,.0f} MiB"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=tuple(SIZES), default="256M", help="of the model (default 256M)")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each kind (default 3)")
    parser.add_argument("--samples", type=int, default=4, help="samples of a session that are run (default 4)")
    parser.add_argument("--positions", type=int, default=LONG, help=f"tokens of the second table ({LONG})")
    parser.add_argument("--measure", choices=("ours", "lora", "stock"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.repeats < 1 or args.samples < 1 or args.positions < 160:
        parser.error("--repeats and --samples are 1 or more, --positions is 160 or more")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    shape = SIZES[args.sizes]
    try:
        if args.measure:
            print(json.dumps(measure(args.measure, shape, args.positions, args.repeats, args.samples)))
            return 0
        peak_bytes()
        ours, lora, stock = (figures_of(args, side) for side in ("ours", "lora", "stock"))
    except OSError as error:
        print(f"error: {error}; memory is measured on Linux.", file=sys.stderr)
        return 2
    print(f"{processor()}, {torch.get_num_threads()} threads; medians of {args.repeats} steps")
    print(table(packed_rows(shape, args.samples, ours, stock)), end="\n\n")
    rows, same = part_rows(shape, args.positions, ours | lora)
    print(f"{args.positions} tokens\n{table(rows)}")
    if not same:
        print("error: losses that must be equal differ.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
