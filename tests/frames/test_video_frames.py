"""A video file as stored frames: any order of reading gives the pictures of sampling in order."""

from __future__ import annotations

import os
import random
import time
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from video_fixtures import av, number_of, write_clip

import video_dst_smolvlm as sampling_module
from prospect_hf.errors import DataError
from prospect_hf.frames import video as video_module
from prospect_hf.frames.video import VideoFile
from video_dst_smolvlm import sample_video

MS = Fraction(1, 1000)


def uneven(count: int, seed: int) -> list[int]:
    """Presentation times in ms with steps of 5 to 900."""
    steps = random.Random(seed).choices([5, 16, 33, 40, 300, 900], k=count)
    return [7 + sum(steps[:at]) for at in range(count)]


def clip(name: str, **given: object) -> Callable[[Path], Path]:
    return lambda folder: write_clip(folder / name, **given)  # type: ignore[arg-type]


STEADY = {"ticks": range(100), "time_base": Fraction(1, 15), "rate": 15}
# Kind of video -> how to make it, and whether it is read by key frames.
KINDS: dict[str, tuple[Callable[[Path], Path], bool]] = {
    "mp4": (clip("v.mp4", **STEADY, options={"g": "12"}), True),
    "one key frame": (clip("v.mp4", **STEADY, options={"g": "250"}), True),
    "open groups": (clip("v.mp4", **STEADY, options={"g": "12", "bf": "3", "x264-params": "open-gop=1"}), True),
    "no key frames, intra refresh": (
        clip("v.mp4", **STEADY, options={"x264-params": "intra-refresh=1:keyint=10"}),
        True,
    ),
    "short groups, B-frames": (clip("v.mp4", **STEADY, options={"g": "2", "bf": "2", "b_strategy": "0"}), True),
    "matroska": (clip("v.mkv", **STEADY, options={"g": "12", "bf": "3"}), True),
    "uneven": (clip("v.mp4", ticks=uneven(60, 1), time_base=MS, options={"g": "9"}), True),
    "uneven matroska": (clip("v.mkv", ticks=uneven(60, 2), time_base=MS, options={"g": "9"}), True),
    "turned": (clip("v.mp4", **STEADY, options={"g": "12"}, rotation=90), True),
    "with sound": (clip("v.mp4", **STEADY, options={"g": "12"}, sound=True), True),
    "vp9": (clip("v.webm", **STEADY, codec="libvpx-vp9", options={"g": "12", "deadline": "realtime"}), True),
    "avi": (clip("v.avi", **STEADY, codec="mpeg4", options={"g": "12"}), False),
    "transport stream": (clip("v.ts", **STEADY, options={"g": "12"}), False),
    "gif": (clip("v.gif", **STEADY, codec="gif"), False),
    "faster than the video": (clip("v.mp4", ticks=range(5), time_base=Fraction(1), rate=1), True),
}


def assert_same_as_in_order(path: Path, fps: float = 2.0) -> VideoFile:
    expected = [np.asarray(frame.picture) for frame in sample_video(path, fps)]
    store = VideoFile(path, fps)
    assert len(store) == len(expected)
    order = [*range(len(expected)), *random.Random(0).choices(range(len(expected)), k=25)]
    for index, picture in zip(order, store.frames(order), strict=True):
        assert np.array_equal(np.asarray(picture), expected[index]), index
    return store


@pytest.mark.parametrize("kind", KINDS)
def test_any_order_gives_the_pictures_of_sampling_in_order(tmp_path: Path, kind: str) -> None:
    make, by_key = KINDS[kind]
    store = assert_same_as_in_order(make(tmp_path))
    assert bool(store._index.stamps) == by_key
    if by_key:  # no frame was found by reading the file from its beginning
        assert video_module._DECODERS[store._key]._by_key


def test_another_rate(tmp_path: Path) -> None:
    path = KINDS["uneven"][0](tmp_path)
    assert len(assert_same_as_in_order(path, 5.0)) > 2 * len(assert_same_as_in_order(path, 2.0)) - 3


