"""Runs a fuzz target on many damaged inputs, in child processes: an input that aborts or hangs ends only its child.

The inputs are numbered, and a number always gives the same input. ``FUZZ_INPUTS=600`` gives every target so many.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from context_dst_smolvlm import StreamError
from prospect_hf.errors import DataError, UsageError

REPOSITORY = Path(__file__).resolve().parents[2]
REFUSALS = (DataError, UsageError, StreamError)
# Seconds for one input, and bytes that it may take beyond what the test process has.
LIMIT_S, MEMORY = 10.0, 3 * 2**30

# Gets a source of random numbers and an empty folder; raises what the project raises.
Target = Callable[[random.Random, Path], object]


@dataclass
class Survey:
    """What became of a target's inputs: how many were refused, and (kind, number of the first input) of each fault."""

    inputs: int = 0
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, number: int, outcome: str, kind: str, detail: str) -> None:
        self.inputs += 1
        self.refused += outcome == "refused"
        if outcome not in ("fine", "refused"):
            self.faults[outcome] += 1
            self.kinds.setdefault(kind, (number, detail))

    def row(self, name: str) -> str:
        """One line of the table."""
        told = [self.faults[outcome] for outcome in ("traceback", "abort", "hang")]
        return "| " + " | ".join(map(str, [name, self.inputs, self.refused, *told, len(self.kinds)])) + " |"


def survey(name: str, target: Target, inputs: int, folder: Path, limit_s: float = LIMIT_S) -> Survey:
    """Run ``target`` on inputs 0 to ``inputs - 1``; with ``FUZZ_INPUTS`` on so many, with ``FUZZ_INPUT`` on one."""
    first, end = 0, int(os.environ.get("FUZZ_INPUTS", inputs))
    if "FUZZ_INPUT" in os.environ:
        first = int(os.environ["FUZZ_INPUT"])
        end = first + 1
    found = Survey()
    gc.collect()
    while first < end:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(read)
                _work(name, target, range(first, end), folder, write)
            finally:
                os._exit(0)
        os.close(write)
        first = _watch(child, read, first, found, limit_s)
        os.close(read)
    shutil.rmtree(folder, ignore_errors=True)
    print(found.row(name))
    return found


def _watch(child: int, read: int, number: int, found: Survey, limit_s: float) -> int:
    """Read a child's outcomes; the number of the next input that nobody has tried."""
    text = b""
    while True:
        ready = select.select([read], [], [], limit_s)[0]
        if not ready:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            found.add(number, "hang", f"hang after {limit_s:g} s", "")
            return number + 1
        block = os.read(read, 1 << 16)
        if not block:
            status = os.waitpid(child, 0)[1]
            if os.WIFSIGNALED(status):
                found.add(number, "abort", f"signal {os.WTERMSIG(status)}", "")
                return number + 1
            return sys.maxsize
        *lines, text = (text + block).split(b"\n")
        for line in lines:
            number, *rest = json.loads(line)
            found.add(number, *rest)
            number += 1


def _work(name: str, target: Target, numbers: range, folder: Path, write: int) -> None:
    # Threads do not survive a fork. A pass that waits for them would never end, nor would the end of a video decoder
    # that another test left behind: what was there before the fork is not collected here.
    torch.set_num_threads(1)
    gc.freeze()
    if "FUZZ_INPUT" not in os.environ:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY,) * 2)
    for number in numbers:
        place = folder / str(number)
        place.mkdir(parents=True)
        outcome = _one(target, random.Random(zlib.crc32(f"{name} {number}".encode())), place)
        shutil.rmtree(place, ignore_errors=True)
        os.write(write, (json.dumps([number, *outcome]) + "\n").encode())


def _one(target: Target, rng: random.Random, place: Path) -> tuple[str, str, str]:
    try:
        target(rng, place)
    except REFUSALS as error:
        if not str(error).strip():
            return "traceback", f"{type(error).__name__} without a message", ""
        return "refused", "", ""
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if Path(frame.filename).is_relative_to(REPOSITORY / "prospect_hf")]
        ours += [frame for frame in frames if frame.filename.endswith("_dst_smolvlm.py")]
        at = next(frame for frame in reversed(frames) if frame in ours) if ours else frames[-1]
        kind = f"{type(error).__name__} in {Path(at.filename).name}:{at.name} from {frames[-1].name}"
        told = "".join(traceback.format_exception(error)) if "FUZZ_INPUT" in os.environ else str(error)[:300]
        return "traceback", kind, told
    return "fine", "", ""


def assert_no_fault(found: Survey) -> None:
    """Fail with every kind of fault, and how its input is run again."""
    told = [f"{kind}: FUZZ_INPUT={number}: {detail}" for kind, (number, detail) in sorted(found.kinds.items())]
    assert not found.kinds, "\n".join([f"{sum(found.faults.values())} of {found.inputs} inputs", *told])
