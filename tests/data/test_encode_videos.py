"""Encoding: what is encoded, in which shares and passes, and that nothing half-written is ever taken for finished."""

from __future__ import annotations

import ast
import os
import resource
import signal
import threading
import time
import tracemalloc
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_fixtures import (
    NoiseReader,
    largest_difference,
    make_session,
    new_model,
    picture,
    small_model,
    small_processor,
)
from PIL import Image
from safetensors.torch import load_file

from prospect_hf.content_hash import KnownHashes
from prospect_hf.data import encode as encode_module
from prospect_hf.data.encode import Settings, Summary, encode_videos
from prospect_hf.data.encode_plan import Video, dealt, missing, videos_below, videos_of
from prospect_hf.data.features import HASHES_FILE, FrameFeatures, fingerprint
from prospect_hf.data.reader import FrameReader
from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.opened import count_frames
from prospect_hf.frames.store import write_frames
from prospect_hf.simulator.render import encode_jpeg


def features_in(folder: Path, reader: FrameReader | None = None, dtype: str = "float32") -> FrameFeatures:
    reader = reader or NoiseReader()
    expected = fingerprint(small_model(), reader.processor, reader.frames, dtype)
    return FrameFeatures(folder / expected.digest, reader, expected, KnownHashes(folder / HASHES_FILE))


def noise(name: str, frames: int, first: int = 0) -> Video:
    """A video of noise."""
    return Video(
        name,
        range(first, first + frames),
        lambda begin, end: [picture(name, frame) for frame in range(begin, end)],
        content=name.encode().hex().ljust(32, "0"),
    )


def encode(videos: list[Video], folder: Path, **settings: Any) -> Summary:
    return encode_videos(small_model(), features_in(folder), videos, Settings(**settings), progress=False)


def numbers(features: FrameFeatures, video: Video) -> torch.Tensor:
    return load_file(features.path_of(video.content))["features"]


def frame_file(path: Path, frames: int) -> Path:
    write_frames(path, (encode_jpeg(Image.fromarray(picture(path.name, frame))) for frame in range(frames)))
    return path


@pytest.mark.parametrize(("frames_per_pass", "threads"), [(7, 1), (7, 3), (64, 2)])
def test_passes_and_threads_change_nothing(tmp_path: Path, frames_per_pass: int, threads: int) -> None:
    videos = [noise("a", 30), noise("b", 1, first=9), noise("c", 65, first=3)]
    done = encode(videos, tmp_path, frames_per_pass=frames_per_pass, threads=threads)
    assert (done.videos, done.frames, done.held_videos, done.failures) == (3, 96, 0, [])
    assert done.bytes == sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    for video in videos:
        with torch.inference_mode():
            pixels = small_processor().pixel_values(video.read(video.frames.start, video.frames.stop))
            expected = small_model().encode_frames(pixels)
        assert largest_difference(numbers(features_in(tmp_path), video), expected) <= 1e-5
    assert encode(videos, tmp_path).held_videos == 3


def test_the_same_videos_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        encode([noise("v", 40)], tmp_path / name)
    one, other = (next((tmp_path / name).rglob("*.safetensors")).read_bytes() for name in "ab")
    assert one == other


def test_pictures_wait_in_bounded_number_and_are_prepared_ahead(tmp_path: Path) -> None:
    """The next passes are decoded while the model encodes one, over the border of two videos, and no more than that."""
    settings, lock = Settings(frames_per_pass=4, threads=2), threading.Lock()
    ready, taken, ahead = 0, 0, []

    def read(begin: int, end: int) -> list[np.ndarray]:
        nonlocal ready
        with lock:
            ready += 1
        return [picture("x", frame) for frame in range(begin, end)]

    def slow(model: Any, pixels: torch.Tensor, autocast: Any) -> torch.Tensor:
        nonlocal taken
        taken += 1
        time.sleep(0.02)
        ahead.append(ready - taken)
        return torch.zeros(len(pixels), 1, 32)

    videos = [Video(name, range(12), read, content=name * 32) for name in "abc"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode_module, "encode_pass", slow)
        encode_videos(small_model(), features_in(tmp_path), videos, settings, progress=False)
    assert len(ahead) == 9 and all(1 <= waiting <= 3 for waiting in ahead[:6]) and max(ahead) < 2 * settings.threads


