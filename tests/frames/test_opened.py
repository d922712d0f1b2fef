"""Which form a video's frames have, and what is no form."""

from __future__ import annotations

import errno
import io
import shutil
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pytest
from frame_fixtures import FORMS, arrow, pictures, video
from PIL import Image
from video_fixtures import av, number_of, write_clip, write_sound

from prospect_hf.errors import DataError
from prospect_hf.frames.opened import VIDEO_SUFFIXES, find_frames, frame_entries, frames_hash, open_frames


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_every_form_is_found_and_read_alike(tmp_path: Path, make: Callable[[Path, str, int], Path]) -> None:
    path = make(tmp_path, "v", 6)
    assert find_frames(tmp_path / "v.arrow") == path
    assert find_frames(tmp_path / "w.arrow") is None
    assert frame_entries(tmp_path) == [path]
    store = open_frames(path)
    assert store.path == path and len(store) == 6
    assert [number_of(picture) for picture in store] == list(range(6))
    assert [number_of(picture) for picture in store.frames([4, 1, 4])] == [4, 1, 4]
    assert number_of(Image.open(io.BytesIO(store.encoded(3))).convert("RGB")) == 3
    for index in (-1, 6):
        with pytest.raises(DataError, match=rf"{path.name}: no frame {index}; it holds 6 frames, 0 to 5"):
            store[index]
        with pytest.raises(DataError, match=rf"{path.name}: no frame {index}; it holds 6 frames, 0 to 5"):
            store.encoded(index)


def test_two_forms_side_by_side_are_refused(tmp_path: Path) -> None:
    arrow(tmp_path, "v", 6)
    video(tmp_path, "v", 6, ".MKV")
    with pytest.raises(DataError, match=r"v\.arrow: v\.MKV stands beside it"):
        find_frames(tmp_path / "v.arrow")
    (tmp_path / "v.arrow").unlink()
    assert find_frames(tmp_path / "v.arrow") == tmp_path / "v.MKV"
    pictures(tmp_path, "v", 6)
    with pytest.raises(DataError, match=r"v: v\.MKV stands beside it"):
        find_frames(tmp_path / "v.arrow")


def test_a_name_with_dots_keeps_them(tmp_path: Path) -> None:
    path = video(tmp_path, "P01.02", 6)
    assert find_frames(tmp_path / "P01.02.arrow") == path and find_frames(tmp_path / "P01.arrow") is None


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_the_content_decides_the_hash(tmp_path: Path, make: Callable[[Path, str, int], Path]) -> None:
    (tmp_path / "one").mkdir()
    path = make(tmp_path / "one", "v", 6)
    before = frames_hash(path)
    moved = tmp_path / f"moved{path.suffix}"
    (shutil.copytree if path.is_dir() else shutil.copyfile)(path, moved)
    assert frames_hash(moved) == before
    changed = moved / "2.png" if moved.is_dir() else moved
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    assert frames_hash(moved) != before
    with pytest.raises(DataError, match="no such frame file"):
        frames_hash(tmp_path / "gone.arrow")


def test_what_is_no_form_of_frames(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("x")
    with pytest.raises(DataError, match=r"v\.txt: no form of frames that is known"):
        open_frames(tmp_path / "v.txt")
    with pytest.raises(DataError, match=r"gone\.arrow: no such frame file; check data\.root"):
        open_frames(tmp_path / "gone.arrow")
    (tmp_path / "loop.arrow").symlink_to(tmp_path / "loop.arrow")
    with pytest.raises(DataError, match=r"loop\.arrow: no such frame file"):
        open_frames(tmp_path / "loop.arrow")
    assert find_frames(tmp_path / "loop.arrow") is None and frame_entries(tmp_path) == []


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_a_video_file_without_a_video(tmp_path: Path, suffix: str) -> None:
    for name, content in (("empty", b""), ("nonsense", b"nonsense" * 500), ("text", b"just some text\n" * 40)):
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{path.name}: "):
            open_frames(path)


def test_a_video_of_sound_alone(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        write_sound(container, 1)
    with pytest.raises(DataError, match=r"v\.mp4: no video stream in it"):
        open_frames(tmp_path / "v.mp4")


def test_a_video_that_breaks_off(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "v.mp4", range(50), Fraction(1, 10), rate=10, container_options={"movflags": "faststart"}
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 8 // 10])
    with warnings.catch_warnings(), pytest.raises(DataError, match=r"v\.mp4: breaks off"):
        warnings.simplefilter("ignore")  # the picture that was cut in two may be counted too
        open_frames(path)


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_frames_that_may_not_be_read(
    tmp_path: Path, make: Callable[[Path, str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by the system at each of the calls that open something: the tests' user may read everything."""

    def refused(*given: object, **named: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = make(tmp_path, "v", 6)
    for owner, name in ((pa, "memory_map"), (Path, "iterdir"), (av, "open"), (Path, "open")):
        monkeypatch.setattr(owner, name, refused)
    with pytest.raises(DataError, match=rf"{path.name}: .*cannot be .* \([Pp]ermission denied\)"):
        open_frames(path)
    with pytest.raises(DataError, match=rf"{path.name}: .*cannot be read \(Permission denied\)"):
        frames_hash(path)
