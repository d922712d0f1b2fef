"""Joining a dataset with frames: the same rows with their pictures, after every video was checked."""

from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import pytest
from film_fixtures import film, write_film
from published_fixtures import publish, small_session

from prospect_hf.content_hash import file_hash
from prospect_hf.dataset import join
from prospect_hf.dataset.frame_fingerprints import write_fingerprints
from prospect_hf.dataset.join import join_frames
from prospect_hf.dataset.layout import FRAMES_FILE, Manifest, check_files, load_manifest, write_manifest
from prospect_hf.dataset.report import REPORT_FILE, load_report
from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.store import FrameStore

UIDS = ("v1", "v2", "v3")


@pytest.fixture()
def built(tmp_path: Path) -> tuple[Path, Path]:
    """A dataset of three videos in two splits with its ``frames.json``, and the folder of frames."""
    sessions = {
        ("wtag", "train"): [
            small_session(uid="v1"),
            small_session(uid="v1", session_id="wtag.v1.no"),
            small_session(uid="v2"),
        ],
        ("wtag", "test"): [small_session(uid="v3")],
    }
    manifest, _ = publish(tmp_path / "rows", sessions)
    for seed, uid in enumerate(UIDS):
        write_film(tmp_path / f"frames/processed_data/wtag/frames/{uid}.arrow", film(seed))
    write_fingerprints(tmp_path / "rows", manifest.shards, tmp_path / "frames/processed_data")
    add_fingerprints(tmp_path / "rows", manifest)
    return tmp_path / "rows", tmp_path / "frames"


def add_fingerprints(folder: Path, manifest: Manifest) -> None:
    manifest.files[FRAMES_FILE] = file_hash(folder / FRAMES_FILE)
    write_manifest(folder, manifest)


def load(folder: Path, split: str, cache: Path) -> datasets.Dataset:
    return datasets.load_dataset(str(folder), "wtag", split=split, cache_dir=str(cache))


def test_the_rows_are_the_same_and_have_their_pictures(built: tuple[Path, Path], tmp_path: Path) -> None:
    rows, frames = built
    found = join_frames(rows, frames, tmp_path / "joined", shard_rows=60, progress=False)
    assert found.summary() == {"videos": 3, "same": 3, "alike": 0, "counted": 0, "skipped": []}
    manifest = load_manifest(tmp_path / "joined")
    check_files(tmp_path / "joined", manifest)
    assert [shard.path for shard in manifest.of_split("train")] == [
        "data/wtag/train-00000-of-00002.parquet",
        "data/wtag/train-00001-of-00002.parquet",
    ]
    assert manifest.settings["images"] and manifest.balance == load_manifest(rows).balance
    joined, plain = load(tmp_path / "joined", "train", tmp_path / "a"), load(rows, "train", tmp_path / "b")
    assert joined.remove_columns("image").to_list() == plain.to_list()
    assert isinstance(joined.features["image"], datasets.Image)
    stored = FrameStore(frames / "processed_data/wtag/frames/v2.arrow")[7]
    assert joined[67]["image"].tobytes() == stored.tobytes() and joined[67]["image"].size == stored.size
    card = (tmp_path / "joined/README.md").read_text()
    assert "Do not publish it" in card and "of 3 videos, 3 have the very frames" in card
    assert str(tmp_path) not in (tmp_path / "joined" / REPORT_FILE).read_text()


def test_any_number_of_processes_writes_the_same_files(built: tuple[Path, Path], tmp_path: Path) -> None:
    for count in (1, 2):
        join_frames(*built, tmp_path / str(count), processes=count, shard_rows=30, progress=False)
    assert load_manifest(tmp_path / "1") == load_manifest(tmp_path / "2")
    assert len(load_manifest(tmp_path / "1").shards) == 4


