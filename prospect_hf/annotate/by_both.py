"""Labels by meaning, and by a language model for the videos where meaning is not sure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import prospect_hf
from prospect_hf.align.alignment import Alignment
from prospect_hf.align.named import named_aligner
from prospect_hf.annotate.by_model import ModelLabelling
from prospect_hf.annotate.by_processes import alignments
from prospect_hf.annotate.corpus import Key, Video
from prospect_hf.annotate.cost import Cost
from prospect_hf.annotate.hybrid import Calls, combine, needs_model
from prospect_hf.annotate.made import Emit, labelled
from prospect_hf.annotate.model_answers import alignment_from
from prospect_hf.annotate.validation import Policy
from prospect_hf.code_fingerprint import code_fingerprint
from prospect_hf.errors import DataError
from prospect_hf.llm import LLMArguments


class HybridLabelling(ModelLabelling):
    """Labels by meaning; ``prepare`` makes the sure ones, and the model is asked about the others.

    Args:
        encoder, processes: of the aligner by meaning, as in ``LocalLabelling``.
        ask_below: the model is asked about videos of a lower confidence, 0 to 1.
        arguments, policy, folder: as in ``ModelLabelling``.
    """

    def __init__(
        self,
        encoder: str,
        processes: int,
        ask_below: float,
        arguments: LLMArguments,
        policy: Policy,
        folder: Path,
    ) -> None:
        super().__init__(arguments, policy, folder)
        self.encoder, self.processes, self.ask_below = encoder, processes, ask_below
        rule = code_fingerprint(Path(prospect_hf.__file__).parent, ("annotate/hybrid.py",))[:8]
        names = f"{named_aligner('semantic', encoder).version}; language model {self.source.version}; both {rule}"
        self.source = replace(self.source, aligner="hybrid", version=names)
        self.settings |= {"ask_below": ask_below}
        self.calls = Calls()
        self._semantic: dict[Key, Alignment | None] = {}  # of the videos that the model is asked about

    def prepare(self, videos: Iterable[Video], emit: Emit | None) -> str:
        """As in ``Labelling``."""
        cost, of_all = Cost(self.arguments.prices), Cost(self.arguments.prices)
        by_meaning = replace(self.source, model=None, prompt=None)
        for video, found in alignments("semantic", self.encoder, videos, self.processes):
            semantic = None if isinstance(found, DataError) else found
            unsure = needs_model(semantic, self.ask_below)
            self.calls.add(of_all.add(video.task), unsure)
            if unsure:
                cost.add(video.task)
                self._semantic[video.key] = semantic
            elif semantic is not None and emit is not None:
                emit(video, labelled(video, semantic, by_meaning, self.policy))
        return f"By meaning and a language model: {self.calls}.\n{cost.text()}"

    def spent(self) -> dict[str, float | None]:
        """As in ``Labelling``, with the calls about all videos, sure or not."""
        return {**super().spent(), "calls": self.calls.calls, "calls_of_all": self.calls.calls_of_all}

    def label(self, videos: Iterable[Video], emit: Emit) -> None:
        """As in ``Labelling``."""
        self.ask(
            videos,
            emit,
            lambda video, answers: combine(
                video.task, self._semantic.pop(video.key), alignment_from(video.task, answers)
            ),
        )
