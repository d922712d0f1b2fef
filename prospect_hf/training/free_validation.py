"""Validation in the middle of a run: the model follows a few sessions by itself, as it will when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from context_dst_smolvlm import Context
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.free_running import follow
from prospect_hf.evaluation.score import figures, score_session
from prospect_hf.metrics.counts import Counts, plain, total
from prospect_hf.metrics.task_score import task_score

# Of all figures of a free run, those that are logged at each evaluation.
FIGURES = (
    "joint_state_accuracy",
    "table_joint_state_accuracy",
    "speaking_f1_1s",
    "dst_update_f1_1s",
    "table_transition_f1_1s",
    "response_exact_match",
    "response_bleu",
)


@dataclass(frozen=True)
class FreeValidation:
    """The sessions to follow, and with what.

    Args:
        processor: of the model.
        frames: reader of pictures, or encoded frames.
        sessions: of the validation split (:func:`spread`).
        context: what happens when a session exceeds the context.
    """

    processor: DSTSmolVLMProcessor
    frames: FrameReader | FrameFeatures
    sessions: Sequence[SessionRows]
    context: Context

    def counts(
        self, model: DSTSmolVLMForConditionalGeneration, thresholds: tuple[float, float], number: int, of: int
    ) -> list[Counts]:
        """The counts of every ``of``-th session from session ``number`` on: the share of one process.

        The model is in eval mode meanwhile, and afterwards in the mode that it was in.

        Raises:
            StreamError: a session cannot be followed within the context's limit.
        """
        sessions = self.sessions[number::of]
        made = follow(
            model,
            self.processor,
            self.frames,
            sessions,
            context=self.context,
            progress=False,
            thresholds=thresholds,
        )
        return [
            score_session(session, prediction, model.config.fps, thresholds).counts
            for session, prediction in zip(sessions, made, strict=True)
        ]


def free_metrics(counts: Sequence[Counts]) -> dict[str, float]:
    """``free_{figure}`` for each of ``FIGURES`` and ``free_task_score``; what is undefined is left out."""
    found = plain(figures(total(counts)))
    chosen = {name: found.get(name) for name in FIGURES}
    chosen["task_score"] = task_score(
        chosen["joint_state_accuracy"], chosen["speaking_f1_1s"], chosen["dst_update_f1_1s"]
    )
    return {f"free_{name}": value for name, value in chosen.items() if value is not None}


def spread(sessions: Sequence[SessionRows], count: int) -> list[SessionRows]:
    """``count`` sessions at equal distances, so that each source has its share; all, if there are fewer."""
    count = min(count, len(sessions))
    return [sessions[number * len(sessions) // count] for number in range(count)]