def test_a_damaged_picture_shows_the_one_before_in_any_order(tmp_path: Path) -> None:
    path = KINDS["mp4"][0](tmp_path)
    data = bytearray(path.read_bytes())
    begin, end = data.index(b"mdat"), len(data) * 6 // 10
    random.Random(1).shuffle(places := list(range(begin + 2000, end)))
    for place in places[:40]:
        data[place] ^= 0x55
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same_as_in_order(path)


@pytest.mark.parametrize("suffix, number", [("mp4", 0), ("mp4", 3), ("mkv", 3)])
def test_pictures_that_lean_on_a_damaged_one_are_read_in_order(tmp_path: Path, suffix: str, number: int) -> None:
    """They bear no mark, and without what was decoded before they look different; a damaged first one moves them."""
    path = write_clip(tmp_path / f"v.{suffix}", **{**STEADY, "options": {"g": "15", "bf": "2"}})  # type: ignore[arg-type]
    with av.open(str(path)) as container:
        key = [packet for packet in container.demux(video=0) if packet.is_keyframe][number]
        place, size = path.read_bytes().index(bytes(key)), key.size
    whole, leaning = path.read_bytes(), 0
    for at in range(place + size - 42, place + size, 5):  # the slice, behind what the encoder says of itself
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                list(sample_video(path))
            except ValueError:  # so much of its beginning is lost that it is refused
                with pytest.raises(DataError):
                    VideoFile(path)
                continue
            store = assert_same_as_in_order(path)
        leaning += bool(store._index.stamps) and not video_module._DECODERS[store._key]._by_key
    assert leaning or number == 0


def test_no_thread_decodes_a_picture_while_another_decodes_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With frame threads, one reading of a damaged video in 400 shows other pixels in place of what is lost."""
    opened: list[Any] = []
    for module in (video_module, sampling_module):
        real = module.open_video

        def kept(*given: Any, real: Any = real) -> Any:
            opened.append(real(*given))
            return opened[-1]

        monkeypatch.setattr(module, "open_video", kept)
    kinds = []
    path = KINDS["mp4"][0](tmp_path)
    for _ in sample_video(path):
        kinds.append(opened[-1].streams.video[0].thread_type)
    store = VideoFile(path)
    for _ in store.frames([5, 2]):
        kinds.append(opened[-1].streams.video[0].thread_type)
    assert len(opened) > 1 and set(map(str, kinds)) == {"ThreadType.SLICE"}


def test_reading_on_does_not_seek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One long group of pictures: with a seek for each frame its beginning would be decoded for each frame again."""
    store = VideoFile(KINDS["one key frame"][0](tmp_path))
    seeks: list[int] = []

    class Counting:
        def __init__(self, container: object) -> None:
            self.container = container

        def __getattr__(self, name: str) -> object:
            seeks.extend([1] if name == "seek" else [])
            return getattr(self.container, name)

    opened = video_module.open_video
    monkeypatch.setattr(video_module, "open_video", lambda *given: Counting(opened(*given)))
    assert [number_of(picture) for picture in store] == [index * 15 // 2 for index in range(14)]
    assert len(seeks) == 1
    store[3]
    assert len(seeks) == 2


def test_a_frame_beyond_the_end(tmp_path: Path) -> None:
    store = VideoFile(KINDS["mp4"][0](tmp_path))
    for index in (-1, 14, 10**9):
        with pytest.raises(DataError, match=rf"v\.mp4: no frame {index}; it holds 14 frames, 0 to 13"):
            store[index]


def test_few_decoders_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_module, "OPEN_DECODERS", 2)
    video_module._DECODERS.clear()
    stores = [VideoFile(write_clip(tmp_path / f"{name}.mp4", **STEADY)) for name in range(4)]  # type: ignore[arg-type]
    for index in range(3):
        for store in stores:
            assert store[index].size == (64, 64)
            assert len(video_module._DECODERS) <= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_a_forked_process_opens_the_video_itself(tmp_path: Path) -> None:
    """The decoder's threads stay behind: a child that used it, or closed it, would wait for them for ever."""
    store = VideoFile(KINDS["mp4"][0](tmp_path))
    expected = np.asarray(store[5])
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(np.asarray(store[5]), expected) and len(store.frames(range(14))) == 14 else 1)
    for _ in range(200):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child waits for threads that are not there")
    assert os.waitstatus_to_exitcode(status) == 0
