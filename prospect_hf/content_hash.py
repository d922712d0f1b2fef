"""Content hashes: a file is the same where its bytes are, whatever its name, place and time.

A safetensors file that this package writes holds the hash of its own content, its *seal*, in its metadata: without it,
a bit that flipped on a disk or in a copy would be read as another number.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from prospect_hf.errors import DataError

# The metadata of a file that is going to be sealed: 64 zeros in place of the hash.
UNSEALED = {"sha256": "0" * 64}
# A quotation mark inside a JSON text is escaped, so no other value of the metadata can look like the seal.
_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_BLOCK = 1 << 20
# The longest header that safetensors itself reads.
_LONGEST_HEADER = 100_000_000

FileState = tuple[int, int, int, int]
# Path -> the state in which this process hashed it, and the hash.
_HASHED: dict[Path, tuple[FileState, str]] = {}


def file_state(path: Path) -> FileState:
    """Size, times of change and inode: equal for a file that nothing wrote to. ``utime`` cannot set the third."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits; a process reads each state of a file once.

    Raises:
        OSError: the file cannot be read.
    """
    state = file_state(path)
    known = _HASHED.get(path)
    if known is not None and known[0] == state:
        return known[1]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    _HASHED[path] = state, digest.hexdigest()
    return digest.hexdigest()


def seal(path: Path) -> None:
    """Write the hash of a safetensors file into it; its metadata must contain ``UNSEALED``."""
    found = _hash_and_seal(path)
    if found is None:
        raise ValueError(f"{path}: its metadata has no place for a seal.")
    computed, _, place = found
    with path.open("rb+") as file:
        file.seek(place)
        file.write(computed.encode())


def check_seal(path: Path, remedy: str) -> None:
    """Check that a safetensors file's content is the content that was sealed.

    Args:
        path: the file.
        remedy: what the user can do, as the end of the sentence.

    Raises:
        DataError: it is another content, or the file has no seal.
        OSError: the file cannot be read.
    """
    found = _hash_and_seal(path)
    if found is None:
        raise DataError(f"{path}: the file has no content hash, so it is damaged or of an earlier version; {remedy}.")
    computed, stored, _ = found
    if computed != stored:
        raise DataError(f"{path}: the file is damaged, its content hash is another one; {remedy}.")


def _hash_and_seal(path: Path) -> tuple[str, str, int] | None:
    """The hash of the whole file with zeros for the seal, the seal, and its place; None without a seal."""
    with path.open("rb") as file:
        length = file.read(8)
        header = file.read(min(int.from_bytes(length, "little"), _LONGEST_HEADER))
        found = _SEAL.search(header)
        if found is None:
            return None
        begin, end = found.span(1)
        digest = hashlib.sha256(length + header[:begin] + UNSEALED["sha256"].encode() + header[end:])
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest(), found[1].decode(), 8 + begin
