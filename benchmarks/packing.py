"""The cost of one packed stream against one sample per frame, for equal decisions.

The same small model (random weights, CPU, float32, no gradient) reads a session of N frames in two ways:

* packed: the whole session is one causal stream; one pass gives the decisions at the last token of each frame;
* per frame: each frame has a sample with its whole history (prompt, frames and texts up to the frame); one pass without
  a cache gives the decisions at its last frame.

Because of causality the decisions are equal; the table shows their largest difference and the ratio of the times. Both
ways start from the same precomputed frame features. The last column adds the vision tower for samples that encode all
frames of their history (measured seconds per frame x number of frames; not run).

Examples:
    python benchmarks/packing.py
    python benchmarks/packing.py --frames 64 --repeats 3 --batch-size 8

Exit codes: 0 equal, 1 the decisions differ by more than --tolerance, 2 a bad argument.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from timing import median_seconds

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem, Stream
from prospect_hf.training.arguments import TinyShape
from prospect_hf.training.result_tables import table
from prospect_hf.training.tiny import tiny_model, tiny_processor

GOAL = "Assemble the toy truck"
STEPS = ["Attach the wheels.", "Attach the cabin.", "Fasten the roof.", "Put the load on.", "Check the doors."]
REMARKS = ["Now attach the wheels to the chassis.", "Good, the cabin sits.", "Careful, the roof is upside down."]
# Shares in the public corpus: 7.5 % of the frames have an utterance, 1 to 3 % a state change.
TALK, CHANGE = 0.075, 0.02
# Independent of the default model, so that results stay comparable.
SHAPE = TinyShape(patch_size=8, scale_factor=3, hidden_size=96, vision_layers=3, text_layers=3, heads=4)
Decisions = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def random_items(frames: int, seed: int) -> list[FrameItem]:
    """Random texts and state changes for each frame, as frequent as in the public corpus."""
    draw = random.Random(seed)
    items = []
    for _ in range(frames):
        changes = {draw.randrange(len(STEPS)): draw.choice((1, 2))} if draw.random() < CHANGE else {}
        speaks, asks = draw.random() < TALK, draw.random() < 0.2
        items.append(
            FrameItem(changes, "What comes next?" if speaks and asks else "", draw.choice(REMARKS) if speaks else "")
        )
    return items


def build_model(shape: TinyShape, seed: int) -> tuple[DSTSmolVLMForConditionalGeneration, DSTSmolVLMProcessor]:
    """The small model, with weights large enough that its decisions depend on the input."""
    torch.manual_seed(seed)
    processor = tiny_processor([GOAL, *STEPS, *REMARKS, "What comes next?"], shape)
    model = tiny_model(processor, shape).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=weight.shape[1] ** -0.5)
    return model, processor


def read_packed(model: DSTSmolVLMForConditionalGeneration, stream: Stream, features: torch.Tensor) -> Decisions:
    """The decisions of all frames in one pass: ``[frames, 2]``, ``[frames, 2]``, ``[frames, steps, 3]``."""
    out = model(
        input_ids=torch.tensor([stream.input_ids]),
        attention_mask=torch.ones(1, len(stream.input_ids), dtype=torch.long),
        frame_features=features,
        frame_positions=torch.tensor([stream.frame_positions]),
        step_positions=torch.tensor([stream.step_positions]),
        use_cache=False,
        logits_to_keep=1,
    )
    return out.speaking_logits[0], out.dst_update_logits[0], out.dst_state_logits[0]


def read_samples(
    model: DSTSmolVLMForConditionalGeneration, stream: Stream, features: torch.Tensor, frames: Sequence[int]
) -> Decisions:
    """The decisions of ``frames``, from a batch with one sample for each frame: the stream up to that frame.

    Shorter samples are padded on the right, after the token where the heads are read.
    """
    lengths = [stream.frame_positions[frame] + 1 for frame in frames]
    ids = torch.zeros(len(frames), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.tensor(stream.input_ids[:length])
        mask[row, :length] = 1
    out = model(
        input_ids=ids,
        attention_mask=mask,
        frame_features=torch.cat([features[: frame + 1] for frame in frames]),
        frame_positions=torch.tensor([[length - 1] for length in lengths]),
        step_positions=torch.tensor([stream.step_positions] * len(frames)),
        use_cache=False,
        logits_to_keep=1,
    )
    return out.speaking_logits[:, 0], out.dst_update_logits[:, 0], out.dst_state_logits[:, 0]


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Median time of ``run`` over ``repeats``, in seconds, after one warm-up run."""
    run()
    return median_seconds(repeats, run)[0]


