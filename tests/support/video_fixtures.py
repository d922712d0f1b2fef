"""Small clips whose pictures show their own number, for the tests of video and of sources."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av", reason="PyAV is not installed")


def numbered(number: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A picture of 4 x 2 blocks, black or white as the bits of ``number`` (0 to 255): survives lossy codecs."""
    bits = np.array([number >> bit & 1 for bit in range(8)], np.uint8).reshape(2, 4) * 255
    blocks = bits.repeat(size[1] // 2, 0).repeat(size[0] // 4, 1)
    return Image.fromarray(np.stack([blocks] * 3, -1))


def number_of(picture: Image.Image) -> int:
    assert picture.mode == "RGB"
    blocks = np.asarray(picture.convert("L").resize((4, 2), Image.Resampling.BOX)).reshape(-1)
    assert ((blocks < 90) | (blocks > 165)).all(), f"no numbered picture: {blocks}"
    return sum(1 << bit for bit, level in enumerate(blocks) if level > 127)


def write_clip(
    path: Path,
    ticks: Sequence[int],
    time_base: Fraction,
    *,
    codec: str = "libx264",
    rate: Fraction | int = 30,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    pictures: Sequence[Image.Image] | None = None,
    sound: bool = False,
) -> Path:
    """Write one picture at each presentation time ``ticks * time_base`` (seconds)."""
    pictures = pictures or [numbered(number) for number in range(len(ticks))]
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        stream.time_base = stream.codec_context.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation)
        if sound:
            write_sound(container, 1)
        for tick, picture in zip(ticks, pictures, strict=True):
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = tick, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(container: object, seconds: int) -> None:
    """A second of silence as AAC into an open container."""
    stream = container.add_stream("aac", rate=8000)  # type: ignore[attr-defined]
    stream.layout = "mono"
    packets = []
    for start in range(0, seconds * 8000, 1000):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        packets += stream.encode(frame)
    for packet in packets + stream.encode():
        container.mux(packet)  # type: ignore[attr-defined]


def brute_force(path: Path, fps: float) -> list[tuple[float, int]]:
    """(time, number) of the picture on show at k / fps, each looked for among all pictures of the file."""
    with av.open(str(path)) as container:
        shown = [
            (
                frame.pts * frame.time_base,
                (frame.duration or 0) * frame.time_base,
                number_of(frame.to_image()),
            )
            for frame in container.decode(video=0)
        ]
    origin, end = shown[0][0], float(shown[-1][0] - shown[0][0] + shown[-1][1])
    frames: list[tuple[float, int]] = []
    while len(frames) / fps + 1e-6 < end:
        time = len(frames) / fps
        frames.append((time, [number for start, _, number in shown if float(start - origin) <= time + 1e-6][-1]))
    return frames
