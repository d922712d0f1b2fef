"""A plan as tables. Every figure in them is an estimate and says so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from prospect_hf.tables import table
from prospect_hf.training.memory.arguments import PlanArguments, gibibytes
from prospect_hf.training.memory.cards import CARDS
from prospect_hf.training.memory.cost import Corpus, Cost, epoch_cost
from prospect_hf.training.memory.live_bytes import PARTS
from prospect_hf.training.memory.plan import LARGEST_BATCH, Plan
from prospect_hf.training.memory.shapes import PUBLISHED, published_config
from prospect_hf.training.memory.step import ENCODING, Setting, trace

TABLE_TOKENS: tuple[int | str, ...] = (1, 4, 9, "full")
FPS = 2  # of ProAssist's frames


def parts_table(plan: Plan) -> str:
    """The peak by part, with the allowance, against the GPU's memory."""
    rows = [["part", "estimated"]]
    rows += [[part, gibibytes(plan.traced.parts[part])] for part in PARTS if part in plan.traced.parts]
    rows.append(["context and fragmentation (plan.allowance)", gibibytes(plan.allowance)])
    rows.append([f"peak ({plan.traced.phase})", gibibytes(plan.total)])
    rows.append([f"the GPU has; the setting {'fits' if plan.fits else 'does not fit'}", gibibytes(plan.memory)])
    return table(rows)


def facts_table(plan: Plan, arguments: PlanArguments, corpus: Corpus) -> str:
    """The largest setting that fits, and what an epoch takes."""
    traced, setting = plan.traced, plan.setting
    size, args, positions = traced.size, setting.args, setting.config.text_config.max_position_embeddings
    cost: Cost = epoch_cost(setting, traced, corpus, CARDS[arguments.card], arguments.utilisation)
    rows = [
        ["", "estimated"],
        ["parameters", f"{traced.parameters / 1e6:.1f} M"],
        ["of them trained", f"{traced.trained / 1e6:.1f} M"],
        ["tokens of a frame", str(setting.config.stream_tokens)],
        ["batch x tokens", f"{size.batch} x {size.seq}"],
        ["frames of the longest clip", str(size.frames(setting.config.stream_tokens))],
        [
            f"largest data.max_seq_len at batch {size.batch}",
            _largest(plan.longest, positions),
        ],
        [f"largest batch at {size.seq} tokens", _largest(plan.largest_batch, LARGEST_BATCH)],
        ["operations of a batch", f"{traced.step_flops / 1e12:.1f} TFLOP"],
        ["operations of an optimiser step", f"{traced.step_flops * args.gradient_accumulation_steps / 1e12:.1f} TFLOP"],
        [f"frames of an epoch ({corpus.name})", f"{corpus.rows:,}"],
        ["tokens of an epoch", f"{cost.tokens / 1e6:,.1f} M"],
        ["operations of an epoch", f"{cost.flops / 1e15:,.0f} PFLOP"],
        [f"an epoch on {CARDS[arguments.card].name} at {arguments.utilisation:.0%} of its peak", hours(cost.seconds)],
    ]
    if cost.encoding_flops:
        rows.append([f"encoding {corpus.frames:,} frames once, at the same rate", hours(cost.encoding_seconds)])
    return table(rows)


def _largest(value: int | None, limit: int) -> str:
    """A largest value that fits; at the limit of the search, or of the model's positions, more might."""
    return "none" if value is None else f"{value} (the limit)" if value == limit else str(value)


def hours(seconds: float) -> str:
    """Seconds for people: ``3.4 h``, or minutes below an hour."""
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def sizes_rows(plan: Plan) -> Iterator[list[str]]:
    """The rows of the table of the published sizes at each number of tokens a frame, its header first.

    Each row is traced when it is asked for. Mode, batch and length are those of ``plan``. The largest batch follows
    from the straight line through two traced batches.
    """
    size, args = plan.traced.size, plan.setting.args
    yield [
        f"estimated, mode={args.mode}",
        "tokens a frame",
        "frames in a clip",
        "video in a clip",
        f"peak at {size.batch} x {size.seq}",
        f"largest batch at {size.seq}",
    ]
    for name in PUBLISHED:
        for tokens in TABLE_TOKENS:
            setting: Setting = replace(plan.setting, config=published_config(name, tokens))
            first = trace(setting, size)
            second = trace(replace(setting, encoded=True), replace(size, batch=2 * size.batch))
            per_row = (second.step_peak - first.step_peak) / size.batch
            room = plan.memory - plan.allowance
            largest = size.batch + math.floor((room - first.step_peak) / per_row) if first.encoding_peak <= room else 0
            count, frames = setting.config.stream_tokens, size.frames(setting.config.stream_tokens)
            yield [
                name,
                f"{count} ({tokens})" if tokens == "full" else str(count),
                str(frames),
                clip_seconds(frames),
                gibibytes(first.peak + plan.allowance),
                str(largest) if largest >= 1 else "none",
            ]


def clip_seconds(frames: int) -> str:
    """The video that ``frames`` cover."""
    seconds = frames / FPS
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def notes(plan: Plan, arguments: PlanArguments) -> Sequence[str]:
    """What the figures rest on, one sentence each."""
    size = plan.traced.size
    found = [
        f"Estimated from a traced training step, without loading or downloading the model: {size.steps} steps in the "
        f"plan (plan.steps), {arguments.text_tokens:g} text tokens a frame (plan.text_tokens), "
        f"{arguments.labelled:.0%} of them learned (plan.labelled).",
    ]
    if plan.traced.phase == ENCODING:
        found.append("Most memory is taken while frames are encoded, before training begins.")
    if plan.setting.args.look_steps:
        found.append("The first stage (training.look_steps) is not in the plan.")
    if plan.setting.args.attention not in ("eager", "sdpa"):
        found.append("Flash attention takes no more than the traced kernels of torch.")
    return found
