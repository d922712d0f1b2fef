"""Sampling a video at a steady rate: the frames that a streaming model is shown.

Pictures are taken by presentation time. Stepping over a fixed number of pictures drifts (29.97 is not 30), and is wrong
for variable frame rates; here picture k is the one that a player shows k / fps seconds after the first one, so a
frame's index always is its time.

Self-contained (standard library, Pillow, PyAV), since it travels with the checkpoint as remote code.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from PIL import Image

try:  # inside a try: transformers loads this file without PyAV too, for models that are fed pictures only
    import av
except ImportError:
    av = None  # type: ignore[assignment]

# A picture counts as on show from this many seconds before its time, so that rounding cannot push it to the next one.
TOLERANCE_S = 1e-6
# Seconds that a URL or a camera may be silent before it counts as lost; a file on disk may take as long as it wants.
SILENCE_S = 15.0
# The only schemes of a URL that are opened, and the protocols that what lies there may use in turn: no files.
SCHEMES = ("http", "https", "rtsp", "rtsps")
NETWORK = "http,https,httpproxy,rtsp,rtsps,rtp,srtp,udp,tcp,tls,crypto,data"
# Formats that name other files or hosts to be opened, or are scripts: a file on disk must be the video itself.
LISTS = {
    *("applehttp", "avisynth", "concat", "dash", "hls", "image2", "imf", "mlv", "rtsp", "sap", "sdp"),
    *("vapoursynth", "vobsub", "webm_dash_manifest"),
}
# Threads that decode. Where the last pictures of a file are damaged, PyAV drops what its threads still hold without
# telling: as many pictures at most.
THREADS = 4
# Damaged pictures in a row that are bridged by the picture before them.
DAMAGED_IN_A_ROW = 100
# Containers whose header states the length of the video; FFmpeg estimates it for others from what is there.
MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
# A video may end this much before the length that its header states.
LENGTH_SLACK_S = 0.5

Picture = TypeVar("Picture")


@dataclass(frozen=True)
class VideoFrame:
    """What is on show at one moment: ``time`` in seconds (index / fps) and the RGB ``picture``."""

    time: float
    picture: Image.Image


def sample_video(
    path_or_url: str | os.PathLike[str],
    fps: float = 2.0,
    *,
    format: str | None = None,
    options: dict[str, str] | None = None,
) -> Generator[VideoFrame, None, None]:
    """The pictures on show at 0, 1 / fps, 2 / fps, ... seconds after the first picture's presentation time.

    A picture stays on show until the next one's time (so a gap, or an ``fps`` above the video's own, repeats it: the
    same object, not a copy), and the last one for its own duration: a clip of 5.0 s at 2 fps gives 10 frames. A live
    picture is yielded when its successor has arrived: only then is it known to be the one on show. The file is read
    while the frames are taken, and closed when the generator ends or is closed.

    Damaged pictures (they cannot be decoded, or only with parts made up) and pictures that come later than their
    successor are left out: the picture before stays on show, and one warning at the end tells how many were lost. More
    than ``DAMAGED_IN_A_ROW`` of them in a row are an error. A video that breaks off is an error after its last
    undamaged picture: reading fails, the last picture is cut in two, or the header of an MP4, MOV,
    Matroska or WebM file states a length that is not reached. A GIF, AVI or transport stream that was cut between
    two pictures cannot be told from a whole one.

    Args:
        path_or_url: a file, or a URL (http, https, rtsp, rtsps), or a device's name with its ``format``. Text from
            strangers must be checked before: a file is any that the process may read, a URL any host that it reaches.
        fps: frames per second, above 0.
        format: FFmpeg's name of a device or file format, where it cannot be told from the file (``v4l2``).
        options: FFmpeg's options for this format.

    Raises (when the first frame is asked for, or later):
        ImportError: PyAV is not installed.
        ValueError: no such file, no video in it, or it breaks off; the message says at which time.
    """
    if av is None:
        raise ImportError("Reading video needs PyAV, which is not installed; install it with `pip install av`.")
    if not (fps > 0 and math.isfinite(fps)):
        raise ValueError(f"fps must be a number of frames per second above 0, not {fps}.")
    name = os.fspath(path_or_url)
    live = format is not None or "://" in name
    shown: tuple[Any, Image.Image] | None = None  # a decoded frame and its picture: a repeated one is converted once
    told = without_secrets(name)
    with _open(name, told, live, format, options) as container, closing(_decode(container, told, live)) as pictures:
        for index, frame in on_show(pictures, fps):
            if shown is None or shown[0] is not frame:
                shown = frame, _rgb(frame)
            yield VideoFrame(index / fps, shown[1])


def on_show(
    pictures: Iterable[tuple[float | Fraction, float | Fraction, Picture]], fps: float
) -> Iterator[tuple[int, Picture]]:
    """Which picture is on show at index / fps seconds after the first one, for each index.

    Args:
        pictures: start and duration in seconds, and the picture; starts never go back. Of the durations only the
            last one counts. A ValueError that ends them is raised after all that was on show until then.
        fps: frames per second.

    Yields:
        index (0, 1, ...) and picture; at least one where there is a picture.
    """
    index, end, origin = 0, 0.0, None
    shown: list[Picture] = []  # empty or one
    failure: ValueError | None = None
    try:
        for start, duration, picture in pictures:
            if origin is None:
                origin = start
            begin = float(start - origin)
            while shown and index / fps + TOLERANCE_S < begin:
                yield index, shown[0]
                index += 1
            shown, end = [picture], begin + float(duration)
    except ValueError as error:
        failure = error
    while shown and (index == 0 or index / fps + TOLERANCE_S < end):
        yield index, shown[0]
        index += 1
    if failure is not None:
        raise failure


def without_secrets(source: str) -> str:
    """A source's name as messages, logs and traces may hold it: a URL without user, password, query and fragment."""
    if "://" not in source:
        return source
    scheme, _, rest = source.partition("://")
    address, slash, path = rest.partition("/")
    host = re.split(r"[?#]", address.rpartition("@")[2])[0]
    return f"{scheme}://{host}{slash}{re.split(r'[?#]', path)[0]}"


