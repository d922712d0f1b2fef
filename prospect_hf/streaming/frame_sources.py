"""Where a stream's frames come from: one generator a source, all yielding the same ``SourceFrame``.

A frame's ``index`` counts from the start of its video and ``time`` is index / fps seconds, whatever part is asked for.
Videos, URLs and cameras are sampled at ``fps`` by presentation time; folders of pictures, frame files and feature
files hold one frame per 1 / ``fps`` seconds already. Nothing is dropped here: see ``pace`` for live playing.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open

from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.folder import picture_files
from prospect_hf.frames.pictures import open_picture, upright
from prospect_hf.frames.store import FrameStore
from video_dst_smolvlm import TOLERANCE_S, sample_video, without_secrets

URLS = ("rtsp://", "rtsps://", "http://", "https://")


class OutOfRange(DataError):
    """A source has no frame in the part that was asked for."""


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One frame of a stream.

    Attributes:
        index: absolute frame index in the video; live pacing leaves gaps in it.
        time: seconds from the start of the video, index / fps.
        frame: an RGB picture, or encoded features ``[tokens, hidden]``.
    """

    index: int
    time: float
    frame: Image.Image | torch.Tensor


SourceFrames = Generator[SourceFrame, None, None]


def open_source(spec: str, fps: float = 2.0, start_s: float = 0.0, end_s: float = math.inf) -> SourceFrames:
    """The frames of whatever ``spec`` names, those with ``start_s <= time < end_s``.

    Args:
        spec: a video file (GIF too), a folder of pictures, an ``.arrow`` frame file, a ``.safetensors`` feature file,
            an ``rtsp://`` or ``http(s)://`` URL, ``webcam:N`` or ``/dev/videoN``.
        fps: frames per second.
        start_s: seconds; a video is decoded from its start on all the same.
        end_s: seconds.

    Raises:
        UsageError: there is nothing of this name, or ``fps`` or the range makes no sense; raised at once.
        DataError: what is there cannot be read, or has no frame in the range; raised when frames are taken.
    """
    _indices(0, None, fps, start_s, end_s)
    if spec.startswith(URLS):
        # RTSP over UDP loses packets, and each loss damages pictures.
        options = {"rtsp_transport": "tcp"} if spec.startswith("rtsp") else None
        return video_frames(spec, fps, start_s, end_s, options=options)
    if spec.startswith("webcam:") or re.fullmatch(r"/dev/video\d+", spec):
        return webcam_frames(spec, fps, start_s, end_s)
    path = Path(spec)
    if not path.exists():
        raise UsageError(f"{spec}: no such file or folder; give a video, frames, features, a URL or webcam:N.")
    if path.is_dir():
        return folder_frames(path, fps, start_s, end_s)
    if path.suffix == ".arrow":
        return store_frames(path, fps, start_s, end_s)
    if path.suffix == ".safetensors":
        return feature_frames(path, fps, start_s, end_s)
    return video_frames(spec, fps, start_s, end_s)


def video_frames(
    name: str,
    fps: float,
    start_s: float = 0.0,
    end_s: float = math.inf,
    *,
    format: str | None = None,
    options: dict[str, str] | None = None,
) -> SourceFrames:
    """Frames of a video file, URL or device; ``format`` and ``options`` are FFmpeg's.

    Raises:
        DataError: it cannot be read, breaks off (after its last frame), or ends before ``start_s``.
    """
    wanted = _indices(0, None, fps, start_s, end_s)
    index = -1
    try:
        with closing(sample_video(name, fps, format=format, options=options)) as frames:
            for index, frame in enumerate(frames):
                if index in wanted:
                    yield SourceFrame(index, frame.time, frame.picture)
                if index + 1 >= wanted.stop:
                    return
    except ValueError as error:
        raise DataError(str(error)) from error
    if index < wanted.start:
        raise _out_of_range(without_secrets(name), 0, index + 1, fps, start_s, end_s)


def webcam_frames(spec: str, fps: float, start_s: float = 0.0, end_s: float = math.inf) -> SourceFrames:
    """Frames of the camera ``webcam:N`` (the system's Nth, from 0) or ``/dev/videoN``, as they come.

    Raises:
        UsageError: ``N`` is no number, or Windows knows no such camera; raised at once.
        DataError: the camera cannot be opened or falls silent.
    """
    number = re.fullmatch(r"(?:webcam:|/dev/video)(\d+)", spec)
    if number is None:
        raise UsageError(f"{spec}: no camera; give webcam:0 for the first one, webcam:1 for the second.")
    name, format, options = _camera(int(number[1]), sys.platform)
    return video_frames(name, fps, start_s, end_s, format=format, options=options)


