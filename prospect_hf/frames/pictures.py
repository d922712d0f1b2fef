"""Opens a stored picture: whatever is wrong with it is one sentence that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from prospect_hf.errors import DataError

# What a picture may be, whatever its name says. Pillow can read more, and starts a program (Ghostscript) for some.
PICTURE_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def open_picture(file: Path | BinaryIO, where: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """The picture in ``file``, decoded and converted; ``where`` names it in messages.

    Raises:
        DataError: it is no picture, it is damaged, it states a size that no picture has, or ``convert`` refuses it.
    """
    try:
        with Image.open(file, formats=PICTURE_FORMATS) as picture:
            pixels, limit = picture.width * picture.height, Image.MAX_IMAGE_PIXELS
            if limit is not None and pixels > limit:  # up to twice as many, Pillow itself only warns
                raise ValueError(f"it states {pixels} pixels; more than {limit} are not decoded")
            return convert(picture)
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{where} is not a readable picture (its format is not known).") from error
    except Exception as error:  # each of Pillow's decoders raises errors of its own, SyntaxError among them
        raise DataError(f"{where} is not a readable picture ({error}).") from error


def upright(picture: Image.Image) -> Image.Image:
    """The picture in RGB, turned as its camera was held."""
    # Imported here: it loads transformers, which readers of labels have no use for.
    from processing_dst_smolvlm import rgb_picture

    return rgb_picture(ImageOps.exif_transpose(picture))