def _open(name: str, told: str, live: bool, format: str | None, options: dict[str, str] | None) -> Any:
    if live:
        if format is None:
            if name.partition("://")[0].lower() not in SCHEMES:
                raise ValueError(f"{told}: only {', '.join(SCHEMES)} addresses are opened; give one, or a file's path.")
            options = {"protocol_whitelist": NETWORK, **(options or {})}
        source, timeout = name, SILENCE_S
    else:
        # "file:" keeps FFmpeg from reading a colon in a file's name as a protocol.
        source, timeout = f"file:{name}", None
        formats = ",".join(sorted(av.formats_available.difference(LISTS)))
        options = {"protocol_whitelist": "file", "format_whitelist": formats, **(options or {})}
    try:
        # Titles and places in other encodings than UTF-8 are of no use here, and no reason to refuse a video.
        container = av.open(source, format=format, options=options, timeout=timeout, metadata_errors="replace")
    except av.error.FileNotFoundError:
        raise ValueError(f"{told}: no such video file or device; check the path.") from None
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        raise ValueError(f"{told}: not a video, or cut off before its header; check or copy the file again.") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        # FFmpeg's answer to a format that is not on its list.
        hint = ""
        if isinstance(error, av.error.ArgumentError) and not live:
            hint = "; playlists and other lists of files are not opened: give the video itself"
        raise ValueError(f"{told}: cannot be opened as a video ({_reason(error)}){hint}.") from error
    # FFmpeg takes any text for the drawings of a terminal; a cover picture of a song is no video either.
    if container.format.name == "tty" or not _moving(container):
        container.close()
        raise ValueError(f"{told}: no video stream in it (text or sound only?); give a video file.")
    return container


def _moving(container: Any) -> list[Any]:
    """The container's video streams without cover pictures."""
    return [stream for stream in container.streams.video if not stream.disposition & av.stream.Disposition.attached_pic]


