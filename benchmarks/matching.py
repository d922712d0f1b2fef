"""Stream matching: the dense formula over all frames against the sparse assignment of this package.

    python benchmarks/matching.py
    python benchmarks/matching.py --dense-up-to 8000

Each size is matched in a fresh process, both ways, median of 3; memory is what the process' peak grew by. A session of
N frames has N / 9 utterances on each side, ego4d's window, embeddings of 384 numbers. Both must find the same pairs.

Exit codes: 0 done, 1 the two sides differ, 2 a bad argument.
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
    """Frames and embeddings of a made session's predictions and references."""
    rng = np.random.default_rng(0)
    sides = [np.sort(rng.choice(frames, frames // 9, replace=False)).tolist() for _ in range(2)]
    vectors = rng.normal(size=(2, frames // 9, WIDTH))
    return sides[0], sides[1], vectors[0], vectors[1]


def dense(
    predicted: list[int], reference: list[int], ours: NDArray[np.float64], theirs: NDArray[np.float64], frames: int
) -> list[list[int]]:
    """The formula as it is written: costs of every frame with every frame, then the assignment of the predictions."""
    left, right = window_frames("ego4d", 2.0)
    place = np.arange(frames)
    apart = place[None] - place[:, None]
    distance = DISTANCE_WEIGHT * np.abs(apart) ** DISTANCE_POWER / max(-left, right) ** DISTANCE_POWER
    distance[(apart < left) | (apart > right)] = 1e6
    content = np.ones((frames, frames))
    ours = ours / np.linalg.norm(ours, axis=1, keepdims=True)
    theirs = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    content[np.ix_(predicted, reference)] = 1 - np.abs(ours @ theirs.T)
    rows, columns = linear_sum_assignment((content + distance)[predicted])
    which = {frame: index for index, frame in enumerate(reference)}
    return [[int(row), which[int(frame)]] for row, frame in zip(rows, columns, strict=True) if int(frame) in which]


def measure(way: str, frames: int) -> dict[str, object]:
    """Seconds, peak memory in MiB and the pairs of one way, in this process."""
    predicted, reference, ours, theirs = session(frames)
    ways: dict[str, Callable[[], list[list[int]]]] = {
        "dense": lambda: dense(predicted, reference, ours, theirs, frames),
        "sparse": lambda: match_stream(
            predicted, reference, ours, theirs, frames, window_frames("ego4d", 2.0)
        ).matched.tolist(),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, pairs = [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        pairs = ways[way]()
        seconds.append(time.perf_counter() - began)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": statistics.median(seconds), "mib": peak, "pairs": pairs}


def fresh(way: str, frames: int) -> dict[str, object]:
    """``measure`` in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--frames", str(frames)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."})
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dense-up-to", type=int, default=8_000, help="largest session of the dense way (%(default)s)")
    parser.add_argument("--way", choices=("dense", "sparse"), help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args.frames)))
        return 0
    print(f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}\n")
    print("| frames | utterances a side | dense | sparse | ratio | dense, memory | sparse, memory |")
    print("|---|---|---|---|---|---|---|")
    for frames in SIZES:
        ours = fresh("sparse", frames)
        told = [f"{frames:,}", f"{frames // 9:,}"]
        if frames > args.dense_up_to:
            need = frames**2 * 8 * 3 / 2**30
            told += ["not run", f"{ours['seconds']:.3f} s", "", f"over {need:.0f} GiB", f"{ours['mib']:.0f} MiB"]
            print("|", " | ".join(told), "|")
            continue
        theirs = fresh("dense", frames)
        if ours["pairs"] != theirs["pairs"]:
            print(f"the two ways differ at {frames} frames", file=sys.stderr)
            return 1
        ratio = float(str(theirs["seconds"])) / float(str(ours["seconds"]))
        told += [f"{theirs['seconds']:.3f} s", f"{ours['seconds']:.3f} s", f"{ratio:,.0f} x"]
        print("|", " | ".join([*told, f"{theirs['mib']:.0f} MiB", f"{ours['mib']:.0f} MiB"]), "|", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
