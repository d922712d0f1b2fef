"""What ``streaming.py`` measures with: models, sessions, Markdown tables; and its quality part.

python benchmarks/streaming.py --parts quality
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from context_dst_smolvlm import STRATEGIES, Context
from modeling_dst_smolvlm import Decoding
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration as Model
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.predictions import Prediction, prediction_of
from prospect_hf.evaluation.score import score
from streaming_dst_smolvlm import DSTStream, StreamBatch, StreamEvent, StreamInput, Task

# The window of the quality part, in tokens: a session takes 245 to 560, its prompt 80 to 110, what may follow from a
# frame 50 to 60.
WINDOW = {"max_tokens": 288, "keep_tokens": 64, "summary_tokens": 24}
WRITTEN = 24
# Of the latency part: key, words and unit of its rows, near two places of the stream and over the whole of it.
PLACES = (200, 3500)
NEAR = (
    ("silent", "a silent frame, median", " ms"),
    ("median", "all frames, median", " ms"),
    ("mean", "all frames, mean", " ms"),
    ("token", "a token of a text, median", " ms"),
    ("words", "tokens of texts a frame, mean", ""),
    ("held", "tokens in the cache, mean", ""),
)
WHOLE = (
    ("p99", "99th percentile of all frames", " ms"),
    ("busy", "frames with words, a move or an overflow", " %"),
    ("overflows", "overflows", ""),
    ("overflow", "making room, median", " ms"),
    ("slope", "growth of the process a 1,000 frames, first 1,200 left out", " KiB"),
    ("cache", "KV cache at the end", " MiB"),
)


@dataclass(frozen=True)
class Session:
    """What a stream is shown.

    Args:
        task: plan and goal.
        features: ``[frames, tokens, hidden]``.
        user_texts: ``[frames]``, "" where the user says nothing.
        rows: the labels, None where there are none.
    """

    task: Task
    features: torch.Tensor
    user_texts: Sequence[str]
    rows: SessionRows | None = None

    def inputs(self) -> Iterator[StreamInput]:
        """The frames in order."""
        for feature, text in zip(self.features, self.user_texts, strict=True):
            yield StreamInput(feature, text)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


@contextmanager
def one_thread() -> Iterator[None]:
    """The small model runs on one: two gain nothing there, and each waits for the other where others use the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rotated(names: Sequence[str], number: int) -> list[str]:
    """``names``, beginning with another one each time."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def in_turn(
    sides: Mapping[str, Callable[[], object]], repeats: int, before: Mapping[str, Callable[[], object]] | None = None
) -> dict[str, float]:
    """Median seconds of each side, run in turn, each first in its share of the rounds; one round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + 1):
        for name in rotated(list(sides), number):
            if before is not None and name in before:
                before[name]()
            started = time.perf_counter()
            sides[name]()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


@torch.inference_mode()
def load_trained(
    folder: Path,
) -> tuple[Model, DSTSmolVLMProcessor, list[Session]]:
    """The model in a folder that ``scripts/train.py`` wrote, and the held-out sessions of its data."""
    # Imported after main() has silenced logging: bitsandbytes, which comes with it, warns of a kernel nobody needs.
    from prospect_hf.data.arguments import DataArguments
    from prospect_hf.data.corpus import prepare_rows, split_sessions

    data = DataArguments(**json.loads((folder / "results.json").read_text())["settings"]["data"])
    model = Model.from_pretrained(folder).eval()
    processor = DSTSmolVLMProcessor.from_pretrained(folder)
    reader = FrameReader(Path(str(data.root)), data.frames, processor)
    sessions = []
    for rows in split_sessions(prepare_rows(data), "test"):
        features = model.encode_frames(reader.inputs(rows, 0, len(rows))["pixel_values"])
        texts = [rows.item(frame).user_text for frame in range(len(rows))]
        sessions.append(Session(Task(rows.steps, rows.goal, say_states=rows.labelled), features, texts, rows))
    return model, processor, sessions


# -- latency -----------------------------------------------------------------------------------------------------------


def resident_kib() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def hour(
    model: Model, processor: DSTSmolVLMProcessor, session: Session, strategy: str, frames: int
) -> dict[str, float]:
    """One long stream: times in ms, memory in KiB a 1,000 frames and MiB."""
    task = session.task
    limit = min(2048, model.config.text_config.max_position_embeddings)
    stream = DSTStream(model, processor, task.plan, task.goal, context=Context(strategy, max_tokens=limit))
    # Allocated before: what is measured does not grow by being measured.
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
    """The tables of the hour: medians over repeats, strategies in turn."""
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


# -- quality -----------------------------------------------------------------------------------------------------------


