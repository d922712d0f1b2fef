"""What the operating system refuses, in one sentence: a full disk, a missing permission, a file in a folder's place."""

from __future__ import annotations

import errno
import os
import re

from prospect_hf.terminal import visible

# errno -> what is wrong, what to do, exit code: 1 where the machine is at its end, 2 where another path would do.
MEANINGS = {
    errno.ENOSPC: ("no space is left on the disk", "free some, or give a folder on another disk", 1),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or give a folder on another disk", 1),
    errno.EFBIG: ("the file would be larger than this system allows", "raise the limit (ulimit -f)", 1),
    errno.EIO: ("the disk cannot be read or written", "check the disk", 1),
    errno.ENOMEM: ("out of memory", "lower the batch size or the length of a clip", 1),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)", 1),
    errno.ENFILE: ("too many files are open on this machine", "end other programs, or raise the limit", 1),
    errno.EROFS: ("the file system is read-only", "give a folder that can be written", 2),
    errno.EACCES: ("permission denied", "give a file or folder that this user may use", 2),
    errno.EPERM: ("the operation is not permitted", "give a file or folder that this user may use", 2),
    errno.EEXIST: ("a file stands where a folder is needed", "move it away, or give another folder", 2),
    errno.ENOTDIR: ("a file stands where a folder is needed", "move it away, or give another folder", 2),
    errno.EISDIR: ("a folder stands where a file is needed", "move it away, or give another name", 2),
    errno.ENOTEMPTY: ("the folder is not empty", "move it away, or give another one", 2),
    errno.ENAMETOOLONG: ("the name is too long", "give a shorter one", 2),
    errno.ENOENT: ("no such file or folder", "check the path", 2),
}
# What libraries write in place of an errno.
IN_WORDS = {
    "Too many open files": errno.EMFILE,
    "ancdata": errno.EMFILE,  # torch, where a file descriptor could not be sent to another process
    "No space left on device": errno.ENOSPC,
    "PytorchStreamWriter failed writing": errno.ENOSPC,  # torch.save
    "] . unexpected pos": errno.ENOSPC,  # torch.save, while it closes the file
    "unable to allocate shared memory": errno.ENOSPC,
    "out of shared memory": errno.ENOSPC,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
}
LONGEST = 160  # characters of a path that is shown


def system_sentence(error: BaseException) -> tuple[str, int] | None:
    """The sentence for an error of the operating system, and the exit code; None for any other error."""
    number = error_number(error)
    if number not in MEANINGS:
        return None
    what, advice, code = MEANINGS[number]
    path = ""
    if isinstance(error, OSError):
        path = os.fsdecode(error.filename2 or error.filename or "") if not isinstance(error.filename, int) else ""
    if "shared memory" in str(error):
        what, advice = "no shared memory is left (/dev/shm)", "enlarge it, or set training.dataloader_num_workers=0"
    return f"{shown(path)}: {what}: {advice}." if path else f"{what}: {advice}.", code


def error_number(error: BaseException) -> int | None:
    """The errno of an error, also where a library gives it in words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    found = re.search(r"\(os error (\d+)\)", text)  # Rust
    if found:
        return int(found[1])
    if isinstance(error, (OSError, RuntimeError, ImportError)):
        return next((number for words, number in IN_WORDS.items() if words in text), None)
    return None


def shown(path: str) -> str:
    """A path as the user knows it: without the name under which a file is written before it is renamed."""
    named = visible(re.sub(r"\.\d+-[0-9a-f]{8}\.partial", "", path))
    return named if len(named) <= LONGEST else f"{named[: LONGEST // 2]}…{named[-LONGEST // 4 :]}"
