"""The record of one video's labels, as the label files hold it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from prospect_hf.checked_json import (
    as_dict,
    get,
    get_dict,
    get_index,
    get_list,
    get_number,
    get_optional_text,
    get_text,
)
from prospect_hf.errors import DataError
from prospect_hf.labels.label_files import parse_spans, step_index
from prospect_hf.labels.spans import Span
from prospect_hf.sessions import Step


@dataclass(frozen=True)
class Repair:
    """A named rule changed a span of ``step`` (0-based): what it was, in seconds, and what it became; None: removed."""

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
    """The labels of one video: valid spans with their confidence, what was repaired, and where they come from.

    ``start_s`` and ``end_s`` are the seconds that the video has; ``end_s`` is None where its length is not known.
    ``notes`` are the counts of ``validation.NOTES`` without those that are 0, ``unexplained_s`` the annotated seconds
    outside all spans.
    """

    source: str
    split: str
    video_uid: str
    steps: tuple[str, ...]
    spans: tuple[Span, ...]
    confidences: tuple[float, ...]
    confidence: float
    provenance: Provenance
    repairs: tuple[Repair, ...] = ()
    start_s: float = 0.0
    end_s: float | None = None
    notes: Mapping[str, int] = field(default_factory=dict)
    unexplained_s: float = 0.0

    @property
    def last_s(self) -> float:
        """The end of the video, or of the last span where that is not known or later."""
        return max(self.end_s or 0.0, *(span.start if span.end is None else span.end for span in self.spans))

    def facts(self) -> dict[str, Any]:
        """One line of a label file: ``video_uid`` and ``dst`` as ``data.dst=files`` reads them, and the provenance.

        Raises:
            ValueError: there is no span. ``dst: []`` would count as labels.
        """
        if not self.spans:
            raise ValueError(f"{self.video_uid}: a record of labels has at least one span.")
        return {
            "video_uid": self.video_uid,
            "dst": [
                {
                    "type": "step",
                    "id": f"S{span.step + 1}",
                    "name": self.steps[span.step],
                    "start_ts": span.start,
                    "end_ts": span.end,
                }
                for span in self.spans
            ],
            "confidences": list(self.confidences),
            "confidence": self.confidence,
            "repairs": [
                {"rule": one.rule, "id": f"S{one.step + 1}", "before": _written(one.before)}
                | {"after": None if one.after is None else _written(one.after)}
                for one in self.repairs
            ],
            "notes": dict(self.notes),
            "unexplained_s": self.unexplained_s,
            "provenance": asdict(self.provenance),
            "source": self.source,
            "split": self.split,
            "steps": list(self.steps),
            "video_s": [self.start_s, self.end_s],
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any], where: str) -> LabelRecord:
        """The record that ``facts`` was made of; ``where`` names the line in messages.

        Raises:
            DataError: a key is missing, or its value is none that ``facts`` writes.
        """
        uid = get_text(facts, "video_uid", where)
        where = f"{where} ({uid})"
        texts = tuple(_text(value, f"{where}: steps") for value in get_list(facts, "steps", where))
        steps = tuple(Step(f"S{number}", text) for number, text in enumerate(texts, start=1))
        spans = parse_spans(facts, steps, where)
        confidences = tuple(
            _share({"confidences": value}, "confidences", where) for value in get_list(facts, "confidences", where)
        )
        if len(confidences) != len(spans):
            raise DataError(f"{where}: {len(confidences)} confidences for {len(spans)} spans.")
        notes = get_dict(facts, "notes", where)
        return cls(
            get_text(facts, "source", where),
            get_text(facts, "split", where),
            uid,
            texts,
            spans,
            confidences,
            _share(facts, "confidence", where),
            _provenance(facts, where),
            tuple(_repair(value, steps, f"{where}: repairs") for value in _list(facts, "repairs", where)),
            *_interval(facts, "video_s", where),
            {rule: get_index(notes, rule, where) for rule in notes},
            get_number(facts, "unexplained_s", where),
        )


@dataclass(frozen=True)
class Failure:
    """A video that has no labels, and why; ``answers`` are a language model's raw answers.

    ``provenance`` is that of the labels that were tried; None where no aligner was. ``video_uid`` is empty for a record
    that names no video.
    """

    source: str
    split: str
    video_uid: str
    reason: str
    answers: tuple[str, ...] = field(default=())
    provenance: Provenance | None = None

    def facts(self) -> dict[str, Any]:
        """One line of a file of failures."""
        return {**asdict(self), "answers": list(self.answers)}

    @classmethod
    def from_facts(cls, facts: dict[str, Any], where: str) -> Failure:
        """The failure that ``facts`` was made of. Raises ``DataError`` where a key is missing or its value is none."""
        return cls(
            get_text(facts, "source", where),
            get_text(facts, "split", where),
            get_optional_text(facts, "video_uid", where),
            get_text(facts, "reason", where),
            tuple(_text(value, f"{where}: answers") for value in _list(facts, "answers", where)),
            None if get(facts, "provenance", where) is None else _provenance(facts, where),
        )


def _provenance(record: dict[str, Any], where: str) -> Provenance:
    facts, where = get_dict(record, "provenance", where), f"{where}: provenance"
    return Provenance(
        get_text(facts, "aligner", where),
        get_text(facts, "version", where),
        get_optional_text(facts, "model", where) or None,
        get_optional_text(facts, "prompt", where) or None,
        get_index(facts, "tries", where),
        get_index(facts, "input_tokens", where),
        get_index(facts, "output_tokens", where),
        None if get(facts, "usd", where) is None else get_number(facts, "usd", where),
    )


def _repair(value: Any, steps: tuple[Step, ...], where: str) -> Repair:
    facts = as_dict(value, where)
    step = step_index(get_text(facts, "id", where), steps, where)
    after = None if get(facts, "after", where) is None else _interval(facts, "after", where)
    return Repair(get_text(facts, "rule", where), step, _interval(facts, "before", where), after)


def _written(interval: tuple[float, float | None]) -> list[float | str | None]:
    """An interval as JSON; a time that is no number, which a rule has removed, is written as its name."""
    return [time if time is None or math.isfinite(time) else str(time) for time in interval]


def _interval(facts: dict[str, Any], key: str, where: str) -> tuple[float, float | None]:
    match facts.get(key):
        case [
            int() | float() | "nan" | "inf" | "-inf" as start,
            int() | float() | "nan" | "inf" | "-inf" | None as end,
        ]:
            return float(start), None if end is None else float(end)
    raise DataError(f"{where}: '{key}' must be a start and an end in seconds.")


def _list(facts: dict[str, Any], key: str, where: str) -> list[Any]:
    value = get(facts, key, where)
    if not isinstance(value, list):
        raise DataError(f"{where}: '{key}' must be a list.")
    return value


def _share(facts: dict[str, Any], key: str, where: str) -> float:
    """A number from 0 to 1."""
    value = get_number(facts, key, where)
    if value > 1:
        raise DataError(f"{where}: '{key}' is {value:g}; expected 0 to 1.")
    return value


def _text(value: Any, where: str) -> str:
    """A text, which may be empty."""
    return value if value == "" else get_text({"entry": value}, "entry", where)
