"""Sampling a video at a steady rate: the frames that a streaming model is shown.

Pictures are taken by presentation time. Stepping over a fixed number of pictures drifts (29.97 is not 30), and is wrong
for variable frame rates; here picture k is the one that a player shows k / fps seconds after the first one, so a
frame's index always is its time.

Remote code of the Hub: standard library, Pillow and PyAV.
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

try:
    from .container_dst_smolvlm import moving_streams, open_video, reason_of, stated_length
except ImportError:  # imported as a top-level module of the installed package
    from container_dst_smolvlm import moving_streams, open_video, reason_of, stated_length

# A picture counts as on show from this many seconds before its time, so that rounding cannot push it to the next one.
TOLERANCE_S = 1e-6
# Threads that decode. Where the last pictures of a file are damaged, PyAV drops what its threads still hold without
# telling: as many pictures at most.
THREADS = 4
# Damaged pictures in a row that are bridged by the picture before them.
DAMAGED_IN_A_ROW = 100
# A key frame's time that lies further back than these seconds, or at the beginning, is that of a clock that has started
# again; nearer, it is a picture that comes too late.
LATE_S = 1.0
# A jump of a transport stream's clock, in seconds, that is no gap: ISO 13818-1 asks for a time every 0.7 s.
# The value is FFmpeg's own.
JUMP_S = 10.0
# Times further apart than these seconds are broken: a gap is filled with its last picture.
LONGEST_GAP_S = 6 * 3600.0
# Seconds in which a live stream has to send a key frame.
KEY_FRAME_S = 120.0
GOES_ON_ELSEWHERE = (
    "goes on in another stream, as files do that were put one behind the other; give them one by one, or join them "
    "with FFmpeg's concat."
)
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

    Where the clock starts again (files put one behind the other, a sender that was restarted), time goes on from the
    end of the picture before. A stream that is joined between two key frames begins with the next one. Warnings tell
    of both. Files of which FFmpeg would read the first part only are refused.

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
    with (
        open_video(name, told, live, format, options) as container,
        closing(_decode(container, told, live)) as pictures,
    ):
        for index, frame in on_show(pictures, fps):
            if shown is None or shown[0] is not frame:
                shown = frame, upright(frame)
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


def _decode(container: Any, name: str, live: bool) -> Generator[tuple[Fraction, Fraction, Any], None, None]:
    """Start and duration (exact, in seconds from the first picture) and frame of each undamaged picture.

    Raises:
        ValueError: the video breaks off, holds no undamaged picture, or does not tell when its pictures are shown.
    """
    stream = moving_streams(container)[0]
    # AVI has no presentation times: FFmpeg's guesses go wrong with H.264's B-frames, the decoding times do not, but
    # the pictures that the decoder holds back until the end lack them: they follow without a gap.
    by_dts = container.format.name == "avi"
    usual = 1 / stream.average_rate if stream.average_rate else Fraction(0)
    parts = _Parts(container, stream, name, live)
    origin = None  # the video's first time stamp
    part, first, begin = 0, None, Fraction(0)  # of the part that is read: its first time stamp, and its first second
    last, end = Fraction(0), Fraction(0)  # of the last picture, in seconds
    lost = in_a_row = 0
    try:
        for number, frame in parts:
            if number != part:
                part, first, begin = number, None, end
            if frame is not None and not frame.is_corrupt:
                stamp = frame.dts if by_dts else frame.pts
                if stamp is None and origin is not None:
                    stamp = (first or 0) + round((end - begin) / stream.time_base)
                if stamp is None:
                    raise ValueError(
                        f"{name}: the picture after {float(end):.2f} s has no presentation time; put the video "
                        "into a container that has them, such as MP4."
                    )
                origin = stamp if origin is None else origin
                first = stamp if first is None else first
                start = begin + (stamp - first) * stream.time_base
                if start - end > LONGEST_GAP_S:
                    raise ValueError(
                        f"{name}: the picture after {float(end):.2f} s comes at {float(start):.2f} s; its times are "
                        "broken: cut it there, or write it anew with FFmpeg."
                    )
                if start >= last:
                    # A last picture of unknown length lasts as long as is usual, or as the one before it.
                    end = start + ((frame.duration or 0) * stream.time_base or usual or start - last)
                    last = start
                    in_a_row = 0
                    yield start, end - start, frame
                    continue
            lost, in_a_row = lost + 1, in_a_row + 1
            if in_a_row > DAMAGED_IN_A_ROW:
                raise ValueError(
                    f"{name}: {in_a_row} damaged pictures in a row after {float(end):.2f} s; repair or replace it."
                )
        if origin is None:
            why = "none of its pictures is a key frame" if parts.waiting and parts.skipped else "check the file"
            raise ValueError(f"{name}: holds no picture that can be decoded; {why}.")
        if parts.elsewhere:
            raise ValueError(f"{name}: {GOES_ON_ELSEWHERE}")
        if parts.cut:
            raise ValueError(f"{name}: breaks off in the middle of a picture at {float(end):.2f} s; copy it again.")
        stated = stated_length(container, stream, origin)
        if stated is not None and end + usual < stated - LENGTH_SLACK_S:
            raise ValueError(
                f"{name}: ends at {float(end):.2f} s, but its header says {stated:.2f} s; it was cut off or damaged: "
                "copy it again."
            )
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{name}: reading stopped at {float(end):.2f} s ({reason_of(error)}).") from error
    finally:
        if lost:
            warnings.warn(
                f"{name}: {lost} damaged pictures up to {float(end):.2f} s were left out; the one before each stayed "
                "on show.",
                stacklevel=2,
            )
        if part:
            warnings.warn(
                f"{name}: its clock starts again {part} times; the parts were put one after another.", stacklevel=2
            )


class _Parts:
    """The decoded pictures of a stream, each with the number of its part; a damaged picture is None.

    A new part begins where the clock starts again: in files that were put one behind the other, or of a sender that
    was restarted. Nothing can be decoded before a part's first key frame: those pictures are skipped, and a warning
    tells how many.

    Attributes:
        waiting: the part's first key frame has not come yet.
        skipped: the part's pictures before it.
        cut: the last packet is incomplete.
        elsewhere: another video stream begins behind this one's end.
    """

    def __init__(self, container: Any, stream: Any, name: str, live: bool) -> None:
        # No frame threads: what they show in place of lost parts of a picture differs from one reading to the next, and
        # they hold back a picture each, which is too late for a live one.
        stream.thread_type = "SLICE"
        stream.thread_count = THREADS
        self.waiting, self.skipped, self.cut = True, 0, False
        self.elsewhere = False
        self._container, self._stream, self._name, self._live = container, stream, name, live
        self._jumps = bool(container.format.flags & av.format.Flags.ts_discont.value)
        # Time stamps of the part: its first one, the greatest, and the last decoding time.
        self._first: int | None = None
        self._latest: int | None = None
        self._decoding: int | None = None

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        number = 0
        for packet in self._packets():
            if not packet.size:
                # Without a time it is the last one: it calls for what the decoder still holds. With a time it is an
                # empty picture: the one before stays; the decoder would take it for the end.
                if packet.dts is None:
                    yield from ((number, frame) for frame in self._held_back())
                continue
            if self._starts_again(packet):
                yield from ((number, frame) for frame in self._held_back())
                number, self.waiting, self.skipped = number + 1, True, 0
                self._first = self._latest = None
            self._note(packet)
            if self.waiting and packet.is_keyframe:
                yield from ((number, frame) for frame in self._held_back())
                self._begin()
            yield from ((number, frame) for frame in self._decoded(packet))

    def _packets(self) -> Iterator[Any]:
        """The stream's packets."""
        begins: dict[int, int] = {}  # places in the file: those of other streams' first packets, and of our last one
        place = 0
        # In joined transport streams the second part may be another stream.
        streams = moving_streams(self._container) if self._jumps else [self._stream]
        packets = self._container.demux(streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                self.elsewhere = any(begin > place for begin in begins.values())
                return
            except IndexError:  # PyAV's, for a stream that was not there when the file was opened
                raise ValueError(f"{self._name}: {GOES_ON_ELSEWHERE}") from None
            if packet.stream_index == self._stream.index:
                place = max(place, packet.pos or 0)
                yield packet
            elif packet.pos is not None:
                begins.setdefault(packet.stream_index, packet.pos)

    def _seconds(self, ticks: int) -> float:
        return float(ticks * self._stream.time_base)

    def _starts_again(self, packet: Any) -> bool:
        """Whether a new part begins with this packet.

        A key frame is shown after all that was decoded before it: where its time is earlier, the clock starts again,
        unless the decoding times go on, which makes it a picture that comes too late.
        """
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None or self._latest is None:
            return False
        back = self._seconds(self._latest - stamp)
        if self._jumps and abs(back) > JUMP_S:
            return True
        goes_on = packet.dts is not None and self._decoding is not None and packet.dts > self._decoding
        if goes_on or not packet.is_keyframe:
            return False
        return back > LATE_S or (back > 0 and self._first is not None and stamp <= self._first)

    def _note(self, packet: Any) -> None:
        """Take down a packet's times."""
        self.cut = packet.is_corrupt
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            self._first = stamp if self._first is None else self._first
            self._latest = stamp if self._latest is None else max(self._latest, stamp)
        self._decoding = self._decoding if packet.dts is None else packet.dts
        if packet.is_keyframe or not self.waiting:
            return
        self.skipped += 1
        if self._live and self._waited() > KEY_FRAME_S:
            raise ValueError(f"{self._name}: sends no key frame within {KEY_FRAME_S:g} s; set its key frame interval.")

    def _waited(self) -> float:
        """Seconds of the part so far."""
        return 0.0 if self._latest is None or self._first is None else self._seconds(self._latest - self._first)

    def _begin(self) -> None:
        """The part's first key frame has come."""
        self.waiting = False
        if self.skipped:
            warnings.warn(
                f"{self._name}: begins {self._waited():.2f} s before its first key frame; the {self.skipped} pictures "
                "until then cannot be decoded and were skipped.",
                stacklevel=2,
            )

    def _decoded(self, packet: Any) -> list[Any]:
        """The decoder's pictures for a packet; None for a damaged one."""
        codec = self._stream.codec_context
        try:
            frames = codec.decode(packet)
        except av.error.InvalidDataError:
            if self.waiting and codec.extradata is None:
                return []
            # Before the first key frame only a decoder that knows the video's parameters can tell damage: the damaged
            # packet does not bear the mark of a key frame any more.
            self.skipped -= self.waiting
            return [None]
        # Pictures that are shown before the key frame and stored behind it lean on skipped ones: the decoder, which is
        # empty when the key frame comes, drops them.
        return [] if self.waiting else list(frames)

    def _held_back(self) -> list[Any]:
        """The pictures that the decoder still holds; it is empty then and can begin anew."""
        frames = self._decoded(None)
        self._stream.codec_context.flush_buffers()
        return frames


def upright(frame: Any) -> Image.Image:
    """The RGB picture of a decoded frame, upright."""
    picture: Image.Image = frame.to_image()
    # Both count degrees counter-clockwise.
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture
