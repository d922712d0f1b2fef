"""Labels by meaning, and by a language model where meaning is not sure: the cheap answer first, then the dear one.

The confidence of the semantic aligner is the share of frames that it expects to have right, and it has about that share
right (docs/labels.md has the table). So it says which videos are worth a call, and which lines of such a video need
not be decided a second time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from prospect_hf.align.alignment import Alignment, Task
from prospect_hf.annotate.visits import Assigned, mean_confidence, visits_of
from prospect_hf.annotate.windows import rows

# The model is asked about videos of a lower confidence. Of 93 videos with known steps these were 39 %; the aligner had
# .63 of their frames right, and .84 of the frames of the others.
ASK_BELOW = 0.7
# Lines of a visit that is at least so sure stay where they are: of such visits 99 % of the lines were right.
SURE = 0.95


def needs_model(semantic: Alignment | None, ask_below: float) -> bool:
    """Whether the model is asked about a video; None: the semantic aligner found no step at all."""
    return semantic is None or semantic.confidence < ask_below


def combine(task: Task, semantic: Alignment | None, model: Alignment) -> Alignment:
    """The alignment of a video about which the model was asked.

    Lines of visits that are ``SURE`` by meaning keep their step, and with them the lines below them. Every other line
    has the step that the model gives it, or none. Visits are made of the lines anew, so that no line is in two visits
    and a sure line ends a visit that the model would have drawn through it. The confidence is the mean of the visits,
    weighted by their seconds. For the model's lines that is the model's own certainty, which nobody has measured.
    """
    lines = task.annotation.lines
    sure = {
        line: Assigned(visit.span.step, visit.confidence)
        for visit in (() if semantic is None else semantic.visits)
        if visit.confidence >= SURE
        for line in visit.lines
    }
    told = {line: Assigned(visit.span.step, visit.confidence) for visit in model.visits for line in visit.lines}
    given = {line: one for line, one in told.items() if lines[line].parent not in sure} | sure
    visits = tuple(
        replace(visit, aligner="semantic" if sure.keys() >= set(visit.lines) else "llm")
        for visit in visits_of(task, rows(task.annotation), given)
    )
    abstained = {line: reason for line, reason in model.abstained.items() if line not in given}
    return Alignment(visits, abstained, mean_confidence(visits))


@dataclass
class Calls:
    """How many calls a hybrid run makes, and how many it would make if it asked about every video."""

    videos: int = 0
    asked_videos: int = 0
    calls: int = 0
    calls_of_all: int = 0

    def add(self, calls: int, asked: bool) -> None:
        """Count a video about which ``calls`` questions are asked, or would be."""
        self.videos += 1
        self.asked_videos += asked
        self.calls += calls * asked
        self.calls_of_all += calls

    @property
    def saved(self) -> float:
        """Share of the calls that are saved, 0 to 1; 0 before the first video."""
        return 1 - self.calls / self.calls_of_all if self.calls_of_all else 0.0

    def __str__(self) -> str:
        return (
            f"asked about {self.asked_videos} of {self.videos} videos: {self.calls} calls instead of "
            f"{self.calls_of_all}, {self.saved:.0%} saved"
        )
