"""Folders of numbered pictures as stored frames."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from video_fixtures import number_of, numbered

from prospect_hf.errors import DataError
from prospect_hf.frames.folder import PictureFolder, picture_files


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for at, name in enumerate(names):
        numbered(at).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("0.png", "1.png", "2.png"),
        ("frame_8.png", "frame_9.png", "frame_10.png"),
        ("v2_0001.png", "v2_0002.png", "v2_0003.png"),
        ("f1_left.png", "f2_left.png", "f3_left.png"),
        ("0.png", "15.png", "30.png"),
        ("img15.png", "img30.png", "img45.png"),
        ("1.PNG", "2.bmp", "3.png"),
    ],
)
def test_pictures_are_read_in_the_order_of_their_numbers(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = fill(tmp_path / "v", *names)
    (folder / ".hidden").write_text("x")
    assert [path.name for path in picture_files(folder)] == list(names)
    if names[0] == "frame_8.png":
        return
    store = PictureFolder(folder)
    assert [number_of(picture) for picture in store] == [0, 1, 2]
    assert [number_of(picture) for picture in store.frames([2, 0, 2])] == [2, 0, 2]
    assert store.encoded(1) == (folder / names[1]).read_bytes()
    for index in (-1, 3):
        with pytest.raises(DataError, match=rf"v: no frame {index}; it holds 3 frames, 0 to 2"):
            store[index]


@pytest.mark.parametrize(
    "names, match",
    [
        (["0.png", "1.png", "3.png"], r"picture of number 2 is missing: 1 is followed by 3"),
        (["f_0.png", "f_15.png", "f_45.png"], r"number 30 is missing: 15 is followed by 45"),
        (["f_1.png", "f_01.png", "f_2.png"], r"number 1 stands twice, as f_01\.png and f_1\.png"),
        (["0.png", "0.bmp"], r"number 0 stands twice"),
        (["2.png", "3.png"], r"begin with number 2, so number 1 is missing"),
        (["5.png"], r"begin with number 5, so number 4 is missing"),
        (["a.png", "b.png"], r"a\.png: no number in its name"),
        (["f0.png", "f1 (copy).png", "f2.png"], r"f1 \(copy\)\.png: not named like f0\.png"),
    ],
)
def test_a_gap_is_named(tmp_path: Path, names: list[str], match: str) -> None:
    with pytest.raises(DataError, match=match):
        PictureFolder(fill(tmp_path / "v", *names))


def test_what_is_no_picture(tmp_path: Path) -> None:
    folder = fill(tmp_path / "v", "0.png", "1.png", "2.png")
    whole = (folder / "1.png").read_bytes()
    for broken in (b"", b"nonsense", whole[: len(whole) // 2]):
        (folder / "1.png").write_bytes(broken)
        store = PictureFolder(folder)
        assert number_of(store[2]) == 2
        with pytest.raises(DataError, match=r"1\.png: frame 1 is not a readable picture"):
            store[1]
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to("1.png")  # a loop
    with pytest.raises(DataError, match=r"1\.png: frame 1 is not a readable picture \(.*symbolic links"):
        PictureFolder(folder)[1]
    with pytest.raises(DataError, match=r"1\.png: frame 1 cannot be read \(.*symbolic links"):
        PictureFolder(folder).encoded(1)
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to("gone.png")
    with pytest.raises(DataError, match=r"1\.png: frame 1 is not a readable picture \(.*No such file"):
        PictureFolder(folder)[1]


def test_pictures_stand_upright(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    Image.new("RGB", (64, 32)).save(tmp_path / "v" / "0.jpg", exif=exif)
    assert PictureFolder(tmp_path / "v")[0].size == (32, 64)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_that_states_a_huge_size_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "v" / "0.jpg")
    data = bytearray((tmp_path / "v" / "0.jpg").read_bytes())
    at = data.index(b"\xff\xc0") + 5  # height and width in the frame header
    # Pillow refuses the first one, and only warns of the second.
    for size, message in ((65_500, "could be decompression bomb"), (10_000, "are not decoded")):
        data[at : at + 4] = size.to_bytes(2, "big") * 2
        (tmp_path / "v" / "0.jpg").write_bytes(data)
        with pytest.raises(DataError, match=rf"0\.jpg: frame 0 is not a readable picture \(.*pixels.*{message}"):
            PictureFolder(tmp_path / "v")[0]
