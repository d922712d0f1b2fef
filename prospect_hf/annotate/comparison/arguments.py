"""What can be set about comparing label sets: the ``compare_dst`` group of ``scripts/compare_dst.py``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prospect_hf.errors import UsageError
from prospect_hf.sessions import MONOTONE, REOPEN


@dataclass
class CompareDstArguments:
    """Which label sets are compared, and what is shown.

    Args:
        a: the first label set, the truth where one of them is: a folder of label files, as ``data.dst_root`` takes it
            or as ``prospect annotate`` writes it, a corpus whose records have labels, or one JSON or JSON-lines file.
            ``PATH#KEY`` takes the labels at another key than ``dst``.
        b: the second label set.
        root: a corpus, the folder that holds ``processed_data``: gives plans, annotation lines and lengths of videos
            where the label files lack them.
        output_dir: where the page, the figures and the table are written.
        state_rule: what several spans of one step mean: ``reopen``, the step is completed after each, as training on
            label files takes them; ``monotone``, it is in progress from its first start to its last end.
        worst: videos whose timelines the page holds, those that agree least.
        best: the same of those that agree most.
        videos: ids of videos whose timelines the page holds besides those.
    """

    a: str | None = None
    b: str | None = None
    root: str | None = None
    output_dir: str = "outputs/compare_dst"
    state_rule: str = REOPEN
    worst: int = 100
    best: int = 20
    videos: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.a or not self.b:
            raise UsageError("Give two label sets: prospect compare-dst A B, or compare_dst.a=A compare_dst.b=B.")
        if self.state_rule not in (REOPEN, MONOTONE):
            raise UsageError(f"compare_dst.state_rule={self.state_rule} must be {REOPEN} or {MONOTONE}.")
        for name, number in (("worst", self.worst), ("best", self.best)):
            if number < 0:
                raise UsageError(f"compare_dst.{name}={number} must be 0 or more.")
        if self.root is not None and not Path(self.root).is_dir():
            raise UsageError(f"compare_dst.root={self.root} is no folder; give the one that holds processed_data.")
