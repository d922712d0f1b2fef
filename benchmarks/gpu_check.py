"""Does the model stream, cut its cache and train on this device as it should? ``gpu.py`` measures how fast it is.

    PYTHONPATH=. python benchmarks/gpu_check.py                            # on a GPU
    PYTHONPATH=. python benchmarks/gpu_check.py --device cpu --tiny-only   # without one, in under a minute

Needs torch, transformers and the model's own files, nothing to download: a tiny model and one of SmolVLM2-256M's shape
get random weights, wide enough that every decision depends on what was read. Every check runs in float32 and in
bfloat16 and prints one line, with its largest difference and the tolerance.

* streamed = one pass: LM logits, probabilities and decisions of a live stream, and of its tokens read in one pass.
* cached = uncached: logits of a sequence fed in pieces through a KV cache, and without a cache.
* drop_middle: after 20 overflows the stream is in bounds, and the kept keys of the first layer equal recomputed ones.
* batch = alone: 8 streams of several plans on one model, and each on its own.
* training: a forward and a backward pass give every head a finite gradient that is not 0.

Differences of LM logits are root mean squares, relative to the logits' standard deviation; those of probabilities are
maxima; those of keys are maxima, relative to the largest key.

Exit codes: 0 all checks hold, 1 one does not, 2 there is no such device.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from shapes import GOAL, SMOLVLM2_256M, STEPS, TINY, Shape, model_of, pictures_of, processor_of
from transformers import DynamicCache

from context_dst_smolvlm import Context
from decoding_dst_smolvlm import Decoding
from events_dst_smolvlm import StreamEvent, StreamRow
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration as Model
from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem
from streaming_dst_smolvlm import DSTStream, StreamBatch, Task

HEADS = ("speaking_decision_head", "dst_update_head", "dst_state_head", "dst_frame_proj", "dst_step_proj", "lm_head")
NEVER = 2.0  # a threshold that no probability reaches
FRAMES = 40
TEXT = Decoding(max_new_tokens=6)


@dataclass(frozen=True)
class Tolerance:
    """The largest differences that the number format explains: of LM logits, of probabilities, of rotated keys."""

    logits: float
    probabilities: float
    keys: float


TOLERANCES = {torch.float32: Tolerance(1e-3, 1e-3, 1e-4), torch.bfloat16: Tolerance(0.05, 0.1, 0.02)}


class Report:
    """Prints one line a check and remembers whether all hold."""

    def __init__(self) -> None:
        self.failed = 0

    def line(self, holds: bool, name: str, what: str) -> None:
        """One check."""
        self.failed += not holds
        print(f"{'ok  ' if holds else 'FAIL'} {name}: {what}", flush=True)

    def within(self, name: str, **pairs: tuple[float, float]) -> None:
        """Hold (difference, tolerance) pairs against each other; a difference that is not a number fails."""
        parts = [f"{key} {difference:.1e} (<= {most:.0e})" for key, (difference, most) in pairs.items()]
        self.line(all(difference <= most for difference, most in pairs.values()), name, ", ".join(parts))


# -- models -------------------------------------------------------------------------------------------------------


def deciding_model(shape: Shape, processor: DSTSmolVLMProcessor, device: str) -> Model:
    """Random float32 weights; thresholds at the medians of what the model answers."""
    model = model_of(shape, device)
    with torch.no_grad():
        model.dst_state_head.weight -= model.dst_state_head.weight.mean(1, keepdim=True)
    stream = DSTStream(model, processor, STEPS, GOAL, speaking_threshold=NEVER, dst_update_threshold=NEVER)
    events = list(stream.run(pictures_of(shape, 20, seed=9)))
    model.config.speaking_threshold = statistics.median(event.p_speak for event in events)
    model.config.dst_update_threshold = statistics.median(event.p_update for event in events)
    return model


class RecordedBatch(StreamBatch):
    """A batch that keeps the ids, the features and the LM's logits of all that stays in the cache of stream 0."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ids: list[int] = []
        self.shown: list[torch.Tensor] = []  # [hidden], for the <image> tokens among ids
        self.logits: list[torch.Tensor] = []

    def _forward(
        self, rows: slice, ids: Sequence[Sequence[int]], features: Sequence[torch.Tensor], **reads: Any
    ) -> Any:
        asked = reads.pop("logits_to_keep", None)
        output = super()._forward(rows, ids, features, logits_to_keep=0, **reads)
        self.ids.extend(ids[0])
        self.shown.extend(features)
        self.logits.extend(output.logits[0])
        if asked is not None:
            output.logits = torch.stack([row[place] for row, place in zip(output.logits, asked, strict=True)])
        return output

    def forget(self, event: StreamEvent) -> None:
        """Take out what ``drop_middle`` cut before the frame of ``event``, the last one that was fed."""
        assert event.context is not None
        head = self.rows[0].head_length
        end = head + event.context.tokens_before - event.context.tokens_after
        image = self.processor.image_id
        before, gone = self.ids[:head].count(image), self.ids[head:end].count(image)
        del self.ids[head:end], self.logits[head:end], self.shown[before : before + gone]


