"""Reads the sessions of one source and split, in whichever form the corpus has."""

from __future__ import annotations

from pathlib import Path

from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.errors import UsageError
from prospect_hf.sources.prepared import read_prepared
from prospect_hf.sources.proassist import read_sessions
from prospect_hf.sources.report import SessionsReport


def read_split(config: DstFramesConfig, source: str, split: str) -> SessionsReport:
    """The sessions of ``source`` and ``split`` (train, validation or test), read by ``config.form``.

    Raises:
        UsageError: a setting or folder is wrong.
        DataError: a record is invalid, or no usable record is left.
    """
    root, dst_root = Path(config.root), Path(config.dst_root) if config.dst_root else None
    if config.form == "dialogs":
        return read_sessions(
            root, source, split, dst=config.dst, dst_root=dst_root, suffix=config.suffix, on_error=config.on_error
        )
    if config.dst == "files" and dst_root is None:
        raise UsageError("prepared rows contain no state labels; set dst_root=FOLDER, or dst=none.")
    return read_prepared(
        root,
        source,
        split,
        pattern=config.pattern,
        dst_root=dst_root if config.dst == "files" else None,
        on_error=config.on_error,
    )
