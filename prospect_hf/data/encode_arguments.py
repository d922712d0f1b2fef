"""What can be set about encoding frames: the ``encode`` group of ``scripts/encode_frames.py``."""

from __future__ import annotations

from dataclasses import dataclass

from prospect_hf.errors import UsageError
from prospect_hf.workers import shard_of

TYPES = ("float32", "float16", "bfloat16")


@dataclass
class EncodeArguments:
    """Which frames are encoded, and how. Without ``root`` they are those of the rows of the ``data`` group.

    Args:
        root: a folder: all stored frames below it (``.arrow`` files, folders of pictures, videos) are encoded whole.
        dtype: type of the stored features: ``float32`` (what training itself writes and finds), ``float16`` or
            ``bfloat16`` (half the size; name the folder in ``data.features``).
        autocast: compute in automatic mixed precision, ``bfloat16`` or ``float16``; unset: in the model's own type.
        frames_per_pass: frames that are decoded and given to the model at a time.
        threads: threads that decode and prepare frames ahead of the model.
        shard: ``I/N``: this run is part I of N (from 1), each with about as many frames. Each part may be started with
            torchrun or accelerate launch, whose processes share it.
        dry_run: write no features: print the plan, with the hours at a rate that is measured on the first pass.
    """

    root: str | None = None
    dtype: str = "float32"
    autocast: str | None = None
    frames_per_pass: int = 64
    threads: int = 2
    shard: str = "1/1"
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in TYPES:
            raise UsageError(f"encode.dtype must be one of {', '.join(TYPES)}, not {self.dtype!r}.")
        if self.autocast not in (None, "bfloat16", "float16"):
            raise UsageError(f"encode.autocast must be bfloat16, float16 or null, not {self.autocast!r}.")
        for name in ("frames_per_pass", "threads"):
            if vars(self)[name] < 1:
                raise UsageError(f"encode.{name} must be 1 or more, not {vars(self)[name]}.")
        self.part()

    def part(self) -> tuple[int, int]:
        """``shard`` as (number from 0, count).

        Raises:
            UsageError: it is not ``I/N`` with I from 1 to N.
        """
        return shard_of(self.shard, "encode.shard")