def probabilities(event: StreamEvent) -> list[float]:
    """p(speak), p(update) and all p(state) of a frame."""
    return [event.p_speak, event.p_update, *(value for step in event.probabilities for value in step)]


def apart(ours: Sequence[StreamEvent], theirs: Sequence[StreamEvent]) -> float:
    """The largest difference of two streams' probabilities."""
    pairs = zip(ours, theirs, strict=True)
    return max(abs(a - b) for x, y in pairs for a, b in zip(probabilities(x), probabilities(y), strict=True))


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Root mean square of a difference, relative to the standard deviation of ``theirs``."""
    return float((ours.float() - theirs.float()).square().mean().sqrt() / theirs.float().std())


# -- checks -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def check_streaming(report: Report, name: str, shape: Shape, model: Model, processor: Any, most: Tolerance) -> None:
    """A live stream with texts of all kinds equals its own tokens in one pass; pieces through a cache equal both."""
    batch = RecordedBatch(model, processor, [Task(STEPS, GOAL)], decoding=TEXT)
    events = []
    for frame, picture in enumerate(pictures_of(shape, FRAMES, seed=1)):
        (event,) = batch.step([picture], ["What comes next?" if frame % 10 == 3 else None])
        assert event is not None
        events.append(event)
    spoken, moved = sum(event.text is not None for event in events), sum(bool(event.transitions) for event in events)
    ids = torch.tensor([batch.ids], device=model.device)
    shown = torch.stack(batch.shown).unflatten(0, (FRAMES, shape.frame_tokens))
    places = (ids[0] == processor.image_id).nonzero().flatten()[shape.frame_tokens - 1 :: shape.frame_tokens]
    prompt = batch.rows[0].task.prompt(processor, batch.rows[0].first_states)
    whole = model(
        input_ids=ids,
        frame_features=shown,
        frame_positions=places[None],
        step_positions=torch.tensor([prompt.step_positions], device=model.device),
        use_cache=False,
    )
    heads = [
        logits[0].float().softmax(-1).flatten(1)
        for logits in (whole.speaking_logits, whole.dst_update_logits, whole.dst_state_logits)
    ]
    read = torch.cat([heads[0][:, 1:], heads[1][:, 1:], heads[2]], dim=1).cpu()
    live = torch.tensor([probabilities(event) for event in events])
    thresholds = torch.tensor([batch.speaking_threshold, batch.dst_update_threshold])
    clear = (live[:, :2] - thresholds).abs() > most.probabilities
    otherwise = int((((live[:, :2] >= thresholds) != (read[:, :2] >= thresholds)) & clear).sum())
    report.within(
        f"{name}, streamed = one pass ({len(batch.ids)} tokens, {spoken} utterances, {moved} state texts)",
        logits=(relative(torch.stack(batch.logits), whole.logits[0]), most.logits),
        probabilities=(float((live - read).abs().max()), most.probabilities),
        decisions=(float(otherwise), 0.0),
    )
    report.line(0 < spoken < FRAMES and moved > 0, f"{name}, the stream decides both ways", f"{spoken} of {FRAMES}")
    embeds = model.joint_embed(ids, frame_features=shown)
    cache = DynamicCache(config=model.config.text_config)
    pieces = [model(inputs_embeds=part, cache=cache, use_cache=True).logits[0] for part in embeds.split(17, dim=1)]
    report.within(f"{name}, cached = uncached", logits=(relative(torch.cat(pieces), whole.logits[0]), most.logits))


@torch.inference_mode()
def check_drop_middle(report: Report, name: str, shape: Shape, model: Model, processor: Any, most: Tolerance) -> None:
    """20 overflows, then the first layer's keys against those of the kept tokens read anew."""
    prompt = len(Task(STEPS, GOAL).prompt(processor, [0] * len(STEPS)).input_ids)
    window = prompt + 300
    batch = RecordedBatch(
        model, processor, [Task(STEPS, GOAL)], Context("drop_middle", window, keep_tokens=60), decoding=TEXT
    )
    features = model.encode_frames(processor.pixel_values(pictures_of(shape, 16, seed=2)).to(model.device))
    overflows, finite, longest = 0, True, 0
    for frame in range(100_000):
        (event,) = batch.step([features[frame % len(features)]])
        assert event is not None
        longest, finite = (
            max(longest, batch.held(batch.rows[0])),
            finite and bool(np.isfinite(probabilities(event)).all()),
        )
        if event.context is not None:
            batch.forget(event)
            overflows += 1
            if overflows == 20:
                break
    cache = DynamicCache(config=model.config.text_config)
    shown = torch.stack(batch.shown)[:, None]
    model(input_ids=torch.tensor([batch.ids], device=model.device), frame_features=shown, cache=cache, use_cache=True)
    kept, anew = batch.cache.read(0)["keys.0"].float(), cache.layers[0].keys[0].float()
    difference = float((kept - anew).abs().max() / anew.abs().max()) if kept.shape == anew.shape else float("nan")
    report.within(
        f"{name}, drop_middle after {overflows} overflows, {event.frame} frames", keys=(difference, most.keys)
    )
    report.line(finite and longest <= window, f"{name}, drop_middle in bounds", f"{longest} of {window} tokens")


