"""What can be set about sampling videos into frame files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prospect_hf.errors import UsageError
from prospect_hf.frames.sampling import CROP, FITS, Sampling
from prospect_hf.sessions import FPS, HIGHEST_FPS, SOURCES
from prospect_hf.workers import shard_of

# ProAssist's frames of assembly101 are turned: its headset cameras lie on their side.
ROTATIONS = {"assembly101": 90}


@dataclass
class SampleArguments:
    """Which videos are sampled, where to, and how the pictures look. The defaults are those of ProAssist's frames.

    Args:
        videos: a folder; all videos below it are sampled.
        root: the folder that holds ``processed_data``; the frames come to ``processed_data/{source}/frames``.
        source: the source of the videos; it decides how the files are named.
        names: a csv file with the columns ``video`` (path below ``videos``) and ``uid`` (the labels' video_uid), where
            the files' own names do not tell it. Videos with the same uid become one frame file, in the file's order.
        fps: frames per second, by presentation time.
        size: width and height of the pictures, in pixels.
        fit: ``crop`` cuts the middle square out, ``pad`` keeps the whole picture between grey bars.
        rotate: degrees, counter-clockwise, by which the upright pictures are turned: 0, 90, 180 or 270; unset: 90 for
            assembly101, 0 for the other sources.
        quality: of the JPEG pictures, 1 to 95.
        max_frames: frames of a video at most; 0: all.
        shard: ``I/N``: this run is part I of N (from 1), each with about as many videos.
        processes: videos that are sampled at the same time; unset: one for each processor.
        on_error: what a video that cannot be read does: ``skip``: it is reported, the others are sampled, and the exit
            code is 1; ``raise``: the run ends.
    """

    videos: str | None = None
    root: str | None = None
    source: str | None = None
    names: str | None = None
    fps: float = FPS
    size: int = 384
    fit: str = CROP
    rotate: int | None = None
    quality: int = 90
    max_frames: int = 0
    shard: str = "1/1"
    processes: int | None = None
    on_error: str = "skip"

    def __post_init__(self) -> None:
        if self.videos is None or self.root is None or self.source is None:
            raise UsageError(
                "Give sample.videos=FOLDER of videos, sample.root=FOLDER that holds processed_data, and sample.source."
            )
        if self.source not in SOURCES:
            raise UsageError(f"sample.source must be one of {', '.join(SOURCES)}, not {self.source!r}.")
        if not 0 < self.fps <= HIGHEST_FPS:
            raise UsageError(f"sample.fps={self.fps} must be above 0 and at most {HIGHEST_FPS:g} frames per second.")
        if self.fit not in FITS:
            raise UsageError(f"sample.fit must be one of {', '.join(FITS)}, not {self.fit!r}.")
        if self.rotate not in (None, 0, 90, 180, 270):
            raise UsageError(f"sample.rotate={self.rotate} must be 0, 90, 180 or 270 degrees.")
        for name, least, most in (
            ("size", 16, 4096),
            ("quality", 1, 95),
            ("max_frames", 0, 10**9),
            ("processes", 1, 1024),
        ):
            value = vars(self)[name]
            if value is not None and not least <= value <= most:
                raise UsageError(f"sample.{name}={value} must be {least} to {most}.")
        if self.on_error not in ("skip", "raise"):
            raise UsageError(f"sample.on_error must be skip or raise, not {self.on_error!r}.")
        self.part()

    def part(self) -> tuple[int, int]:
        """``shard`` as (number from 0, count)."""
        return shard_of(self.shard, "sample.shard")

    def sampling(self) -> Sampling:
        """How the pictures are made."""
        rotate = ROTATIONS.get(str(self.source), 0) if self.rotate is None else self.rotate
        return Sampling(self.fps, self.size, self.fit, rotate, self.quality, self.max_frames)

    def folder(self) -> Path:
        """The source's folder."""
        return Path(str(self.root)) / "processed_data" / str(self.source)
