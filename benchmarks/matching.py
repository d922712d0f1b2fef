"""Stream matching: time and memory of the dense cost matrix against this package's sparse assignment.

    python benchmarks/matching.py
    python benchmarks/matching.py --dense-up-to 8000

Each method and size runs in a new process: median time of 3, and growth of the peak memory. A session of N frames has
N / 9 predictions and N / 9 references, ego4d's window, and embeddings of size 384. Both methods must find equal pairs.

Exit codes: 0 done, 1 the methods differ, 2 a bad argument.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from prospect_hf.metrics.stream_matching import DISTANCE_POWER, DISTANCE_WEIGHT, match_stream, window_frames

SIZES = (1_000, 8_000, 72_000, 720_000)
WIDTH = 384
REPEATS = 3


def session(frames: int) -> tuple[list[int], list[int], NDArray[np.float64], NDArray[np.float64]]:
    """Frames of the predictions and of the references of a random session, and the embeddings of both."""
    rng = np.random.default_rng(0)
    sides = [np.sort(rng.choice(frames, frames // 9, replace=False)).tolist() for _ in range(2)]
    vectors = rng.normal(size=(2, frames // 9, WIDTH))
    return sides[0], sides[1], vectors[0], vectors[1]


def dense(
    predicted: list[int], reference: list[int], ours: NDArray[np.float64], theirs: NDArray[np.float64], frames: int
) -> list[list[int]]:
    """The paper's formula without shortcuts: costs ``[frames, frames]``, then the assignment of the predictions."""
    left, right = window_frames("ego4d", 2.0)
    place = np.arange(frames)
    offset = place[None] - place[:, None]
    distance = DISTANCE_WEIGHT * np.abs(offset) ** DISTANCE_POWER / max(-left, right) ** DISTANCE_POWER
    distance[(offset < left) | (offset > right)] = 1e6
    content = np.ones((frames, frames))
    ours = ours / np.linalg.norm(ours, axis=1, keepdims=True)
    theirs = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    content[np.ix_(predicted, reference)] = 1 - np.abs(ours @ theirs.T)
    rows, columns = linear_sum_assignment((content + distance)[predicted])
    which = {frame: index for index, frame in enumerate(reference)}
    return [[int(row), which[int(frame)]] for row, frame in zip(rows, columns, strict=True) if int(frame) in which]


def measure(method: str, frames: int) -> dict[str, object]:
    """Seconds, growth of the peak memory in MiB, and the pairs of one method, in this process."""
    predicted, reference, ours, theirs = session(frames)
    methods: dict[str, Callable[[], list[list[int]]]] = {
        "dense": lambda: dense(predicted, reference, ours, theirs, frames),
        "sparse": lambda: match_stream(
            predicted, reference, ours, theirs, frames, window_frames("ego4d", 2.0)
        ).matched.tolist(),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, pairs = [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        pairs = methods[method]()
        seconds.append(time.perf_counter() - began)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": statistics.median(seconds), "mib": peak, "pairs": pairs}


def measure_in_new_process(method: str, frames: int) -> dict[str, object]:
    """``measure`` in a new process."""
    command = [sys.executable, __file__, "--method", method, "--frames", str(frames)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."})
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dense-up-to", type=int, default=8_000, help="frames of the largest dense run (%(default)s)")
    parser.add_argument("--method", choices=("dense", "sparse"), help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.method:
        print(json.dumps(measure(args.method, args.frames)))
        return 0
    print(f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}\n")
    print("| frames | utterances per side | dense | sparse | ratio | dense, memory | sparse, memory |")
    print("|---|---|---|---|---|---|---|")
    for frames in SIZES:
        ours = measure_in_new_process("sparse", frames)
        cells = [f"{frames:,}", f"{frames // 9:,}"]
        if frames > args.dense_up_to:
            need = frames**2 * 8 * 3 / 2**30
            cells += ["not run", f"{ours['seconds']:.3f} s", "", f"over {need:.0f} GiB", f"{ours['mib']:.0f} MiB"]
            print("|", " | ".join(cells), "|")
            continue
        theirs = measure_in_new_process("dense", frames)
        if ours["pairs"] != theirs["pairs"]:
            print(f"error: the two methods find different pairs at {frames} frames.", file=sys.stderr)
            return 1
        ratio = float(str(theirs["seconds"])) / float(str(ours["seconds"]))
        cells += [f"{theirs['seconds']:.3f} s", f"{ours['seconds']:.3f} s", f"{ratio:,.0f} x"]
        print("|", " | ".join([*cells, f"{theirs['mib']:.0f} MiB", f"{ours['mib']:.0f} MiB"]), "|", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
