"""Sampling videos into frame files: what is shown when, in which size, and what a later run does not do again."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from frame_fixtures import counting_video
from PIL import Image
from video_fixtures import brute_force, number_of, numbered, write_clip

from prospect_hf.errors import DataError
from prospect_hf.frames import sampling as sampling_module
from prospect_hf.frames.sampling import Sampling, fitted, sample_into
from prospect_hf.frames.store import FrameStore, write_frames
from prospect_hf.frames.videos import VideoTask

SMALL = Sampling(fps=2.0, size=32, fit="crop", rotate=0, quality=90, max_frames=0)
TENTHS = Fraction(1, 10)


def numbers(folder: Path, store: str = "frames/v.arrow") -> list[int]:
    return [number_of(picture) for picture in FrameStore(folder / store)]


def task(*videos: Path) -> VideoTask:
    return VideoTask("frames/v.arrow", videos)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_are_those_on_show(tmp_path: Path, rotation: int) -> None:
    """Of a video of uneven rate and rotation, which says it is to be shown turned: as sampled one by one."""
    ticks = [0, 40, 333, 334, 1200, 1201, 1210, 2600, 2999]
    path = write_clip(tmp_path / "v.mp4", ticks, Fraction(1, 1000), rotation=rotation)
    made = sample_into(tmp_path, task(path), SMALL)
    expected = [number for _, number in brute_force(path, 2.0)]
    turned = [picture.rotate(-rotation) for picture in FrameStore(tmp_path / "frames/v.arrow")]
    assert [number_of(picture) for picture in turned] == expected
    assert (made.store, made.frames, made.new, made.notes) == ("frames/v.arrow", len(expected), True, ())
    assert made.size == (tmp_path / "frames/v.arrow").stat().st_size


def test_several_videos_become_one_frame_file(tmp_path: Path) -> None:
    videos = counting_video(tmp_path / "a.mp4", 4), counting_video(tmp_path / "b.mp4", 4, first=8)
    sample_into(tmp_path, task(*videos), SMALL)
    assert numbers(tmp_path) == [0, 1, 2, 3, 8, 9, 10, 11]
    sample_into(tmp_path, task(*reversed(videos)), replace(SMALL, max_frames=6))
    assert numbers(tmp_path) == [8, 9, 10, 11, 0, 1]


def test_crop_takes_the_middle_and_pad_keeps_everything() -> None:
    wide = Image.new("RGB", (96, 32), (255, 0, 0))
    wide.paste((0, 255, 0), (32, 0, 64, 32))
    cropped = np.asarray(fitted(wide, SMALL))
    assert cropped.shape == (32, 32, 3) and (cropped == (0, 255, 0)).all(-1)[:, 2:-2].all()
    padded = np.asarray(fitted(wide, replace(SMALL, fit="pad", size=96)))
    assert (padded[:32] == 128).all() and (padded[64:] == 128).all()
    assert (padded[32:64] == np.asarray(wide)).all()
    tall = np.asarray(fitted(wide.rotate(90, expand=True), replace(SMALL, fit="pad", size=96)))
    assert (tall[:, :32] == 128).all() and (tall[:, 32:64] != 128).any()
    turned = fitted(numbered(0b0001, (32, 32)), replace(SMALL, rotate=180))
    assert number_of(turned) == 0b10000000


def test_what_is_there_is_not_sampled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = counting_video(tmp_path / "v.mp4")
    first = sample_into(tmp_path, task(path), SMALL)
    content = (tmp_path / "frames/v.arrow").read_bytes()
    monkeypatch.setattr(sampling_module, "write_frames", None)
    assert sample_into(tmp_path, task(path), SMALL) == replace(first, new=False)
    # A copy with another name and other times has the same content.
    time.sleep(0.02)
    copy = Path(shutil.copyfile(path, tmp_path / "copy.mp4"))
    assert not sample_into(tmp_path, task(copy), SMALL).new
    monkeypatch.undo()
    # The same videos and settings give the same bytes.
    (tmp_path / "frames/v.arrow").unlink()
    sample_into(tmp_path, task(copy), SMALL)
    assert (tmp_path / "frames/v.arrow").read_bytes() == content


def test_another_video_or_setting_is_sampled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = counting_video(tmp_path / "v.mp4", 40)
    assert sample_into(tmp_path, task(path), SMALL).new
    for change in ({"fps": 4.0}, {"size": 48}, {"fit": "pad"}, {"rotate": 90}, {"quality": 50}, {"max_frames": 2}):
        made = sample_into(tmp_path, task(path), replace(SMALL, **change))  # type: ignore[arg-type]
        assert made.new and "sampled again" in made.notes[0], change
    assert sample_into(tmp_path, task(path), SMALL).new
    assert sample_into(tmp_path, task(path, path), SMALL).new
    assert sample_into(tmp_path, task(path), SMALL).new
    # Same size, content that differs outside of the parts that are compared first, and the time of before, as a copy
    # that keeps times leaves it.
    monkeypatch.setattr(sampling_module, "PART_BYTES", 8)
    assert sample_into(tmp_path, task(path), SMALL).new
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[data.index(b"mdat") + 900] ^= 1
    time.sleep(0.02)
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sample_into(tmp_path, task(path), SMALL).new


def test_a_frame_file_that_was_cut_is_no_finished_one(tmp_path: Path) -> None:
    path, store = counting_video(tmp_path / "v.mp4"), tmp_path / "frames/v.arrow"
    sample_into(tmp_path, task(path), SMALL)
    whole = store.read_bytes()
    for length in (len(whole) - 8, len(whole) - 300, len(whole) // 2):
        store.write_bytes(whole[:length])
        made = sample_into(tmp_path, task(path), SMALL)
        assert made.new and made.notes == (f"{store}: is damaged, so it was sampled again.",)
        assert store.read_bytes() == whole
    store.write_bytes(whole[:20])
    with pytest.raises(DataError, match=r"v\.arrow: these frames were not sampled by this command"):
        sample_into(tmp_path, task(path), SMALL)


def test_frames_of_others_are_left_alone(tmp_path: Path) -> None:
    path, store = counting_video(tmp_path / "v.mp4"), tmp_path / "frames/v.arrow"
    write_frames(store, [b"x"])
    with pytest.raises(DataError, match=r"v\.arrow: these frames were not sampled by this command; move them away"):
        sample_into(tmp_path, task(path), SMALL)
    assert len(FrameStore(store)) == 1
    store.unlink()
    (tmp_path / "frames/v").mkdir()
    with pytest.raises(DataError, match=r"frames/v: these frames were not sampled"):
        sample_into(tmp_path, task(path), SMALL)


def test_a_bad_video_leaves_no_frame_file(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "v.mp4", range(50), TENTHS, rate=10, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 8 // 10])
    with pytest.raises(DataError, match=r"v\.mp4: breaks off"):
        sample_into(tmp_path, task(path), SMALL)
    assert list((tmp_path / "frames").iterdir()) == []


def test_a_video_that_changes_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = counting_video(tmp_path / "v.mp4")

    def slow(*given: Any) -> Iterator[bytes]:
        yield b"x"
        path.write_bytes(path.read_bytes())

    monkeypatch.setattr(sampling_module, "_pictures", slow)
    with pytest.raises(DataError, match=r"v\.mp4: the video was changed while it was sampled"):
        sample_into(tmp_path, task(path), SMALL)
    assert list((tmp_path / "frames").iterdir()) == []


def test_damaged_pictures_are_told(tmp_path: Path) -> None:
    path = counting_video(tmp_path / "v.mp4", 40)
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") + len(data) // 3
    data[at : at + 60] = bytes(60)
    path.write_bytes(data)
    made = sample_into(tmp_path, task(path), SMALL)
    assert any("damaged pictures" in note for note in made.notes) and made.frames == 40


def test_a_full_disk_leaves_nothing_and_a_later_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = counting_video(tmp_path / "v.mp4")
    write_batch = pa.ipc.RecordBatchStreamWriter.write_batch

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pa.ipc.RecordBatchStreamWriter, "write_batch", full)
    with pytest.raises(OSError, match="No space left") as caught:
        sample_into(tmp_path, task(path), SMALL)
    assert caught.value.filename == str(tmp_path / "frames/v.arrow")
    assert list((tmp_path / "frames").iterdir()) == []
    monkeypatch.setattr(pa.ipc.RecordBatchStreamWriter, "write_batch", write_batch)
    assert sample_into(tmp_path, task(path), SMALL).new and numbers(tmp_path) == list(range(6))


def test_a_killed_run_leaves_no_frame_file(tmp_path: Path, repository: Path) -> None:
    path = counting_video(tmp_path / "v.mp4")
    script = f"""
import os
from pathlib import Path
from prospect_hf.frames import sampling
from prospect_hf.frames.videos import VideoTask
pictures = sampling._pictures
def killed(*given):
    for count, picture in enumerate(pictures(*given)):
        yield from [picture] * 50
        if count == 4:
            os.kill(os.getpid(), 9)
sampling._pictures = killed
sampling.sample_into(Path({str(tmp_path)!r}), VideoTask("frames/v.arrow", (Path({str(path)!r}),)), sampling.{SMALL!r})
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    (partial,) = (tmp_path / "frames").iterdir()
    assert partial.name.startswith("v.arrow.") and partial.name.endswith(".partial")
    assert sample_into(tmp_path, task(path), SMALL).new and numbers(tmp_path) == list(range(6))
