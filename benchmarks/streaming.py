"""Streaming video frame by frame: latency over an hour, reuse of the cache, batches, overhead, context strategies.

    python benchmarks/streaming.py --model outputs/tiny --smolvlm2 HuggingFaceTB/SmolVLM2-256M-Video-Instruct

Each part prints Markdown. The two sides of a ratio run alternately in one process, and their medians are compared. CPU,
float32, 1 token per frame, frames as precomputed features. "tiny" (one thread) is the model in --model on the held-out
sessions of its data; without a trained model, it is a new silent model of that size on random features, and the quality
part is skipped. "256M" has the text model of SmolVLM2-256M with random weights, from the checkpoint's config.json, and
its streams are silent.

* latency: one stream of 7,200 frames, an hour at 2 frames per second, in a context of 2,048 tokens; a held-out session
  is repeated. Milliseconds per frame around frame 200 and around frame 3,500, and the growth of the process' memory.
* reuse: one silent step of DSTStream after N tokens, against reading the whole prefix again: one forward pass without a
  cache that reads the heads at the last frame, and generate() for one token.
* batch: 8 streams in one batch, against the same 8 streams one after another. The first frames, with the prompts, are
  not timed.
* overhead: DSTStream.step on a silent frame after 1,000 tokens, against the bare text model with the stream's cache and
  with transformers' DynamicCache.
* quality: the context strategies on held-out sessions that exceed the context limit several times.

Exit codes: 0 done, 1 step and forward pass decide differently, 2 a bad argument or no /proc/self/statm.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
from one_sentence import exit_code
from streaming_latency import latency
from streaming_quality import cut_difference, quality
from streaming_reuse import overhead_row, reuse
from streaming_sessions import (
    GOAL,
    NEVER,
    STEPS,
    Session,
    load_sessions,
    markdown,
    median_seconds,
    mid_model,
    one_thread,
    random_session,
)

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration as Model
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checkpoints import reading
from prospect_hf.machine import processor
from prospect_hf.training.arguments import TinyShape
from prospect_hf.training.tiny import tiny_model, tiny_processor
from streaming_dst_smolvlm import StreamBatch

PARTS = ("latency", "reuse", "batch", "overhead", "quality")
STREAMS = 8


def batch_row(
    name: str, model: Model, processor: DSTSmolVLMProcessor, sessions: Sequence[Session], repeats: int
) -> list[str]:
    """The table row that compares separate and batched streams; all sessions are cut to the shortest."""
    frames = min(len(session.features) for session in sessions)
    started: dict[str, list[StreamBatch]] = {}

    def start(side: str) -> None:
        groups = [[session] for session in sessions] if side == "alone" else [list(sessions)]
        started[side] = [StreamBatch(model, processor, [session.task for session in group]) for group in groups]
        for batch, group in zip(started[side], groups, strict=True):
            batch.step([session.features[0] for session in group], [session.user_texts[0] for session in group])

    def alone() -> None:
        for batch, session in zip(started["alone"], sessions, strict=True):
            for frame in range(1, frames):
                batch.step([session.features[frame]], [session.user_texts[frame]])

    def lockstep() -> None:
        (batch,) = started["lockstep"]
        for frame in range(1, frames):
            batch.step(
                [session.features[frame] for session in sessions], [session.user_texts[frame] for session in sessions]
            )

    def run() -> None:
        (batch,) = started["run"]
        for _ in batch.run([list(session.inputs())[1:frames] for session in sessions]):
            pass

    times = median_seconds(
        {"alone": alone, "lockstep": lockstep, "run": run},
        repeats,
        {side: partial(start, side) for side in ("alone", "lockstep", "run")},
    )
    total = len(sessions) * (frames - 1)
    return [
        name,
        f"{len(sessions)} x {frames - 1}",
        *(f"{total / times[side]:.0f}" for side in ("alone", "lockstep", "run")),
        f"{times['alone'] / times['lockstep']:.2f} x",
        f"{times['alone'] / times['run']:.2f} x",
    ]


def machine_line() -> str:
    """Processor, threads and versions, for the head of the output."""
    return (
        f"{processor()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}, float32"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)} (default all)")
    parser.add_argument("--model", type=Path, default=Path("outputs/tiny"), help="trained model folder (%(default)s)")
    parser.add_argument(
        "--smolvlm2",
        default="HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
        help="folder or Hub id of the checkpoint whose config.json gives the 256M shape (%(default)s)",
    )
    parser.add_argument("--frames", type=int, default=7200, help="frames of the latency part (default 7200)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of the slow sides (default 3)")
    parser.add_argument("--sessions", type=int, help="held-out sessions of the quality part (default all)")
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    parts = args.parts.split(",")
    if not set(parts) <= set(PARTS) or args.frames < 3600 or args.repeats < 1:
        parser.error(f"--parts takes {', '.join(PARTS)}, --frames 3600 or more, --repeats 1 or more")
    if not Path("/proc/self/statm").is_file():
        print("error: memory cannot be measured without /proc/self/statm; run this on Linux.", file=sys.stderr)
        return 2

    torch.manual_seed(0)
    trained = (args.model / "results.json").is_file()
    if trained:
        tiny, processor, sessions = load_sessions(args.model)
    else:
        processor = tiny_processor([GOAL, *STEPS], TinyShape())
        tiny = tiny_model(processor, TinyShape()).eval()
        tiny.config.speaking_threshold = tiny.config.dst_update_threshold = NEVER
        sessions = [random_session(tiny, 80) for _ in range(STREAMS)]
    print(f"{machine_line()}; tiny on one thread: {args.model if trained else 'untrained'}", flush=True)
    with reading(args.smolvlm2):
        large = mid_model(args.smolvlm2, processor) if {"reuse", "batch", "overhead"} & set(parts) else None
    worst = 0.0
    if "latency" in parts:
        longest = max(sessions, key=lambda session: len(session.features))
        with one_thread():
            print("\n## latency\n\n" + latency(tiny, processor, longest, args.frames, args.repeats), flush=True)
    if large is not None and "reuse" in parts:
        rows, worst = reuse(large, processor, (500, 1000, 2000), args.repeats)
        print("\n## reuse (256M)\n\n" + markdown(rows), flush=True)
    if large is not None and "batch" in parts:
        rows = [["model", "streams x frames", "alone, frames/s", "step, frames/s", "run, frames/s", "step", "run"]]
        by_length = sorted(sessions, key=lambda session: len(session.features))[-STREAMS:]
        with one_thread():
            rows.append(batch_row("tiny", tiny, processor, by_length, 3 * args.repeats))
        rows.append(
            batch_row("256M", large, processor, [random_session(large, 17) for _ in range(STREAMS)], args.repeats)
        )
        print("\n## batch\n\n" + markdown(rows), flush=True)
    if large is not None and "overhead" in parts:
        rows = [
            ["model", "tokens", "step", "bare, own cache", "bare, DynamicCache", "more", "more", "than DynamicCache"]
        ]
        rows.append(overhead_row("256M", large, processor, 1000, 30 * args.repeats))
        with one_thread():
            rows.append(overhead_row("tiny", tiny, processor, 1000, 300 * args.repeats))
        print("\n## overhead\n\n" + markdown(rows), flush=True)
    if "quality" in parts:
        if trained:
            chosen = sessions[: args.sessions]
            with one_thread():
                print(f"\n## quality ({len(chosen)} sessions)\n\n" + markdown(quality(tiny, processor, chosen)))
                print("\n" + cut_difference(tiny, processor, chosen))
        else:
            print(f"\n## quality\n\nSkipped: {args.model} has no trained model; run scripts/train.py first.")
    return 0 if worst <= 1e-3 else 1


if __name__ == "__main__":
    sys.exit(exit_code(main))
