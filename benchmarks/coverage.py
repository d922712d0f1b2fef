"""Coverage of the evaluation's 95 % intervals: how often they contain the true value, by number of recordings.

    python benchmarks/coverage.py

The figure is a recall, pooled over simulated sessions with one session per recording; harder sessions have more events.
The true value is the recall over 200,000 sessions. Each row has 600 samples with 400 bootstrap draws.

Exit code: 0.
"""

from __future__ import annotations

import argparse

import numpy as np

from prospect_hf.metrics.bootstrap import FEWEST, draw_weights, drawn_sums, interval
from prospect_hf.metrics.counts import ratio

SAMPLES, DRAWS = 600, 400


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    ability = rng.beta(4, 2, 200_000)
    events = rng.poisson(3 + 12 * (1 - ability))
    truth = float((ability * events).sum() / events.sum())
    print("| recordings | intervals that contain the true value |\n|---|---|")
    for recordings in (5, 6, 20, 60, 300):
        inside = 0
        names = [str(number) for number in range(recordings)]
        for sample in range(SAMPLES):
            chance = rng.beta(4, 2, recordings)
            count = rng.poisson(3 + 12 * (1 - chance))
            hits = rng.binomial(count, chance)
            counts = [{"hits": float(hit), "events": float(total)} for hit, total in zip(hits, count, strict=True)]
            sums = drawn_sums(counts, draw_weights(names, DRAWS, seed=sample))
            # max() also gives intervals for fewer recordings than FEWEST, for comparison.
            bounds = interval(ratio(sums["hits"], sums["events"]), max(recordings, FEWEST))
            inside += bounds is not None and bounds[0] <= truth <= bounds[1]
        print(f"| {recordings} | {100 * inside / SAMPLES:.1f} % |", flush=True)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
