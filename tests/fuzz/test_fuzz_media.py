"""Damaged pictures and videos."""

from __future__ import annotations

import io
import itertools
import random
import re
import struct
import tempfile
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from fuzzing import Target, assert_no_fault, survey
from model_fixtures import small_processor
from mutations import mutate_bytes
from PIL import Image
from video_fixtures import write_clip

from prospect_hf.errors import DataError
from prospect_hf.frames.folder import PictureFolder
from prospect_hf.frames.opened import open_frames
from prospect_hf.frames.videos import find_videos
from prospect_hf.sessions import SOURCES
from prospect_hf.streaming.frame_sources import open_source
from video_dst_smolvlm import sample_video

FORMS = ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "TGA", "ICO", "PCX", "SGI", "JPEG2000", "DDS", "XBM", "IM",
         "MPO", "ICNS", "PDF", "EPS", "QOI", "AVIF", "SPIDER")  # fmt: skip
MODES = ("RGB", "L", "RGBA", "1", "P", "LA", "CMYK", "YCbCr", "I;16", "I", "F", "HSV", "LAB")


def stored_pictures() -> list[tuple[str, bytes]]:
    """(suffix, bytes) of a small picture in every form and mode that Pillow writes."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)
    suffixes = {form: suffix for suffix, form in reversed(Image.registered_extensions().items())}
    found = []
    for form, mode in itertools.product(FORMS, MODES):
        if form not in suffixes or form not in Image.SAVE:
            continue
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        try:
            picture = Image.fromarray(noise)
            picture = picture.convert("L").convert(mode) if mode in ("I;16", "I", "F", "1") else picture.convert(mode)
            if form in ("JPEG", "PNG", "WEBP", "TIFF"):
                picture.save(file, form, exif=exif)
            else:
                picture.save(file, form)
        except (OSError, ValueError, KeyError, TypeError, SystemError):
            continue
        found.append((suffixes[form], file.getvalue()))
    return found


def bomb(width: int, height: int) -> bytes:
    """A PNG that states a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def pictures() -> Target:
    stored = stored_pictures()
    processor = small_processor()

    def target(rng: random.Random, folder: Path) -> None:
        suffix, data = rng.choice(stored)
        if rng.random() < 0.04:
            suffix, data = (
                ".png",
                bomb(*rng.choice([(0, 5), (1, 1), (70_000, 70_000), (2**31 - 1, 9), (20_000, 6_000)])),
            )
        else:
            data = mutate_bytes(data, rng, 4) if rng.random() < 0.95 else data
        (folder / f"0{rng.choice([suffix, suffix, '.png', '.jpg'])}").write_bytes(data)
        for frame in open_source(str(folder)):
            processor.pixel_values([frame.frame])

    return target


def stored_videos(pictures: int, options: dict[str, str]) -> list[tuple[str, bytes]]:
    """Videos in all kinds of files: ending and content."""
    stored = []
    with tempfile.TemporaryDirectory() as place:
        for suffix, codec in ((".mp4", "libx264"), (".mkv", "libx264"), (".avi", "mpeg4"), (".gif", "gif"),
                              (".webm", "libvpx"), (".ts", "mpeg2video"), (".mov", "mjpeg")):  # fmt: skip
            path = Path(place) / f"v{suffix}"
            try:
                write_clip(path, range(pictures), Fraction(1, 10), codec=codec, rate=10, options=options)
            except (ValueError, OSError):  # an encoder that this build of FFmpeg lacks
                continue
            stored.append((suffix, path.read_bytes()))
    return stored


def videos() -> Target:
    stored = stored_videos(12, {})

    def target(rng: random.Random, folder: Path) -> None:
        suffix, data = rng.choice(stored)
        path = folder / f"v{suffix}"
        path.write_bytes(mutate_bytes(data, rng, rng.choice([1, 3, 10])))
        if rng.random() < 0.5:
            for _ in itertools.islice(open_source(str(path), rng.choice([0.5, 2.0, 10.0])), 100):
                pass
        else:
            try:
                for _ in itertools.islice(sample_video(path, 2.0), 100):
                    pass
            except ValueError as error:  # the remote code's own error
                raise DataError(str(error)) from error

    return target


def frames_of_videos() -> Target:
    """Frames of a damaged video are the same in any order, or it is refused."""
    stored = stored_videos(40, {"g": "7"})

    def target(rng: random.Random, folder: Path) -> None:
        suffix, data = rng.choice(stored)
        path = folder / f"v{suffix}"
        path.write_bytes(mutate_bytes(data, rng, rng.choice([1, 1, 3])))
        store = open_frames(path, 4.0)
        order = rng.choices(range(len(store)), k=12) if len(store) <= 1000 else [0, 999]
        found = [np.asarray(picture) for picture in store.frames(order)]
        # With other codecs the threads of FFmpeg's decoders make of damaged pictures now this, now that.
        if suffix not in (".mp4", ".mkv"):
            return
        try:
            shown = [np.asarray(frame.picture) for frame in itertools.islice(sample_video(path, 4.0), 1001)]
        except ValueError as error:
            raise DataError(str(error)) from error
        assert len(shown) == min(len(store), 1001)
        for index, picture in zip(order, found, strict=True):
            assert np.array_equal(picture, shown[index]), index

    return target


def folders_of_pictures() -> Target:
    """A folder has a picture for each number, or is refused."""
    _, picture = stored_pictures()[0]

    def target(rng: random.Random, folder: Path) -> None:
        first, step, count = rng.choice([0, 0, 1, 7]), rng.choice([1, 1, 2, 15]), rng.randrange(1, 9)
        form = rng.choice(["{}", "frame_{}", "{:06}", "v2_{:03}", "{}_left", "f{}.0"])
        for at in range(count):
            name = form.format(first + at * step) + rng.choice([".jpg"] * 9 + [".JPG", ".png", ".txt"])
            if rng.random() < 0.03:
                name = rng.choice(["x.jpg", "0.jpg", f"{name}.jpg", "٣.jpg", "²_1.jpg", ".hidden"])
            if rng.random() < 0.97:
                (folder / name).write_bytes(picture)
        store = PictureFolder(folder)
        numbers = [int(re.findall(r"\d+", path.stem)[-1]) for path in store.files]
        assert len(store) == len({*numbers}) == len(range(numbers[0], numbers[-1] + 1, max(numbers[-1] - numbers[-2], 1)
                                                          if len(numbers) > 1 else 1))  # fmt: skip
        store[len(store) - 1].load()

    return target


def names_of_videos() -> Target:
    lines = b"video,uid\na/v.mp4,one\nb/v.mp4,two\nc.mp4,grp-two\n"

    def target(rng: random.Random, folder: Path) -> None:
        for name in ("a/v.mp4", "b/v.mp4", "c.mp4"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"")
        (folder / "names.csv").write_bytes(mutate_bytes(lines, rng, 4))
        for task in find_videos(folder, rng.choice(SOURCES), folder / "names.csv"):
            assert task.store.startswith("frames/") and ".." not in task.store.split("/") and task.videos

    return target


TARGETS: dict[str, tuple[Callable[[], Target], int]] = {
    "pictures": (pictures, 150),
    "videos": (videos, 60),
    "frames of videos": (frames_of_videos, 60),
    "folders of pictures": (folders_of_pictures, 60),
    "names of videos": (names_of_videos, 100),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_pictures_and_videos(name: str, tmp_path: Path) -> None:
    make, inputs = TARGETS[name]
    assert_no_fault(survey(name, make(), inputs, tmp_path))
