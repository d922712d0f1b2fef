"""The quality part of ``streaming.py``: context strategies on sessions that exceed the context limit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from streaming_sessions import Session, rotated

from context_dst_smolvlm import STRATEGIES, Context
from modeling_dst_smolvlm import Decoding
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration as Model
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.evaluation.predictions import Prediction, prediction_of
from prospect_hf.evaluation.score import score
from streaming_dst_smolvlm import StreamBatch, StreamEvent

# The context limit in tokens. A session has 245 to 560 tokens, its prompt 80 to 110; one frame with its texts adds up
# to 60.
WINDOW = {"max_tokens": 288, "keep_tokens": 64, "summary_tokens": 24}
WRITTEN = 24


class CutBatch(StreamBatch):
    """A batch of one stream that records its input without the tokens cut by ``drop_middle``, to recompute it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ids: list[int] = []
        self.image_features: list[torch.Tensor] = []  # [hidden] for each <image> token in ids

    def _forward(
        self, rows: slice, ids: Sequence[Sequence[int]], features: Sequence[torch.Tensor], **reads: Any
    ) -> Any:
        self.ids.extend(ids[0])
        self.image_features.extend(features)
        return super()._forward(rows, ids, features, **reads)

    def forget(self, event: StreamEvent) -> None:
        """Remove the tokens that ``drop_middle`` cut before the frame of ``event``, the latest frame."""
        assert event.context is not None
        head = self.rows[0].head_length
        removed = event.context.tokens_before - event.context.tokens_after
        image = self.processor.image_id
        before, cut = self.ids[:head].count(image), self.ids[head : head + removed].count(image)
        del self.ids[head : head + removed], self.image_features[before : before + cut]

    @torch.inference_mode()
    def recomputed(self, frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """p(speak), p(update) ``[frames]``, p(state) ``[frames, steps, 3]`` of the last ``frames``, in one new pass."""
        row = self.rows[0]
        places = [place for place, token in enumerate(self.ids) if token == self.processor.image_id][-frames:]
        output = self.model(
            input_ids=torch.tensor([self.ids]),
            frame_features=torch.stack(self.image_features)[:, None],
            frame_positions=torch.tensor([places]),
            step_positions=torch.tensor([row.task.prompt(self.processor, row.first_states).step_positions]),
            use_cache=False,
            logits_to_keep=1,
        )
        speak, update = output.speaking_logits[0].softmax(-1)[:, 1], output.dst_update_logits[0].softmax(-1)[:, 1]
        return speak, update, output.dst_state_logits[0].softmax(-1)


def cut_difference(model: Model, processor: DSTSmolVLMProcessor, sessions: Sequence[Session]) -> str:
    """Compare the decisions after a cut with those of a new pass over the kept tokens (1 token per frame)."""
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
        f"drop_middle against a new pass over the kept tokens, on {every.shape[1]} frames after the last cut of "
        f"{len(differences)} sessions: the largest differences are {', '.join(parts)}; the speaking or update decision "
        f"differs on {flips} frames."
    )


def quality(model: Model, processor: DSTSmolVLMProcessor, sessions: Sequence[Session]) -> list[list[str]]:
    """The table of the context strategies on held-out sessions that exceed the limit, one stream at a time."""
    rows = [
        [
            "strategy",
            "limit",
            "overflows per session",
            "speaking F1",
            "DST-update F1",
            "joint state accuracy",
            "joint accuracy, tracked",
            "transition F1",
            "BLEU",
            "distance, s",
            "ms per frame",
            "ms per overflow",
        ]
    ]
    contexts = {name: Context(name) if name == "none" else Context(name, **WINDOW) for name in STRATEGIES}
    traces: dict[str, list[Prediction]] = {name: [] for name in STRATEGIES}
    overflows: dict[str, list[float]] = {name: [] for name in STRATEGIES}
    seconds = dict.fromkeys(STRATEGIES, 0.0)
    # The strategies alternate and take turns in running first, so that other load affects all of them.
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
