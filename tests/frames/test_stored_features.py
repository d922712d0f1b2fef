"""ProAssist's stored features: Arrow streams that the library datasets wrote; nothing else is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets.arrow_writer import ArrowWriter
from proassist_fixtures import make_record, write_corpus, write_store

from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.errors import DataError
from prospect_hf.frames.stored_features import StoredFeatures
from prospect_hf.sources.proassist import read_sessions

ENCODER = "google___siglip-so400m-patch14-384@-2"


def write_features(path: Path, frames: int) -> None:
    """As ProAssist writes them: half tensors, row by row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = ArrowWriter(path=str(path))
    for frame in range(frames):
        writer.write({"cls": torch.full((1, 6), frame).half(), "2x2": torch.full((4, 6), frame + 0.5).half()})
    writer.finalize()


def features_of(root: Path, encoder: str = ENCODER) -> Path:
    return root / "processed_data/wtag/features" / encoder / "v1.arrow"


def test_features_are_read_by_absolute_frame(tmp_path: Path) -> None:
    write_features(tmp_path / "v1.arrow", 30)
    features = StoredFeatures(tmp_path / "v1.arrow")
    assert len(features) == 30 and features.layouts == ("cls", "2x2")
    read = features.read(7, 9, ("cls", "2x2"))
    assert read.shape == (2, 5, 6) and read.dtype == np.float16
    assert read[:, :, 0].tolist() == [[7, 7.5, 7.5, 7.5, 7.5], [8, 8.5, 8.5, 8.5, 8.5]]
    with pytest.raises(DataError, match=r"v1\.arrow: no frames 29 to 30; the file has frames 0 to 29"):
        features.read(29, 31)
    with pytest.raises(DataError, match=r"no layout 3x3; the file has cls, 2x2"):
        features.read(0, 1, ("cls", "3x3"))


def test_a_session_ends_with_its_features_where_frames_are_not_at_hand(tmp_path: Path) -> None:
    write_corpus(tmp_path, [make_record()])
    config = DstFramesConfig(root=str(tmp_path), sources=("wtag",))
    before = config.fingerprint()
    write_features(features_of(tmp_path), 70)
    assert config.fingerprint() != before
    assert {session.num_frames for session in read_sessions(tmp_path, "wtag", "train").sessions} == {70}
    write_features(features_of(tmp_path, "other@-1"), 69)
    with pytest.raises(DataError, match=r"different numbers of frames .*siglip.*: 70, .*other@-1/v1\.arrow: 69"):
        read_sessions(tmp_path, "wtag", "train")
    write_store(tmp_path, "v1", 60)
    assert {session.num_frames for session in read_sessions(tmp_path, "wtag", "train").sessions} == {60}


def test_labels_past_the_features_are_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path, [make_record()])
    write_features(features_of(tmp_path), 15)
    with pytest.raises(DataError, match="feature file has 15 frames, labels need 19"):
        read_sessions(tmp_path, "wtag", "train")


@pytest.mark.parametrize("ending", [".pt", ".pkl", ".npy", ".pth", ""])
def test_a_pickle_is_never_opened(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"v1{ending}"
    torch.save({"x": torch.zeros(2)}, path)
    with pytest.raises(DataError, match=r"features are read from Arrow streams"):
        StoredFeatures(path)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array(["a", "b"]), "holds string; expected lists of tokens"),
        (pa.array([[1.0], [2.0]]), "holds list.*; expected lists of tokens"),
        (pa.array([[[1]], [[2]]]), "expected lists of tokens"),
        (pa.array([[[1.0]], [[2.0], [3.0]]]), "have not the same number of tokens"),
        (pa.array([[[1.0]], [[2.0, 3.0]]]), "have not the same number of tokens"),
        (pa.array([[[1.0]], None]), "have not the same number of tokens"),
        (pa.array([[[1.0]], [[None]]], pa.list_(pa.list_(pa.float32()))), "have not the same number of tokens"),
        (pa.array([[], []], pa.list_(pa.list_(pa.float16()))), "have not the same number of tokens"),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, column: Any, words: str) -> None:
    table = pa.table({"cls": column})
    with pa.OSFile(str(tmp_path / "v1.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match=rf"v1\.arrow.*{words}"):
        StoredFeatures(tmp_path / "v1.arrow").read(0, 2)


def test_a_cut_or_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v1.arrow"
    with pytest.raises(DataError, match=r"v1\.arrow: no such file of features"):
        StoredFeatures(path)
    write_features(path, 30)
    data = path.read_bytes()
    for cut in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError, match=r"v1\.arrow"):
            StoredFeatures(path)
