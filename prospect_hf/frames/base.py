"""What every kind of stored frames offers: the pictures of one video by absolute frame index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from prospect_hf.errors import DataError


class Frames(ABC):
    """The frames of one video.

    Attributes:
        path: the file or folder that holds them.
    """

    path: Path

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @abstractmethod
    def __getitem__(self, index: int) -> Image.Image:
        """The RGB picture of absolute frame ``index``.

        Raises:
            DataError: there is no such frame, or it cannot be decoded.
        """

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """Absolute frame ``index`` as the bytes of a picture file: those that are stored, or a JPEG of a video's frame.

        Raises:
            DataError: there is no such frame, or it cannot be read.
        """

    def frames(self, indices: Iterable[int]) -> list[Image.Image]:
        """The RGB pictures of several frames, in the order of ``indices``; errors as for one."""
        return [self[index] for index in indices]

    def __iter__(self) -> Iterator[Image.Image]:
        return (self[index] for index in range(len(self)))

    def check_index(self, index: int) -> None:
        """Raise ``DataError`` where the video has no frame ``index``."""
        if not 0 <= index < len(self):
            held = f"it holds {len(self)} frames, 0 to {len(self) - 1}" if len(self) else "it holds no frame at all"
            raise DataError(f"{self.path}: no frame {index}; {held}.")
