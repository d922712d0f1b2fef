"""A scored run: for each session its prediction, its counts, and which utterance was matched with which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.metrics.counts import Counts
from prospect_hf.sessions import recording_id

# matched: stream matching paired it, with a cosine over 0.5. different: paired in time, but the cosine is 0.5 or less.
# missed: a reference without a prediction. redundant: a prediction without a reference.
Verdict = Literal["matched", "different", "missed", "redundant"]


@dataclass(frozen=True)
class Utterance:
    """An utterance of the assistant, predicted or of the reference.

    Args:
        frame: its frame in the session.
        text: of it.
        verdict: of stream matching; None where that was not computed (no sentence encoder, or a teacher-forced run).
        partner: the frame of the utterance that it is paired with.
        cosine: of the two embeddings of a pair.
        exact: whether both texts of a pair are equal, but for white space around them.
    """

    frame: int
    text: str
    verdict: Verdict | None = None
    partner: int | None = None
    cosine: float | None = None
    exact: bool = False


@dataclass(frozen=True)
class ScoredSession:
    """A session, the prediction on it, and how the two compare.

    Args:
        session: the reference.
        prediction: what the model did on it.
        counts: from which figures are made; they add up over sessions.
        said, reference: the utterances of both sides, in order of time.
        transition_delays_s, speaking_delays_s: seconds from the reference to the prediction (late is positive) of each
            pair within the widest tolerance.
    """

    session: SessionRows
    prediction: Prediction
    counts: Counts
    said: tuple[Utterance, ...] = ()
    reference: tuple[Utterance, ...] = ()
    transition_delays_s: tuple[float, ...] = ()
    speaking_delays_s: tuple[float, ...] = ()

    @property
    def recording(self) -> str:
        """The recording that the session belongs to; sessions of one recording are not independent."""
        return f"{self.session.source} {recording_id(self.session.source, self.session.video_uid)}"

    @property
    def tracked(self) -> bool:
        """Whether the model followed the session freely and tracked a table (False: teacher-forced)."""
        return self.prediction.table is not None


@dataclass(frozen=True)
class ScoredRun:
    """The scored sessions of one run.

    Args:
        sessions: at least one; all of one mode.
        fps: frames a second.
    """

    sessions: Sequence[ScoredSession]
    fps: float

    @property
    def counts(self) -> list[Counts]:
        """Of each session."""
        return [scored.counts for scored in self.sessions]

    @property
    def recordings(self) -> list[str]:
        """Of each session."""
        return [scored.recording for scored in self.sessions]

    def of_source(self, source: str) -> ScoredRun:
        """The sessions of one source."""
        return self.of_sources([source])

    def of_sources(self, sources: Sequence[str]) -> ScoredRun:
        """The sessions of some sources."""
        return ScoredRun([scored for scored in self.sessions if scored.session.source in sources], self.fps)

    def with_counts(self, more: Sequence[Mapping[str, float]]) -> ScoredRun:
        """The same run with more counts for each session, such as a judge's marks."""
        pairs = zip(self.sessions, more, strict=True)
        return ScoredRun([replace(one, counts={**one.counts, **added}) for one, added in pairs], self.fps)

    def without(self, beginning: str) -> ScoredRun:
        """The same run without the counts whose names begin so."""
        kept = [{n: value for n, value in one.counts.items() if not n.startswith(beginning)} for one in self.sessions]
        return ScoredRun([replace(one, counts=rest) for one, rest in zip(self.sessions, kept, strict=True)], self.fps)
