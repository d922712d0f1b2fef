"""Asks a language model which lines of a video's annotation belong to which step of the plan.

One question a video; a long annotation is asked in windows that overlap. The model names lines by their numbers, and
``model_answers`` computes the times from the lines. Plan and annotation are texts of others: a prompt holds each of
them as a JSON string of one line, without angle brackets, between two tags under a fixed system prompt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from prospect_hf.align.alignment import Task
from prospect_hf.annotate.model_answers import AnswerCheck, answer_schema, checks
from prospect_hf.annotate.windows import (
    DEFAULT_LIMITS,
    Limits,
    Row,
    Window,
    has_number,
    rows,
    shown,
    windows,
)
from prospect_hf.code_fingerprint import code_fingerprint
from prospect_hf.errors import DataError
from prospect_hf.llm.questions import Question

NAME = "step_lines"
# Most steps of a plan: five keys of the schema each, and servers take a few thousand.
MOST_STEPS = 200
# What makes a request of a task, and what makes visits of the answers: files below the package.
PROMPT_FILES = (
    "annotate/prompts/lines_*.txt",
    "annotate/model_questions.py",
    "annotate/model_answers.py",
    "annotate/windows.py",
    "llm/quoting.py",
)
CODE_FILES = (*PROMPT_FILES, "annotate/visits.py")

# Measured with the tokenizer of SmolVLM2, which makes a token of each digit: bytes of a request per token; tokens of an
# answer for each step without its lines, and for each run of lines. And how many runs a step is likely to have.
BYTES_PER_TOKEN = 2.6
STEP_TOKENS, RUN_TOKENS, RUNS_PER_STEP = 16, 16, 2


def questions(task: Task, limits: Limits = DEFAULT_LIMITS) -> list[Question]:
    """The questions about a task, one for each window of its annotation; ``alignment_from`` takes their answers.

    Raises:
        DataError: the task has no step, too many steps, or no line that can belong to a step.
    """
    if not 0 < len(task.steps) <= MOST_STEPS:
        raise DataError(f"{task.origin}: its plan has {len(task.steps)} steps; a plan has 1 to {MOST_STEPS}.")
    if not any(map(has_number, task.annotation.lines)):
        raise DataError(
            f"{task.origin}: its annotation has no line that can belong to a step: {len(task.annotation.lines)} lines "
            f"are speech, mistakes or corrections, {len(task.annotation.left_out)} are left out."
        )
    all_rows = rows(task.annotation)
    cut = windows(all_rows, limits)
    schema = answer_schema(task.steps)
    return [
        Question(
            messages=[
                {"role": "system", "content": _prompt("lines_system.txt")},
                {"role": "user", "content": _video_message(task, all_rows, window)},
            ],
            schema=schema,
            name=NAME,
            title=task.origin if len(cut) == 1 else f"{task.origin} (part {part} of {len(cut)})",
            check=check,
        )
        for part, (window, check) in enumerate(zip(cut, checks(cut), strict=True), start=1)
    ]


def _video_message(task: Task, all_rows: Sequence[Row], window: Window) -> str:
    shown_rows = [row.text for row in all_rows[window.start : window.end]]
    above = all_rows[window.start].above
    if above is not None:
        shown_rows.insert(0, f"above {all_rows[above].text}")
    numbers = [row.number for row in all_rows if row.number is not None]
    # Each place is filled once, in one pass: a text with a place in it stays a text.
    return Template(_prompt("lines_video.txt")).substitute(
        goal=shown(task.goal),
        steps="\n".join(f"{step.id} {shown(step.text)}" for step in task.steps),
        rows="\n".join(shown_rows),
        first=window.first,
        last=window.last,
        count=numbers[-1],
        first_step=task.steps[0].id,
        last_step=task.steps[-1].id,
    )


def _prompt(name: str) -> str:
    return (files("prospect_hf.annotate") / "prompts" / name).read_text(encoding="utf-8").rstrip("\n")


def prompt_hash() -> str:
    """16 hex digits of the prompts and of the code that makes questions, for the provenance of a label."""
    return code_fingerprint(Path(__file__).parents[1], PROMPT_FILES)


def version() -> str:
    """16 hex digits of the prompts and of all code between a task and its visits, for the provenance of a label."""
    return code_fingerprint(Path(__file__).parents[1], CODE_FILES)


@dataclass(frozen=True)
class Estimate:
    """Tokens of questions that are asked once each, estimated without the server's tokenizer.

    Args:
        input_tokens, output_tokens: what is likely.
        most_input_tokens: one for each byte of the requests; no tokenizer makes more of them.
        most_output_tokens: of the longest valid answers. A model that writes its thoughts first writes more; then
            ``llm.max_output_tokens`` is the bound.
    """

    input_tokens: int
    output_tokens: int
    most_input_tokens: int
    most_output_tokens: int


def estimate(asked: Sequence[Question]) -> Estimate:
    """The tokens of questions that :func:`questions` made. An answer is likely to have two runs for each step."""
    input_bytes = likely = most = 0
    for question in asked:
        if not isinstance(question.check, AnswerCheck):
            raise TypeError("Only questions that model_questions.questions made can be estimated.")
        input_bytes += sum(len(message["content"].encode()) for message in question.messages)
        input_bytes += len(json.dumps(question.schema).encode())
        steps, lines = len(question.schema["required"]), question.check.last - question.check.first + 1
        likely += STEP_TOKENS * steps + RUN_TOKENS * min(RUNS_PER_STEP * steps, lines)
        most += STEP_TOKENS * steps + RUN_TOKENS * lines
    return Estimate(round(input_bytes / BYTES_PER_TOKEN), likely, input_bytes, most)