def _camera(number: int, platform: str) -> tuple[str, str, dict[str, str] | None]:
    """FFmpeg's name, format and options for a camera."""
    if platform == "darwin":
        # Without a rate avfoundation asks for 29.97, which most cameras refuse.
        return f"{number}:none", "avfoundation", {"framerate": "30"}
    if platform == "win32":
        import av.device

        cameras = [each for each in av.device.enumerate_input_devices("dshow") if "video" in each.media_types]
        if number >= len(cameras):
            raise UsageError(f"webcam:{number}: there are {len(cameras)} cameras, counted from 0; choose another.")
        return f"video={cameras[number].name}", "dshow", None
    return f"/dev/video{number}", "v4l2", None


def folder_frames(folder: Path, fps: float, start_s: float = 0.0, end_s: float = math.inf) -> SourceFrames:
    """The pictures of a folder in natural order.

    Raises:
        DataError: as ``picture_files``, or a picture cannot be read.
    """
    paths = picture_files(folder)
    for index in _stored(str(folder), 0, len(paths), fps, start_s, end_s):
        picture = open_picture(paths[index], f"{paths[index]}: frame {index}", upright)
        yield SourceFrame(index, index / fps, picture)


def store_frames(path: Path, fps: float, start_s: float = 0.0, end_s: float = math.inf) -> SourceFrames:
    """The pictures of an ``.arrow`` frame file.

    Raises:
        DataError: it is no frame file, or a frame cannot be read.
    """
    store = FrameStore(path)
    for index in _stored(str(path), 0, len(store), fps, start_s, end_s):
        yield SourceFrame(index, index / fps, store[index])


def feature_frames(path: Path, fps: float, start_s: float = 0.0, end_s: float = math.inf) -> SourceFrames:
    """The encoded frames ``[tokens, hidden]`` of a ``.safetensors`` file, in the type that they were stored in.

    Raises:
        DataError: the file has no ``features`` ``[frames, tokens, hidden]`` or does not say which frame is the first.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            first = facts.get("first_frame", "")
            if "features" not in list(file.keys()) or not first.isdecimal():
                raise DataError(f"{path}: no frame features (tensor 'features', metadata 'first_frame'); encode them.")
            features = file.get_slice("features")
            shape = features.get_shape()
            if len(shape) != 3:
                raise DataError(
                    f"{path}: features must be [frames, tokens, hidden], but are {shape}; encode the video again."
                )
            for index in _stored(str(path), int(first), shape[0], fps, start_s, end_s):
                at = index - int(first)
                yield SourceFrame(index, index / fps, features[at : at + 1][0])
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not a file of frame features ({error}); encode the frames.") from error


def _stored(name: str, first: int, count: int, fps: float, start_s: float, end_s: float) -> range:
    """Absolute indices of the frames in the range; there must be one."""
    wanted = _indices(first, count, fps, start_s, end_s)
    if not wanted:
        raise _out_of_range(name, first, count, fps, start_s, end_s)
    return wanted


def _indices(first: int, count: int | None, fps: float, start_s: float, end_s: float) -> range:
    """Indices with start_s <= index / fps < end_s of ``count`` frames (None: without end) from ``first`` on.

    Raises:
        UsageError: no video could have a frame there.
    """
    if not (fps > 0 and math.isfinite(fps)):
        raise UsageError(f"fps must be a number of frames per second above 0, not {fps}.")
    if not 0 <= start_s < end_s:
        raise UsageError(f"The range must have 0 <= start < end in seconds, not {start_s} to {end_s}.")
    begin = math.ceil((start_s - TOLERANCE_S) * fps)
    end = math.ceil((end_s - TOLERANCE_S) * fps) if math.isfinite(end_s) else sys.maxsize
    if begin >= end:
        raise UsageError(f"No frame at {fps:g} fps falls between {start_s:g} s and {end_s:g} s; widen the range.")
    return range(max(first, begin), end if count is None else min(end, first + count))


def _out_of_range(name: str, first: int, count: int, fps: float, start_s: float, end_s: float) -> OutOfRange:
    until = (first + count) / fps
    held = f"{first / fps:g} s to {until:g} s at {fps:g} fps" if count else "no frame at all"
    return OutOfRange(f"{name}: no frame from {start_s:g} s to {end_s:g} s; it holds {held}.")
