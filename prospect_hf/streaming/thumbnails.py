"""Pictures of a stream for its timeline page: a limited number, evenly spaced over the stream."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

THUMBNAILS = 200  # pictures in the page's strip at most


class ThumbnailStrip:
    """Keeps at most ``THUMBNAILS`` pictures, evenly spaced over a stream of any length.

    Attributes:
        pictures: frame -> picture, 160 pixels wide and high at most.
        every: distance of two pictures in frames; it doubles when there are too many.
    """

    def __init__(self) -> None:
        self.pictures: dict[int, Image.Image] = {}
        self.every = 1

    def add(self, frame: int, picture: Any) -> None:
        """Keep the picture of ``frame`` if its number is a multiple of ``every``; encoded frames are ignored."""
        if not isinstance(picture, torch.Tensor) and frame % self.every == 0:
            small = (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).convert("RGB")
            small.thumbnail((160, 160))
            self.pictures[frame] = small
        if len(self.pictures) > THUMBNAILS:
            self.every *= 2
            self.pictures = {number: kept for number, kept in self.pictures.items() if number % self.every == 0}
