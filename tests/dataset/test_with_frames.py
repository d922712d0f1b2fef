"""Frames that rows name: attached when a row is read, and refused where they are not the right ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from film_fixtures import FRAMES, film, jpeg, write_film
from PIL import Image
from published_fixtures import publish, small_session
from worker_fixtures import as_a_worker_gets_it

from prospect_hf.dataset.frame_fingerprints import Video, load_fingerprints, videos_of, write_fingerprints
from prospect_hf.dataset.layout import FRAMES_FILE, Manifest
from prospect_hf.dataset.with_frames import AttachFrames, FrameFolder, with_frames
from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.store import FrameStore


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Manifest]:
    """A dataset of two videos, its frames, and its manifest."""
    root = tmp_path_factory.mktemp("built")
    sessions = [small_session(uid="v1"), small_session(uid="v2"), small_session(uid="v2", session_id="wtag.v2.no")]
    manifest, _ = publish(root / "dst_frames", {("wtag", "train"): sessions})
    for seed, uid in enumerate(("v1", "v2")):
        write_film(root / f"frames/wtag/frames/{uid}.arrow", film(seed))
    assert write_fingerprints(root / "dst_frames", manifest.shards, root / "frames")
    return root / "dst_frames", root / "frames", manifest


@pytest.fixture()
def rows(built: tuple[Path, Path, Manifest], tmp_path: Path) -> datasets.Dataset:
    return datasets.load_dataset(str(built[0]), "wtag", split="train", cache_dir=str(tmp_path / "cache"))


def test_the_fingerprints_are_the_same_for_any_number_of_processes(
    built: tuple[Path, Path, Manifest], tmp_path: Path
) -> None:
    folder, frames, manifest = built
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert write_fingerprints(copy, manifest.shards, frames, processes=2)
    assert (copy / FRAMES_FILE).read_bytes() == (folder / FRAMES_FILE).read_bytes()
    assert videos_of(folder, manifest.shards) == {
        Video("wtag", "frames/v1.arrow", 2.0): FRAMES,
        Video("wtag", "frames/v2.arrow", 2.0): FRAMES,
    }
    known = load_fingerprints(folder / FRAMES_FILE)
    assert list(known) == ["wtag/frames/v1.arrow", "wtag/frames/v2.arrow"]
    assert [mark.index for mark in known["wtag/frames/v1.arrow"].marks] == [1, 5, 9, 13, 16, 20, 24, 28]


def test_without_frames_there_is_no_file(built: tuple[Path, Path, Manifest], tmp_path: Path) -> None:
    folder, _, manifest = built
    shutil.copytree(folder, tmp_path / "copy")
    assert not write_fingerprints(tmp_path / "copy", manifest.shards, tmp_path)
    assert not (tmp_path / "copy" / FRAMES_FILE).exists()  # the one of another build is gone


def test_a_row_has_its_frame(built: tuple[Path, Path, Manifest], rows: datasets.Dataset) -> None:
    folder, frames, _ = built
    attached = with_frames(rows, frames, folder / FRAMES_FILE)
    store = FrameStore(frames / "wtag/frames/v2.arrow")
    row = attached[FRAMES + 7]  # the eighth of the second session
    assert row["video_uid"] == "v2" and row["frame_index"] == 7 and row["response"] == rows[FRAMES + 7]["response"]
    assert row["image"] == store[7] and row["image"].mode == "RGB"
    batch = attached[[0, 2 * FRAMES + 3]]
    assert batch["image"][1] == store[3] and batch["image"][0] != store[0]
    assert as_a_worker_gets_it(attached[:1]["image"][0])[0] == batch["image"][0]


def test_streamed_rows_have_their_frames(built: tuple[Path, Path, Manifest]) -> None:
    folder, frames, _ = built
    stream = datasets.load_dataset(str(folder), "wtag", split="train", streaming=True)
    first = next(iter(with_frames(stream, frames, folder / FRAMES_FILE)))
    assert first["image"] == FrameStore(frames / "wtag/frames/v1.arrow")[0]


def test_worker_processes_open_the_videos_themselves(built: tuple[Path, Path, Manifest]) -> None:
    folder, frames, _ = built
    attach = AttachFrames(FrameFolder(frames, load_fingerprints(folder / FRAMES_FILE)))
    batch = {"source": ["wtag"], "frames_file": ["frames/v1.arrow"], "fps": [2.0], "frame_index": [3]}
    here = attach(batch)["image"]
    assert as_a_worker_gets_it(attach)[0](batch)["image"] == here


# Adds to red, leaves green and blue.
TINT = [*(min(level + 60, 255) for level in range(256)), *range(256), *range(256)]


def swap(picture: Image.Image) -> Image.Image:
    return Image.merge("RGB", picture.split()[::-1])


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("encoded again", lambda film: film),
        ("scaled", lambda film: [picture.resize((160, 90)) for picture in film]),
        ("longer", lambda film: [*film, film[-1]]),
    ],
)
def test_frames_that_were_extracted_again_are_taken(
    built: tuple[Path, Path, Manifest],
    rows: datasets.Dataset,
    tmp_path: Path,
    kind: str,
    change: Callable[[list[Image.Image]], list[Image.Image]],
) -> None:
    write_film(tmp_path / "wtag/frames/v1.arrow", change(film(0)), quality=60)
    assert with_frames(rows, tmp_path, built[0] / FRAMES_FILE)[0]["image"].mode == "RGB"


@pytest.mark.parametrize("form", ["folder", "video"])
def test_frames_of_another_form_are_taken(
    built: tuple[Path, Path, Manifest], rows: datasets.Dataset, tmp_path: Path, form: str
) -> None:
    place = tmp_path / "processed_data/wtag/frames"
    if form == "folder":
        (place / "v1").mkdir(parents=True)
        for number, picture in enumerate(film(0)):
            (place / f"v1/{number:04d}.jpg").write_bytes(jpeg(picture, 70))
    else:
        place.mkdir(parents=True)
        first, *others = (picture.quantize(64) for picture in film(0))
        first.save(place / "v1.gif", save_all=True, append_images=others, duration=500)
    assert with_frames(rows, tmp_path, built[0] / FRAMES_FILE)[5]["image"].mode == "RGB"


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("another video", lambda film: [*reversed(film)], r"not the frames of wtag/frames/v1.arrow: frame \d+ differs"),
        ("one later", lambda film: [film[0], *film], "are shifted: frame 17 shows what must be frame 16"),
        ("two earlier", lambda film: [*film[2:], *film[-2:]], "are shifted: frame 14 shows what must be frame 16"),
        ("half the rate", lambda film: [*film[::2], *film[::2]], "not the frames of"),
        ("mirrored", lambda film: [one.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for one in film], "not the frames"),
        ("on its side", lambda film: [one.transpose(Image.Transpose.ROTATE_90) for one in film], "not the frames"),
        ("BGR", lambda film: [swap(one) for one in film], "red and blue of .* are exchanged"),
        ("tinted", lambda film: [one.point(TINT) for one in film], "frame .* has another colour"),
        ("cut short", lambda film: film[:20], "20 frames, but the rows of .* go on to frame 29"),
    ],
)  # fmt: skip
def test_other_frames_are_refused(
    built: tuple[Path, Path, Manifest],
    rows: datasets.Dataset,
    tmp_path: Path,
    kind: str,
    change: Callable[[list[Image.Image]], list[Image.Image]],
    message: str,
) -> None:
    write_film(tmp_path / "wtag/frames/v1.arrow", change(film(0)))
    with pytest.raises(DataError, match=message):
        with_frames(rows, tmp_path, built[0] / FRAMES_FILE)[0]


def test_without_fingerprints_the_number_of_frames_is_checked(
    built: tuple[Path, Path, Manifest], rows: datasets.Dataset, tmp_path: Path
) -> None:
    write_film(tmp_path / "wtag/frames/v1.arrow", film(5, 10))
    attached = with_frames(rows, tmp_path)
    assert attached[9]["image"].size == (96, 96)
    with pytest.raises(DataError, match="no frame 10"):
        attached[10]


def test_what_is_missing_is_one_sentence(
    built: tuple[Path, Path, Manifest], rows: datasets.Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no such folder of frames"):
        with_frames(rows, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"wtag/frames/v1.arrow: no frames of this video"):
        with_frames(rows, tmp_path)[0]
    with pytest.raises(UsageError, match="no column fps, which says"):
        with_frames(rows.remove_columns("fps"), tmp_path)
    with pytest.raises(UsageError, match="read without frames_file, source"):
        AttachFrames(FrameFolder(tmp_path, None))({"fps": [2.0], "frame_index": [0]})
    hostile = rows.map(lambda row: {"frames_file": "../../secret.arrow"})
    with pytest.raises(DataError, match="may lie outside of"):
        with_frames(hostile, tmp_path)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.update(format="other"), "format is 'other'"),
        (lambda facts: facts.update(videos=[]), "videos"),
        (lambda facts: facts["videos"]["a/b"].update(marks=[]), "empty list"),
        (lambda facts: facts["videos"]["a/b"].update(frames=-1), "frames"),
        (lambda facts: facts["videos"]["a/b"].update(used=0), "contradict each other"),
        (lambda facts: facts["videos"]["a/b"]["marks"][0].pop(), "a list of index, hash, look and colour"),
        (lambda facts: facts["videos"]["a/b"]["marks"][0].__setitem__(2, "xyz"), "'xyz' must be 32 hex digits"),
        (lambda facts: facts["videos"]["a/b"]["marks"][0].__setitem__(0, "1"), "index"),
    ],
)
def test_a_damaged_file_of_fingerprints_is_one_sentence(
    tmp_path: Path, change: Callable[[dict[str, object]], object], message: str
) -> None:
    facts = {
        "format": "dst_frames frames 1",
        "videos": {"a/b": {"frames": 2, "used": 2, "marks": [[0, "0" * 64, "0" * 32, "0" * 6]]}},
    }
    path = tmp_path / FRAMES_FILE
    path.write_text(json.dumps(facts))
    assert load_fingerprints(path)["a/b"].used == 2
    change(facts)
    path.write_text(json.dumps(facts))
    with pytest.raises(DataError, match=message):
        load_fingerprints(path)
