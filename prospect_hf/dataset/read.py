"""Reads the sessions of one source and split, in whichever form the corpus has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.errors import UsageError
from prospect_hf.sources.annotations.read import read_annotations
from prospect_hf.sources.prepared import read_prepared
from prospect_hf.sources.proassist import read_sessions
from prospect_hf.sources.report import SessionsReport
from prospect_hf.sources.splits import CHECKED_ORDER, SplitCheck


def read_all(config: DstFramesConfig, check: SplitCheck) -> Iterator[SessionsReport]:
    """The reports of each split and source of ``config`` that have input files, by ``CHECKED_ORDER``.

    ``check`` sees each report first, and may take sessions out of it. Errors as in :func:`read_split`, and as in
    ``SplitCheck.add`` where a recording is in two splits.
    """
    files = config.input_files()
    for split in CHECKED_ORDER:
        for of_split, source in files:
            if of_split == split:
                report = read_split(config, source, split)
                check.add(report)
                yield report


def read_split(config: DstFramesConfig, source: str, split: str) -> SessionsReport:
    """The sessions of ``source`` and ``split`` (train, validation or test), read by ``config.form``.

    Raises:
        UsageError: a setting or folder is wrong.
        DataError: a record is invalid, or no usable record is left.
    """
    root, dst_root = Path(config.root), Path(config.dst_root) if config.dst_root else None
    if config.form == "dialogs":
        return read_sessions(
            root,
            source,
            split,
            dst=config.dst,
            dst_root=dst_root,
            dst_encoder=config.dst_encoder,
            suffix=config.suffix,
            on_error=config.on_error,
        )
    if config.form == "annotations":
        return read_annotations(root, source, split, on_error=config.on_error)
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
