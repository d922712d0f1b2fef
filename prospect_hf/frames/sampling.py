"""Samples a video into a frame file: base64 JPEG pictures of one size at a steady rate, as ProAssist's.

The frame file says in its metadata which videos and which settings it was made from, so that a later run knows what is
done. The same videos and settings give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from prospect_hf.content_hash import FileState, file_hash, file_state
from prospect_hf.errors import DataError
from prospect_hf.frames.opened import find_frames
from prospect_hf.frames.store import stored_facts, write_frames
from prospect_hf.frames.video import jpeg
from prospect_hf.frames.videos import VideoTask
from video_dst_smolvlm import sample_video

CROP, PAD = "crop", "pad"
FITS = (CROP, PAD)
GREY = (128, 128, 128)
# A new number samples everything again.
VERSION = 1
FACTS = "prospect_frames"
# The parts of a video that are compared before its whole content is.
PARTS, PART_BYTES = 16, 65_536


@dataclass(frozen=True)
class Sampling:
    """How pictures are made; the fields of ``SampleArguments``."""

    fps: float
    size: int
    fit: str
    rotate: int
    quality: int
    max_frames: int


@dataclass(frozen=True)
class Sampled:
    """A frame file that is there now.

    Attributes:
        store: its path, relative to the source's folder.
        frames: number of frames.
        size: bytes.
        new: it was written now; else it was there.
        notes: what is worth knowing about the videos, one sentence each.
    """

    store: str
    frames: int
    size: int
    new: bool
    notes: tuple[str, ...] = ()


def sample_into(folder: Path, task: VideoTask, sampling: Sampling) -> Sampled:
    """Write the task's frame file below ``folder``, unless it is there already.

    It is there if it was made of videos with the same content, with the same settings, and is whole. One that was made
    of others is written anew. The file appears in one step when it is whole.

    Raises:
        DataError: a video cannot be read, or the frames stand there already and were not sampled here.
        OSError: the disk is full, or the like.
    """
    path = folder / task.store
    notes: list[str] = []
    there = find_frames(path)
    if there is not None:
        held = stored_facts(there) if there == path else None
        if held is None or FACTS not in held.metadata:
            raise DataError(f"{there}: these frames were not sampled by this command; move them away to sample anew.")
        if held.count is not None and _is_current(path, held.metadata[FACTS], task, sampling):
            return Sampled(task.store, held.count, path.stat().st_size, new=False)
        why = "is damaged" if held.count is None else "was made of another video or with other settings"
        notes.append(f"{path}: {why}, so it was sampled again.")
    try:
        before = [file_state(video) for video in task.videos]
        facts = {
            "version": VERSION,
            "settings": asdict(sampling),
            "videos": [_facts(video) | {"sha256": file_hash(video)} for video in task.videos],
        }
    except OSError as error:
        raise DataError(f"{error.filename}: this video cannot be read ({error.strerror}).") from error
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pictures = _unchanged(task, before, _pictures(task, sampling))
        count = write_frames(path, pictures, {FACTS: json.dumps(facts, sort_keys=True)})
    notes += [str(warning.message) for warning in caught if warning.category is UserWarning]
    return Sampled(task.store, count, path.stat().st_size, new=True, notes=tuple(notes))


def _unchanged(task: VideoTask, before: list[FileState], pictures: Iterator[bytes]) -> Iterator[bytes]:
    """The pictures, if the videos are the same at the end: the frame file must not name others."""
    yield from pictures
    for video, state in zip(task.videos, before, strict=True):
        if file_state(video) != state:
            raise DataError(f"{video}: the video was changed while it was sampled; run the command again.")


def _pictures(task: VideoTask, sampling: Sampling) -> Iterator[bytes]:
    count = 0
    for video in task.videos:
        shown: tuple[Image.Image, bytes] | None = None  # a picture that stays on show is encoded once
        try:
            with closing(sample_video(video, sampling.fps)) as frames:
                for frame in frames:
                    if sampling.max_frames and count == sampling.max_frames:
                        return
                    if shown is None or shown[0] is not frame.picture:
                        shown = frame.picture, jpeg(fitted(frame.picture, sampling), sampling.quality)
                    yield shown[1]
                    count += 1
        except DataError:
            raise
        except ValueError as error:
            raise DataError(str(error)) from error


def fitted(picture: Image.Image, sampling: Sampling) -> Image.Image:
    """The picture in the size of the frames, turned."""
    size, (width, height) = sampling.size, picture.size
    if sampling.fit == CROP:
        edge = min(width, height)
        left, top = (width - edge) / 2, (height - edge) / 2
        made = picture.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + edge, top + edge))
    else:
        scale = size / max(width, height)
        inner = picture.resize((max(round(width * scale), 1), max(round(height * scale), 1)), Image.Resampling.BICUBIC)
        made = Image.new("RGB", (size, size), GREY)
        made.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return made.rotate(sampling.rotate) if sampling.rotate else made


def _is_current(store: Path, text: str, task: VideoTask, sampling: Sampling) -> bool:
    """Whether a frame file's facts are those of these videos and settings."""
    try:
        facts: dict[str, Any] = json.loads(text)
        if facts["version"] != VERSION or facts["settings"] != asdict(sampling):
            return False
        videos = list(facts["videos"])
        if len(videos) != len(task.videos):
            return False
        return all(_is_video(store, video, held) for video, held in zip(task.videos, videos, strict=True))
    except (KeyError, TypeError, ValueError):  # the metadata of something else
        return False
    except OSError as error:
        raise DataError(f"{error.filename}: this video cannot be read ({error.strerror}).") from error


def _is_video(store: Path, video: Path, held: dict[str, Any]) -> bool:
    sha256 = held["sha256"]
    if _facts(video) == {name: value for name, value in held.items() if name != "sha256"}:
        # Its state changes with every write and copy: nobody wrote to it since the frames were made.
        if video.stat().st_ctime_ns < store.stat().st_mtime_ns:
            return True
        return bool(file_hash(video) == sha256)
    return False


def _facts(video: Path) -> dict[str, Any]:
    """Size of a video, and a hash of parts of it: quick to compute, and another one for another video."""
    size = video.stat().st_size
    digest = hashlib.sha256()
    with video.open("rb") as file:
        for part in range(PARTS):
            file.seek(max(size - PART_BYTES, 0) * part // (PARTS - 1))
            digest.update(file.read(PART_BYTES))
    return {"bytes": size, "parts": digest.hexdigest()}
