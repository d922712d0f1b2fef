"""Labels by a language model: the questions of many videos are asked together, and each video is done with its last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from prospect_hf.align.alignment import Alignment
from prospect_hf.annotate.corpus import Video
from prospect_hf.annotate.cost import Cost
from prospect_hf.annotate.labelling import Labelling
from prospect_hf.annotate.made import Emit, Made, failed, labelled
from prospect_hf.annotate.model_answers import alignment_from
from prospect_hf.annotate.model_questions import prompt_hash, questions, version
from prospect_hf.annotate.records import Provenance
from prospect_hf.annotate.validation import Policy
from prospect_hf.errors import DataError
from prospect_hf.llm import Answered, LLMArguments, LLMClient, Question
from prospect_hf.llm.batch import BatchClient

# A video and the answers about it -> its alignment. Raises DataError where they give none.
Finish = Callable[[Video, Sequence[Mapping[str, Any]]], Alignment]


@dataclass
class _Asked:
    """A video, the number of its questions, and what came of them so far."""

    video: Video
    questions: int
    answered: dict[int, Answered] = field(default_factory=dict)


class ModelLabelling(Labelling):
    """Labels by a language model.

    Args:
        arguments: the server and its limits.
        policy: of the validation.
        folder: the state of batches, with ``llm.batch=true``.
    """

    def __init__(self, arguments: LLMArguments, policy: Policy, folder: Path) -> None:
        extra = arguments.extra_body and hashlib.sha256(json.dumps(arguments.extra_body).encode()).hexdigest()[:16]
        source = Provenance("llm", version(), arguments.model, prompt_hash())
        super().__init__(source, policy, {"temperature": arguments.temperature, "extra_body": extra})
        self.arguments, self.folder = arguments, folder
        self._client: LLMClient | BatchClient | None = None

    def begin(self) -> None:
        """As in ``Labelling``."""
        self._client = BatchClient(self.arguments) if self.arguments.batch else LLMClient(self.arguments)

    def prepare(self, videos: Iterable[Video], emit: Emit | None) -> str:
        """As in ``Labelling``."""
        cost = Cost(self.arguments.prices)
        for video in videos:
            cost.add(video.task)
        return cost.text()

    def spent(self) -> dict[str, float | None]:
        """As in ``Labelling``."""
        return {} if self._client is None else self._client.spent

    def label(self, videos: Iterable[Video], emit: Emit) -> None:
        """As in ``Labelling``."""
        self.ask(videos, emit, lambda video, answers: alignment_from(video.task, answers))

    def ask(self, videos: Iterable[Video], emit: Emit, finish: Finish) -> None:
        """Ask about each video, and tell ``emit`` what was made of it; only videos with open questions are held.

        Args:
            finish: makes an alignment of the answers about a video.

        Raises:
            LimitReached, UsageError: as in ``label``.
        """
        waiting: dict[int, tuple[_Asked, int]] = {}  # number of a question -> what it is about, and its place there

        def asked() -> Iterator[Question]:
            numbers = count()
            for video in videos:
                try:
                    own = questions(video.task)
                except DataError as error:
                    emit(video, failed(video, error, self.source))
                    continue
                about = _Asked(video, len(own))
                for place, question in enumerate(own):
                    waiting[next(numbers)] = about, place
                    yield question

        for one in self._answers(asked()):
            about, place = waiting.pop(one.index)
            about.answered[place] = one
            if len(about.answered) == about.questions:
                emit(about.video, self._made(about, finish))

    def _answers(self, asked: Iterable[Question]) -> Iterator[Answered]:
        if isinstance(self._client, BatchClient):
            return self._client.answers(asked, self.folder)
        if self._client is None:
            raise AssertionError("begin() makes the client")
        return self._client.answers(asked)

    def _made(self, about: _Asked, finish: Finish) -> Made:
        """The labels that the answers give, or the first reason why they give none."""
        parts = [about.answered[place] for place in range(about.questions)]
        prices = [part.usd for part in parts if part.usd is not None]
        paid = replace(
            self.source,
            tries=sum(part.tries for part in parts),
            input_tokens=sum(part.input_tokens for part in parts),
            output_tokens=sum(part.output_tokens for part in parts),
            usd=sum(prices) if len(prices) == len(parts) else None,
        )
        answers = [part.answer for part in parts if part.answer is not None]
        raw = [text for part in parts for text in part.raw]
        raw += [json.dumps(answer, ensure_ascii=False) for answer in answers]
        error = next((part.error for part in parts if part.error is not None), None)
        if error is not None:
            return failed(about.video, error, paid, raw)
        try:
            alignment = finish(about.video, answers)
        except DataError as fault:
            return failed(about.video, fault, paid, raw)
        return labelled(about.video, alignment, paid, self.policy, raw)
