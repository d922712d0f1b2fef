"""Folders of pictures: one picture a frame, in the order of the numbers in their names."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from PIL import Image

from prospect_hf.errors import DataError
from prospect_hf.frames.base import Frames
from prospect_hf.frames.pictures import PICTURE_FORMATS, open_picture, upright

# The last run of digits of a name without its ending.
_NUMBER = re.compile(r"(\d+)(?=\D*$)")


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order (``frame_2`` before ``frame_10``); hidden files are no frames.

    Where the names are equal but for one number, the numbers must have one step: a frame that was lost would shift all
    that follow.

    Raises:
        DataError: there is no picture, something else lies among them, or a number is missing or comes twice.
    """
    try:
        paths = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=_natural)
    except OSError as error:
        raise DataError(f"{folder}: this folder of pictures cannot be read ({error.strerror}).") from error
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in PICTURE_FORMATS}
    for path in paths:
        if path.suffix.lower() not in suffixes or path.is_dir():
            raise DataError(f"{path}: not a picture; a folder of frames holds nothing else, so move it away.")
    if not paths:
        raise DataError(f"{folder}: no pictures in this folder; give one with a picture for each frame.")
    if len({_form(path) for path in paths}) == 1 and _number(paths[0]) is not None:
        _check_numbers(folder, paths)
    return paths


class PictureFolder(Frames):
    """The frames of one video as a folder of numbered JPEG or PNG pictures; the numbers begin with 0 or 1.

    Numbers of a wider step (0, 15, 30: those of the pictures of the video that the frames were taken from) must begin
    below or at the step. Frame i is the i-th picture in each case.

    Raises:
        DataError: as ``picture_files``; also where a name has no number or another form than the first one, and where
            the first numbers are missing.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.files = picture_files(folder)
        first = self.files[0]
        for path in self.files:
            if _number(path) is None:
                raise DataError(f"{path}: no number in its name; the pictures of a video bear the frame's number.")
            if _form(path) != _form(first):
                raise DataError(
                    f"{path}: not named like {first.name}; the pictures of a video must have equal names but for the "
                    "number of the frame."
                )
        numbers = [_number(path) or 0 for path in self.files[:2]]
        step = numbers[1] - numbers[0] if len(numbers) == 2 else 1
        if numbers[0] > step:
            raise DataError(
                f"{folder}: the pictures begin with number {numbers[0]}, so number {numbers[0] - step} is missing; "
                "the first frame of a video has number 0 or 1."
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Image.Image:
        self.check_index(index)
        return open_picture(self.files[index], f"{self.files[index]}: frame {index}", upright)

    def encoded(self, index: int) -> bytes:
        """The file of absolute frame ``index`` as it is stored."""
        self.check_index(index)
        try:
            return self.files[index].read_bytes()
        except OSError as error:
            raise DataError(f"{self.files[index]}: frame {index} cannot be read ({error.strerror}).") from error


def _check_numbers(folder: Path, paths: list[Path]) -> None:
    numbers = [_number(path) or 0 for path in paths]
    for (before, after), (left, right) in zip(pairwise(numbers), pairwise(paths), strict=True):
        if before == after:
            raise DataError(f"{folder}: number {before} stands twice, as {left.name} and {right.name}; remove one.")
    step = min((after - before for before, after in pairwise(numbers)), default=1)
    for before, after in pairwise(numbers):
        if after - before != step:
            raise DataError(
                f"{folder}: the picture of number {before + step} is missing: {before} is followed by {after}; "
                "extract the frames again."
            )


def _number(path: Path) -> int | None:
    """The frame's number in a name: the last run of digits."""
    found = _NUMBER.search(path.stem)
    return None if found is None else int(found[1])


def _form(path: Path) -> str:
    """A name without its number and its ending."""
    return _NUMBER.sub("#", path.stem)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sorts runs of digits as numbers, the rest as text whatever its case; the name itself decides between equals."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if at % 2 else (0, part) for at, part in enumerate(parts)], path.name
