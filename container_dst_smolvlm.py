"""Opening a video: only the file or address that was named, only formats that hold the video themselves.

Remote code of the Hub: standard library and PyAV.
"""

from __future__ import annotations

import mmap
import os
import re
from typing import Any, BinaryIO

try:  # inside a try: transformers loads this file without PyAV too, for models that are fed pictures only
    import av
except ImportError:
    av = None  # type: ignore[assignment]

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
# Containers whose header states the length of the video; FFmpeg estimates it for others from what is there.
MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
# How files of formats begin whose demultiplexer stops where a second one begins.
HEADERS = {
    MATROSKA: rb"\x1a\x45\xdf\xa3.{1,40}?\x42\x82.(webm|matroska)",
    "asf": re.escape(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")),
    "flv": rb"FLV\x01[\x00-\x05]\x00\x00\x00\x09",
    "ivf": rb"DKIF\x00\x00\x20\x00",
    "nut": rb"nut/multimedia container\x00",
}


def open_video(name: str, told: str, live: bool, format: str | None, options: dict[str, str] | None) -> Any:
    """The container at a path or address.

    Args:
        name: path, address or device.
        told: its name in messages, without passwords.
        live: whether it is an address or a device, and no file.
        format, options: as PyAV takes them.

    Raises:
        ValueError: it cannot be opened, holds no video, or holds several of which only the first would be read.
    """
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
        raise ValueError(f"{told}: cannot be opened as a video ({reason_of(error)}){hint}.") from error
    # FFmpeg takes any text for the drawings of a terminal; a cover picture of a song is no video either.
    if container.format.name == "tty" or not moving_streams(container):
        container.close()
        raise ValueError(f"{told}: no video stream in it (text or sound only?); give a video file.")
    if moving_streams(container)[0].codec_context is None:
        container.close()
        raise ValueError(f"{told}: its pictures are in a coding that FFmpeg does not know; convert the video.")
    if not live and _holds_another_file(name, container.format.name):
        container.close()
        raise ValueError(
            f"{told}: holds several files one behind the other, of which players read the first only; give them one "
            "by one, or join them with FFmpeg's concat."
        )
    return container


def _holds_another_file(path: str, format: str) -> bool:
    """Whether another file begins behind the first one, where FFmpeg stops without a word.

    Formats that are missing here are read to the end of the file, and the reader puts the parts one after another.
    """
    with open(path, "rb") as file:
        if format == MP4:
            kinds = _mp4_boxes(file, os.path.getsize(path))
            return kinds.count(b"ftyp") > 1 or kinds.count(b"moov") > 1
        begin = _matroska_end(file) if format == MATROSKA else 0
        if format not in HEADERS or begin >= os.path.getsize(path):
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return re.compile(HEADERS[format], re.DOTALL).search(content, max(begin, 16)) is not None


def _mp4_boxes(file: BinaryIO, size: int) -> list[bytes]:
    """The kinds of an MP4's boxes at the top level."""
    kinds, at = [], 0
    while at + 8 <= size:
        file.seek(at)
        length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        if length == 1:  # a longer one follows
            length = int.from_bytes(file.read(8), "big")
        kinds.append(kind)
        at += length if length >= 8 else size  # 0: it reaches to the end of the file
    return kinds


def _matroska_end(file: BinaryIO) -> int:
    """Where a Matroska file's segment ends; where it does not tell its size, where it begins."""
    whole = os.fstat(file.fileno()).st_size
    for _ in ("header", "segment"):
        file.read(4)
        first = int.from_bytes(file.read(1), "big")
        if first == 0:
            break
        more = 8 - first.bit_length()
        size = int.from_bytes(bytes([first & (1 << 7 - more) - 1]) + file.read(more), "big")
        if size == (1 << 7 * (more + 1)) - 1:
            return file.tell()
        file.seek(min(file.tell() + size, whole))  # a damaged size may be more than a file can have
    return file.tell()


def moving_streams(container: Any) -> list[Any]:
    """The container's video streams without cover pictures."""
    return [stream for stream in container.streams.video if not stream.disposition & av.stream.Disposition.attached_pic]


def stated_length(container: Any, stream: Any, first: int) -> float | None:
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


def reason_of(error: Exception) -> str:
    """What FFmpeg or the system says is wrong."""
    if isinstance(error, av.error.ExitError):
        return f"no data for {SILENCE_S:g} s"
    strerror = error.strerror if isinstance(error, (av.error.FFmpegError, OSError)) else None
    return strerror or str(error)
