"""The encoding job: the frames of a corpus through the frozen vision tower, once."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.content_hash import KnownHashes
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.encode import Settings, Summary, encode_pass, encode_videos
from prospect_hf.data.encode_arguments import TYPES, EncodeArguments
from prospect_hf.data.encode_plan import Video, dealt, feature_bytes, missing, videos_below, videos_of
from prospect_hf.data.features import HASHES_FILE, FrameFeatures, fingerprint
from prospect_hf.data.reader import FrameReader
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import sole_writer
from prospect_hf.machine import process_number, processes
from prospect_hf.progress import clock
from prospect_hf.settings import parse
from prospect_hf.tables import table
from prospect_hf.terminal import say
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.build import build_processor, load_whole
from prospect_hf.training.splits import load_splits
from prospect_hf.training.text_half import prepare_text_half

logger = logging.getLogger(__name__)

LISTED = 5  # videos that could not be encoded, in the message


def run(encode: EncodeArguments, data: Mapping[str, Any], model: ModelArguments) -> None:
    """Encode the frames of the rows of ``data``, or all stored frames below ``encode.root``.

    Of several processes each takes its share, and none waits for another.

    Args:
        encode: which frames, and how.
        data: the data settings, which with ``encode.root`` give ``cache_dir`` alone.
        model: whose vision tower encodes.

    Raises:
        UsageError: the settings contradict each other, or the model cannot be used.
        DataError: a record cannot be used, or videos could not be encoded; the others are.
    """
    if model.name_or_path is None:
        raise UsageError("a new model has nothing to encode with: give model.name_or_path=FOLDER, or its Hub id.")
    if encode.root is not None and data.get("root") is not None:
        raise UsageError("encode.root takes all stored frames and data.root those of the rows: give one of them.")
    # Before a model is downloaded: a wrong folder is then told at once.
    stored = None if encode.root is None else videos_below(Path(encode.root))
    prepare_text_half(model)
    processor = build_processor(model, [])
    if stored is None:
        videos, reader, cache_dir = videos_of_rows(data, processor)
        failures: list[str] = []
    else:
        videos, failures = stored
        reader = FrameReader(Path(str(encode.root)), "store", processor, keep=False)
        cache_dir = Path(data.get("cache_dir", DataArguments.cache_dir))
    number, count = encode.part()
    number, count = number * processes() + process_number(), count * processes()
    own = dealt(videos, number, count)

    built = load_whole(model, processor).to(own_device()).eval()
    expected = fingerprint(built, processor, reader.frames, encode.dtype, encode.autocast)
    cache = cache_dir / "features"
    features = FrameFeatures(cache / expected.digest, reader, expected, KnownHashes(cache / HASHES_FILE))
    settings = Settings(encode.frames_per_pass, encode.threads, encode.autocast, skip=True)
    part = f"Part {number + 1} of {count}: " if count > 1 else ""
    if encode.dry_run:
        say(part + plan(built, features, own, settings, count))
        return
    summary = encode_videos(built, features, own, settings)
    say(part + summary_line(summary, features.folder))
    failures = [*failures, *summary.failures]
    if failures:
        listed = " ".join(failures[:LISTED])
        raise DataError(f"{len(failures)} videos could not be encoded, all others of this part are: {listed}")


def videos_of_rows(data: Mapping[str, Any], processor: DSTSmolVLMProcessor) -> tuple[list[Video], FrameReader, Path]:
    """The videos of the rows of ``data``, the reader of their pictures, and the cache folder."""
    settings = parse(DataArguments, data, "data")
    if settings.features is not None:
        raise UsageError("data.features is read and not written: leave it out; features go to data.cache_dir.")
    if settings.streaming:
        raise UsageError("data.streaming does not tell before its end which frames are needed: leave it out.")
    reader = FrameReader(Path(str(settings.root)), settings.frames, processor, keep=False)
    cache_dir = Path(settings.cache_dir)
    # One process at a time, also of the parts on other machines: the first one writes the rows.
    with sole_writer(cache_dir / "features", wait=True):
        sessions = load_splits(settings).sessions
    return videos_of(sessions, reader), reader, cache_dir


def own_device() -> torch.device:
    """The device of this process: of several, each takes another accelerator; the CPU where there is none."""
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return torch.device(kind.type, process_number(local=True) % torch.accelerator.device_count())


def summary_line(summary: Summary, folder: Path) -> str:
    """For example ``40 videos encoded (12 were there): 3,210 frames, 7.4 MB in 12 s, 267.5 frames/s ...: FOLDER``."""
    done = f"{summary.videos:,} videos encoded ({summary.held_videos:,} were there)"
    if summary.frames:
        waited = 100 * summary.waited / summary.seconds
        done += (
            f": {summary.frames:,} frames, {size(summary.bytes)} in {clock(summary.seconds)}, {summary.rate:.1f} "
            f"frames/s; the model waited for pictures {waited:.0f} % of the time"
        )
    return f"{done}. Features: {folder}"


def plan(
    model: DSTSmolVLMForConditionalGeneration,
    features: FrameFeatures,
    videos: Sequence[Video],
    settings: Settings,
    parts: int,
) -> str:
    """What an encoding would do: videos, frames, bytes by tokens a frame, memory, and hours at a measured rate."""
    wanted = missing(features, videos)
    frames, rest = (sum(len(video.frames) for video in some) for some in (videos, wanted))
    expected, processor = features.expected, features.reader.processor
    lines = [
        f"{len(videos):,} videos, {frames:,} unique frames; {len(videos) - len(wanted):,} videos are encoded already.",
        f"To encode: {rest:,} frames, {expected.tokens} tokens x {expected.hidden} in {expected.dtype}: "
        f"{size(rest * feature_bytes(expected.tokens, expected.hidden, expected.dtype))}, into {features.folder}",
        f"Pixels in memory: at most {size(settings.pixel_bytes(processor.frame_size))}.",
    ]
    if rest:
        tower, decoding = measured_rates(model, processor, wanted[0], settings)
        rate = min(tower, decoding * settings.threads)
        hours = rest / rate / 3600
        of_parts = f", the share of one of {parts} processes." if parts > 1 else "."
        lines.append(
            f"Measured on the first pass: vision tower {tower:.1f} frames/s, decoding and preparing {decoding:.1f} "
            f"frames/s a thread: {hours:.2f} hours{of_parts}"
        )
    rows = [["tokens a frame", *TYPES]]
    whole = model.config.grid_side**2
    for tokens in (*(count for count in (1, 4, 9, 16) if count < whole), whole):
        rows.append([str(tokens), *(size(frames * feature_bytes(tokens, expected.hidden, name)) for name in TYPES)])
    return "\n".join([*lines, "", f"Size of all {frames:,} frames:", table(rows)])


def measured_rates(
    model: DSTSmolVLMForConditionalGeneration, processor: DSTSmolVLMProcessor, video: Video, settings: Settings
) -> tuple[float, float]:
    """Frames a second of the vision tower, and of reading and preparing in one thread, measured on a first pass."""
    begin = video.frames.start
    end = min(begin + settings.frames_per_pass, video.frames.stop)
    started = time.perf_counter()
    pixels = processor.pixel_values(video.read(begin, end))
    prepared = time.perf_counter()
    encode_pass(model, pixels[:1], settings.autocast)  # the first pass of a process is slow
    warm = time.perf_counter()
    encode_pass(model, pixels, settings.autocast)
    done = time.perf_counter()
    return (end - begin) / (done - warm), (end - begin) / (prepared - started)


def size(count: float) -> str:
    """Bytes in words: ``7.4 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"
