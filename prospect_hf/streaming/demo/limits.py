"""What one visitor of the demo may take: a public page is visited by more people than its machine can serve."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prospect_hf.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Limits of the demo; a visitor who reaches one is told so in one sentence.

    Args:
        streams: streams that run at the same time; the next visitor is asked to come back later.
        minutes: that a stream may run, on the clock.
        video_minutes: of a video that are followed.
        upload_mb: size of an uploaded video, in megabytes.

    Raises:
        UsageError: a limit is not above 0.
    """

    streams: int = 8
    minutes: float = 30.0
    video_minutes: float = 60.0
    upload_mb: int = 500

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} {value}: give a number above 0.")
