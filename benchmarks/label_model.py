"""What a language model's answers are worth before a model is asked: right answers, and answers with wrong lines.

    python benchmarks/label_model.py --annotations FOLDER     # about a minute

FOLDER and what is measured are those of ``labels.py``. An oracle answers the questions of ``annotate.model_questions``
from the truth, so the first table shows what the rules keep that make visits of lines: where the truth says that a step
is in progress from its first start to its last end (*monotone*, which is right for both sources), and where each of its
segments counts alone (*reopen*, for which the pause between two lines of a visit matters). In the second table a share
of the lines has a wrong step: the plan's step before or after the true one, or any. The third table has joint state
accuracy by the record's confidence, of answers with all these shares.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from label_truth import TruthVideo, truth_videos
from one_sentence import exit_code

from prospect_hf.align.alignment import Alignment
from prospect_hf.annotate import visits
from prospect_hf.annotate.agreement import compare_spans
from prospect_hf.annotate.model_answers import alignment_from
from prospect_hf.annotate.model_questions import estimate, questions
from prospect_hf.annotate.windows import rows, windows
from prospect_hf.sessions import MONOTONE, REOPEN

SOURCES = ("ego4d", "holoassist")
PAUSES = (0.0, 5.0, 30.0, 60.0, float("inf"))
WRONG = (0.0, 0.02, 0.05, 0.1, 0.2)
BINS, REPEATS = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0), 5

Pick = Callable[[random.Random, int, int], int]
PICKS: dict[str, Pick] = {
    "step before or after": lambda chance, step, count: min(max(step + chance.choice((-1, 1)), 0), count - 1),
    "any step": lambda chance, step, count: chance.randrange(count),
}


def answered(video: TruthVideo, owners: Sequence[int]) -> Alignment:
    """The alignment of a video whose questions are answered from ``owners``, the step of each line."""
    all_rows = rows(video.task.annotation)
    answers: list[dict[str, Any]] = []
    for window in windows(all_rows):
        lines: dict[int, list[dict[str, int]]] = {}
        for row in all_rows[window.start : window.end]:
            if row.number is not None:
                lines.setdefault(owners[row.index], []).append({"first": row.number, "last": row.number})
        steps = enumerate(video.task.steps)
        answers.append({one.id: {"lines": lines.get(step, []), "certain": "sure"} for step, one in steps})
    return alignment_from(video.task, answers)


def joint(video: TruthVideo, alignment: Alignment, rule: str) -> float:
    """Joint state accuracy under a state rule."""
    spans, count = [visit.span for visit in alignment.visits], len(video.task.steps)
    found = compare_spans(
        video.spans, spans, steps=count, num_frames=video.num_frames, rule=rule, where=video.task.origin
    )
    return found.counts["right_share"]


def means(found: Sequence[tuple[TruthVideo, float]]) -> str:
    """The mean by source, as cells of a table."""
    return " | ".join(f"{np.mean([value for video, value in found if video.source == one]):.3f}" for one in SOURCES)


def pauses(videos: Sequence[TruthVideo]) -> None:
    """Print accuracy by the longest pause within a visit."""
    print(
        "| longest pause | Goal-Step, monotone | HoloAssist | Goal-Step, reopen | HoloAssist |\n|---|---|---|---|---|"
    )
    chosen = visits.LONGEST_PAUSE_S
    for pause in PAUSES:
        visits.LONGEST_PAUSE_S = pause
        right = [(video, answered(video, video.owners.tolist())) for video in videos]
        cells = [means([(video, joint(video, one, rule)) for video, one in right]) for rule in (MONOTONE, REOPEN)]
        print(f"| {pause:g} s | {' | '.join(cells)} |")
    visits.LONGEST_PAUSE_S = chosen


def with_wrong_lines(video: TruthVideo, share: float, pick: Pick, chance: random.Random) -> Alignment:
    """The alignment of right answers in which ``share`` of the lines have another step."""
    count = len(video.task.steps)
    owners = [pick(chance, one, count) if chance.random() < share else one for one in video.owners.tolist()]
    return answered(video, owners)


def wrong_lines(videos: Sequence[TruthVideo]) -> None:
    """Print accuracy by the share of lines with a wrong step."""
    print("\n| wrong lines | instead | Goal-Step | HoloAssist |\n|---|---|---|---|")
    for name, pick in PICKS.items():
        for share in WRONG:
            chance = random.Random(0)
            found = [(one, joint(one, with_wrong_lines(one, share, pick, chance), MONOTONE)) for one in videos]
            print(f"| {share:.0%} | {name} | {means(found)} |")


def reliability(videos: Sequence[TruthVideo]) -> None:
    """Print accuracy by confidence, of answers whose share of wrong lines is any of ``WRONG``."""
    print("\n| instead | confidence | answers | mean confidence | joint state accuracy |\n|---|---|---|---|---|")
    for name, pick in PICKS.items():
        chance = random.Random(0)
        pairs = []
        for video in videos * REPEATS:
            alignment = with_wrong_lines(video, chance.choice(WRONG), pick, chance)
            pairs.append((alignment.confidence, joint(video, alignment, MONOTONE)))
        found = np.array(pairs)
        for low, high in pairwise(BINS):
            inside = found[(low <= found[:, 0]) & (found[:, 0] < high)]
            if len(inside):
                sure, right = inside.mean(0)
                print(f"| {name} | {low:g} to {high:g} | {len(inside)} | {sure:.2f} | {right:.2f} |")
        print(f"| {name} | correlation | {len(found)} | | {np.corrcoef(found.T)[0, 1]:.2f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True)
    videos = truth_videos(parser.parse_args().annotations)
    asked = [questions(video.task) for video in videos]
    tokens = [estimate(one) for one in asked]
    print(
        f"{len(videos)} videos, {sum(map(len, asked))} requests; a video takes about "
        f"{np.mean([one.input_tokens for one in tokens]):,.0f} tokens in and "
        f"{np.mean([one.output_tokens for one in tokens]):,.0f} out.\n"
    )
    pauses(videos)
    wrong_lines(videos)
    reliability(videos)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
