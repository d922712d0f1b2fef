"""Rows with their pictures: the stored bytes as they are, in files that can be opened, or a clear error."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from prospect_hf.dataset import shards
from prospect_hf.dataset.build import build_rows
from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.dataset.layout import Manifest
from prospect_hf.dataset.report import load_report
from prospect_hf.dataset.row_maker import FEATURES_WITH_IMAGES, SCHEMA_WITH_IMAGES
from prospect_hf.errors import DataError
from prospect_hf.frames.store import FrameStore, write_frames
from prospect_hf.simulator.corpus import write_corpus
from prospect_hf.simulator.scene import SceneConfig


@pytest.fixture()
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    write_corpus(root, ["wtag"], {"train": 2, "test": 1}, 0, SceneConfig(steps=(2, 2)), progress=False)
    return root


def build(corpus: Path, folder: Path, **settings: object) -> Manifest:
    config = DstFramesConfig(name="all", root=str(corpus), dst="files")
    return build_rows(config, folder, images=True, progress=False, **settings)


def stores(corpus: Path) -> list[Path]:
    return sorted((corpus / "processed_data/wtag/frames").glob("*train*"))


def test_the_pictures_are_the_stored_bytes(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = build(corpus, tmp_path / "rows")
    rows = datasets.load_dataset(str(tmp_path / "rows"), "wtag", split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features == FEATURES_WITH_IMAGES
    raw = rows.cast_column("image", datasets.Image(decode=False))
    for row, frame in zip(raw, rows, strict=True):
        store = FrameStore(corpus / "processed_data/wtag" / row["frames_file"])
        assert row["image"]["bytes"] == store.encoded(row["frame_index"])
        assert row["image"]["path"] == f"{row['video_uid']}_{row['frame_index']:06d}.jpg"
        assert np.array_equal(np.asarray(frame["image"]), np.asarray(store[row["frame_index"]]))
    streamed = datasets.load_dataset(str(tmp_path / "rows"), "sample", split="test", streaming=True)
    assert next(iter(streamed))["image"].size == rows[0]["image"].size
    told = "the rows of wtag contain pictures of its videos"
    assert told in caplog.text and told in load_report(tmp_path / "rows/report.json")["images"]["wtag"]
    assert manifest.settings["images"] is True and manifest.settings["shard_rows"] == 10_000


def test_pictures_are_stored_uncompressed_in_small_row_groups(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "GROUP_BYTES", 100_000)
    manifest = build(corpus, tmp_path / "rows")
    (shard,) = manifest.of_split("train")
    file = pq.ParquetFile(tmp_path / "rows" / shard.path)
    assert file.schema_arrow.equals(SCHEMA_WITH_IMAGES) and file.num_row_groups > 1
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        assert group.total_byte_size < 150_000
        columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
        assert columns["image.bytes"].compression == "UNCOMPRESSED" and columns["goal"].compression == "ZSTD"
        assert set(columns["image.bytes"].encodings) == {"PLAIN", "RLE"} and columns["goal"].has_dictionary_page


@pytest.mark.parametrize("fault", ["no store", "no picture", "cut short", "no JPEG"])
def test_a_missing_picture_names_video_and_frame(fault: str, corpus: Path, tmp_path: Path) -> None:
    path = stores(corpus)[0]
    store = FrameStore(path)
    pictures = [store.encoded(index) for index in range(len(store))]
    told = "frame 5 "
    if fault == "no store":
        path.unlink()
        told = "no such frame file"
    elif fault == "no picture":
        write_frames(path, [*pictures[:5], b"", *pictures[6:]])
    elif fault == "cut short":
        write_frames(path, [*pictures[:5], pictures[5][: len(pictures[5]) // 2], *pictures[6:]])
    else:
        write_frames(path, [*pictures[:5], b"GIF89a, almost", *pictures[6:]])
    with pytest.raises(DataError, match=f"no picture of video '.*train-00000.*{told}.*images=false"):
        build(corpus, tmp_path / "rows")
    assert not (tmp_path / "rows/manifest.json").exists() and not (tmp_path / "rows/data").exists()


def test_other_pictures_are_another_build(corpus: Path, tmp_path: Path) -> None:
    before = build(corpus, tmp_path / "rows")
    path = stores(corpus)[0]
    store = FrameStore(path)
    write_frames(path, [store.encoded(len(store) - 1 - index) for index in range(len(store))])  # of the same size
    after = build(corpus, tmp_path / "rows")
    assert before.fingerprint != after.fingerprint and before.shards[0].sha256 != after.shards[0].sha256
