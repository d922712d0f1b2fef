"""Content hashes: a file is the same where its bytes are, whatever its name, place and time.

A safetensors file that this package writes holds the hash of its own content, its *seal*, in its metadata: without it,
a bit that flipped on a disk or in a copy would be read as another number.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path

from prospect_hf.checked_json import as_dict, load_json
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import write_json

# The metadata of a file that is going to be sealed: 64 zeros in place of the hash.
UNSEALED = {"sha256": "0" * 64}
# A quotation mark inside a JSON text is escaped, so no other value of the metadata can look like the seal.
_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_BLOCK = 1 << 20
# The longest header that safetensors itself reads.
_LONGEST_HEADER = 100_000_000

# A file that was written this shortly before it was hashed may be written again within one tick of the clock, and then
# shows no other time: its hash is not kept.
YOUNG_NS = 2_000_000_000

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


def weights_hash(folder: Path) -> str:
    """The SHA-256 of a model folder's weights, as ``cat *.safetensors | sha256sum`` tells it.

    The adapters of a folder, ``adapter/*.safetensors``, are weights too, after all others.

    Raises:
        UsageError: the folder has no weights.
    """
    files = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("adapter/*.safetensors"))]
    if not files:
        raise UsageError(f"{folder} has no model.safetensors; give the folder of a trained model.")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def path_state(path: Path) -> FileState:
    """The state of a file, or of all files below a folder as one."""
    if not path.is_dir():
        return file_state(path)
    states = [(file.relative_to(path).as_posix(), file_state(file)) for file in _files_below(path)]
    names = hashlib.sha256(repr(states).encode()).digest()
    size, changed = sum(state[0] for _, state in states), [max(state[1], state[2]) for _, state in states]
    return size, len(states), max(changed, default=0), int.from_bytes(names[:6], "big")


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class KnownHashes:
    """Hashes of files and folders on this machine, kept in a JSON file: what nothing wrote to is not read again.

    A file is known by its path, size, times of change and inode, so a copy or a changed file is not taken for it.
    Of two processes that save at the same time one may lose what the other one has added: that is hashed again.

    Args:
        path: the JSON file; it need not exist.

    Raises:
        DataError: the JSON file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = self._load()
        self._added: dict[str, list[int | str]] = {}

    def _load(self) -> dict[str, list[int | str]]:
        if not self.path.is_file():
            return {}
        known = as_dict(load_json(self.path), str(self.path))
        for name, entry in known.items():
            if not (isinstance(entry, list) and len(entry) == 5 and isinstance(entry[4], str)):
                raise DataError(f"{self.path}: the entry {name!r} is damaged; remove the file, then it is made anew.")
        return known

    def get(self, path: Path) -> str | None:
        """The hash of ``path`` in its present state, where it is known. Raises ``OSError`` where there is no path."""
        entry = self._known.get(str(path.absolute()))
        return str(entry[4]) if entry is not None and tuple(entry[:4]) == path_state(path) else None

    def hash(self, path: Path, read: Callable[[Path], str]) -> str:
        """The hash of a file or folder, which ``read`` makes where it is not known."""
        known = self.get(path)
        if known is None:
            state = path_state(path)
            known = read(path)
            if time.time_ns() - max(state[1], state[2]) > YOUNG_NS:
                self.add(path, state, known)
        return known

    def add(self, path: Path, state: FileState, known: str) -> None:
        """Keep the hash of ``path`` in ``state``."""
        self._added[str(path.absolute())] = self._known[str(path.absolute())] = [*state, known]

    def save(self) -> None:
        """Write what was added to the JSON file, beside what other processes have added."""
        if self._added:
            self._known = self._load() | self._added
            self._added = {}
            write_json(self.path, self._known, indent=None)


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
