"""Encodes videos once for a frozen vision tower: the one place that writes the files that ``features.py`` reads.

Threads decode and prepare the next passes while the model encodes one. A video is written pass by pass under a
temporary name and then renamed, so that its pixels are never held whole, and a run that was killed continues with the
next video.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.content_hash import UNSEALED, KnownHashes, file_state, seal
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.encode_plan import Video, covers, dealt, feature_bytes, missing, span, videos_of
from prospect_hf.data.features import DTYPES, FRAMES_PER_PASS, HASHES_FILE, FrameFeatures, fingerprint, given_features
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.files import remove_stale, replacing
from prospect_hf.machine import process_number, processes
from prospect_hf.processes import in_turn, wait
from prospect_hf.progress import Progress

SAVED_EVERY_S = 60.0  # known hashes are written this often, so that a killed run need not hash its videos again
# The names of safetensors for the types of ``DTYPES``.
STORED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass
class Summary:
    """What an encoding did: counts of what was encoded and of what was there, and its seconds."""

    videos: int = 0
    frames: int = 0
    bytes: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    held_videos: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Settings:
    """How videos are encoded.

    Args:
        frames_per_pass: frames that are prepared and given to the model at a time.
        threads: threads that decode and prepare frames.
        autocast: type of automatic mixed precision; none: the model's own type alone.
        skip: go on with the next video where the frames of one cannot be read, and list it.
    """

    frames_per_pass: int = FRAMES_PER_PASS
    threads: int = 1
    autocast: str | None = None
    skip: bool = False

    def pixel_bytes(self, size: int) -> int:
        """The largest number of bytes of pixels that are held at a time: passes that wait, are prepared and encoded."""
        return 2 * self.threads * self.frames_per_pass * 3 * size * size * 4


def encoded_frames(
    model: DSTSmolVLMForConditionalGeneration,
    reader: FrameReader,
    sessions: Sequence[SessionRows],
    data: DataArguments,
    progress: bool = True,
) -> FrameFeatures:
    """The features of all frames of ``sessions``: those of ``data.features``, or encoded where they are missing.

    Errors as in ``given_features`` and :func:`encode_sessions`.
    """
    cache = Path(data.cache_dir) / "features"
    if data.features is not None:
        with in_turn():  # the first process reads and checks the files, and the others know their hashes
            return given_features(Path(data.features), model, reader, sessions, KnownHashes(cache / HASHES_FILE))
    return encode_sessions(model, reader, sessions, cache, progress)


def encode_sessions(
    model: DSTSmolVLMForConditionalGeneration,
    reader: FrameReader,
    sessions: Sequence[SessionRows],
    cache_dir: Path,
    progress: bool = True,
) -> FrameFeatures:
    """Encode the frames of ``sessions``, in float32, except for videos whose features are current.

    Of several processes each encodes a share of the videos, and all wait for each other. What a machine does not find
    in ``cache_dir`` then, because each machine has one of its own, its own processes encode.

    Args:
        model: the model; its vision tower and connector must not change afterwards.
        reader: reader of the pictures.
        sessions: sessions of any number of videos; the sessions of one video share its features.
        cache_dir: folder that contains one subfolder of features per fingerprint.
        progress: show a progress bar.

    Raises:
        DataError: a frame or an existing features file cannot be read.
    """
    expected = fingerprint(model, reader.processor, reader.frames)
    features = FrameFeatures(cache_dir / expected.digest, reader, expected, KnownHashes(cache_dir / HASHES_FILE))
    videos = videos_of(sessions, reader)
    encode_videos(model, features, dealt(videos, process_number(), processes()), progress=progress)
    if processes() > 1:
        wait()
        features.known = KnownHashes(cache_dir / HASHES_FILE)
        rest = missing(features, videos)
        encode_videos(
            model, features, dealt(rest, process_number(local=True), processes(local=True)), progress=progress
        )
        wait()
    return features


def encode_videos(
    model: DSTSmolVLMForConditionalGeneration,
    features: FrameFeatures,
    videos: Sequence[Video],
    settings: Settings | None = None,
    progress: bool = True,
) -> Summary:
    """Encode the frames of ``videos``, except for videos whose features are current.

    A video is encoded where no features of its content are there, or where they lack a frame; then they get the frames
    that they had too, so that another run on the same folder keeps its own.

    Args:
        model: the model that ``features`` expects.
        features: the folder that is filled.
        videos: what is needed.
        settings: how they are encoded.
        progress: show a progress bar, in frames.

    Raises:
        DataError: a frame or an existing features file cannot be read, or a feature is not finite.
        OSError: a file cannot be written.
    """
    settings = settings or Settings()
    remove_stale(features.folder)
    summary = Summary()
    wanted = missing(features, videos)
    summary.held_videos = len(videos) - len(wanted)
    training = model.training
    model.eval()
    pool = ThreadPoolExecutor(settings.threads, "frames")
    started = saved = time.monotonic()
    try:
        with Progress(sum(len(video.frames) for video in wanted), "encoding frames", "frame", show=progress) as bar:
            planned = _planned(pool, features, wanted, settings, summary, bar)
            passes = _ahead(pool, planned, features.reader.processor, settings, model.device)
            for (path, frames, video), group in groupby(passes, key=lambda one: one[:3]):
                done = bar.done
                try:
                    _write(path, features, video, frames, _encoded(model, group, settings, summary, bar))
                except DataError as error:
                    if not settings.skip:
                        raise
                    summary.failures.append(str(error))
                    bar.expect(bar.done - done - len(frames))
                    continue
                features.known.add(path, file_state(path), "sealed")
                summary.videos += 1
                summary.frames += len(frames)
                summary.bytes += path.stat().st_size
                if time.monotonic() - saved > SAVED_EVERY_S:
                    features.known.save()
                    saved = time.monotonic()
    except (DataError, KeyboardInterrupt):
        features.known.save()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        model.train(training)
    features.known.save()
    summary.seconds = time.monotonic() - started
    return summary


# The file of features, the frames that it is to hold, the video, the first frame of a pass, and its pixels to come.
_Pass = tuple[Path, range, Video, int, "Future[torch.Tensor]"]


def _planned(
    pool: ThreadPoolExecutor,
    features: FrameFeatures,
    videos: Sequence[Video],
    settings: Settings,
    summary: Summary,
    bar: Progress,
) -> Iterator[tuple[Path, range, Video]]:
    """The videos that must be encoded, each with its file and frames; the next one is hashed in the meantime."""

    def look(video: Video) -> tuple[Path, range]:
        path = features.path_of(video.content) if video.path is None else features.path_of_video(video.path)
        return path, features.held(path)

    looks: deque[Future[tuple[Path, range]]] = deque()
    # A copy of a video has the same file of features, which may be on its way.
    coming: dict[Path, range] = {}
    for number, video in enumerate(videos):
        while len(looks) < min(2, len(videos) - number):
            looks.append(pool.submit(look, videos[number + len(looks)]))
        try:
            path, held = looks.popleft().result()
        except DataError as error:
            if not settings.skip:
                raise
            summary.failures.append(str(error))
            bar.expect(-len(video.frames))
            continue
        held = coming.get(path, held)
        if covers(held, video.frames):
            summary.held_videos += 1
            bar.expect(-len(video.frames))
            continue
        coming[path] = span(held, video.frames) if held else video.frames
        bar.expect(len(coming[path]) - len(video.frames))
        yield path, coming[path], video


def _ahead(
    pool: ThreadPoolExecutor,
    videos: Iterable[tuple[Path, range, Video]],
    processor: DSTSmolVLMProcessor,
    settings: Settings,
    device: torch.device,
) -> Iterator[_Pass]:
    """The passes over the videos in order, prepared by threads: twice as many as there are threads at most."""

    def prepare(video: Video, begin: int, end: int) -> torch.Tensor:
        pixels = processor.pixel_values(video.read(begin, end))
        return pixels.pin_memory() if device.type == "cuda" else pixels

    waiting: deque[_Pass] = deque()
    for path, frames, video in videos:
        for begin in frames[:: settings.frames_per_pass]:
            end = min(begin + settings.frames_per_pass, frames.stop)
            waiting.append((path, frames, video, begin, pool.submit(prepare, video, begin, end)))
            if len(waiting) == 2 * settings.threads:
                yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def _encoded(
    model: DSTSmolVLMForConditionalGeneration,
    passes: Iterable[_Pass],
    settings: Settings,
    summary: Summary,
    bar: Progress,
) -> Iterator[tuple[int, torch.Tensor]]:
    """The first frame of each pass over a video, and its features ``[frames, tokens, hidden]``."""
    for _, _, _, begin, coming in passes:
        started = time.monotonic()
        pixels = coming.result()
        summary.waited += time.monotonic() - started
        yield begin, encode_pass(model, pixels, settings.autocast)
        bar.update(len(pixels))


@torch.inference_mode()
def encode_pass(
    model: DSTSmolVLMForConditionalGeneration, pixels: torch.Tensor, autocast: str | None = None
) -> torch.Tensor:
    """Features ``[frames, tokens, hidden]`` of ``pixels`` ``[frames, 3, size, size]``, in the memory of the CPU."""
    mixed: Any = torch.autocast(model.device.type, DTYPES[autocast]) if autocast else nullcontext()
    with mixed:
        return model.encode_frames(pixels.to(model.device, non_blocking=True)).cpu()


def _write(
    path: Path, features: FrameFeatures, video: Video, frames: range, parts: Iterable[tuple[int, torch.Tensor]]
) -> None:
    """Write a file of features part by part, in the form of safetensors: length of the header, header, numbers.

    Raises:
        DataError: a feature is not finite in the type that is stored.
        OSError: the file cannot be written.
    """
    expected = features.expected
    stored = DTYPES[expected.dtype]
    shape = [len(frames), expected.tokens, expected.hidden]
    size = len(frames) * feature_bytes(expected.tokens, expected.hidden, expected.dtype)
    metadata = {**expected.metadata, "first_frame": str(frames.start), "video": video.name, **UNSEALED}
    tensor = {"dtype": STORED[expected.dtype], "shape": shape, "data_offsets": [0, size]}
    # Without spaces, as the seal is looked for; safetensors begins the numbers at a multiple of 8.
    header = json.dumps({"__metadata__": metadata, "features": tensor}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for begin, part in parts:
                converted = part.to(stored).contiguous()
                broken = ~converted.isfinite().flatten(1).all(1)
                if bool(broken.any()):
                    raise DataError(
                        f"{video.name}: {expected.model} gives features that are not finite in {expected.dtype} for "
                        f"frame {begin + int(broken.nonzero()[0])}: check the model, or set encode.dtype=bfloat16."
                    )
                file.write(converted.view(torch.uint8).numpy().data)
        seal(temporary)
