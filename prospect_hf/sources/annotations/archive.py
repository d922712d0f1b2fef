"""Reads the files in a ``.tar.gz`` without unpacking it: nothing that an archive says is written to the disk."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from prospect_hf.errors import DataError

# An archive of annotations is a few MB; more than this unpacked is a bomb, or not annotations.
MOST_BYTES = 256 * 2**20
_BLOCK = 512  # a tar archive is made of blocks; two of zeros end it (POSIX.1-1988, ustar)


def files_in_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each file in the archive, in its order.

    Raises ``DataError`` where it is no tar.gz, is damaged or cut short, unpacks to more than ``MOST_BYTES``, or has an
    entry that is no plain file below the archive's root (a link, a device, a path with "..").
    """
    data = _unpacked(path)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for entry in archive:
                place = f"{path}: entry {entry.name[:100]!r}"
                parts = PurePosixPath(entry.name)
                if parts.is_absolute() or ".." in parts.parts or "\\" in entry.name:
                    raise DataError(f"{place} leads out of the archive; make the archive anew from the release.")
                if entry.isdir():
                    continue
                if not entry.isreg() or entry.issparse():
                    raise DataError(f"{place} is a link or another special file; an archive of annotations has none.")
                if entry.offset_data + entry.size > len(data):
                    raise DataError(f"{place} goes on after the end of the archive; download it again.")
                yield entry.name, data[entry.offset_data : entry.offset_data + entry.size]
            end = archive.offset
    # Damaged numbers in a header give a ValueError.
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not a tar archive ({error}); download it again.") from error
    # At a damaged header, tarfile ends as at the end of the archive.
    if data[end : end + _BLOCK] != bytes(_BLOCK):
        raise DataError(f"{path}: the archive is damaged or cut short at byte {end} of {len(data)}; download it again.")


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            data = file.read(MOST_BYTES + 1)
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise
        raise DataError(f"{path}: not a whole gzip file ({error}); download it again.") from error
    if len(data) > MOST_BYTES:
        raise DataError(f"{path}: it unpacks to more than {MOST_BYTES // 2**20} MB, which no annotations have.")
    return data
