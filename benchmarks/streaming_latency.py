"""The latency part of ``streaming.py``: one stream over an hour of video."""

from __future__ import annotations

import math
import os
import statistics
import time
from pathlib import Path

import numpy as np
from streaming_sessions import Session, markdown, rotated

from context_dst_smolvlm import Context
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration as Model
from processing_dst_smolvlm import DSTSmolVLMProcessor
from streaming_dst_smolvlm import DSTStream

# The frames around which latency is measured.
PLACES = (200, 3500)
# Rows (key, label, unit) of the table around PLACES, and of the table over the whole stream.
NEAR = (
    ("silent", "a silent frame, median", " ms"),
    ("median", "all frames, median", " ms"),
    ("mean", "all frames, mean", " ms"),
    ("token", "a token of a text, median", " ms"),
    ("words", "tokens of texts per frame, mean", ""),
    ("held", "tokens in the cache, mean", ""),
)
WHOLE = (
    ("p99", "99th percentile of all frames", " ms"),
    ("busy", "frames with a text, a state change or an overflow", " %"),
    ("overflows", "overflows", ""),
    ("overflow", "shortening the context, median", " ms"),
    ("slope", "growth of the process per 1,000 frames, without the first 1,200", " KiB"),
    ("cache", "KV cache at the end", " MiB"),
)


def resident_kib() -> float:
    """Resident memory of this process, in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def hour(
    model: Model, processor: DSTSmolVLMProcessor, session: Session, strategy: str, frames: int
) -> dict[str, float]:
    """The figures of one long stream, by the keys of ``NEAR`` (with the place) and ``WHOLE``."""
    task = session.task
    limit = min(2048, model.config.text_config.max_position_embeddings)
    stream = DSTStream(model, processor, task.plan, task.goal, context=Context(strategy, max_tokens=limit))
    # Allocated in advance, so that recording does not add to the measured growth of memory.
    times, silent, overflow = np.zeros(frames), np.zeros(frames, bool), np.zeros(frames)
    held, words, token = np.zeros(frames), np.zeros(frames), np.full(frames, np.nan)
    memory = np.zeros(frames // 100)
    for frame in range(frames):
        place = frame % len(session.features)
        started = time.perf_counter()
        event = stream.step(session.features[place], session.user_texts[place])
        times[frame] = 1000 * (time.perf_counter() - started)
        silent[frame] = event.text is None and not event.transitions and not event.user_text and event.context is None
        overflow[frame] = 1000 * event.latency["context"]
        held[frame] = event.cache_length
        if event.text is not None:
            words[frame] = len(processor.tokenizer(event.text).input_ids)
            token[frame] = 1000 * event.latency["write"] / words[frame]
        if frame % 100 == 99:
            memory[frame // 100] = resident_kib()
    facts: dict[str, float] = {}
    for place in PLACES:
        near = slice(place - 100, place + 100)
        tokens = token[near][~np.isnan(token[near])]
        facts |= {
            f"silent {place}": float(np.median(times[near][silent[near]])),
            f"median {place}": float(np.median(times[near])),
            f"mean {place}": float(times[near].mean()),
            f"token {place}": float(np.median(tokens)) if len(tokens) else math.nan,
            f"words {place}": float(words[near].mean()),
            f"held {place}": float(held[near].mean()),
        }
    late = memory[len(memory) // 6 :]  # the last 6,000 of 7,200 frames
    return facts | {
        "p99": float(np.percentile(times, 99)),
        "busy": float(100 * (1 - silent.mean())),
        "overflows": float((overflow > 0).sum()),
        "overflow": float(np.median(overflow[overflow > 0])) if (overflow > 0).any() else 0.0,
        "slope": float(10 * np.polyfit(np.arange(len(late)), late, 1)[0]),
        "cache": stream.batch.cache.nbytes() / 2**20,
    }


def latency(model: Model, processor: DSTSmolVLMProcessor, session: Session, frames: int, repeats: int) -> str:
    """The tables of the latency part: medians over ``repeats`` runs; the strategies alternate."""
    strategies = ["summarize_with_dst", "drop_middle"]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in strategies}
    for number in range(repeats):
        for name in rotated(strategies, number):
            found[name].append(hour(model, processor, session, name, frames))
    near = [["strategy", *(f"frames {place - 100} to {place + 100}" for place in PLACES), "ratio"]]
    whole = [["", *strategies]]
    for name, runs in found.items():
        for key, words, unit in NEAR:
            early, late = (statistics.median(run[f"{key} {place}"] for run in runs) for place in PLACES)
            ratios = [
                run[f"{key} {PLACES[1]}"] / run[f"{key} {PLACES[0]}"] for run in runs if run[f"{key} {PLACES[0]}"]
            ]
            ratio = f"{statistics.median(ratios):.2f} x" if ratios else ""
            near.append([f"{name}: {words}", f"{early:.2f}{unit}", f"{late:.2f}{unit}", ratio])
    for key, words, unit in WHOLE:
        values = [statistics.median(run[key] for run in found[name]) for name in strategies]
        whole.append([words, *(f"{value:.2f}{unit}" for value in values)])
    return f"{frames} frames, {repeats} runs of each\n\n{markdown(near)}\n\n{markdown(whole)}"