def _decode(container: Any, name: str, live: bool) -> Generator[tuple[Fraction, Fraction, Any], None, None]:
    """Start and duration (exact, in seconds from the first picture) and frame of each undamaged picture.

    Raises:
        ValueError: the video breaks off, holds no undamaged picture, or does not tell when its pictures are shown.
    """
    stream = _moving(container)[0]
    # Frame threads are fastest, but hold back a picture each, which is too late for a live one.
    stream.thread_type = "SLICE" if live else "AUTO"
    stream.thread_count = THREADS
    # AVI has no presentation times: FFmpeg's guesses go wrong with H.264's B-frames, the decoding times do not, but
    # the pictures that the decoder holds back until the end lack them: they follow without a gap.
    by_dts = container.format.name == "avi"
    usual = 1 / stream.average_rate if stream.average_rate else Fraction(0)
    first, last, end = None, Fraction(0), Fraction(0)
    lost = in_a_row = 0
    cut = False
    try:
        for packet in container.demux(stream):
            if packet.size:
                cut = packet.is_corrupt
            elif packet.dts is not None:
                continue  # an empty picture: the one before stays; the decoder would take it for the end
            # An empty packet without a time is the last one: it calls for what the decoder still holds.
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                frames = [None]
            for frame in frames:
                if frame is not None and not frame.is_corrupt:
                    stamp = frame.dts if by_dts else frame.pts
                    if by_dts and stamp is None and first is not None:
                        stamp = first + round(end / frame.time_base)
                    if stamp is None:
                        raise ValueError(
                            f"{name}: the picture after {float(end):.2f} s has no presentation time; put the video "
                            "into a container that has them, such as MP4."
                        )
                    first = stamp if first is None else first
                    start = (stamp - first) * frame.time_base
                    if start >= last:
                        # A last picture of unknown length lasts as long as is usual, or as the one before it.
                        end = start + ((frame.duration or 0) * frame.time_base or usual or start - last)
                        last = start
                        in_a_row = 0
                        yield start, end - start, frame
                        continue
                lost, in_a_row = lost + 1, in_a_row + 1
                if in_a_row > DAMAGED_IN_A_ROW:
                    raise ValueError(
                        f"{name}: {in_a_row} damaged pictures in a row after {float(end):.2f} s; repair or replace it."
                    )
        if first is None:
            raise ValueError(f"{name}: holds no picture that can be decoded; check the file.")
        if cut:
            raise ValueError(f"{name}: breaks off in the middle of a picture at {float(end):.2f} s; copy it again.")
        stated = _stated_length(container, stream, first)
        if stated is not None and end + usual < stated - LENGTH_SLACK_S:
            raise ValueError(
                f"{name}: ends at {float(end):.2f} s, but its header says {stated:.2f} s; it was cut off or damaged: "
                "copy it again."
            )
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{name}: reading stopped at {float(end):.2f} s ({_reason(error)}).") from error
    finally:
        if lost:
            warnings.warn(
                f"{name}: {lost} damaged pictures up to {float(end):.2f} s were left out; the one before each stayed "
                "on show.",
                stacklevel=2,
            )


def _stated_length(container: Any, stream: Any, first: int) -> float | None:
    """Seconds of video that the header states, counted from the first picture; None where it states nothing."""
    if container.format.name == MP4 and stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if container.format.name != MATROSKA:
        return None
    # Matroska: the end of each stream in a tag, or the end of the longest one in the header. FFmpeg reports the longest
    # one as every stream's duration.
    origin = float(first * stream.time_base)
    clock = stream.metadata.get("DURATION", "").split(":")
    if len(clock) == 3:
        return int(clock[0]) * 3600 + int(clock[1]) * 60 + float(clock[2]) - origin
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / av.time_base - origin
    return None


def _rgb(frame: Any) -> Image.Image:
    """The RGB picture of a decoded frame, upright."""
    picture: Image.Image = frame.to_image()
    # Both count degrees counter-clockwise.
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):
        return f"no data for {SILENCE_S:g} s"
    strerror = error.strerror if isinstance(error, (av.error.FFmpegError, OSError)) else None
    return strerror or str(error)
