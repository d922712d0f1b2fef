"""Content hashes: every flipped bit of a sealed file is found, and a file's hash follows its bytes alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from prospect_hf.content_hash import UNSEALED, KnownHashes, check_seal, file_hash, seal
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


def test_known_hashes_follow_the_state_of_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prospect_hf.content_hash.YOUNG_NS", 0)
    film, folder = tmp_path / "film", tmp_path / "folder"
    folder.mkdir()
    for path in (film, folder / "1.png", folder / "2.png"):
        path.write_bytes(path.name.encode())
    read: list[Path] = []

    def hashed(path: Path) -> str:
        read.append(path)
        return "0f" * 32

    def known() -> KnownHashes:
        return KnownHashes(tmp_path / "hashes.json")

    first = known()
    assert first.get(film) is None
    for path in (film, folder, film, folder):
        assert first.hash(path, hashed) == "0f" * 32
    assert read == [film, folder]
    other = known()  # of another process that adds something else
    first.save()
    other.hash(folder / "1.png", hashed)
    other.save()
    assert {film, folder, folder / "1.png"} == {path for path in (film, folder, folder / "1.png") if known().get(path)}
    for change in (
        lambda: (folder / "2.png").write_bytes(b"3.png"),
        lambda: (folder / "3.png").write_bytes(b""),
        lambda: (folder / "3.png").rename(folder / "4.png"),
        lambda: (folder / "4.png").unlink(),
    ):
        change()
        again = known()
        assert again.get(folder) is None and again.get(film) is not None
        again.hash(folder, hashed)
        again.save()
    held = film.stat()
    film.write_bytes(b"FILM")
    os.utime(film, ns=(held.st_atime_ns, held.st_mtime_ns))
    assert known().get(film) is None


def test_the_hash_of_a_file_that_was_just_written_is_not_kept(tmp_path: Path) -> None:
    """It may be written again within one tick of the clock."""
    path = tmp_path / "film"
    path.write_bytes(b"one")
    known = KnownHashes(tmp_path / "hashes.json")
    assert known.hash(path, file_hash) == file_hash(path) and known.get(path) is None
    known.save()
    assert not known.path.exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": [1, 2, 3, 4, 5]}', '{"a": [1, 2, 3, "0f"]}'])
def test_damaged_known_hashes_are_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "hashes.json").write_text(text)
    with pytest.raises(DataError, match=r"hashes\.json"):
        KnownHashes(tmp_path / "hashes.json")
