"""Sources: whatever frames come from, index and time are the video's own, and what cannot be read is named."""

from __future__ import annotations

import io
import math
import sys
import types
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.store import write_frames
from prospect_hf.streaming import frame_sources as sources
from prospect_hf.streaming.frame_sources import SourceFrame, _camera, open_source
from video_dst_smolvlm import VideoFrame, without_secrets

pytest.importorskip("av", reason="PyAV is not installed")
from video_fixtures import number_of, numbered, write_clip


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    numbered(number).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def make_video(folder: Path) -> Path:
    return write_clip(folder / "v.mp4", range(50), Fraction(1, 10), rate=10)


def make_gif(folder: Path) -> Path:
    pictures = [numbered(number) for number in range(50)]
    pictures[0].save(folder / "v.gif", save_all=True, append_images=pictures[1:], duration=100, disposal=2)
    return folder / "v.gif"


def make_folder(folder: Path) -> Path:
    (folder / "frames").mkdir()
    for number in range(10):
        numbered(number * 5).save(folder / "frames" / f"frame_{number + 1}.png")
    (folder / "frames" / ".hidden").write_text("no picture")
    return folder / "frames"


def make_store(folder: Path) -> Path:
    write_frames(folder / "v.arrow", (jpeg(number * 5) for number in range(10)))
    return folder / "v.arrow"


def make_features(folder: Path, first: int = 0, count: int = 10) -> Path:
    features = (torch.arange(first, first + count) * 5.0)[:, None, None].expand(count, 4, 6).contiguous().half()
    save_file({"features": features}, folder / "v.safetensors", {"first_frame": str(first), "origin": "x"})
    return folder / "v.safetensors"


SOURCES = [make_video, make_gif, make_folder, make_store, make_features]


def number(frame: SourceFrame) -> int:
    if isinstance(frame.frame, torch.Tensor):
        assert frame.frame.shape == (4, 6) and frame.frame.dtype == torch.float16
        return int(frame.frame[0, 0])
    return number_of(frame.frame)


