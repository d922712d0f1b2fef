"""The harness of all commands: errors are one sentence, exit codes are 0, 1 and 2, a stop is said."""

from __future__ import annotations

import errno
import importlib.util
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch.distributed import DistNetworkError

from context_dst_smolvlm import StreamError
from prospect_hf import __version__
from prospect_hf.errors import DataError, UsageError
from prospect_hf.jobs import command as harness
from prospect_hf.jobs.command import run_command, sentence
from prospect_hf.jobs.command_entry import Command


def run_raising(raise_it: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command whose job does ``raise_it``."""
    monkeypatch.setattr(harness, "_load", lambda path: raise_it)
    return run_command(
        Command("x", "A command.", [], "x:run", arguments=lambda parser: None, stopped="stopped"), [], "x"
    )


def broken_weights(folder: Path) -> Callable[[], Any]:
    def job() -> None:
        (folder / "w.safetensors").write_bytes(b"no weights")
        safe_open(folder / "w.safetensors", "pt").__enter__()

    return job


def no_video() -> None:
    av = pytest.importorskip("av")
    av.open(io.BytesIO(b"no video"))


def no_picture() -> None:
    Image.open(io.BytesIO(b"no picture"))


def no_table() -> None:
    pa.ipc.open_stream(io.BytesIO(b"nothing")).read_all()


def raises(error: BaseException) -> Callable[[], None]:
    def job() -> None:
        raise error

    return job


@pytest.mark.parametrize(
    ("job", "code", "message"),
    [
        (raises(UsageError("no such thing.")), 2, "error: no such thing."),
        (raises(DataError("file: record 3\nis wrong.")), 2, "error: file: record 3 is wrong."),
        (raises(StreamError("no room.")), 2, "error: no room."),
        (
            raises(FileNotFoundError(errno.ENOENT, "No such file or directory", "x")),
            2,
            "error: x: no such file or folder: ",
        ),
        (raises(OSError(errno.ENOSPC, "No space left on device", "x")), 1, "error: x: no space is left on the disk: "),
        (raises(MemoryError()), 1, "out of memory"),
        (raises(FloatingPointError("The loss is not finite at step 2.")), 1, "The loss is not finite at step 2."),
        (raises(torch.OutOfMemoryError("CUDA out of memory")), 1, "out of memory (CUDA out of memory)"),
        (raises(ImportError("No module named rich", name="rich")), 2, "the package rich cannot be imported"),
        (no_video, 2, "error: video: "),
        (no_picture, 2, "error: picture: cannot identify image file"),
        (no_table, 2, "error: Arrow file: "),
    ],
)
def test_an_error_is_one_sentence(
    job: Callable[[], None],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_raising(job, monkeypatch) == code
    told = capsys.readouterr().err
    assert message in told and told.startswith("error: ") and told.count("\n") == 1 and "Traceback" not in told


def test_broken_weights_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_raising(broken_weights(tmp_path), monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: safetensors file: ")


def test_a_fault_of_this_package_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        run_raising(raises(AssertionError("a bug")), monkeypatch)
    assert sentence(ValueError("a bug")) is None and sentence(KeyError("a bug")) is None


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_said_and_the_exit_code_is_1(
    kind: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run_raising(lambda: os.kill(os.getpid(), kind), monkeypatch) == 1
    assert capsys.readouterr().err == "stopped\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_reader_that_leaves_is_no_error(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    kept = os.dup(sys.stdout.fileno())
    try:
        assert run_raising(raises(BrokenPipeError()), monkeypatch) == 1
    finally:
        os.dup2(kept, sys.stdout.fileno())
    assert capfd.readouterr().err == ""


def test_a_console_without_utf_8_shows_codes(repository: Path) -> None:
    script = (
        "from prospect_hf.jobs import command; from prospect_hf.jobs.command_entry import Command;"
        "command._load = lambda path: (lambda: print('Turn \\u2192 right'));"
        "print(command.run_command(Command('x', 'A command.', [], 'x:run', arguments=lambda parser: None), [], 'x'))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repository, env=environment, capture_output=True, check=True
    )
    assert done.stdout.split() == [b"Turn", b"\\u2192", b"right", b"0"]


def test_one_run_at_a_time_writes_to_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prospect_hf.jobs.model_commands import STREAM

    load = harness._load
    arguments = ["stream.source=clip.mp4", "stream.plan=[one]", f"stream.output_dir={tmp_path / 'out'}"]
    codes, running = [], []

    def job(**given: Any) -> None:
        running.append(True)
        if len(running) == 1:  # the second run begins while the first is at work
            codes.append(run_command(STREAM, arguments, "prospect stream"))
        running.pop()

    monkeypatch.setattr(harness, "_load", lambda path: job if "jobs" in path else load(path))
    assert run_command(STREAM, arguments, "prospect stream") == 0 and codes == [2]
    assert f"another run is writing to {tmp_path / 'out'}: wait for it" in capsys.readouterr().err
    assert run_command(STREAM, arguments, "prospect stream") == 0  # the lock is free again
    monkeypatch.setenv("RANK", "1")  # of another program: without WORLD_SIZE this is one process
    assert run_command(STREAM, arguments, "prospect stream") == 0 and codes == [2, 2, 2]


def test_of_the_processes_of_one_run_the_first_takes_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prospect_hf.jobs.model_commands import TRAIN

    class Training:
        output_dir = str(tmp_path / "out")

    def lock() -> Any:
        return harness._lock(TRAIN, {"training": Training})

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with lock():
        with pytest.raises(UsageError, match="another run is writing"), lock():
            pass
        monkeypatch.setenv("RANK", "1")
        with lock():
            pass


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize(
    "error", [RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer"), DistNetworkError("recv")]
)
def test_where_another_process_has_ended_one_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: int, error: RuntimeError
) -> None:
    """The first process, or the second, since the first may be the one that has ended; the others are silent."""
    from prospect_hf.jobs.model_commands import TRAIN

    def broken_off(*given: Any) -> int:
        raise error

    monkeypatch.setattr(harness, "_run", broken_off)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", str(rank))
    assert run_command(TRAIN, [], "prospect train") == 1
    said = "error: another process of this run has ended: it was killed, or its own message says why.\n"
    assert capsys.readouterr().err == ("" if rank == 2 else said)


def test_of_several_processes_the_first_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others show errors alone, and a command that is for one process refuses to be run by several."""
    from prospect_hf.jobs.model_commands import STREAM, TRAIN

    def job() -> None:
        print("printed")
        logging.getLogger("prospect_hf").info("logged")

    monkeypatch.setattr(harness, "_run", lambda *given: job())
    level = logging.getLogger().level
    for rank, wanted in (("0", "printed\n"), ("1", "")):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        run_command(TRAIN, [], "prospect train")
        shown = capsys.readouterr()
        assert shown.out == wanted and "logged" not in (shown.err if rank == "1" else "")
        assert run_command(STREAM, [], "prospect stream") == 2
        who = "error of process 1" if rank == "1" else "error"
        assert capsys.readouterr().err == f"{who}: stream runs in one process: start it without torchrun.\n"
    assert logging.getLogger().level == level


def test_the_job_gets_its_settings_as_dataclasses(monkeypatch: pytest.MonkeyPatch) -> None:
    from prospect_hf.jobs.model_commands import STREAM

    got: dict[str, Any] = {}
    load = harness._load
    monkeypatch.setattr(
        harness, "_load", lambda path: (lambda **given: got.update(given)) if "jobs" in path else load(path)
    )
    arguments = ["stream.source=clip.mp4", "stream.plan=[one,two]", "context=drop_all", "tracking=monotone"]
    assert run_command(STREAM, [*arguments, "decoding=sample", "decoding.seed=3"], "prospect stream") == 0
    assert got["stream"].plan == ["one", "two"] and got["context"].strategy == "drop_all"
    assert got["tracking"].policy == "monotone" and (got["decoding"].temperature, got["decoding"].seed) == (0.7, 3)


def test_a_kernel_that_nothing_uses_is_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    """bitsandbytes warns of it on import where the processor has bfloat16 units; its other warnings stay."""
    found = importlib.util.find_spec("bitsandbytes")
    if found is None or found.origin is None:
        pytest.skip("bitsandbytes is not installed")
    lines = (Path(found.origin).parent / "backends/cpu/ops.py").read_text(encoding="utf-8").splitlines()
    said = [line.strip().strip('",') for line in lines if "kernels-community: %s" in line]
    if not said:
        pytest.skip("this release of bitsandbytes does not say it")
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    for text in said:
        logger.warning(text, "No module named 'kernels'")
    logger.warning("the library cannot be loaded")
    assert [record.msg for record in caplog.records] == ["the library cannot be loaded"]


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_deepspeed_does_not_say_on_every_command_that_there_is_no_gpu(repository: Path) -> None:
    code = (
        "from prospect_hf.cli import main; main(['train', '--version'])\n"
        "from deepspeed.accelerator import get_accelerator; get_accelerator()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"prospect-hf {__version__}"]
