"""The forms of one corpus are read together only where no recording is in two of their splits."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from proassist_fixtures import make_record, make_row, write_corpus, write_prepared

from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.corpus import prepare_rows
from prospect_hf.errors import DataError, UsageError


def arguments(root: Path, **changes: str) -> DataArguments:
    settings = {"root": str(root), "dst": "none", "cache_dir": str(root / "cache"), **changes}
    return DataArguments(name="proassist", sources=["wtag"], forms=["dialogs", "prepared"], **settings)  # type: ignore[arg-type]


def test_a_recording_in_two_splits_of_two_forms_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path, [make_record("v1")])
    write_prepared(tmp_path, copy.deepcopy(make_row()))
    assert [one.form for one in prepare_rows(arguments(tmp_path))] == ["dialogs", "prepared"]
    write_prepared(tmp_path, make_row() | {"video_uid": "v2"})
    write_prepared(tmp_path, make_row(), name="dialog_test_L0_I1.jsonl")
    with pytest.raises(DataError, match=r"prepared have wtag/v1 in split test, but the dialogs .* in split train"):
        prepare_rows(arguments(tmp_path))


def test_the_setting_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.split_leaks must be one of raise, keep_in_evaluation, not 'drop'"):
        arguments(tmp_path, split_leaks="drop")
