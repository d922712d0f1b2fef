"""Archives of annotations are read in memory; what leads out of them, is damaged or is a bomb is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from annotation_fixtures import exo_archive
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.errors import DataError
from prospect_hf.sources.annotations import archive
from prospect_hf.sources.annotations.archive import files_in_archive

FILES = (("l1/a.json", b"[1]"), ("l1/b.json", b""), ("l1/c.json", b"x" * 2000))


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        list(files_in_archive(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def link(name: str, kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def test_the_files_are_read_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(exo_archive(*FILES, links=(link("l1/", tarfile.DIRTYPE),)))
    assert list(files_in_archive(path)) == list(FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar.gz"]


@pytest.mark.parametrize("name", ["../a.json", "l1/../../a.json", "/tmp/a.json", "..", "l1\\..\\a.json"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    assert "leads out of the archive" in refused(tmp_path / "x.tar.gz", exo_archive((name, b"[]")))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    told = refused(tmp_path / "x.tar.gz", exo_archive(links=(link("l1/a.json", kind),)))
    assert "link or another special file" in told


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 2**20)
    assert "more than 1 MB" in refused(tmp_path / "x.tar.gz", exo_archive(("l1/a.json", bytes(2**22))))


def test_every_cut_of_an_archive_is_noticed(tmp_path: Path) -> None:
    """Of the compressed file, and of the archive inside, also between two entries or within a header."""
    whole = exo_archive(*FILES)
    for length in range(0, len(whole), 7):
        refused(tmp_path / "x.tar.gz", whole[:length])
    data = gzip.decompress(whole)
    last = max(at for at in range(0, len(data), 512) if any(data[at : at + 512]))
    for length in range(0, last + 513, 256):
        refused(tmp_path / "x.tar.gz", gzip.compress(data[:length]))


def test_an_entry_that_is_cut_is_not_given_in_part(tmp_path: Path) -> None:
    data = gzip.decompress(exo_archive(*FILES))
    told = refused(tmp_path / "x.tar.gz", gzip.compress(data[: data.index(b"xxx") + 700]))
    assert "entry 'l1/c.json' goes on after the end of the archive" in told


def test_a_damaged_header_does_not_end_the_archive_silently(tmp_path: Path) -> None:
    data = bytearray(gzip.decompress(exo_archive(*FILES)))
    data[1024 + 150] ^= 1  # in the checksum of the second entry
    assert "damaged or cut short at byte 1024" in refused(tmp_path / "x.tar.gz", gzip.compress(bytes(data)))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x1f\x8b", gzip.compress(b""), gzip.compress(b"no tar")])
def test_another_kind_of_file_is_refused(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path / "x.tar.gz", data)


@given(st.integers(0, 2559), st.binary(min_size=1, max_size=24))
def test_damaged_bytes_give_the_files_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, at: int, damage: bytes
) -> None:
    data = bytearray(gzip.decompress(exo_archive(*FILES)))
    data[at : at + len(damage)] = damage
    path = tmp_path_factory.getbasetemp() / "damaged.tar.gz"
    with gzip.GzipFile(fileobj=(packed := io.BytesIO()), mode="wb", mtime=0) as file:
        file.write(data)
    path.write_bytes(packed.getvalue())
    try:
        assert len(list(files_in_archive(path))) <= 3
    except DataError as error:
        assert str(path) in str(error)
