"""How often a 95 % interval of the evaluation holds the truth, by the number of recordings.

    python benchmarks/coverage.py

A pooled recall over made sessions, the harder the longer, one a recording; 600 worlds, 400 draws in each. The truth is
the recall over 200,000 such sessions.

Exit code: 0.
"""

from __future__ import annotations

import numpy as np

from prospect_hf.metrics.bootstrap import FEWEST, draw_weights, drawn_sums, interval
from prospect_hf.metrics.counts import ratio

WORLDS, DRAWS = 600, 400


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    ability = rng.beta(4, 2, 200_000)
    events = rng.poisson(3 + 12 * (1 - ability))
    truth = float((ability * events).sum() / events.sum())
    print("| recordings | intervals that hold the truth |\n|---|---|")
    for recordings in (5, 6, 20, 60, 300):
        inside = 0
        names = [str(number) for number in range(recordings)]
        for world in range(WORLDS):
            chance = rng.beta(4, 2, recordings)
            count = rng.poisson(3 + 12 * (1 - chance))
            hits = rng.binomial(count, chance)
            counts = [{"hits": float(hit), "events": float(of)} for hit, of in zip(hits, count, strict=True)]
            sums = drawn_sums(counts, draw_weights(names, DRAWS, seed=world))
            # Told that enough recordings show it, an interval is given for the fewest, too.
            bounds = interval(ratio(sums["hits"], sums["events"]), max(recordings, FEWEST))
            inside += bounds is not None and bounds[0] <= truth <= bounds[1]
        print(f"| {recordings} | {100 * inside / WORLDS:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