def script(batch: StreamBatch, tasks: Sequence[Task]) -> None:
    """Let a batch decide by the calendar: what it reads is then the same, however its probabilities round."""
    decide = batch.turns.decide

    def scripted(row: StreamRow, p_speak: float, p_update: float, states: Sequence[Sequence[float]]) -> None:
        shift = tasks[row.number].seed or 0
        batch.turns.speaking_threshold = -1.0 if (row.frame + shift) % 3 == 0 else NEVER
        decide(row, p_speak, p_update, states)

    batch.turns.decide = scripted  # type: ignore[method-assign]
    batch.turns.write = lambda row, logits: write(  # type: ignore[method-assign]
        row, F.one_hot(torch.tensor(100 + len(row.words) if len(row.words) < 4 else end), logits.shape[-1]).float()
    )
    write, end = type(batch.turns).write.__get__(batch.turns), batch.processor.end_id


@torch.inference_mode()
def check_batch(report: Report, name: str, shape: Shape, model: Model, processor: Any, most: Tolerance) -> None:
    """8 streams together, each with a plan, a length and a rhythm of its own, and each alone."""
    tasks = [Task(STEPS[: 1 + number % 5], f"{GOAL} {number}", seed=number) for number in range(8)]
    sources = [pictures_of(shape, 10 + number, seed=10 + number) for number in range(8)]
    options = {"decoding": TEXT, "dst_update_threshold": NEVER}
    batch = StreamBatch(model, processor, tasks, **options)
    script(batch, tasks)
    together: list[list[StreamEvent]] = [[] for _ in tasks]
    for number, event in batch.run(sources):
        together[number].append(event)
    worst, spoken, same = 0.0, 0, True
    for task, source, events in zip(tasks, sources, together, strict=True):
        single = StreamBatch(model, processor, [task], **options)
        script(single, [task])
        alone = [event for _, event in single.run([source])]
        worst = max(worst, apart(events, alone))
        same = same and [(e.text, e.cache_length) for e in events] == [(e.text, e.cache_length) for e in alone]
        spoken += sum(event.text is not None for event in events)
    report.within(f"{name}, batch of 8 = alone ({spoken} utterances)", probabilities=(worst, most.probabilities))
    report.line(same and spoken > 8, f"{name}, batch of 8 = alone, texts and cache lengths", f"{spoken} utterances")


