"""Content hashes: every flipped bit of a sealed file is found, and a file's hash follows its bytes alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from prospect_hf.content_hash import UNSEALED, check_seal, file_hash, seal
from prospect_hf.errors import DataError


def sealed(path: Path) -> bytes:
    """A sealed file, and its bytes; one of its texts looks like a seal."""
    save_file({"numbers": np.arange(12.0)}, path, {"note": '"sha256":"' + "1" * 64 + '"', **UNSEALED})
    seal(path)
    return path.read_bytes()


def test_a_sealed_file_reads_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    sealed(path)
    check_seal(path, "remove it")
    assert np.array_equal(load_file(path)["numbers"], np.arange(12.0))
    shutil.copy(path, tmp_path / "copy.safetensors")
    check_seal(tmp_path / "copy.safetensors", "remove it")


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    whole = sealed(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(DataError, match=r"some\.safetensors: the file .*; remove it\."):
            check_seal(path, "remove it")
    for length in (0, 3, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="remove it"):
            check_seal(path, "remove it")
    path.write_bytes(whole + b"\0")
    with pytest.raises(DataError, match="damaged"):
        check_seal(path, "remove it")


def test_a_file_of_an_earlier_version_has_no_seal(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_file({"numbers": np.arange(3.0)}, path, {"note": "here"})
    with pytest.raises(DataError, match="no content hash, so it is damaged or of an earlier version; remove it"):
        check_seal(path, "remove it")
    with pytest.raises(ValueError, match="no place for a seal"):
        seal(path)
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(DataError, match="no content hash"):
        check_seal(path, "remove it")
    with pytest.raises(SafetensorError):
        load_file(path)


def test_a_hash_follows_the_bytes_and_not_the_time(tmp_path: Path) -> None:
    path = tmp_path / "video.arrow"
    path.write_bytes(b"frames")
    first = file_hash(path)
    os.utime(path, ns=(1, 1))
    assert file_hash(path) == first
    stat = path.stat()
    # Another content of the same size and time, as a copying tool leaves it behind.
    path.write_bytes(b"FRAMES")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns and file_hash(path) != first
