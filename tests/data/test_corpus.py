"""The rows of a run: built once under the cache, or given; the sessions in them are those of the corpus, in order."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from proassist_fixtures import record_of, write_corpus
from stored_fixtures import assert_equal

from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.corpus import prepare_rows, split_sessions
from prospect_hf.data.session_rows import iter_sessions
from prospect_hf.dataset.dst_frames import load_dst_frames
from prospect_hf.dataset.layout import MANIFEST_FILE
from prospect_hf.errors import DataError, UsageError
from prospect_hf.training.splits import load_splits

SPLITS = ("train", "val", "test")


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    for source in ("wtag", "ego4d"):
        for split in SPLITS:
            records = [
                record_of(source, f"{source}-{split}-{number}") for number in range(3 if split == "train" else 1)
            ]
            write_corpus(tmp_path / "corpus", records, split, source)
    return tmp_path / "corpus"


def arguments(root: Path, **given: Any) -> DataArguments:
    cache = str(root.parent / "cache")
    return DataArguments(**{"name": "proassist", "root": str(root), "dst": "words", "cache_dir": cache, **given})


def ids(data: DataArguments, split: str = "train") -> list[str]:
    return [session.session_id for session in split_sessions(prepare_rows(data), split)]


def manifests(root: Path) -> list[Path]:
    return sorted((root.parent / "cache" / "rows").glob(f"*/{MANIFEST_FILE}"))


def test_sessions_are_those_of_the_rows_in_the_order_of_the_sources(root: Path) -> None:
    for sources in (["wtag", "ego4d"], ["ego4d", "wtag"], ["ego4d"]):
        loaded = prepare_rows(arguments(root, sources=sources))
        rows = load_dst_frames("all", root, cache_dir=root.parent / "old", sources=sources, dst="words")
        for split in ("train", "validation", "test"):
            found = split_sessions(loaded, split)
            assert len(found) == len(sources) * (3 if split == "train" else 1)
            for ours, theirs in zip(found, iter_sessions(rows[split]), strict=True):
                assert_equal(ours, theirs)


def test_rows_are_built_once_and_again_for_other_inputs(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = arguments(root, sources=["wtag"])
    first = ids(data)
    assert len(manifests(root)) == 1
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert ids(data) == first
    assert not any(word in caplog.text for word in ("building", "reading rows"))
    ids(arguments(root, sources=["wtag"], dst="none"))
    assert len(manifests(root)) == 2
    write_corpus(root, [record_of("wtag", "another")], "train", "wtag")
    assert ids(data) == ["wtag.another.talk_some_0"]
    assert len(manifests(root)) == 3


def test_two_runs_at_once_build_the_rows_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(3) as pool, caplog.at_level(logging.INFO):
        found = [pool.submit(ids, arguments(root)) for _ in range(3)]
        assert len({tuple(future.result()) for future in found}) == 1
    assert len(manifests(root)) == 1


def test_damaged_rows_of_the_cache_are_built_again(root: Path) -> None:
    data = arguments(root)
    first = ids(data)
    for path in (root.parent / "cache" / "rows").rglob("train-*.parquet"):
        path.write_bytes(path.read_bytes()[:-9])
    for path in (root.parent / "cache" / "sessions").iterdir():
        path.unlink()
    assert ids(data) == first


# -- rows that are given ------------------------------------------------------------------------------------------


@pytest.fixture()
def built(root: Path) -> Path:
    """The folder of the corpus's rows, elsewhere."""
    prepare_rows(arguments(root))
    (path,) = manifests(root)
    return path.parent.rename(root.parent / "dst_frames")


def test_given_rows_are_the_corpus(root: Path, built: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "processed_data").rename(root / "away")
    data = arguments(root, rows=str(built))
    with caplog.at_level(logging.INFO):
        found = ids(data)
    assert found == [
        f"{source}.{source}-train-{number}.talk_some_0" for source in ("ego4d", "wtag") for number in range(3)
    ]
    assert "has no rows of assembly101, egoexolearn" in caplog.text
    assert ids(arguments(root, rows=str(built), sources=["wtag"]), "validation") == ["wtag.wtag-val-0.talk_some_0"]
    assert not manifests(root)
    splits = load_splits(data)
    facts = json.loads((built / MANIFEST_FILE).read_text())["balance"]
    assert splits.balance["wtag dialogs train"] == facts["train"]["wtag"]
    assert splits.balance["all dialogs test"]["rows"] == sum(counts["rows"] for counts in facts["test"].values())
    assert len(splits.sessions) == 10 and splits.held_out[0] == "test"


def test_one_of_the_forms_that_are_asked_for_is_enough(root: Path, built: Path) -> None:
    assert ids(arguments(root, rows=str(built), forms=["dialogs", "prepared"])) == ids(arguments(root, rows=str(built)))


def test_without_pictures_the_rows_are_enough(built: Path) -> None:
    data = DataArguments("proassist", rows=str(built), frames="rendered", dst="words", cache_dir=str(built / "cache"))
    assert len(ids(data)) == 6
    with pytest.raises(UsageError, match=r"data\.root is not set"):
        DataArguments("proassist", rows=str(built), frames="store", dst="words")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dst": "files"}, r"was not built with data\.dst=files: set data\.dst=words\."),
        (
            {"forms": ["prepared"], "suffix": ""},
            r"with data\.forms=\[prepared\], data\.suffix=: set data\.forms=\[dialogs\] data\.suffix=_filtered",
        ),
        ({"dst_root": "labels"}, r"with data\.dst_root=labels: set data\.dst_root=null"),
        ({"name": "annotations"}, r"with data\.name=annotations: set data\.name=proassist"),
        ({"sources": ["holoassist"]}, r"has no training rows in holoassist"),
    ],
)
def test_settings_that_contradict_given_rows_are_refused(
    root: Path, built: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises((UsageError, DataError), match=message):
        load_splits(arguments(root, rows=str(built), **given))


def test_a_folder_that_is_no_finished_dataset_is_refused(root: Path, built: Path) -> None:
    for folder in (root, root / "nowhere"):
        with pytest.raises(UsageError, match=rf"no {MANIFEST_FILE}, so it is no finished dataset"):
            prepare_rows(arguments(root, rows=str(folder)))
    (shard,) = built.glob("data/wtag/test-*.parquet")
    shard.unlink()
    data = arguments(root, rows=str(built), cache_dir=str(root / "fresh"))
    assert len(ids(data)) == 6
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet: the file is missing"):
        ids(data, "test")


def test_rows_of_another_label_version_are_refused(root: Path, built: Path) -> None:
    facts = json.loads((built / MANIFEST_FILE).read_text())
    (built / MANIFEST_FILE).write_text(json.dumps(facts | {"label_version": "0" * 64, "tool_version": "0.1.0"}))
    with pytest.raises(UsageError, match=r"labelled by prospect-hf 0\.1\.0 with other rules .label version 0{12},"):
        ids(arguments(root, rows=str(built)))