def check_training(report: Report, name: str, shape: Shape, model: Model, processor: Any) -> None:
    """One step on two clips of different length: focal loss of the decisions, cross-entropy of states and text."""
    items = [FrameItem({frame % 5: 1 + frame % 2}, "", "Now the next step." if frame % 2 else "") for frame in range(6)]
    clips = [processor.build(GOAL, STEPS, [0] * 5, items), processor.build(GOAL, STEPS, [0] * 5, items[:4])]
    width = len(clips[0].input_ids)

    def padded(rows: Sequence[Sequence[Any]], length: int, value: int) -> torch.Tensor:
        return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows], device=model.device)

    lengths = torch.tensor([[len(clip.input_ids)] for clip in clips], device=model.device)
    frames = padded([clip.frame_positions for clip in clips], 6, -1)
    model.train()
    output = model(
        input_ids=padded([clip.input_ids for clip in clips], width, processor.tokenizer.pad_token_id),
        attention_mask=(torch.arange(width, device=model.device) < lengths).long(),
        labels=padded([clip.labels for clip in clips], width, -100),
        frame_positions=frames,
        step_positions=torch.tensor([clip.step_positions for clip in clips], device=model.device),
        pixel_values=processor.pixel_values(pictures_of(shape, 10, seed=3)).to(model.device),
        use_cache=False,
    )
    real = frames >= 0
    wanted = (torch.arange(int(real.sum()), device=model.device) % 2).long()
    loss = output.loss
    for logits in (output.speaking_logits, output.dst_update_logits):
        right = logits[real].float().log_softmax(-1).gather(1, wanted[:, None])
        loss = loss - ((1 - right.exp()) ** 2 * right).mean()
    states = output.dst_state_logits[real].float().flatten(0, 1)
    loss = loss + F.cross_entropy(states, torch.arange(len(states), device=model.device) % 3)
    loss.backward()
    norms = {part: [w.grad.float().norm().item() for w in getattr(model, part).parameters()] for part in HEADS}
    good = all(np.isfinite(norm) and norm > 0 for part in norms.values() for norm in part)
    everywhere = all(bool(w.grad.isfinite().all()) for w in model.parameters() if w.grad is not None)
    model.eval()
    model.zero_grad(set_to_none=True)
    told = ", ".join(f"{part} {max(values):.1e}" for part, values in norms.items())
    report.line(good and everywhere, f"{name}, training step", f"loss {loss.item():.2f}, gradients: {told}")


def main() -> int:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda", help="where the model runs (cuda)")
    parser.add_argument("--tiny-only", action="store_true", help="leave out the 256M shape")
    args = parser.parse_args()
    if not re.fullmatch(r"cpu|cuda(:\d+)?", args.device):
        print(f"error: --device must be cpu, cuda or cuda:N, not {args.device!r}.", file=sys.stderr)
        return 2
    cuda = args.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        print("error: there is no CUDA device; give --device cpu --tiny-only", file=sys.stderr)
        return 2
    transformers.logging.set_verbosity_error()
    # TensorFloat-32 has bfloat16's precision: float32 checks would measure it.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = torch.cuda.get_device_name() if cuda else args.device
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {device}")
    report, began = Report(), time.perf_counter()
    for shape in (TINY,) if args.tiny_only else (TINY, SMOLVLM2_256M):
        processor = processor_of(shape)
        model = deciding_model(shape, processor, args.device)
        for dtype, most in TOLERANCES.items():
            model = model.to(dtype)
            name = f"{shape.name}, {str(dtype).removeprefix('torch.')}"
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            check_streaming(report, name, shape, model, processor, most)
            check_batch(report, name, shape, model, processor, most)
            if shape is TINY:
                check_drop_middle(report, name, shape, model, processor, most)
            streaming_gib = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
            check_training(report, name, shape, model, processor)
            if cuda:
                training_gib = torch.cuda.max_memory_allocated() / 2**30
                print(f"     {name}, peak memory: {streaming_gib:.2f} GiB streaming, {training_gib:.2f} GiB training")
    print(f"{report.failed} checks failed, {time.perf_counter() - began:.0f} s")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
