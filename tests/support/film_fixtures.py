"""Films for frame stores: pictures that move on in every frame, as unlike each other as those of real videos."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from prospect_hf.frames.store import write_frames

FRAMES = 30


def film(seed: int, frames: int = FRAMES) -> list[Image.Image]:
    """A coarse coloured texture that moves on by a part of itself in each frame."""
    texture = np.random.default_rng(seed).integers(0, 255, (6, 6 + frames, 3), np.uint8)
    texture[..., 2] //= 3  # more red than blue
    big = Image.fromarray(texture).resize((16 * (6 + frames), 96), Image.Resampling.BICUBIC)
    return [big.crop((16 * frame, 0, 16 * frame + 96, 96)) for frame in range(frames)]


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def write_film(path: Path, pictures: list[Image.Image], quality: int = 90) -> None:
    write_frames(path, [jpeg(picture, quality) for picture in pictures])
