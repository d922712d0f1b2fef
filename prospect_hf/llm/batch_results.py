"""Reads the results of a batch, and decides what becomes of a request that gave no answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prospect_hf.errors import DataError
from prospect_hf.llm.answers import QuestionError, TransientError, http_error, quoted
from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.questions import Question, next_request, refused
from prospect_hf.llm.server import Server


@dataclass
class Asked:
    """A question that waits for its answer: its place, the question without messages, and the number of these."""

    index: int
    question: Question
    messages: int


@dataclass(frozen=True)
class Fault:
    """Why a request of a batch gave no answer, and what the model said."""

    error: TransientError | DataError | QuestionError
    said: str | None = None


def joint(questions: list[Question]) -> Question:
    """One question in place of equal ones whose checks may differ: an answer must pass all of them."""

    def check(answer: dict[str, Any]) -> str | None:
        return next((fault for one in questions if (fault := one.fault(answer)) is not None), None)

    return replace(questions[0], check=check)


def reply_in(result: Mapping[str, Any], server: Server, api_key_env: str) -> str | Fault:
    """The chat completion in a line of a result file, or what was wrong."""
    match result:
        case {"response": {"status_code": 200, "body": dict(body)}}:
            return json.dumps(body, ensure_ascii=False)
        case {"response": {"status_code": int(status), "body": body}}:
            words = quoted(json.dumps(body, ensure_ascii=False), server.secret)
            message = f"{server.address} answered HTTP {status} in a batch ({words})"
            error = http_error(message, status, None, api_key_env)
            return Fault(error if isinstance(error, TransientError) else QuestionError(str(error)))
    words = quoted(json.dumps(result.get("error"), ensure_ascii=False), server.secret)
    return Fault(TransientError(f"{server.address} gave no result in a batch ({words})", "run again later"))


def following_request(
    body: dict[str, Any], asked: Asked, fault: Fault, arguments: LLMArguments, limit_key: str
) -> dict[str, Any] | None:
    """The request after one that gave no answer; None where another try is no use."""
    if isinstance(fault.error, TransientError):
        return body
    if isinstance(fault.error, DataError):
        return next_request(body, asked.messages, fault.error, fault.said, arguments, limit_key)
    return None


def failure(
    fault: Fault, question: Question, body: Mapping[str, Any], attempts: int, limit_key: str
) -> DataError | QuestionError:
    """The error of a question that is not asked again after its request ``body``."""
    if isinstance(fault.error, TransientError):
        return QuestionError(f"{fault.error}, in {attempts} attempts; {fault.error.hint}.")
    if isinstance(fault.error, DataError):
        return DataError(refused(question, body, fault.error, attempts, limit_key))
    return fault.error


def refusals(batch: Mapping[str, Any], secret: str | None) -> tuple[dict[int, str], str]:
    """Why a batch failed its validation: line of its file (from 1) -> reason, and all reasons together."""
    match batch.get("errors"):
        case {"data": list(errors)}:
            told = [error for error in errors if isinstance(error, dict)]
            lines = {error["line"]: str(error.get("message")) for error in told if isinstance(error.get("line"), int)}
            whole = "; ".join(str(error.get("message")) for error in told)
            return {line: quoted(reason, secret) for line, reason in lines.items()}, quoted(whole, secret)
    return {}, "without a reason"


def told_status(batch: Mapping[str, Any], requests: int) -> str:
    """For example ``in_progress 120/500``."""
    match batch:
        case {"request_counts": {"completed": int(done)}}:
            return f"{batch.get('status')} {done}/{requests}"
    return f"{batch.get('status')} of {requests}"
