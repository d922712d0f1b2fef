"""Generated dialogs in all their forms: filtered and unfiltered lists, and one file a video."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from proassist_fixtures import make_record, write_corpus

from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.errors import DataError, UsageError
from prospect_hf.sources.dialog_files import dialog_files
from prospect_hf.sources.proassist import read_sessions


def dialogs(root: Path) -> Path:
    folder = root / "processed_data/wtag/generated_dialogs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_videos(root: Path, *uids: str, as_list: bool = False) -> None:
    folder = dialogs(root) / "train"
    folder.mkdir()
    for uid in uids:
        record: Any = make_record(uid)
        (folder / f"{uid}.json").write_text(json.dumps([record] if as_list else record))


def videos(root: Path, suffix: str = "_filtered") -> set[str]:
    return {session.video_uid for session in read_sessions(root, "wtag", "train", suffix=suffix).sessions}


def test_the_suffix_says_which_form_is_read(tmp_path: Path) -> None:
    write_corpus(tmp_path, [make_record("filtered")])
    (dialogs(tmp_path) / "train.json").write_text(json.dumps([make_record("listed")]))
    write_videos(tmp_path, "v1", "v2")
    assert videos(tmp_path) == {"filtered"}
    assert videos(tmp_path, "") == {"listed"}
    assert videos(tmp_path, "/") == {"v1", "v2"}


@pytest.mark.parametrize("as_list", [False, True])
def test_files_of_videos_are_read_where_there_is_nothing_else(tmp_path: Path, as_list: bool) -> None:
    write_videos(tmp_path, "v1", "v2", as_list=as_list)
    assert videos(tmp_path) == videos(tmp_path, "/") == {"v1", "v2"}
    origins = {session.origin for session in read_sessions(tmp_path, "wtag", "train").sessions}
    assert f"{dialogs(tmp_path) / 'train/v1.json'} (v1): conversation 0" in origins


def test_a_folder_and_a_list_of_another_form_are_ambiguous(tmp_path: Path) -> None:
    write_videos(tmp_path, "v1")
    (dialogs(tmp_path) / "train.json").write_text(json.dumps([make_record("listed")]))
    with pytest.raises(
        UsageError, match=r"no train_filtered\.json, but there are train\.json and train/.*suffix=''.*/"
    ):
        videos(tmp_path)


def test_every_form_is_a_part_of_the_fingerprint(tmp_path: Path) -> None:
    write_videos(tmp_path, "v1", "v2")
    config = DstFramesConfig(root=str(tmp_path), sources=("wtag",), suffix="/")
    assert [path.name for path in config.input_files()["train", "wtag"]] == ["v1.json", "v2.json"]
    before = config.fingerprint()
    (dialogs(tmp_path) / "train/v2.json").write_text(json.dumps(make_record("v2") | {"inferred_goal": "Coffee"}))
    assert config.fingerprint() != before


def test_where_another_form_is_there_the_message_names_it(tmp_path: Path) -> None:
    (dialogs(tmp_path) / "train.json").write_text(json.dumps([make_record("listed")]))
    with pytest.raises(UsageError, match=r"no generated_dialogs/.*_filtered\.json for wtag; there are train\.json, "):
        DstFramesConfig(root=str(tmp_path), sources=("wtag",)).input_files()
    with pytest.raises(UsageError, match=r"train_filtered\.json: no such file"):
        videos(tmp_path)
    with pytest.raises(UsageError, match=r"train/\*\.json: no such file"):
        videos(tmp_path, "/")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "v2.json: invalid JSON"),
        ("[]", "v2.json: a list of 0 records; the file of a video has one"),
        ('[{"a": 1}, {"a": 2}]', "a list of 2 records"),
        ("7", "v2.json is a number; expected an object"),
        ('"\\ud83d"', "v2.json is text"),
        (json.dumps(make_record("v1")), "the record is that of 'v1'; the file is named after its video"),
        (json.dumps(make_record("../v2")), "the record is that of '../v2'"),
    ],
)
def test_a_bad_file_of_a_video_is_named_or_skipped(tmp_path: Path, text: str, words: str) -> None:
    write_videos(tmp_path, "v1")
    (dialogs(tmp_path) / "train/v2.json").write_text(text)
    with pytest.raises(DataError) as error:
        videos(tmp_path)
    assert words in str(error.value)
    report = read_sessions(tmp_path, "wtag", "train", on_error="skip")
    assert len(report.sessions) == 2 and [reason for _, reason in report.skipped] == [str(error.value)]


def test_no_dialogs_at_all(tmp_path: Path) -> None:
    dialogs(tmp_path)
    assert dialog_files(tmp_path, "wtag", "train") == []


def test_reading_holds_one_record_not_the_file(tmp_path: Path) -> None:
    """120 records of 400 kB each, of which the sessions keep next to nothing."""
    padded = make_record() | {"video_labels": {"x": "y" * 400_000}}
    path = write_corpus(tmp_path, [padded | {"video_uid": f"v{number}"} for number in range(120)])
    size = path.stat().st_size
    tracemalloc.start()
    try:
        assert len(read_sessions(tmp_path, "wtag", "train").sessions) == 240
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size / 2, (peak, size)  # what threads of other tests hold counts too; alone it is an eighth
