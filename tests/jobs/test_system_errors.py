"""What the system refuses is one sentence with the file, what is wrong and what to do; nothing half stands there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from prospect_hf.files import write_text
from prospect_hf.frames.store import write_frames
from prospect_hf.jobs.command import sentence


def error_of(work: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as caught:
        work()
    return caught.value


@pytest.mark.parametrize(
    ("error", "told", "code"),
    [
        (OSError(errno.ENOSPC, "x", "a.txt"), "a.txt: no space is left on the disk: free some", 1),
        (OSError(errno.EDQUOT, "x"), "the disk quota is used up: free some", 1),
        (OSError(errno.EFBIG, "x", "a"), "a: the file would be larger than this system allows", 1),
        (OSError(errno.EROFS, "x", "a"), "a: the file system is read-only: give a folder that can be written.", 2),
        (OSError(errno.EACCES, "x", b"a"), "a: permission denied", 2),
        (OSError(errno.EMFILE, "x", 3), "too many files are open: raise the limit (ulimit -n).", 1),
        (OSError(errno.EISDIR, "x", "a.12-0123abcd.partial", None, "a"), "a: a folder stands where a file is", 2),
        (OSError(errno.ENAMETOOLONG, "x", "y" * 400), "…", 2),
        (ImportError("libz.so: cannot open shared object file: Too many open files"), "too many files are open", 1),
        (RuntimeError("received 0 items of ancdata"), "too many files are open", 1),
        (RuntimeError("DataLoader worker is killed by signal: Bus error. It is possible that dataloader's workers are"
                      " out of shared memory."), "no shared memory is left (/dev/shm): enlarge it, or set", 1),
        (RuntimeError("[enforce fail at inline_container.cc:668] . PytorchStreamWriter failed writing file data/0"),
         "no space is left on the disk", 1),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "no space is left", 1),
    ],
)  # fmt: skip
def test_each_kind_is_one_sentence(error: BaseException, told: str, code: int) -> None:
    found = sentence(error)
    assert found is not None and told in found[0] and found[1] == code and found[0].endswith(".")
    assert ".partial" not in found[0] and len(found[0]) < 350


def test_a_file_and_a_folder_in_each_other_s_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for path, told in (
        (tmp_path / "file" / "x.txt", "a file stands where a folder is needed"),
        (tmp_path / "folder", f"{tmp_path / 'folder'}: a folder stands where a file is needed"),
        (tmp_path / ("y" * 300), "the name is too long"),
    ):
        found = sentence(error_of(lambda path=path: write_text(path, "x")))
        assert found is not None and told in found[0] and found[1] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def run(job: str, repository: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """A command in a process of its own whose job is ``job``."""
    script = (
        "import os, resource, sys\nfrom pathlib import Path\nfrom prospect_hf.files import write_text\n"
        "from prospect_hf.jobs import command\nfrom prospect_hf.jobs.command_entry import Command\n"
        f"def job():\n    {job}\ncommand._load = lambda path: job\n{before}\n"
        "sys.exit(command.run_command(Command('x', 'A job.', [], 'x:run', arguments=lambda parser: None), [], 'x'))"
    )
    return subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
@pytest.mark.parametrize(
    ("limit", "value", "job", "told"),
    [
        ("RLIMIT_FSIZE", 4096, "write_text(Path({path!r}), 'x' * 100_000)", "the file would be larger than"),
        (
            "RLIMIT_FSIZE",
            4096,
            "import numpy, safetensors.numpy; path = Path({path!r}); path.parent.mkdir(); "
            "safetensors.numpy.save_file(dict(x=numpy.zeros(100_000)), path)",
            "the file would be larger than",
        ),
        ("RLIMIT_NOFILE", 16, "kept = [open('/dev/null') for _ in range(40)]", "too many files are open"),
    ],
)
def test_limits_of_a_process(tmp_path: Path, repository: Path, limit: str, value: int, job: str, told: str) -> None:
    path = tmp_path / "out" / "file.txt"
    done = run(
        job.format(path=str(path)),
        repository,
        f"resource.setrlimit(resource.{limit}, ({value}, {value}))",
    )
    assert done.returncode == 1 and told in done.stderr and done.stderr.count("\n") == 1
    assert not path.parent.exists() or list(path.parent.iterdir()) == []
    if "write_text" in job:
        assert str(path) in done.stderr


def test_a_frame_file_on_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pa, "OSFile", full)
    found = sentence(error_of(lambda: write_frames(tmp_path / "a.arrow", [b""])))
    assert found is not None and f"{tmp_path / 'a.arrow'}: no space is left" in found[0]


@pytest.mark.skipif(os.name != "posix", reason="file descriptors of POSIX")
def test_closed_outputs_end_in_no_file(tmp_path: Path, repository: Path) -> None:
    """A file that is opened after stdout and stderr were closed would get their numbers, and what is printed."""
    path = tmp_path / "file.txt"
    job = f"file = open({str(path)!r}, 'w'); print('words'); os.system('echo more; echo less >&2'); file.write('mine')"
    close = "os.close(1); os.close(2); sys.stdout = sys.stderr = None"
    done = run(job, repository, close)
    assert done.returncode == 0 and path.read_text() == "mine"
