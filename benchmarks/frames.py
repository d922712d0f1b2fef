"""Milliseconds a frame from each form of stored frames, in order and at random places, against the stated simple way.

    python benchmarks/frames.py

A video of 1280 x 720 at 30 pictures a second (H.264, a key frame every 30 and every 250 pictures) is sampled at 2
frames a second into a frame file and a folder of JPEG pictures of 384 x 384. The simple way decodes the video from its
beginning for each frame, and reads the frame file whole. All pictures of a form must be the same however they are read.

Exit codes: 0 done, 1 pictures differ.
"""

from __future__ import annotations

import argparse
import base64
import io
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
from PIL import Image

from prospect_hf.frames import video as video_module
from prospect_hf.frames.base import Frames
from prospect_hf.frames.opened import open_frames
from prospect_hf.frames.sampling import Sampling, sample_into
from prospect_hf.frames.videos import VideoTask
from video_dst_smolvlm import sample_video

SECONDS, RATE, SIZE = 45, 30, (1280, 720)
RANDOM, SIMPLE = 40, 3  # frames that are read


def write_video(path: Path, group: int) -> None:
    """A camera that moves over a picture of coarse and fine noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (60, 90, 3), np.uint8)).resize((1800, 1200), Image.Resampling.BICUBIC)
    world = np.asarray(coarse, np.int16) + rng.integers(-12, 13, (1200, 1800, 1), np.int16)
    pixels = np.clip(world, 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"g": str(group), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, RATE)
        for at in range(SECONDS * RATE):
            left, top = int(250 + 240 * np.sin(at / 90)), int(230 + 220 * np.cos(at / 70))
            shown = np.ascontiguousarray(pixels[top : top + SIZE[1], left : left + SIZE[0]])
            frame = av.VideoFrame.from_ndarray(shown, "rgb24")
            frame.pts, frame.time_base = at, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def per_frame(read: Callable[[int], object], indices: Sequence[int]) -> float:
    """Milliseconds a frame."""
    began = time.perf_counter()
    for index in indices:
        read(index)
    return 1000 * (time.perf_counter() - began) / len(indices)


def simple_store(path: Path, index: int) -> object:
    """The whole file in memory, then one frame."""
    with pa.OSFile(str(path), "rb") as source:
        stored = pa.ipc.open_stream(source).read_all()["frame"][index].as_py()
    return Image.open(io.BytesIO(base64.b64decode(stored)), formats=("JPEG",)).convert("RGB")


def simple_video(path: Path, index: int) -> object:
    """The video from its beginning to the frame."""
    return next(frame for at, frame in enumerate(sample_video(path)) if at == index).picture


def main() -> int:
    """Measure and print the table."""
    print("| frames from | opened, ms | in order, ms | at random, ms | simple way, ms | ratio at random |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder, same = Path(place), True
        for group in (30, 250):
            write_video(folder / f"{group}.mp4", group)
        task = VideoTask("frames/v.arrow", (folder / "30.mp4",))
        sample_into(folder, task, Sampling(2.0, 384, "crop", 0, 90, 0))
        store = open_frames(folder / "frames/v.arrow")
        (folder / "pictures").mkdir()
        for index in range(len(store)):
            (folder / "pictures" / f"{index:06}.jpg").write_bytes(store.encoded(index))
        kinds: list[tuple[str, Path, Callable[[Path, int], object] | None]] = [
            ("frame file, 384 x 384", folder / "frames/v.arrow", simple_store),
            ("folder of JPEG, 384 x 384", folder / "pictures", None),
            ("video, key frame every 30", folder / "30.mp4", simple_video),
            ("video, key frame every 250", folder / "250.mp4", simple_video),
        ]
        for name, path, simple in kinds:
            began = time.perf_counter()
            frames: Frames = open_frames(path)
            len(frames)
            opened = 1000 * (time.perf_counter() - began)
            frames[0]  # what is loaded for the first picture is no cost of the others
            every = range(len(frames))
            places = random.Random(0).choices(every, k=RANDOM)
            ordered = per_frame(frames.__getitem__, every)
            at_random = per_frame(frames.__getitem__, places)
            told = ""
            if simple is not None:
                slow = per_frame(lambda index, path=path, simple=simple: simple(path, index), places[:SIMPLE])
                told = f"{slow:.1f} | {slow / at_random:.0f} x"
            print(f"| {name} | {opened:.0f} | {ordered:.1f} | {at_random:.1f} | {told or '- | -'} |")
            first = [np.asarray(picture) for picture in frames]
            video_module._DECODERS.clear()
            same &= all(np.array_equal(np.asarray(frames[index]), first[index]) for index in places)
        sizes = [sum(path.stat().st_size for path in [folder / name]) / 1e6 for name in ("30.mp4", "250.mp4")]
        stored = (folder / "frames/v.arrow").stat().st_size
    print(
        f"\n{SECONDS} s; the videos have {sizes[0]:.1f} and {sizes[1]:.1f} MB, the frame file {stored / 1e6:.1f} MB "
        f"({stored / (2 * SECONDS) / 1000:.0f} kB a frame)."
    )
    return 0 if same else 1


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sys.exit(main())