@pytest.mark.parametrize("make", SOURCES)
def test_every_source_yields_the_same_stream(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """Each holds 5.0 s, and at 2 fps frame k shows the number 5 k."""
    frames = list(open_source(str(make(tmp_path)), 2.0))
    assert [(frame.index, frame.time, number(frame)) for frame in frames] == [(k, k / 2, 5 * k) for k in range(10)]


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize(
    "start_s, end_s, indices",
    [(1.0, 2.5, [2, 3, 4]), (1.1, 2.6, [3, 4, 5]), (4.5, math.inf, [9]), (0.0, 0.5, [0]), (0, 99, list(range(10)))],
)
def test_a_range_keeps_index_and_time(
    tmp_path: Path, make: Callable[[Path], Path], start_s: float, end_s: float, indices: list[int]
) -> None:
    frames = list(open_source(str(make(tmp_path)), 2.0, start_s, end_s))
    assert [(frame.index, frame.time, number(frame)) for frame in frames] == [(k, k / 2, 5 * k) for k in indices]


@pytest.mark.parametrize("make", SOURCES)
def test_a_range_beyond_the_end_is_an_error(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    with pytest.raises(DataError, match=rf"{path.name}: no frame from 5 s to 9 s; it holds 0 s to 5 s at 2 fps"):
        list(open_source(str(path), 2.0, 5.0, 9.0))


def test_features_count_from_the_start_of_the_video(tmp_path: Path) -> None:
    path = make_features(tmp_path, first=6, count=4)
    frames = list(open_source(str(path), 2.0))
    assert [(frame.index, frame.time, number(frame)) for frame in frames] == [(k, k / 2, 5 * k) for k in range(6, 10)]
    assert [frame.index for frame in open_source(str(path), 2.0, 3.5, 4.5)] == [7, 8]
    with pytest.raises(DataError, match="it holds 3 s to 5 s"):
        list(open_source(str(path), 2.0, 0.0, 3.0))


def test_a_range_of_a_video_stops_reading_at_its_end(tmp_path: Path) -> None:
    """The file breaks off after that, which is nobody's concern then."""
    path = write_clip(
        tmp_path / "v.mp4", range(50), Fraction(1, 10), rate=10, container_options={"movflags": "faststart"}
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 8 // 10])
    assert len(list(open_source(str(path), 2.0, 0.0, 1.0))) == 2
    indices = []
    with warnings.catch_warnings(), pytest.raises(DataError, match=r"v\.mp4: breaks off"):
        warnings.simplefilter("ignore")  # the picture that was cut in two may be counted too
        for frame in open_source(str(path), 2.0):
            indices.append(frame.index)
    assert indices == list(range(len(indices))) and 2 < len(indices) < 10


def test_no_picture_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives PostScript to Ghostscript, whatever the file is called."""

    def started(*command: object, **_: object) -> None:
        raise AssertionError(f"a program was started: {command}")

    monkeypatch.setattr("subprocess.check_call", started)
    monkeypatch.setattr("subprocess.Popen", started)
    code = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "0.png").write_bytes(code)
    with pytest.raises(DataError, match="frame 0 is not a readable picture"):
        list(open_source(str(tmp_path)))
    (tmp_path / "0.png").rename(tmp_path / "0.eps")
    with pytest.raises(DataError, match="not a picture"):
        list(open_source(str(tmp_path)))
    (tmp_path / "0.eps").unlink()
    write_frames(tmp_path / "v.arrow", [code])
    with pytest.raises(DataError, match="frame 0 is not a readable picture"):
        list(open_source(str(tmp_path / "v.arrow")))


def test_pictures_come_in_natural_order_and_upright(tmp_path: Path) -> None:
    names = ["a1.png", "A2.png", "a10.png", "b2_c3.png", "b02_c20.PNG", "b10.png", "7.png", "30.png"]
    expected = ["7.png", "30.png", "a1.png", "A2.png", "a10.png", "b2_c3.png", "b02_c20.PNG", "b10.png"]
    for name in names:
        numbered(expected.index(name)).convert("L").save(tmp_path / name)
    assert [number(frame) for frame in open_source(str(tmp_path))] == list(range(8))
    turned = tmp_path / "turned"
    turned.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    Image.new("RGB", (64, 32)).save(turned / "a.jpg", exif=exif)
    (frame,) = open_source(str(turned))
    assert isinstance(frame.frame, Image.Image) and frame.frame.size == (32, 64)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures in this folder"):
        next(open_source(str(tmp_path)))
    numbered(0).save(tmp_path / "0.png")
    (tmp_path / "1.txt").write_text("x")
    with pytest.raises(DataError, match=r"1\.txt: not a picture"):
        next(open_source(str(tmp_path)))
    (tmp_path / "1.txt").rename(tmp_path / "1.png")
    frames = open_source(str(tmp_path))
    assert next(frames).index == 0
    with pytest.raises(DataError, match=r"1\.png: frame 1 is not a readable picture"):
        next(frames)
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").mkdir()
    with pytest.raises(DataError, match=r"2\.png: not a picture"):
        next(open_source(str(tmp_path)))


def test_what_is_no_frame_file(tmp_path: Path) -> None:
    for name, match in (
        ("a.arrow", r"a\.arrow: not an Arrow stream"),
        ("a.safetensors", r"a\.safetensors: not a file of frame features"),
        ("a.mp4", r"a\.mp4: not a video"),
    ):
        (tmp_path / name).write_bytes(b"nonsense" * 50)
        with pytest.raises(DataError, match=match):
            next(open_source(str(tmp_path / name)))
    write_frames(tmp_path / "a.arrow", [])
    with pytest.raises(DataError, match="it holds no frame at all"):
        next(open_source(str(tmp_path / "a.arrow")))


@pytest.mark.parametrize(
    "tensors, facts, match",
    [
        ({"other": torch.zeros(2, 4, 6)}, {"first_frame": "0"}, "no frame features"),
        ({"features": torch.zeros(2, 4, 6)}, None, "no frame features"),
        ({"features": torch.zeros(2, 4, 6)}, {"first_frame": "-1"}, "no frame features"),
        (
            {"features": torch.zeros(2, 6)},
            {"first_frame": "0"},
            r"must be \[frames, tokens, hidden\], but are \[2, 6\]",
        ),
        ({"features": torch.zeros(0, 4, 6)}, {"first_frame": "0"}, "it holds no frame at all"),
    ],
)
def test_features_that_are_none(
    tmp_path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, str] | None, match: str
) -> None:
    save_file(tensors, tmp_path / "v.safetensors", facts)
    with pytest.raises(DataError, match=match):
        next(open_source(str(tmp_path / "v.safetensors")))


@pytest.mark.parametrize(
    "fps, start_s, end_s, match",
    [
        (0.0, 0.0, 1.0, "fps must be"),
        (math.nan, 0.0, 1.0, "fps must be"),
        (2.0, -1.0, 1.0, "0 <= start < end"),
        (2.0, 2.0, 2.0, "0 <= start < end"),
        (2.0, math.nan, 2.0, "0 <= start < end"),
        (2.0, 0.1, 0.4, "No frame at 2 fps falls between 0.1 s and 0.4 s"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    tmp_path: Path, fps: float, start_s: float, end_s: float, match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        open_source(str(make_store(tmp_path)), fps, start_s, end_s)


def test_a_name_of_nothing_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.mp4: no such file or folder"):
        open_source(str(tmp_path / "nothing.mp4"))
    with pytest.raises(UsageError, match="webcam:front: no camera"):
        open_source("webcam:front")


# --- live sources


@pytest.mark.parametrize(
    "spec, name, format, options",
    [
        ("rtsp://camera/1", "rtsp://camera/1", None, {"rtsp_transport": "tcp"}),
        ("https://example.org/v.mp4", "https://example.org/v.mp4", None, None),
        ("webcam:1", "/dev/video1", "v4l2", None),
        ("/dev/video2", "/dev/video2", "v4l2", None),
    ],
)
def test_urls_and_cameras(
    monkeypatch: pytest.MonkeyPatch, spec: str, name: str, format: str | None, options: dict[str, str] | None
) -> None:
    asked, taken = [], []

    def fake(*args: Any, **kwargs: Any) -> Any:
        asked.append((args, kwargs))
        for k in range(8):
            taken.append(k)
            yield VideoFrame(k / 4, numbered(k))

    monkeypatch.setattr(sources, "sample_video", fake)
    monkeypatch.setattr(sys, "platform", "linux")
    frames = list(open_source(spec, 4.0, 0.5, 1.0))
    assert asked == [((name, 4.0), {"format": format, "options": options})]
    assert [(frame.index, frame.time, number(frame)) for frame in frames] == [(2, 0.5, 2), (3, 0.75, 3)]
    assert taken == [0, 1, 2, 3]  # a live source would keep the caller waiting for the next one


def test_cameras_of_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _camera(1, "darwin") == ("1:none", "avfoundation", {"framerate": "30"})
    devices = [
        types.SimpleNamespace(name="Microphone", media_types=["audio"]),
        types.SimpleNamespace(name="Front", media_types=["video"]),
        types.SimpleNamespace(name="Desk", media_types=["video", "audio"]),
    ]
    import av.device

    monkeypatch.setattr(av.device, "enumerate_input_devices", lambda format: {"dshow": devices}[format])
    assert _camera(1, "win32") == ("video=Desk", "dshow", None)
    with pytest.raises(UsageError, match="webcam:2: there are 2 cameras"):
        _camera(2, "win32")


def test_a_camera_that_is_not_there() -> None:
    if not sys.platform.startswith("linux") or Path("/dev/video97").exists():
        pytest.skip("needs Linux without a 98th camera")
    with pytest.raises(DataError, match="/dev/video97: no such video file or device"):
        next(open_source("webcam:97"))


def test_closing_a_source_closes_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    def fake(*args: Any, **kwargs: Any) -> Any:
        try:
            yield from (VideoFrame(k / 2, numbered(k)) for k in range(8))
        finally:
            closed.append("closed")

    monkeypatch.setattr(sources, "sample_video", fake)
    frames = open_source("http://example.org/v.mp4")
    next(frames)
    assert not closed
    frames.close()
    assert closed


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("rtsp://user:secret@camera.local:554/live/1?token=secret", "rtsp://camera.local:554/live/1"),
        ("http://h?key=secret", "http://h"),
        ("rtsp://h/a@b#secret", "rtsp://h/a@b"),
        ("clip@2x?.mp4", "clip@2x?.mp4"),
        ("webcam:0", "webcam:0"),
    ],
)
def test_passwords_of_a_url_are_told_to_nobody(source: str, told: str) -> None:
    assert without_secrets(source) == told


def test_a_url_that_cannot_be_opened_keeps_its_password() -> None:
    with pytest.raises(DataError) as refused:
        next(iter(open_source("rtsp://user:secret@127.0.0.1:1/live?token=secret")))
    assert "rtsp://127.0.0.1:1/live" in str(refused.value) and "secret" not in str(refused.value)