def test_a_long_video_is_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(frames_per_pass=8, threads=1)
    assert settings.pixel_bytes(24) == 2 * 8 * 3 * 24 * 24 * 4
    monkeypatch.setattr(encode_module, "encode_pass", lambda model, pixels, autocast: pixels.flatten(1)[:, None, :32])
    video = Video(
        "v", range(1200), lambda begin, end: [np.zeros((24, 24, 3), np.uint8)] * (end - begin), content="v" * 32
    )
    tracemalloc.start()
    encode_videos(small_model(), features_in(tmp_path), [video], settings, progress=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_500_000  # a file is hashed in blocks of a megabyte; all pixels take eight


def test_a_failed_video_is_listed_and_the_others_are_encoded(tmp_path: Path) -> None:
    def broken(begin: int, end: int) -> list[np.ndarray]:
        if begin > 3:
            raise DataError(f"no frame {begin}")
        return [picture("x", frame) for frame in range(begin, end)]

    gone = Video("gone", range(3), broken, tmp_path / "gone.arrow")
    videos = [noise("a", 9), Video("bad", range(20), broken, content="bad" * 11), gone, noise("b", 9)]
    with pytest.raises(DataError, match="no frame 4"):
        encode(videos, tmp_path / "raise", frames_per_pass=4)
    done = encode(videos, tmp_path / "skip", frames_per_pass=4, skip=True)
    assert done.videos == 2 and len(done.failures) == 2
    assert any("no frame 4" in told for told in done.failures) and any("gone.arrow" in told for told in done.failures)
    assert len(list((tmp_path / "skip").rglob("*.safetensors"))) == 2
    assert not list(tmp_path.rglob("*.partial"))


def test_features_that_no_type_can_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def large(model: Any, pixels: torch.Tensor, autocast: Any) -> torch.Tensor:
        made = torch.zeros(len(pixels), 1, 32)
        made[2] = 1e5
        return made

    monkeypatch.setattr(encode_module, "encode_pass", large)
    with pytest.raises(DataError, match=r"v: a new model .* float16 for frame 12: .* encode.dtype=bfloat16"):
        encode_videos(small_model(), features_in(tmp_path, dtype="float16"), [noise("v", 5, first=10)], progress=False)
    assert not list(tmp_path.rglob("*.safetensors"))
    encode_videos(small_model(), features_in(tmp_path, dtype="bfloat16"), [noise("v", 5, first=10)], progress=False)


def test_a_broken_model_writes_nothing(tmp_path: Path) -> None:
    model = new_model()
    with torch.no_grad():
        model.model.connector.modality_projection.proj.weight[0, 0] = float("nan")
    expected = fingerprint(model, small_processor(), "blank")
    features = FrameFeatures(tmp_path, NoiseReader(), expected, KnownHashes(tmp_path / HASHES_FILE))
    with pytest.raises(DataError, match=r"v: a new model gives features that are not finite in float32 for frame 0"):
        encode_videos(model, features, [noise("v", 5)], progress=False)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: both fail while features are written."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
        with pytest.raises(OSError, match="File too large") as caught:
            encode([noise("a", 40), noise("b", 400), noise("c", 40)], tmp_path, skip=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.filename is not None
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1 and not list(tmp_path.rglob("*.partial"))
    done = encode([noise("a", 40), noise("b", 400), noise("c", 40)], tmp_path)
    assert (done.videos, done.held_videos) == (2, 1)


def test_copies_of_a_video_share_their_features(tmp_path: Path) -> None:
    """Two files of one content need different frames: one file of features has them all, however they are ordered."""
    one = frame_file(tmp_path / "processed_data/wtag/frames/v0.arrow", 20)
    (tmp_path / "processed_data/ego4d/frames").mkdir(parents=True)
    os.link(one, tmp_path / "processed_data/ego4d/frames/other.arrow")
    early, late = make_session(0, 9), make_session(0, 9, first_frame=8)
    late.source, late.frames_file = "ego4d", "frames/other.arrow"
    for number, sessions in enumerate(([early, late], [late, early])):
        reader = FrameReader(tmp_path, "store", small_processor())
        features = features_in(tmp_path / f"cache{number}", reader)
        encode_videos(small_model(), features, videos_of(sessions, reader), progress=False)
        assert len(list(features.folder.glob("*.safetensors"))) == 1
        assert all(len(features.inputs(session, 0, 9)["frame_features"]) == 9 for session in sessions)


@given(st.lists(st.integers(0, 500), max_size=40), st.integers(1, 9))
def test_shares_are_disjoint_complete_and_balanced(lengths: list[int], count: int) -> None:
    videos = [noise(f"v{number}", length) for number, length in enumerate(lengths)]
    shares = [dealt(videos, number, count) for number in range(count)]
    assert sorted(video.name for share in shares for video in share) == sorted(video.name for video in videos)
    loads = [sum(len(video.frames) for video in share) for share in shares]
    # A share got its shortest video when no other one had less.
    assert all(
        load - min(len(video.frames) for video in share) <= min(loads)
        for load, share in zip(loads, shares, strict=True)
        if share
    )
    for share in shares:
        assert [videos.index(video) for video in share] == sorted(videos.index(video) for video in share)


def test_all_stored_frames_below_a_folder(tmp_path: Path) -> None:
    frame_file(tmp_path / "b/one.arrow", 5)
    for number in range(3):
        (tmp_path / "a/two").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture("two", number)).save(tmp_path / f"a/two/frame_{number}.png")
    (tmp_path / "b/broken.arrow").write_bytes(b"no Arrow file")
    (tmp_path / "b/notes.txt").write_text("no frames")
    (tmp_path / ".hidden").mkdir()
    frame_file(tmp_path / ".hidden/three.arrow", 2)
    videos, failures = videos_below(tmp_path)
    assert {video.name: video.frames for video in videos} == {"b/one.arrow": range(5), "a/two": range(3)}
    assert len(failures) == 1 and "broken.arrow: not an Arrow stream of frames" in failures[0]
    assert {picture.shape for video in videos for picture in video.read(1, 3)} == {(24, 24, 3)}
    reader = FrameReader(tmp_path, "store", small_processor())
    assert encode_videos(small_model(), features_in(tmp_path / "c", reader), videos, progress=False).frames == 8
    with pytest.raises(UsageError, match="no such folder"):
        videos_below(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no frame files"):
        videos_below(tmp_path / "empty")


def test_a_cut_frame_file_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    path = frame_file(tmp_path / "v.arrow", 200)
    assert count_frames(path) == 200
    path.write_bytes(path.read_bytes()[:-5])
    videos, failures = videos_below(tmp_path)
    reader = FrameReader(tmp_path, "store", small_processor())
    done = encode_videos(small_model(), features_in(tmp_path / "c", reader), videos, Settings(skip=True), False)
    told = failures + done.failures
    assert not done.videos and len(told) == 1 and "v.arrow" in told[0]


def test_more_frames_than_there_are_is_an_error_that_names_them(tmp_path: Path) -> None:
    frame_file(tmp_path / "processed_data/wtag/frames/v0.arrow", 20)
    reader, session = FrameReader(tmp_path, "store", small_processor()), make_session(0, 21)
    with pytest.raises(DataError, match=r"v0\.arrow: no frame 20"):
        encode_videos(small_model(), features_in(tmp_path / "c", reader), videos_of([session], reader), progress=False)


def slow_pass(model: Any, pixels: torch.Tensor, autocast: Any) -> torch.Tensor:
    """Features that tell their frame, without the threads of torch, which a fork does not have."""
    time.sleep(0.01)
    return pixels.flatten(1)[:, None, :32].clone()


def test_a_killed_run_leaves_whole_files_and_a_second_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_module, "encode_pass", slow_pass)
    videos = [noise(f"v{number}", 40) for number in range(12)]
    process = get_context("fork").Process(target=encode, args=(videos, tmp_path), kwargs={"frames_per_pass": 8})
    process.start()
    until = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.safetensors"))) < 3 and time.monotonic() < until:
        time.sleep(0.002)
    process.kill()
    process.join()
    finished = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    assert process.exitcode == -signal.SIGKILL and 3 <= len(finished) < 12
    assert 12 - len(missing(features_in(tmp_path), videos)) == len(finished)
    done = encode(videos, tmp_path)
    assert (done.videos, done.held_videos) == (12 - len(finished), len(finished))
    assert all(path.read_bytes() == held for path, held in finished.items())
    encode(videos, tmp_path / "whole", frames_per_pass=8)
    for video in videos:
        assert torch.equal(numbers(features_in(tmp_path), video), numbers(features_in(tmp_path / "whole"), video))


def calls(node: ast.AST, name: str) -> Iterator[int]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr == name:
            yield inner.lineno


def test_one_place_encodes_for_a_file(repository: Path) -> None:
    """Whoever asks a model for features keeps them in memory, but for ``encode.py``."""
    found = {
        path.relative_to(repository / "prospect_hf").as_posix()
        for path in (repository / "prospect_hf").rglob("*.py")
        if any(calls(ast.parse(path.read_text(encoding="utf-8")), "encode_frames"))
    }
    # A stream that is followed encodes each frame as it comes; the memory plan traces an encoding without numbers.
    assert found == {"data/encode.py", "evaluation/free_running.py", "training/memory/step.py"}
