"""A training step with four losses against the stock model's step with its one: time and peak memory.

Ours is ``DSTTrainer.compute_loss`` (text, speaking, DST update and states) and its backward pass; the peer is stock
``SmolVLMForConditionalGeneration`` with ``labels=`` and its backward pass. Both have the same weights, ids, frames and
text labels (and, as is checked, the same text loss); tokens_per_frame is "full", because the stock model knows no
other. The optimiser is left out: it is the same for both. CPU, float32.

* time: steps of the two in turn in one process, and the ratio of the medians. Each shape is run with the text labels
  that a stream has (a few places in a hundred) and with a label at every place.
* memory: a vocabulary of 49,280 and 4,096 positions; frames enter as features, as they do from a feature cache. Each
  side runs in a fresh process; what counts is the peak resident memory of its first step less what it held before.
  Gradients of the weights are in it, optimiser states are not.

Examples:
    python benchmarks/step_cost.py
    python benchmarks/step_cost.py --repeats 3 --part time --shapes tiny
    python benchmarks/step_cost.py --part memory --positions 512

Exit codes: 0 done, 1 the two text losses differ, 2 a bad argument or a system that does not tell its peak memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig

from configuration_dst_smolvlm import DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.sessions import IGNORE
from prospect_hf.training.result_tables import table

IMAGE_ID, STEPS, PROMPT, TURN = 5, 8, 96, 12
Step = Callable[[], None]


@dataclass(frozen=True)
class Shape:
    """Sizes of model and batch; ``positions`` is the length of a stream in tokens."""

    hidden: int
    text_layers: int
    vision_layers: int
    heads: int
    vocabulary: int
    image: int
    patch: int
    shuffle: int
    batch: int
    positions: int
    features: bool = False

    @property
    def frame_tokens(self) -> int:
        """Tokens of one frame."""
        return (self.image // self.patch // self.shuffle) ** 2


SHAPES = {
    # About the embedded default's size.
    "tiny": Shape(96, 3, 3, 4, 768, 48, 8, 3, batch=8, positions=320),
    # The 256M model's width and vocabulary, with fewer layers and smaller pictures.
    "mid": Shape(576, 6, 3, 9, 49_280, 96, 16, 2, batch=1, positions=768),
    "memory": Shape(576, 2, 1, 9, 49_280, 48, 8, 3, batch=1, positions=4096, features=True),
}


def build_config(shape: Shape) -> DSTSmolVLMConfig:
    """The configuration of our model; the stock one's is the same without our keys."""
    return DSTSmolVLMConfig(
        text_config=LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.hidden * 8 // 3,
            num_hidden_layers=shape.text_layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=8192,
        ).to_dict(),
        vision_config=SmolVLMVisionConfig(
            hidden_size=shape.hidden,
            intermediate_size=shape.hidden * 4,
            num_hidden_layers=shape.vision_layers,
            num_attention_heads=shape.heads,
            image_size=shape.image,
            patch_size=shape.patch,
        ).to_dict(),
        scale_factor=shape.shuffle,
        image_token_id=IMAGE_ID,
        tokens_per_frame="full",
        tie_word_embeddings=True,
    )


