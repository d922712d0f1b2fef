"""Clients in processes of their own, which a test may kill at any moment.

The libraries are imported once, in a process that makes a copy of itself for each client.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_fixtures import MESSAGES, SCHEMA

from prospect_hf.llm import client as llm
from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.batch import BatchClient
from prospect_hf.llm.client import LLMClient
from prospect_hf.llm.questions import Question

REPOSITORY = Path(__file__).resolve().parents[2]


class Clients:
    """Starts clients one after another."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, settings: dict[str, Any], questions: int, output: Path, folder: Path | None = None) -> int:
        """Start a client that asks questions with the seeds 0, 1, ...; returns its process id.

        Args:
            settings: of the ``llm`` group.
            output: each result is a line there, as soon as it comes: [index, answer, cached], or [error] at the end.
            folder: of the batches; None asks by single calls.
        """
        told = {"settings": settings, "questions": questions, "output": str(output), "folder": folder and str(folder)}
        self._write(told)
        return int(self._read())

    def wait(self) -> int:
        """Wait until the client has ended; returns its exit status, below 0 where a signal ended it."""
        self._write(None)
        return int(self._read())

    def _write(self, value: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def client_processes() -> Iterator[Clients]:
    """Clients, and at the end none of them any more."""
    paths = os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)])
    command = [sys.executable, __file__]
    environment = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Clients(process)
        assert process.stdin is not None
        process.stdin.close()


def _run(settings: dict[str, Any], questions: int, output: str, folder: str | None) -> None:
    asked = [Question(MESSAGES, SCHEMA, "word", seed) for seed in range(questions)]
    arguments = LLMArguments(**settings)
    with Path(output).open("a") as file:
        try:
            results = (
                LLMClient(arguments).answers(asked)
                if folder is None
                else BatchClient(arguments).answers(asked, Path(folder), progress=False)
            )
            for result in results:
                file.write(json.dumps([result.index, result.answer, result.cached]) + "\n")
                file.flush()
        except ValueError as error:
            file.write(json.dumps([str(error)]) + "\n")


def _serve() -> None:
    import openai  # noqa: F401

    llm.FIRST_WAIT_S = 0.01
    child = 0
    for line in sys.stdin:
        told = json.loads(line)
        if told is None:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(status, flush=True)
            continue
        child = os.fork()
        if not child:
            _run(**told)
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    _serve()
