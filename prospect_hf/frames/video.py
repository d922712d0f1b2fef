"""Video files as stored frames: the pictures of ``sample_video``, by index.

A first pass over the file's packets, without decoding, tells when each picture is shown and where the key frames are;
a frame is then decoded from the key frame before it. Where frames are asked for in order, the decoder goes on from
where it is. Files whose packets do not tell enough (AVI, transport streams, GIF; damaged files) are read from their
beginning, which gives the same pictures and takes longer.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from container_dst_smolvlm import MATROSKA, MP4, moving_streams, open_video, stated_length
from prospect_hf.content_hash import FileState, file_state
from prospect_hf.errors import DataError
from prospect_hf.frames.base import Frames
from prospect_hf.sessions import FPS
from video_dst_smolvlm import (
    LENGTH_SLACK_S,
    LONGEST_GAP_S,
    THREADS,
    VideoFrame,
    on_show,
    sample_video,
    upright,
)

try:  # inside a try: corpora of frame files are read without PyAV
    import av
except ImportError:
    av = None  # type: ignore[assignment]

# Decoders that a process keeps open; each holds some twenty pictures of its video.
OPEN_DECODERS = 8
JPEG_QUALITY = 90


@dataclass(frozen=True)
class _Index:
    """What is known of a video without its pictures.

    Attributes:
        count: number of frames.
        stamps: presentation time of the picture that each frame shows, in ticks; empty where the video must be read
            from its beginning.
        keys: presentation time of each key frame, in ticks, ascending.
        seeks: where to seek to for each key frame, in ticks.
    """

    count: int
    stamps: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()
    seeks: tuple[int, ...] = ()


class VideoFile(Frames):
    """The frames of a video file, sampled at ``fps`` by presentation time.

    Raises:
        DataError: the file holds no video, is damaged or breaks off, or PyAV is not installed.
    """

    def __init__(self, path: Path, fps: float = FPS) -> None:
        if av is None:
            raise DataError(f"{path}: reading video needs PyAV; install it with `pip install av`.")
        self.path, self.fps = path, fps
        try:
            self._key = path, fps, file_state(path)
        except OSError as error:
            raise DataError(f"{path}: this video cannot be read ({error.strerror}).") from error
        self._index = _INDICES.get(self._key) or _index(path, fps)
        _INDICES[self._key] = self._index

    def __len__(self) -> int:
        return self._index.count

    def __getitem__(self, index: int) -> Image.Image:
        self.check_index(index)
        # Decoders are kept apart from the stores, which can so be copied and sent to other processes.
        decoder = _DECODERS.pop(self._key, None)
        if decoder is None:
            decoder = _Decoder(self.path, self.fps, self._index)
        try:
            picture = decoder.picture(index)
        except ValueError as error:
            decoder.close()
            raise DataError(str(error)) from error
        _DECODERS[self._key] = decoder
        while len(_DECODERS) > OPEN_DECODERS:
            _DECODERS.popitem(last=False)[1].close()
        return picture

    def encoded(self, index: int) -> bytes:
        return jpeg(self[index])


def jpeg(picture: Image.Image, quality: int = JPEG_QUALITY) -> bytes:
    """The picture as a JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


class _Decoder:
    """An open video: decodes forward while the frames that are asked for lie ahead, else from a key frame."""

    def __init__(self, path: Path, fps: float, index: _Index) -> None:
        self._path, self._fps, self._index = path, fps, index
        self._held: tuple[int, Image.Image] | None = None  # the last picture, by time stamp or, read in order, by index
        # By key frames: the container, its decoded frames, and the time stamp of the last one.
        self._container: Any = None
        self._decoded: Iterator[Any] = iter(())
        self._at: int | None = None
        # In order.
        self._sampled: Generator[VideoFrame, None, None] | None = None
        self._by_key = bool(index.stamps)

    def picture(self, index: int) -> Image.Image:
        """The RGB picture of frame ``index``.

        Raises:
            ValueError: the video cannot be read up to there.
        """
        if self._by_key:
            stamp = self._index.stamps[index]
            if self._held is not None and self._held[0] == stamp:
                return self._held[1]
            frame = self.decode(stamp)
            if frame is not None:
                self._held = stamp, upright(frame)
                return self._held[1]
            # A damaged picture, or one that the decoder leaves out: sampling in order knows what is shown instead.
            self.close()
            self._by_key, self._held = False, None
        return self._in_order(index)

    def decode(self, stamp: int) -> Any:
        """The decoded frame of this presentation time, in ticks; None where the decoder does not give it undamaged."""
        try:
            if self._container is None:
                self._container = open_video(str(self._path), str(self._path), False, None, None)
                stream = moving_streams(self._container)[0]
                stream.thread_type, stream.thread_count = "SLICE", THREADS  # as in sampling
            key = max(bisect_right(self._index.keys, stamp) - 1, 0)
            if self._at is None or stamp <= self._at or self._index.keys[key] > self._at:
                stream = moving_streams(self._container)[0]
                self._container.seek(self._index.seeks[key], stream=stream)
                self._decoded = self._container.decode(stream)
            for frame in self._decoded:
                if frame.pts is None:
                    break
                self._at = frame.pts
                # Those behind a damaged picture lean on it and bear no mark. Pictures that are shown before the key
                # frame and stored behind it are never whole here, and not asked for.
                if frame.is_corrupt and frame.pts >= self._index.keys[key]:
                    break
                if frame.pts >= stamp:
                    return frame if frame.pts == stamp else None
        except (av.error.FFmpegError, OSError):
            return None
        return None

    def _in_order(self, index: int) -> Image.Image:
        if self._held is None or index < self._held[0]:
            self.close()
            self._sampled = sample_video(self._path, self._fps)
            self._held = None
        at = -1 if self._held is None else self._held[0]
        assert self._sampled is not None
        while at < index:
            frame = next(self._sampled, None)
            if frame is None:
                raise ValueError(f"{self._path}: ends before frame {index}; it was changed while it was read.")
            at += 1
            self._held = at, frame.picture
        assert self._held is not None
        return self._held[1]

    def close(self) -> None:
        """Let go of the file."""
        if self._sampled is not None:
            self._sampled.close()
            self._sampled = None
        if self._container is not None:
            self._container.close()
            self._container, self._at = None, None