def build_batch(shape: Shape, all_labelled: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    """A batch as ``ClipCollator`` makes it: a plan, then frames with a turn here and there, without padding.

    About 12 places in 100 carry a text label, or every place does.
    """
    draw = random.Random(seed)
    torch.manual_seed(seed)
    tokens = [draw.randrange(10, shape.vocabulary) for _ in range(PROMPT)]
    labels = [IGNORE] * PROMPT
    frames: list[int] = []
    share = 0.12 * shape.positions / (shape.positions - PROMPT)
    turn_chance = share * shape.frame_tokens / (TURN * (1 - share))
    while len(tokens) + shape.frame_tokens + TURN <= shape.positions:
        tokens += [IMAGE_ID] * shape.frame_tokens
        labels += [IGNORE] * shape.frame_tokens
        frames.append(len(tokens) - 1)
        if draw.random() < turn_chance:
            turn = [draw.randrange(10, shape.vocabulary) for _ in range(TURN)]
            tokens += turn
            labels += turn
    rest = [draw.randrange(10, shape.vocabulary) for _ in range(shape.positions - len(tokens))]
    tokens, labels = tokens + rest, labels + rest
    if all_labelled:
        labels = [draw.randrange(10, shape.vocabulary) for _ in tokens]
    one = {
        "input_ids": torch.tensor([tokens]),
        "attention_mask": torch.ones(1, len(tokens), dtype=torch.long),
        "labels": torch.tensor([labels]),
        "frame_positions": torch.tensor([frames]),
        "step_positions": torch.linspace(10, PROMPT - 1, STEPS).long()[None, :, None].repeat(1, 1, 2),
        "speaking_labels": (torch.rand(1, len(frames)) < 0.07).long(),
        "dst_update_labels": (torch.rand(1, len(frames)) < 0.02).long(),
        "dst_state_labels": torch.randint(0, 3, (1, len(frames), STEPS)),
    }
    batch = {name: value.repeat(shape.batch, *[1] * (value.dim() - 1)) for name, value in one.items()}
    count = len(frames) * shape.batch
    if shape.features:
        batch["frame_features"] = torch.randn(count, shape.frame_tokens, shape.hidden)
    else:
        batch["pixel_values"] = torch.randn(count, 3, shape.image, shape.image)
    return batch


def our_step(
    shape: Shape, batch: dict[str, torch.Tensor], folder: str
) -> tuple[Step, DSTSmolVLMForConditionalGeneration]:
    """Forward with all four losses and backward, as the trainer does it; and the model."""
    # Imported after main() has silenced logging: bitsandbytes, which comes with it, warns of a kernel nobody needs.
    from prospect_hf.training.arguments import DSTTrainingArguments
    from prospect_hf.training.trainer import DSTTrainer

    torch.manual_seed(0)
    model = DSTSmolVLMForConditionalGeneration(build_config(shape)).train()
    args = DSTTrainingArguments(output_dir=folder, use_cpu=True, disable_tqdm=True)
    trainer = DSTTrainer(model=model, args=args)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        loss = trainer.compute_loss(model, batch)
        assert isinstance(loss, torch.Tensor)
        loss.backward()

    return step, model


def stock_step(
    shape: Shape, batch: dict[str, torch.Tensor], weights: torch.nn.Module | None
) -> tuple[Step, Callable[[], torch.Tensor]]:
    """Forward with ``labels=`` and backward; and the forward pass alone, which returns the loss."""
    torch.manual_seed(0)
    values = build_config(shape).to_dict()
    for own in ("model_type", "auto_map", "tokens_per_frame", "num_dst_states", "fps"):
        values.pop(own)
    model = SmolVLMForConditionalGeneration(SmolVLMConfig(**values)).train()
    if weights is not None:
        model.load_state_dict({k: v for k, v in weights.state_dict().items() if k in model.state_dict()})
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    pixels = batch["pixel_values"].unflatten(0, (shape.batch, -1)) if "pixel_values" in batch else None

    def forward() -> torch.Tensor:
        if pixels is not None:
            return model(**inputs, pixel_values=pixels).loss
        encoded = {"image": BaseModelOutputWithPooling(pooler_output=batch["frame_features"].flatten(0, 1))}
        return model(**inputs, mm_encoder_outputs=encoded).loss

    def step() -> None:
        model.zero_grad(set_to_none=True)
        forward().backward()

    return step, forward


def time_row(name: str, shape: Shape, all_labelled: bool, repeats: int, folder: str) -> tuple[list[str], bool]:
    """One row of the time table; and whether both had the same text loss."""
    batch = build_batch(shape, all_labelled)
    ours, model = our_step(shape, batch, folder)
    stock, stock_forward = stock_step(shape, batch, model)
    with torch.no_grad():
        text = {name: batch[name] for name in ("input_ids", "attention_mask", "labels", "pixel_values")}
        same = math.isclose(float(model(**text).loss), float(stock_forward()), rel_tol=1e-4)
    ours(), stock()  # not counted
    times: dict[str, list[float]] = {"ours": [], "stock": []}
    for repeat in range(repeats):
        # In turn, and each first in every other pair, so that neither has the quieter machine or the warmer cache.
        for side, step in (("ours", ours), ("stock", stock))[:: 1 if repeat % 2 == 0 else -1]:
            start = time.perf_counter()
            step()
            times[side].append(time.perf_counter() - start)
    our_median, stock_median = statistics.median(times["ours"]), statistics.median(times["stock"])
    return [
        name,
        f"{model.num_parameters() / 1e6:.1f} M",
        f"{shape.batch} x {shape.positions}",
        f"{batch['frame_positions'].numel()}",
        labelled_share(batch),
        f"{our_median * 1000:.0f} ms",
        f"{stock_median * 1000:.0f} ms",
        f"{our_median / stock_median:.2f} x",
    ], same


def labelled_share(batch: dict[str, torch.Tensor]) -> str:
    """How many places carry a text label."""
    return f"{100 * float((batch['labels'] != IGNORE).float().mean()):.0f} %"


def status_bytes(key: str) -> int:
    """``VmRSS`` or ``VmHWM`` (its peak) of this process; not ``ru_maxrss``, which a child inherits from its parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def measure(side: str, positions: int, all_labelled: bool) -> dict[str, float]:
    """One step of one side in this process: what it added to the resident memory at its peak, and its time."""
    shape = Shape(**{**vars(SHAPES["memory"]), "positions": positions})
    batch = build_batch(shape, all_labelled)
    with tempfile.TemporaryDirectory() as folder:
        step = our_step(shape, batch, folder)[0] if side == "ours" else stock_step(shape, batch, None)[0]
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = status_bytes("VmRSS")
        step()
        added = status_bytes("VmHWM") - before
        # Timed at the second step: the first one also waits for its memory.
        start = time.perf_counter()
        step()
    return {"bytes": added, "seconds": time.perf_counter() - start}


def memory_row(positions: int, all_labelled: bool, repeats: int) -> list[str]:
    """One row of the memory table: medians over fresh processes."""
    medians: dict[str, dict[str, float]] = {}
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "stock": []}
    for _ in range(repeats):
        for side, results in runs.items():
            command = [sys.executable, __file__, "--measure", side, "--positions", str(positions)]
            done = subprocess.run(
                [*command, *(["--all-labelled"] if all_labelled else [])], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise OSError(f"the {side} step failed: {done.stderr.strip().splitlines()[-1]}")
            results.append(json.loads(done.stdout.splitlines()[-1]))
    for side, results in runs.items():
        medians[side] = {key: statistics.median(result[key] for result in results) for key in ("bytes", "seconds")}
    shape = Shape(**{**vars(SHAPES["memory"]), "positions": positions})
    mine, peer = medians["ours"], medians["stock"]
    return [
        f"{shape.vocabulary}",
        f"{positions}",
        labelled_share(build_batch(shape, all_labelled)),
        f"{mine['bytes'] / 2**20:.0f} MiB",
        f"{peer['bytes'] / 2**20:.0f} MiB",
        f"{mine['bytes'] / peer['bytes']:.2f} x",
        f"{mine['seconds']:.2f} s",
        f"{peer['seconds']:.2f} s",
        f"{mine['seconds'] / peer['seconds']:.2f} x",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("time", "memory", "both"), default="both")
    parser.add_argument("--shapes", default="tiny,mid", help="shapes of the time table (default tiny,mid)")
    parser.add_argument("--repeats", type=int, default=9, help="timed steps of each side (default 9)")
    parser.add_argument("--processes", type=int, default=3, help="fresh processes of each side (default 3)")
    parser.add_argument("--positions", type=int, default=4096, help="tokens of the memory table (default 4096)")
    parser.add_argument("--measure", choices=("ours", "stock"), help=argparse.SUPPRESS)
    parser.add_argument("--all-labelled", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    names = args.shapes.split(",")
    if not set(names) <= {"tiny", "mid"} or args.repeats < 1 or args.processes < 1 or args.positions < 256:
        parser.error("--shapes takes tiny and mid, counts are 1 or more, --positions is 256 or more")
    transformers.logging.set_verbosity_error()
    if args.measure:
        print(json.dumps(measure(args.measure, args.positions, args.all_labelled)))
        return 0

    all_same = True
    if args.part in ("time", "both"):
        head = ["shape", "parameters", "batch x tokens", "frames", "labelled", "ours", "stock", "time"]
        rows = [head]
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                for all_labelled in (False, True):
                    row, same = time_row(name, SHAPES[name], all_labelled, args.repeats, folder)
                    rows.append(row)
                    all_same &= same
        print(f"Step time (forward + backward), median of {args.repeats}, {torch.get_num_threads()} threads")
        print(table(rows), end="\n\n")
    if args.part in ("memory", "both"):
        head = ["vocabulary", "tokens", "labelled", "ours", "stock", "memory", "ours", "stock", "time"]
        try:
            status_bytes("VmHWM")
            rows = [head, *(memory_row(args.positions, everywhere, args.processes) for everywhere in (False, True))]
        except OSError as error:
            print(f"error: peak memory cannot be measured ({error}); Linux is needed.", file=sys.stderr)
            return 2
        print(f"Peak memory that one step adds, median of {args.processes} fresh processes")
        print(table(rows))
    if not all_same:
        print("error: the text losses of the two differ: they did not do the same work.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
