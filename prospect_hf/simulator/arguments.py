"""What can be set about simulating: an example clip, or a whole corpus."""

from __future__ import annotations

from dataclasses import dataclass, field

from prospect_hf.errors import UsageError
from prospect_hf.simulator.corpus import SPLITS
from prospect_hf.simulator.flavours import FLAVOURS


@dataclass
class SimulateArguments:
    """What is simulated: give ``clip`` or ``root``. The scenes are those of ``configs/data/simulated.yaml``.

    Args:
        clip: an ``.mp4`` file; one session is written as a video, its plan beside it (``clip.plan.txt``).
        root: a folder; a corpus is written there as ``processed_data``.
        source: whose looks and words; by default wtag for a clip, all six sources for a corpus.
        seed: by default 22 for a clip (a short session in which much happens) and 0 for a corpus.
        recordings: of a corpus, for each source: train, val, test; by default 300, 6 and 8.
    """

    clip: str | None = None
    root: str | None = None
    source: str | None = None
    seed: int | None = None
    recordings: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.clip is None) == (self.root is None):
            raise UsageError("Give simulate.clip=FILE.mp4 for a clip or simulate.root=FOLDER for a corpus, not both.")
        if self.clip is not None and not self.clip.lower().endswith(".mp4"):
            raise UsageError(f"simulate.clip={self.clip}: a clip is an MP4 file, so end its name with .mp4.")
        if self.clip is not None and self.recordings:
            raise UsageError("simulate.recordings belongs to a corpus: leave it out with simulate.clip.")
        if self.source is not None and self.source not in FLAVOURS:
            raise UsageError(f"simulate.source must be one of {', '.join(FLAVOURS)}, not {self.source!r}.")
        for split, count in self.recordings.items():
            if split not in SPLITS or count < 1:
                raise UsageError(
                    f"simulate.recordings.{split}={count}: give {', '.join(SPLITS)} a count of 1 or more each."
                )
