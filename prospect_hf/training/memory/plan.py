"""Whether a training setting fits a GPU, the largest one that does, and which knob to turn where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from prospect_hf.training.memory.arguments import gibibytes
from prospect_hf.training.memory.batch import BatchSize
from prospect_hf.training.memory.step import Setting, Traced, trace

SEQ_STEP, LARGEST_BATCH = 128, 64
Peak = Callable[[int], int]


@dataclass(frozen=True)
class Plan:
    """An estimate of a setting's memory against that of a GPU.

    Args:
        traced: the step at the setting's own sizes.
        memory: of the GPU, in bytes.
        allowance: what is kept free for the CUDA context and fragmentation, in bytes.
        longest: the largest max_seq_len that fits at this batch, None: not even the shortest clip; the next figure at
            this length is the largest batch.
    """

    setting: Setting
    traced: Traced
    memory: int
    allowance: int
    longest: int | None = None
    largest_batch: int | None = None

    @property
    def total(self) -> int:
        """The estimated peak and the allowance, in bytes."""
        return self.traced.peak + self.allowance

    @property
    def fits(self) -> bool:
        """Whether the estimate is within the GPU's memory."""
        return self.total <= self.memory


def make_plan(setting: Setting, size: BatchSize, memory: int, allowance: int) -> Plan:
    """Trace ``setting`` at ``size``."""
    return Plan(setting, trace(setting, size), memory, allowance)


def with_largest(plan: Plan) -> Plan:
    """The plan with the largest length and the largest batch that fit, each beside the other one as it is."""
    budget, size = plan.memory - plan.allowance, plan.traced.size
    config = plan.setting.config
    step_alone = replace(plan.setting, encoded=True)  # encoding frames takes the same for every batch

    def peak_of_seq(seq: int) -> int:
        return max(trace(step_alone, replace(size, seq=seq)).peak, plan.traced.encoding_peak)

    def peak_of_batch(batch: int) -> int:
        return max(trace(step_alone, replace(size, batch=batch)).peak, plan.traced.encoding_peak)

    least = -(-size.least_seq(config.stream_tokens) // SEQ_STEP) * SEQ_STEP
    known = plan.traced.peak
    return replace(
        plan,
        longest=largest_fitting(
            peak_of_seq, budget, least, config.text_config.max_position_embeddings, SEQ_STEP, {size.seq: known}
        ),
        largest_batch=largest_fitting(peak_of_batch, budget, 1, LARGEST_BATCH, 1, {size.batch: known}),
    )


def largest_fitting(peak: Peak, budget: int, least: int, most: int, step: int, known: dict[int, int]) -> int | None:
    """The largest of ``least, least + step, ...`` up to ``most`` whose peak is within ``budget``; None: there is none.

    ``peak`` grows with its argument. It is almost affine, so a straight line between two known points tells where to
    look next, and few points are traced.

    Args:
        known: peaks that are known already.
    """
    most = least + (most - least) // step * step
    peaks = {at: value for at, value in known.items() if least <= at <= most and (at - least) % step == 0}

    def at(place: int) -> int:
        if place not in peaks:
            peaks[place] = peak(place)
        return peaks[place]

    fitting = [place for place in peaks if peaks[place] <= budget]
    low = max(fitting, default=least)
    if at(low) > budget:
        return None
    over = [place for place in peaks if peaks[place] > budget]
    high = min(over, default=most)
    if at(high) <= budget:
        return high
    narrowed = False
    while high - low > step:
        share = (budget - at(low)) / (at(high) - at(low))
        guess = low + int(share * (high - low) / step) * step
        if narrowed and guess == low:
            guess = low + step  # a point just below the line's: is it the last one?
        middle = min(max(guess, low + step), high - step)
        narrowed = True
        if at(middle) <= budget:
            low = middle
        else:
            high = middle
    return low


def knobs(plan: Plan, may_change_mode: bool) -> list[str]:
    """Settings that fit in place of one that does not, each with its estimate, the least costly first.

    Args:
        may_change_mode: the model is a checkpoint, whose adapters can be trained in its stead.
    """
    args, size = plan.setting.args, plan.traced.size
    found = []

    def tried(setting: Setting, words: str) -> None:
        total = trace(setting, size).peak + plan.allowance
        if total <= plan.memory:
            found.append(f"{words} (estimated {gibibytes(total)})")

    if not args.activation_checkpointing:
        tried(_with(plan.setting, activation_checkpointing=True), "training.activation_checkpointing=true")
    if plan.largest_batch is not None and plan.largest_batch < size.batch:
        steps = -(-size.batch * args.gradient_accumulation_steps // plan.largest_batch)
        found.append(
            f"training.per_device_train_batch_size={plan.largest_batch} training.gradient_accumulation_steps={steps}"
        )
    if plan.longest is not None and plan.longest < size.seq:
        found.append(f"data.max_seq_len={plan.longest}")
    if may_change_mode and args.mode == "full":
        tried(_with(plan.setting, mode="lora", activation_checkpointing=True), "training=lora")
    if may_change_mode and args.mode in ("full", "lora"):
        tried(_with(plan.setting, mode="qlora", activation_checkpointing=True), "training=qlora")
    return found


def _with(setting: Setting, **changes: Any) -> Setting:
    return replace(setting, args=replace(setting.args, **changes))


def refusal(plan: Plan, may_change_mode: bool) -> str:
    """One sentence for a setting that does not fit: by how much, and what to set."""
    size = plan.traced.size
    found = knobs(plan, may_change_mode)
    advice = f"set {', or '.join(found)}" if found else "take a smaller model, or a GPU with more memory"
    return (
        f"training does not fit on this GPU: batches of {size.batch} x {size.seq} tokens take {gibibytes(plan.total)} "
        f"(estimated, {gibibytes(plan.allowance)} of it for context and fragmentation), and "
        f"{gibibytes(plan.memory)} are free: {advice}; prospect plan-memory shows the parts, and "
        "training.memory_check=false trains all the same."
    )


def relief(plan: Plan) -> str:
    """What to set after the GPU's memory ran out although the plan fitted: half of the batch, or of the length."""
    size, args = plan.traced.size, plan.setting.args
    if size.batch > 1:
        batch = size.batch // 2
        steps = -(-size.batch * args.gradient_accumulation_steps // batch)
        knob = f"training.per_device_train_batch_size={batch} training.gradient_accumulation_steps={steps}"
    elif not args.activation_checkpointing:
        knob = "training.activation_checkpointing=true"
    else:
        knob = f"data.max_seq_len={size.seq // 2}"
    return (
        f"the plan estimated {gibibytes(plan.total)} of {gibibytes(plan.memory)} for batches of {size.batch} x "
        f"{size.seq} tokens; set {knob}"
    )
