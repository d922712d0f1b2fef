"""Runs of several processes on this machine, as a launcher starts them: with a time limit, and all their outputs.

The libraries are imported once, in a process that makes a copy of itself for each process of a run.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_S = 120.0
# A launcher ends the others where a process ends with an error; here they have this long to notice it themselves.
NOTICE_S = 20.0


@dataclass(frozen=True)
class Ended:
    """A process of a run that has ended: exit code (below 0: the signal), outputs, and how long after the first one."""

    code: int
    out: str
    err: str
    after_s: float


class Launcher:
    """Starts runs one after another."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder, self._runs = process, folder, 0

    def run(
        self,
        work: str,
        count: int = 2,
        environment: Mapping[str, str] | None = None,
        killed: int | None = None,
        once_told: str = "",
        **given: Any,
    ) -> list[Ended]:
        """Run a function in ``count`` processes and wait for their ends.

        Args:
            work: ``module:function``; what it returns is the exit code.
            environment: more variables.
            killed: the number of a process that is killed,
            once_told: as soon as the first one has written this text to standard error.
            given: keyword arguments of the function, as JSON values.
        """
        self._runs += 1
        told = {"work": work, "count": count, "environment": dict(environment or {}), "given": given}
        told |= {"killed": killed, "once_told": once_told, "outputs": str(self._folder / f"run{self._runs}-")}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the launcher itself has ended"
        ends = json.loads(answer)
        paths = [f"{told['outputs']}{number}" for number in range(count)]
        return [
            Ended(code, Path(f"{path}.out").read_text(), Path(f"{path}.err").read_text(), after)
            for path, (code, after) in zip(paths, ends, strict=True)
        ]


def succeeded(ended: Sequence[Ended]) -> Sequence[Ended]:
    """``ended``, where all went well; else the test fails with what the processes wrote."""
    told = "\n".join(f"-- process {number}: {one.code}\n{one.out}{one.err}" for number, one in enumerate(ended))
    assert all(one.code == 0 for one in ended), told
    return ended


@contextmanager
def process_launcher(folder: Path, modules: Sequence[str]) -> Iterator[Launcher]:
    """A launcher.

    Args:
        folder: of the outputs.
        modules: what is imported once.
    """
    paths = os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, *modules]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
    ) as process:
        yield Launcher(process, folder)
        assert process.stdin is not None
        process.stdin.close()


def _start(told: dict[str, Any], number: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    for descriptor, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{told['outputs']}{number}.{kind}", os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
    group = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": told["count"], "LOCAL_WORLD_SIZE": told["count"]}
    group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in group.items()} | told["environment"])
    module, function = told["work"].split(":")
    code = 70  # an error that nobody caught; its traceback is in the output
    try:
        code = getattr(import_module(module), function)(**told["given"]) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(told: dict[str, Any]) -> list[tuple[int, float]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = {_start(told, number, port): number for number in range(told["count"])}
    ends: dict[int, tuple[int, float]] = {}
    limit, first = time.monotonic() + LIMIT_S, None
    while running:
        for child, number in list(running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                first = first or time.monotonic()
                ends[number] = os.waitstatus_to_exitcode(status), time.monotonic() - first
                del running[child]
                if ends[number][0]:
                    limit = min(limit, time.monotonic() + NOTICE_S)
            elif time.monotonic() > limit or (number == told["killed"] and told["once_told"] in _told_by_first(told)):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    return [ends[number] for number in range(told["count"])]


def _told_by_first(told: dict[str, Any]) -> str:
    written = Path(f"{told['outputs']}0.err")
    return written.read_text() if written.is_file() else ""


def _serve() -> None:
    for module in sys.argv[1:]:
        import_module(module)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)
    os._exit(0)


if __name__ == "__main__":
    _serve()
