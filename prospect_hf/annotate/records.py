"""The record of one video's labels, as the label files hold it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prospect_hf.labels.spans import Span


@dataclass(frozen=True)
class Repair:
    """A named rule that changed a span of ``step`` (0-based): what it was, in seconds, and what it became; None: removed."""

    rule: str
    step: int
    before: tuple[float, float | None]
    after: tuple[float, float | None] | None


@dataclass(frozen=True)
class Provenance:
    """How the labels of one video were made.

    Args:
        aligner: "semantic", "words", "llm" or "hybrid".
        version: of the aligner: changes with its code, its parameters and its encoder.
        model: name of the language model; None where none was asked.
        prompt: hash of the prompt; None where none was asked.
        tries: requests that were sent for this video.
        input_tokens, output_tokens: of all its requests.
        usd: their price; None without prices.
    """

    aligner: str
    version: str
    model: str | None = None
    prompt: str | None = None
    tries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = None


@dataclass(frozen=True)
class LabelRecord:
    """The labels of one video: valid spans with their confidence, what was repaired, and where they come from."""

    source: str
    split: str
    video_uid: str
    steps: tuple[str, ...]
    spans: tuple[Span, ...]
    confidences: tuple[float, ...]
    confidence: float
    provenance: Provenance
    repairs: tuple[Repair, ...] = ()

    def facts(self) -> dict[str, Any]:
        """One line of a label file: ``video_uid`` and ``dst`` as ``data.dst=files`` reads them, and the provenance."""
        raise NotImplementedError


@dataclass(frozen=True)
class Failure:
    """A video that has no labels, and why; ``answers`` are a language model's raw answers."""

    source: str
    split: str
    video_uid: str
    reason: str
    answers: tuple[str, ...] = field(default=())
