"""Builds of a small corpus, and what lies in their folders."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from prospect_hf.dataset.build import build_rows
from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.dataset.layout import Manifest


def config(corpus: Path, **settings: Any) -> DstFramesConfig:
    """Everything of a corpus with state labels."""
    return DstFramesConfig(**{"name": "all", "root": str(corpus), "dst": "files", **settings})


def built_in(folder: Path, corpus: Path, **settings: Any) -> Manifest:
    """Build in several small files."""
    return build_rows(config(corpus), folder, **{"shard_rows": 150, "sample": 1, "progress": False, **settings})


def hashes(folder: Path) -> dict[str, str]:
    """The hash of each file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def shown(folder: Path) -> set[str]:
    """The files that a loader sees."""
    return {name for name in hashes(folder) if not name.startswith(".")}
