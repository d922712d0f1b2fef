"""Loads the sessions of a run: builds the frame rows of each form and source on the first call, then reuses them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from datasets import DatasetDict

from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.inputs import ready_corpus
from prospect_hf.data.session_rows import SessionRows, iter_sessions
from prospect_hf.dataset.dst_frames import load_dst_frames
from prospect_hf.dataset.input_files import Form
from prospect_hf.files import remove_stale

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedRows:
    """The frame rows of one form ("dialogs" or "prepared"), by split."""

    form: str
    rows: DatasetDict


def prepare_rows(data: DataArguments) -> list[LoadedRows]:
    """The frame rows of each form; a simulated corpus is written first where it is missing or out of date.

    Raises:
        UsageError: a folder is missing, or two settings contradict each other.
        DataError: a record is invalid, or no usable record is left.
    """
    root = ready_corpus(data)
    remove_stale(Path(data.cache_dir))
    settings: dict[str, Any] = {
        "sources": data.sources,
        "dst": data.dst,
        "dst_root": None if data.dst_root is None else Path(data.dst_root),
        "suffix": data.suffix,
        "on_error": data.on_error,
        "cache_dir": Path(data.cache_dir),
    }
    loaded = []
    for form in data.forms:
        # Missing prepared rows are logged where another form was requested as well, and an error where they were not.
        if form == "prepared" and len(data.forms) > 1 and not any(root.glob("processed_data/*/prepared/*.jsonl")):
            logger.info("%s has no prepared rows; reading dialogs only.", root)
            continue
        loaded.append(LoadedRows(form, load_dst_frames("all", root, form=cast(Form, form), **settings)))
    return loaded


def split_sessions(loaded: Iterable[LoadedRows], split: str) -> list[SessionRows]:
    """The sessions of one split over all forms and sources, in order."""
    return [session for form in loaded if split in form.rows for session in iter_sessions(form.rows[split])]
