"""What a language model adds to the semantic aligner: a simulated one, which is right about a share of the runs.

    python benchmarks/label_hybrid.py --annotations FOLDER    # 3 minutes on one core

The videos are those with known steps (``label_truth.py``) of which the semantic aligner is not sure, each aligned with
parameters that were fitted to the other half of the videos. The simulated model gives each true run of lines to its
step with probability q; else to a neighbouring step (7 of 10) or to none.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from label_truth import TruthVideo
from labels import Bench
from one_sentence import exit_code

from prospect_hf.align.alignment import Alignment
from prospect_hf.align.segmental import OFF_PLAN, runs
from prospect_hf.annotate.hybrid import ASK_BELOW, combine, needs_model
from prospect_hf.annotate.visits import Assigned, visits_of
from prospect_hf.annotate.windows import rows

RIGHT = (0.8, 0.9, 0.95, 1.0)
DRAWS = 4  # answers of the simulated model for each video
TO_A_NEIGHBOUR = 0.7
CONFIDENCE = 0.9


def simulated(video: TruthVideo, right: float, draws: np.random.Generator) -> Alignment:
    """The answer of a model that is right about each run of lines with probability ``right``."""
    given: dict[int, Assigned] = {}
    for run in runs(video.owners):
        step = run.step
        if draws.random() > right:
            beside = int(np.clip(step + draws.choice([-1, 1]), 0, len(video.task.steps) - 1))
            step = beside if draws.random() < TO_A_NEIGHBOUR else OFF_PLAN
        if step != OFF_PLAN:
            given |= {line: Assigned(step, CONFIDENCE) for line in range(run.first, run.first + run.length)}
    given = given or {0: Assigned(0, CONFIDENCE)}  # an answer without a line is refused and asked for again
    visits = visits_of(video.task, rows(video.task.annotation), given)
    nothing = {line: "the model gave it to no step" for line in range(len(video.owners)) if line not in given}
    return Alignment(visits, nothing, CONFIDENCE)


def joint(video: TruthVideo, alignment: Alignment) -> float:
    """The share of frames on which all steps are right."""
    return video.agreement([visit.span for visit in alignment.visits]).counts["right_share"]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True, help="folder of the releases' annotations")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.annotations, Path(folder))
        aligned = zip(bench.videos, bench.align(), strict=True)
        unsure = [(video, one) for video, one in aligned if needs_model(one, ASK_BELOW)]
    print(f"{len(unsure)} of {len(bench.videos)} videos have a confidence below {ASK_BELOW}.\n")
    print("| q | by meaning | the model's answer | sure lines kept |\n|---|---|---|---|")
    by_meaning = np.mean([joint(video, one) for video, one in unsure])
    draws = np.random.default_rng(0)
    for right in RIGHT:
        alone, both = [], []
        for video, semantic in unsure:
            for _ in range(DRAWS):
                answer = simulated(video, right, draws)
                alone.append(joint(video, answer))
                both.append(joint(video, combine(video.task, semantic, answer)))
        print(f"| {right:g} | {by_meaning:.2f} | {np.mean(alone):.2f} | {np.mean(both):.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