def test_a_join_that_broke_off_continues(
    built: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    join_frames(*built, whole, shard_rows=30, progress=False)
    written: list[str] = []
    real = join._finish

    def failing(planned: join.JoinedShard, **given: object) -> object:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(planned.path)
        return real(planned, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(join, "_finish", failing)
    with pytest.raises(OSError, match="No space"):
        join_frames(*built, broken, shard_rows=30, progress=False)
    assert not (broken / "manifest.json").exists()
    written.clear()
    join_frames(*built, broken, shard_rows=30, progress=False)
    assert len(written) == 2 and load_manifest(broken) == load_manifest(whole)


def test_rows_without_the_right_frames(built: tuple[Path, Path], tmp_path: Path) -> None:
    rows, frames = built
    place = frames / "processed_data/wtag/frames"
    write_film(place / "v1.arrow", film(0), quality=50)
    write_film(place / "v2.arrow", film(9))
    (place / "v3.arrow").unlink()
    with pytest.raises(DataError, match=r"v2.arrow: not the frames of wtag/frames/v2.arrow: frame \d+ differs in"):
        join_frames(rows, frames, tmp_path / "joined", progress=False)
    assert not (tmp_path / "joined").exists()
    found = join_frames(rows, frames, tmp_path / "joined", on_error="skip", progress=False)
    assert [name for name, _ in found.skipped] == ["wtag/frames/v2.arrow", "wtag/frames/v3.arrow"]
    assert "no frames of this video" in found.skipped[1][1]
    manifest = load_manifest(tmp_path / "joined")
    assert manifest.rows == 60 and set(manifest.balance) == {"train"}
    assert manifest.balance["train"]["wtag"]["sessions"] == 2 and manifest.balance["train"]["wtag"]["videos"] == 1
    report = load_report(tmp_path / "joined" / REPORT_FILE)["frames"]
    assert report == {"videos": 3, "same": 0, "alike": 1, "counted": 0, "skipped": [name for name, _ in found.skipped]}
    assert "The rows of 2 videos without" in (tmp_path / "joined/README.md").read_text()
    (place / "v1.arrow").unlink()
    with pytest.raises(UsageError, match="no video has its frames there"):
        join_frames(rows, frames, tmp_path / "other", on_error="skip", progress=False)


def test_a_dataset_that_was_built_without_frames(built: tuple[Path, Path], tmp_path: Path, caplog: object) -> None:
    rows, frames = built
    manifest = load_manifest(rows)
    del manifest.files[FRAMES_FILE]
    write_manifest(rows, manifest)
    write_film(frames / "processed_data/wtag/frames/v2.arrow", film(9))
    found = join_frames(rows, frames, tmp_path / "joined", progress=False)
    assert found.matches == {"counted": 3}
    assert "was built without frames: it can only be checked" in caplog.text  # type: ignore[attr-defined]
    assert not (tmp_path / "joined" / FRAMES_FILE).exists()
    write_film(frames / "processed_data/wtag/frames/v2.arrow", film(9, 29))
    with pytest.raises(DataError, match=r"29 frames, but the rows of wtag/frames/v2.arrow go on to frame 29"):
        join_frames(rows, frames, tmp_path / "other", progress=False)


def test_folders_that_cannot_be_used(built: tuple[Path, Path], tmp_path: Path) -> None:
    rows, frames = built
    with pytest.raises(UsageError, match=r"no manifest.json"):
        join_frames(tmp_path, frames, tmp_path / "joined", progress=False)
    with pytest.raises(UsageError, match="is the dataset itself"):
        join_frames(rows, frames, rows / ".." / rows.name, progress=False)
    with pytest.raises(UsageError, match="no such folder of frames"):
        join_frames(rows, tmp_path / "nowhere", tmp_path / "joined", progress=False)
    join_frames(rows, frames, tmp_path / "joined", progress=False)
    with pytest.raises(UsageError, match="its rows have pictures already"):
        join_frames(tmp_path / "joined", frames, tmp_path / "again", progress=False)
    shutil.copy(rows / "data/wtag/test-00000-of-00001.parquet", rows / "data/wtag/train-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"is not what manifest.json states"):
        join_frames(rows, frames, tmp_path / "other", progress=False)