@torch.inference_mode()
def compare(
    model: DSTSmolVLMForConditionalGeneration, processor: DSTSmolVLMProcessor, frames: int, args: argparse.Namespace
) -> tuple[list[str], float]:
    """The table row of a session of ``frames`` frames, and the largest difference of a logit."""
    size = processor.frame_size
    pixels = torch.randn(frames, 3, size, size)
    features = model.encode_frames(pixels)
    vision = seconds(lambda: model.encode_frames(pixels), args.repeats) / frames
    stream = processor.build(GOAL, STEPS, [0] * len(STEPS), random_items(frames, args.seed))

    packed = read_packed(model, stream, features)

    # Batches of neighbouring frames, which need little padding; with --every k, each k-th batch is run.
    groups = [range(i, min(i + args.batch_size, frames)) for i in range(0, frames, args.batch_size)]
    timed = groups[args.every // 2 :: args.every]
    read_samples(model, stream, features, timed[-1])
    packed_times, samples, sample_seconds = [], [], 0.0
    for number, group in enumerate(timed):
        start = time.perf_counter()
        samples.append(read_samples(model, stream, features, group))
        sample_seconds += time.perf_counter() - start
        # Packed runs are interleaved, so that other load on the machine affects both sides.
        if number % max(1, len(timed) // args.repeats) == 0:
            packed_times.append(seconds(lambda: read_packed(model, stream, features), 1))
    packed_seconds = statistics.median(packed_times)
    sample_seconds *= sum(map(len, groups)) / sum(map(len, timed))

    picked = torch.tensor([frame for group in timed for frame in group])
    difference, shifted = 0.0, 0.0
    for together, alone in zip(packed, zip(*samples, strict=True), strict=True):
        one_by_one = torch.cat(alone)
        difference = max(difference, float((together[picked] - one_by_one).abs().max()))
        # For scale: the mean difference between the logits of neighbouring frames.
        shifted = max(shifted, float((together[1:] - together[:-1]).abs().mean()))
    with_vision = (sample_seconds + vision * frames * (frames + 1) / 2) / (packed_seconds + vision * frames)
    return [
        f"{frames}",
        f"{len(stream.input_ids)}",
        f"{len(picked)} of {frames}",
        f"{packed_seconds:.3f} s",
        f"{sample_seconds:.1f} s" + (" (estimated)" if len(picked) < frames else ""),
        f"{sample_seconds / packed_seconds:.0f} x",
        f"{difference:.1e}",
        f"{shifted:.1e}",
        f"{with_vision:.0f} x",
    ], difference


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit code says whether the decisions are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", default="256,1024", help="session lengths in frames (default 256,1024)")
    parser.add_argument("--batch-size", type=int, default=1, help="per-frame samples in a pass (default 1)")
    parser.add_argument("--every", type=int, default=1, help="run every n-th batch of samples and scale up (default 1)")
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of the packed side (default 9)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference allowed (default 1e-4)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    lengths = [int(text) if text.isdigit() else 0 for text in args.frames.split(",")]
    if min(lengths) < 2 or args.batch_size < 1 or args.every < 1 or args.repeats < 1:
        parser.error("--frames takes numbers of 2 or more, the other counts 1 or more")
    if min(lengths) < args.batch_size * args.every:
        parser.error("--every x --batch-size exceeds the shortest session; make one of them smaller")

    model, processor = build_model(SHAPE, args.seed)
    print(f"{model.num_parameters() / 1e6:.2f} M parameters, float32, {torch.get_num_threads()} threads, no gradient")
    head = [
        "frames",
        "tokens",
        "samples run",
        "packed",
        "per frame",
        "ratio",
        "max diff",
        "neighbours",
        "with vision",
    ]
    rows, differences = [head], []
    for frames in lengths:
        row, difference = compare(model, processor, frames, args)
        rows.append(row)
        differences.append(difference)
    print(table(rows))
    print(
        "max diff: largest difference of any speaking, update or state logit; neighbours: mean difference between\n"
        "the logits of one frame and the next, for scale; with vision: the ratio if each sample encodes its own frames."
    )
    return 0 if max(differences) <= args.tolerance else 1


if __name__ == "__main__":
    sys.exit(main())
