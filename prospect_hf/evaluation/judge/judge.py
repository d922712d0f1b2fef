"""A language model as judge of whole streamed dialogues: four marks of 1 to 5, as in the ProAssist paper.

Transcripts are untrusted data, since a trained assistant may say anything. They are sent as JSON without angle
brackets, under a fixed system prompt. Each session is judged several times with different seeds, to measure how well
the votes agree.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from prospect_hf.errors import DataError, UsageError
from prospect_hf.llm.client import LLMClient
from prospect_hf.llm.questions import Question
from prospect_hf.llm.quoting import json_without_tags, plain_line
from prospect_hf.metrics.catalogue import MARKS

SCALE = (1, 2, 3, 4, 5)
# The reason comes first, so that the marks follow from it.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, **{mark: {"type": "integer", "enum": list(SCALE)} for mark in MARKS}},
    "required": ["reason", *MARKS],
    "additionalProperties": False,
}
# About 30,000 tokens of English, which fit into the context of nearly every judge.
MAX_CHARACTERS = 100_000


@dataclass(frozen=True)
class Line:
    """One utterance, ``seconds`` after the start of the session."""

    seconds: float
    speaker: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True)
class JudgedSession:
    """A session as the judge sees it: the plan, and the reference and the predicted transcript in order of time."""

    session_id: str
    goal: str
    steps: Sequence[str]
    reference: tuple[Line, ...]
    predicted: tuple[Line, ...]


@dataclass(frozen=True)
class Judgement:
    """The votes on a session, mark -> 1 to 5 each, and the reason of each vote."""

    session_id: str
    votes: tuple[dict[str, int], ...]
    reasons: tuple[str, ...]


def judge_sessions(
    client: LLMClient,
    sessions: Sequence[JudgedSession],
    votes: int = 3,
    progress: bool = True,
    max_characters: int = MAX_CHARACTERS,
) -> list[Judgement]:
    """The judge's votes on ``sessions``, in their order; vote v is asked with seed v.

    Args:
        votes: on each session; they differ only where ``llm.temperature`` is over 0.
        max_characters: of a session's message; a longer message is an error and is not cut.

    Raises:
        UsageError: no votes, or the server cannot be asked.
        DataError: a session is too long or has an invalid time, or some votes have no answer that follows the schema;
            the message lists them, and the other votes are kept for a second run.
    """
    if votes < 1:
        raise UsageError(f"The judge's votes must be at least 1, not {votes}.")
    questions = []
    for session in sessions:
        messages = judge_messages(session, max_characters)
        questions += [
            Question(messages, SCHEMA, "judgement", seed, f"{session.session_id} (vote {seed + 1})")
            for seed in range(votes)
        ]
    answers = client.ask_many(questions, progress)
    judgements = []
    for index, session in enumerate(sessions):
        given = answers[index * votes : (index + 1) * votes]
        marks = tuple({mark: int(answer[mark]) for mark in MARKS} for answer in given)
        judgements.append(Judgement(session.session_id, marks, tuple(answer["reason"] for answer in given)))
    return judgements


def judge_messages(session: JudgedSession, max_characters: int = MAX_CHARACTERS) -> list[dict[str, str]]:
    """The chat that asks for a judgement: the fixed system prompt, and the session as JSON between two tags.

    Raises:
        DataError: a time is not finite, a speaker is unknown, or the session is too long.
    """
    told = {
        "goal": plain_line(session.goal),
        "steps": [plain_line(step) for step in session.steps],
        "reference": _transcript(session.reference, session.session_id),
        "predicted": _transcript(session.predicted, session.session_id),
    }
    # Without angle brackets, no text can close the <session> tag.
    data = json_without_tags(told)
    content = f"The session to judge:\n<session>\n{data}\n</session>\nGive the reason and the four marks."
    if len(content) > max_characters:
        raise DataError(
            f"{session.session_id}: its transcripts have {len(content)} characters, more than the limit of "
            f"{max_characters}; a session is judged as a whole, so leave this one out."
        )
    return [{"role": "system", "content": _prompt()}, {"role": "user", "content": content}]


def prompt_hash() -> str:
    """12 hex digits of the system prompt, for the stamp: marks of different prompts cannot be compared."""
    return hashlib.sha256(_prompt().encode()).hexdigest()[:12]


def _prompt() -> str:
    return (files("prospect_hf.evaluation.judge") / "judge_prompt.txt").read_text(encoding="utf-8")


def _transcript(lines: Sequence[Line], session_id: str) -> list[dict[str, float | str]]:
    for line in lines:
        if not math.isfinite(line.seconds):
            raise DataError(f"{session_id}: {line.text[:40]!r} has the time {line.seconds} s, which is not finite.")
        if line.speaker not in ("user", "assistant"):
            raise DataError(f"{session_id}: unknown speaker {line.speaker!r}; it must be user or assistant.")
    return [
        {"seconds": round(line.seconds, 1), "speaker": line.speaker, "text": plain_line(line.text)} for line in lines
    ]


def judge_counts(judgement: Judgement) -> dict[str, float]:
    """Sums that add up over sessions: ``judge_sessions``, and for each mark the mean over the votes.

    A figure is the sum of its mark over sessions, divided by ``judge_sessions``.
    """
    count = len(judgement.votes)
    sums = {f"judge_{mark}_sum": sum(vote[mark] for vote in judgement.votes) / count for mark in MARKS}
    return {"judge_sessions": 1.0, **sums}