class CutBatch(StreamBatch):
    """A batch of one that keeps what it was fed, less what ``drop_middle`` took out, to feed it once more."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ids: list[int] = []
        self.shown: list[torch.Tensor] = []  # [hidden], of the <image> places among ids

    def _forward(
        self, rows: slice, ids: Sequence[Sequence[int]], features: Sequence[torch.Tensor], **reads: Any
    ) -> Any:
        self.ids.extend(ids[0])
        self.shown.extend(features)
        return super()._forward(rows, ids, features, **reads)

    def forget(self, event: StreamEvent) -> None:
        """Take out what ``drop_middle`` has cut before the frame of ``event``, which is the last that was fed."""
        assert event.context is not None
        head = self.rows[0].head_length
        removed = event.context.tokens_before - event.context.tokens_after
        image = self.processor.image_id
        before, gone = self.ids[:head].count(image), self.ids[head : head + removed].count(image)
        del self.ids[head : head + removed], self.shown[before : before + gone]

    @torch.inference_mode()
    def recomputed(self, frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """p(speak), p(update) ``[frames]``, p(state) ``[frames, steps, 3]`` of the last frames, in one new pass."""
        row = self.rows[0]
        places = [place for place, token in enumerate(self.ids) if token == self.processor.image_id][-frames:]
        output = self.model(
            input_ids=torch.tensor([self.ids]),
            frame_features=torch.stack(self.shown)[:, None],
            frame_positions=torch.tensor([places]),
            step_positions=torch.tensor([row.task.prompt(self.processor, row.first_states).step_positions]),
            use_cache=False,
            logits_to_keep=1,
        )
        speak, update = output.speaking_logits[0].softmax(-1)[:, 1], output.dst_update_logits[0].softmax(-1)[:, 1]
        return speak, update, output.dst_state_logits[0].softmax(-1)


def cut_difference(model: Model, processor: DSTSmolVLMProcessor, sessions: Sequence[Session]) -> str:
    """How far decisions after a cut are from those of the kept tokens read anew (1 token a frame)."""
    differences: list[torch.Tensor] = []
    flips = 0
    for session in sessions:
        batch = CutBatch(model, processor, [session.task], Context("drop_middle", **WINDOW), decoding=Decoding(WRITTEN))
        since: list[StreamEvent] | None = None  # events since the last cut
        for _, event in batch.run([session.inputs()]):
            if event.context is not None:
                batch.forget(event)
                since = []
            if since is not None:
                since.append(event)
        if since:
            speak, update, states = batch.recomputed(len(since))
            gaps = torch.stack(
                [
                    (torch.tensor([event.p_speak for event in since]) - speak).abs(),
                    (torch.tensor([event.p_update for event in since]) - update).abs(),
                    (torch.tensor([event.probabilities for event in since]) - states).abs().amax((1, 2)),
                ]
            )
            differences.append(gaps)
            flips += sum(
                (event.p_speak >= batch.speaking_threshold) != (p_speak >= batch.speaking_threshold)
                or (event.p_update >= batch.dst_update_threshold) != (p_update >= batch.dst_update_threshold)
                for event, p_speak, p_update in zip(since, speak.tolist(), update.tolist(), strict=True)
            )
    if not differences:
        return "No session was cut."
    every = torch.cat(differences, dim=1)
    parts = [
        f"p({name}) {float(gaps.max()):.3f} (median {float(gaps.median()):.1e}, mean {float(gaps.mean()):.1e})"
        for name, gaps in zip(("speak", "update", "state"), every, strict=True)
    ]
    return (
        f"A cut by drop_middle against its kept tokens read anew, {every.shape[1]} frames after the last cut of "
        f"{len(differences)} sessions: the largest differences are {', '.join(parts)}; speaking or update is decided "
        f"otherwise on {flips} frames."
    )


def quality(model: Model, processor: DSTSmolVLMProcessor, sessions: Sequence[Session]) -> list[list[str]]:
    """The table of the strategies: held-out sessions that do not fit into the window, one stream at a time."""
    rows = [
        [
            "strategy",
            "window",
            "overflows a session",
            "speaking F1",
            "DST-update F1",
            "joint state accuracy",
            "of the table",
            "transition F1",
            "BLEU",
            "distance, s",
            "ms a frame",
            "ms an overflow",
        ]
    ]
    contexts = {name: Context(name) if name == "none" else Context(name, **WINDOW) for name in STRATEGIES}
    traces: dict[str, list[Prediction]] = {name: [] for name in STRATEGIES}
    overflows: dict[str, list[float]] = {name: [] for name in STRATEGIES}
    seconds = dict.fromkeys(STRATEGIES, 0.0)
    # In turn, and each first in every fifth session, so that none has the quieter machine.
    for number, session in enumerate(sessions):
        for name in rotated(STRATEGIES, number):
            batch = StreamBatch(model, processor, [session.task], contexts[name], decoding=Decoding(WRITTEN))
            started = time.perf_counter()
            events = [event for _, event in batch.run([session.inputs()])]
            seconds[name] += time.perf_counter() - started
            overflows[name].extend(event.latency["context"] for event in events if event.context is not None)
            traces[name].append(prediction_of(events))
    frames = sum(len(session.user_texts) for session in sessions)
    labels = [session.rows for session in sessions if session.rows is not None]
    thresholds = (model.config.speaking_threshold, model.config.dst_update_threshold)
    for name in STRATEGIES:
        metrics, times = score(traces[name], labels, model.config.fps, thresholds), overflows[name]
        rows.append(
            [
                name,
                "no limit" if name == "none" else f"{WINDOW['max_tokens']}",
                f"{len(times) / len(sessions):.1f}",
                f"{metrics['speaking_f1_1s']:.3f}",
                f"{metrics['dst_update_f1_1s']:.3f}",
                f"{metrics['joint_state_accuracy']:.3f}",
                f"{metrics['table_joint_state_accuracy']:.3f}",
                f"{metrics['table_transition_f1_1s']:.3f}",
                f"{metrics['response_bleu']:.1f}",
                f"{metrics['speaking_abs_delay_s']:.2f}",
                f"{1000 * seconds[name] / frames:.2f}",
                f"{1000 * statistics.median(times):.1f}" if times else "",
            ]
        )
    return rows
