"""A fingerprint of the code that made a cached result: when the code changes, the result must be made again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def code_fingerprint(folder: Path, patterns: Iterable[str]) -> str:
    """16 hex digits of the names and contents of source files.

    Args:
        folder: that the patterns are relative to.
        patterns: glob patterns; ``../`` leads to the modules beside the package. Each must match a file: a pattern that
            matches nothing, because a file was renamed, would let results of other code be taken for this code's.

    Raises:
        FileNotFoundError: a pattern matches no file.
    """
    digest = hashlib.sha256()
    for pattern in patterns:
        paths = sorted(folder.glob(pattern))
        if not paths:
            raise FileNotFoundError(
                f"{folder / pattern}: no such source file; correct the list of files that names it."
            )
        for path in paths:
            digest.update(Path(os.path.relpath(path, folder)).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