_INDICES: dict[tuple[Path, float, FileState], _Index] = {}
_DECODERS: OrderedDict[tuple[Path, float, FileState], _Decoder] = OrderedDict()
# Decoders of the process that this one was forked from. Their threads are not here: closing one would wait for them
# without end.
_LEFT_BEHIND: list[_Decoder] = []


def _leave_decoders() -> None:
    _LEFT_BEHIND.extend(_DECODERS.values())
    _DECODERS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_decoders)


def _index(path: Path, fps: float) -> _Index:
    try:
        with open_video(str(path), str(path), False, None, None) as container:
            found = _from_packets(container, path, fps)
        return found or _Index(sum(1 for _ in sample_video(path, fps)))
    except ValueError as error:
        raise DataError(str(error)) from error


def _from_packets(container: Any, path: Path, fps: float) -> _Index | None:
    """The index of a whole, ordinary MP4, MOV, Matroska or WebM file; None where the packets do not tell enough."""
    if container.format.name not in (MP4, MATROSKA):
        return None
    stream = moving_streams(container)[0]
    shown: list[int] = []
    keys: list[int] = []
    seeks: list[int] = []
    latest: int | None = None
    try:
        for packet in container.demux(stream):
            if not packet.size and packet.dts is None:  # the mark of the end
                continue
            # MP4 files are searched by decoding times, Matroska files by presentation times.
            seek = packet.dts if container.format.name == MP4 else packet.pts
            if not packet.size or packet.is_corrupt or packet.pts is None or seek is None:
                return None
            if packet.is_keyframe:
                if latest is not None and packet.pts <= latest:  # the clock starts again
                    return None
                keys.append(packet.pts)
                seeks.append(seek)
            elif not keys:  # begins before its first key frame
                return None
            latest = packet.pts if latest is None else max(latest, packet.pts)
            if not packet.is_discard:
                shown.append(packet.pts)
    except (av.error.FFmpegError, IndexError, OSError):
        return None
    shown.sort()
    if not shown or len(set(shown)) < len(shown):
        return None
    # Time counts from the first undamaged picture to the end of the last one, whose length its decoder tells.
    decoder = _Decoder(path, fps, _Index(0, (), tuple(keys), tuple(seeks)))
    first, last = decoder.decode(shown[0]), decoder.decode(shown[-1])
    decoder.close()
    if first is None or last is None:
        return None
    before = shown[-2] if len(shown) > 1 else shown[-1]
    usual = 1 / stream.average_rate if stream.average_rate else Fraction(0)
    lasts = (last.duration or 0) * stream.time_base or usual or (shown[-1] - before) * stream.time_base
    seconds = [(stamp - shown[0]) * stream.time_base for stamp in shown]
    stated = stated_length(container, stream, shown[0])
    if stated is not None and seconds[-1] + lasts + usual < stated - LENGTH_SLACK_S:
        return None
    if any(after - start > LONGEST_GAP_S for start, after in pairwise(seconds)):
        return None
    pictures = zip(seconds, [*[Fraction(0)] * (len(shown) - 1), lasts], shown, strict=True)
    stamps = tuple(stamp for _, stamp in on_show(pictures, fps))
    return _Index(len(stamps), stamps, tuple(keys), tuple(seeks))
