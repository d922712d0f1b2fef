"""Files are written whole or not at all, by any number of writers at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from prospect_hf.errors import UsageError
from prospect_hf.files import replacing, replacing_folder, sole_writer, temporary_path, write_json, write_text


def test_what_is_written_takes_the_place_of_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.txt"
    write_text(path, "first\r\nline")
    write_text(path, "second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_block_that_raises_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_no_two_writers_share_a_temporary_path(tmp_path: Path) -> None:
    assert len({temporary_path(tmp_path / "file") for _ in range(100)}) == 100


def test_many_writers_of_one_file_never_show_a_mixture(tmp_path: Path) -> None:
    path, failures = tmp_path / "file.json", []

    def write(number: int) -> None:
        for _ in range(40):
            try:
                write_json(path, [number] * 500)
                read = json.loads(path.read_text())
                assert len(read) == 500 and len(set(read)) == 1
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_a_number_that_is_not_finite_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "file.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    for content in ("first", "second"):
        with replacing_folder(folder) as temporary:
            (temporary / f"{content}.txt").write_text(content)
    assert [entry.name for entry in folder.iterdir()] == ["second.txt"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_folder_whose_writing_fails_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with replacing_folder(folder) as temporary:
        (temporary / "file.txt").write_text("old")
    with pytest.raises(RuntimeError), replacing_folder(folder) as temporary:
        (temporary / "file.txt").write_text("half")
        raise RuntimeError
    assert (folder / "file.txt").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_process_that_is_killed_frees_its_folder(tmp_path: Path, repository: Path) -> None:
    script = (
        "import pathlib, sys; from prospect_hf.files import sole_writer\n"
        f"with sole_writer(pathlib.Path({str(tmp_path / 'out')!r})): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script], cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match="another run is writing"), sole_writer(tmp_path / "out"):
        pass
    holder.kill()
    holder.wait()
    with sole_writer(tmp_path / "out"):
        assert not (tmp_path / "out").exists()  # nothing is put into the folder itself


def test_what_killed_processes_were_writing_is_removed_by_the_next_writer(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    stale, fresh, mine = (
        folder / "a" / temporary_path(Path("x")).name,
        temporary_path(folder / "y"),
        folder / "z.partial",
    )
    stale_folder = temporary_path(folder / "state")
    for path in (stale, fresh, mine, stale_folder / "file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    for path in (stale, mine, stale_folder):
        os.utime(path, (0, 0))
    with sole_writer(folder):
        pass
    assert sorted(path.name for path in folder.rglob("*")) == sorted(["a", fresh.name, "z.partial"])


def test_a_writer_may_wait_for_the_other(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with sole_writer(tmp_path / "out", wait=True):
            order.append("second")

    with sole_writer(tmp_path / "out"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder in which nobody can make a file")
@pytest.mark.parametrize("wait", [False, True])
def test_a_lock_that_cannot_be_made_is_told_at_once(wait: bool) -> None:
    with pytest.raises(OSError, match=r"/proc/self/\.output\.lock"), sole_writer(Path("/proc/self/output"), wait):
        pass
