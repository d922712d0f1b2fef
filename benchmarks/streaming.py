"""Following a video frame by frame: latency over an hour, reuse of the cache, batches, overhead, context strategies.

    python benchmarks/streaming.py --model outputs/tiny --smolvlm2 HuggingFaceTB/SmolVLM2-256M-Video-Instruct

Each part prints Markdown; the two sides of a ratio run in turn in one process and their medians are compared. CPU,
float32, 1 token a frame, frames as precomputed features. "tiny", on one thread, is the folder that ``scripts/train.py``
wrote, on the held-out sessions of its data (where there is none: a fresh model of that size, silent, on random
features; the quality part needs a trained one). "256M" has the text side of SmolVLM2-256M with random weights: only the
checkpoint's config.json is read, and its streams are silent.

* latency: one stream of 7,200 frames, an hour at 2 frames a second, in a context of 2,048 tokens; a held-out session
  over and over. Milliseconds a frame around frame 200 and around frame 3,500, and the growth of the process.
* reuse: a silent frame of DSTStream after N tokens, against reading the whole prefix anew for every frame: one forward
  pass without a cache that reads the heads at the last frame, and generate() for one token.
* batch: 8 streams stepped together, against the same 8 one after the other. The first frames, with the prompts, are
  not timed.
* overhead: DSTStream.step on a silent frame after 1,000 tokens against the bare text model, on the stream's own cache
  and on transformers' DynamicCache.
* quality: the context strategies on held-out sessions that overflow the window several times.

Exit codes: 0 done, 1 step and forward pass decide differently, 2 a bad argument or a system that does not tell its
memory.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
from streaming_quality import Session, cut_difference, in_turn, latency, load_trained, markdown, one_thread, quality
from transformers import DynamicCache, SmolVLMConfig

from configuration_dst_smolvlm import DSTSmolVLMConfig
from context_dst_smolvlm import Context
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration as Model
from processing_dst_smolvlm import DSTSmolVLMProcessor, Stream
from prospect_hf.training.arguments import TinyShape
from prospect_hf.training.tiny import tiny_model, tiny_processor
from streaming_dst_smolvlm import DSTStream, StreamBatch, Task

PARTS = ("latency", "reuse", "batch", "overhead", "quality")
GOAL = "Assemble the toy truck"
STEPS = ["Attach the wheels.", "Attach the cabin.", "Fasten the roof.", "Put the load on.", "Check the doors."]
NEVER = 2.0  # a threshold that no probability reaches: a frame is its own tokens and no more
STREAMS = 8


def random_session(model: Model, frames: int) -> Session:
    """A session of random features, as large as the embeddings of tokens."""
    scale = float(model.get_input_embeddings().weight.detach().std())
    features = torch.randn(frames, model.config.stream_tokens, model.config.text_config.hidden_size) * scale
    return Session(Task(STEPS, GOAL), features, [""] * frames)


def mid_model(name: str, processor: DSTSmolVLMProcessor) -> Model:
    """The text side of SmolVLM2-256M with weights large enough that its decisions depend on what it reads."""
    stock = SmolVLMConfig.from_pretrained(name)
    stock.vision_config.num_hidden_layers = 1  # no picture is encoded here
    config = DSTSmolVLMConfig.from_smolvlm(stock, image_token_id=processor.image_id)
    torch.manual_seed(0)
    model = Model(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=weight.shape[1] ** -0.5)
    model.config.speaking_threshold = model.config.dst_update_threshold = NEVER
    return model


# -- reuse and overhead -------------------------------------------------------------------------------------------


def filled_stream(
    model: Model, processor: DSTSmolVLMProcessor, session: Session, tokens: int
) -> tuple[DSTStream, Stream]:
    """A silent stream whose cache holds ``tokens``, the last of them a frame's; and the same stream laid out."""
    stream = DSTStream(
        model,
        processor,
        session.task.plan,
        session.task.goal,
        context=Context(max_tokens=4096),
        speaking_threshold=NEVER,
        dst_update_threshold=NEVER,
    )
    laid = stream.batch.rows[0].task.prompt(processor, stream.batch.rows[0].first_states)
    stream.step(session.features[0])
    processor.add_frame(laid)
    # The frames between are fed in one pass with the last one, as though they had waited.
    row, between = stream.batch.rows[0], tokens - stream.cache_length - 1
    row.pending.extend([processor.image_id] * between)
    row.features.extend(session.features[1 : 1 + between, 0])
    stream.step(session.features[1 + between])
    for _ in range(between + 1):
        processor.add_frame(laid)
    assert stream.cache_length == len(laid.input_ids) == tokens
    return stream, laid


def head_logits(model: Model, run: Callable[[], object]) -> torch.Tensor:
    """The logits of the three heads, flat, as ``run`` reads them."""
    logits: list[torch.Tensor] = []
    heads = (model.speaking_decision_head, model.dst_update_head, model.dst_state_head)
    hooks = [head.register_forward_hook(lambda module, inputs, out: logits.append(out.flatten())) for head in heads]
    run()
    for hook in hooks:
        hook.remove()
    return torch.cat(logits)


@torch.inference_mode()
def reuse_row(model: Model, processor: DSTSmolVLMProcessor, tokens: int, repeats: int) -> tuple[list[str], float]:
    """One row of the table of what the cache saves, and the largest difference of a head's logit."""
    session = random_session(model, tokens)
    stream, laid = filled_stream(model, processor, session, tokens)
    frames = len(laid.frame_positions)
    prefix = {
        "input_ids": torch.tensor([laid.input_ids]),
        "attention_mask": torch.ones(1, tokens, dtype=torch.long),
        "frame_features": session.features[:frames],
    }
    heads = {
        "frame_positions": torch.tensor([laid.frame_positions[-1:]]),
        "step_positions": torch.tensor([laid.step_positions]),
    }

    def steps(count: int = 10) -> None:
        for _ in range(count):
            stream.batch.cache.truncate(0, tokens - 1)
            stream.step(session.features[frames - 1])

    def forward() -> None:
        model(**prefix, **heads, use_cache=False, logits_to_keep=1)

    def generate() -> None:
        model.generate(**prefix, max_new_tokens=1, do_sample=False)

    stepped, anew = head_logits(model, lambda: steps(1)), head_logits(model, forward)
    difference = float((stepped - anew).abs().max())
    times = in_turn({"steps": steps, "forward": forward, "generate": generate}, repeats)
    step = times["steps"] / 10
    row = [
        f"{tokens}",
        f"{1000 * step:.1f} ms",
        f"{1000 * times['forward']:.0f} ms",
        f"{1000 * times['generate']:.0f} ms",
        f"{times['forward'] / step:.0f} x",
        f"{times['generate'] / step:.0f} x",
        f"{difference:.1e}",
        f"{float(anew.std()):.1f}",
    ]
    return row, difference


def reuse(
    model: Model, processor: DSTSmolVLMProcessor, lengths: Sequence[int], repeats: int
) -> tuple[list[list[str]], float]:
    """The table of what the cache saves, and the largest difference of a head's logit."""
    head = ["tokens", "step", "forward", "generate", "forward / step", "generate / step", "largest difference"]
    rows, differences = [[*head, "spread of the logits"]], []
    for tokens in lengths:
        row, difference = reuse_row(model, processor, tokens, repeats)
        rows.append(row)
        differences.append(difference)
    return rows, max(differences)


@torch.inference_mode()
def overhead_row(name: str, model: Model, processor: DSTSmolVLMProcessor, tokens: int, repeats: int) -> list[str]:
    """One row of the table of a silent step against the bare text model."""
    session = random_session(model, tokens + 1)
    stream, laid = filled_stream(model, processor, session, tokens)
    text_model, cache, device = model.model.text_model, stream.batch.cache, model.device
    feature = session.features[0]
    embeds = feature[None].to(model.dtype)
    dynamic = DynamicCache(config=model.config.text_config)
    text_model(
        inputs_embeds=model.joint_embed(
            torch.tensor([laid.input_ids]), frame_features=session.features[: len(laid.frame_positions)]
        ),
        cache=dynamic,
        use_cache=True,
    )
    positions = torch.tensor([[tokens]], device=device)

    def step() -> None:
        stream.step(feature)

    def own() -> None:
        text_model(inputs_embeds=embeds, position_ids=positions, cache=cache, use_cache=True)

    def stock() -> None:
        text_model(inputs_embeds=embeds, position_ids=positions, cache=dynamic, use_cache=True)

    def back() -> None:
        cache.truncate(0, tokens)

    def announce() -> None:
        back()
        cache.begin(slice(0, 1), [1], device)

    times = in_turn(
        {"step": step, "own": own, "stock": stock},
        repeats,
        {"step": back, "own": announce, "stock": lambda: dynamic.crop(tokens - dynamic.get_seq_length())},
    )
    return [
        name,
        f"{tokens}",
        *(f"{1000 * times[side]:.3f} ms" for side in ("step", "own", "stock")),
        f"{1e6 * (times['step'] - times['own']):.0f} µs",
        f"{100 * (times['step'] / times['own'] - 1):+.1f} %",
        f"{100 * (times['step'] / times['stock'] - 1):+.1f} %",
    ]


# -- batch --------------------------------------------------------------------------------------------------------


def batch_row(
    name: str, model: Model, processor: DSTSmolVLMProcessor, sessions: Sequence[Session], repeats: int
) -> list[str]:
    """One row of the table of streams side by side; all sessions are cut to the shortest."""
    frames = min(len(session.features) for session in sessions)
    fresh: dict[str, list[StreamBatch]] = {}

    def begin(side: str) -> None:
        groups = [[session] for session in sessions] if side == "alone" else [list(sessions)]
        fresh[side] = [StreamBatch(model, processor, [one.task for one in group]) for group in groups]
        for batch, group in zip(fresh[side], groups, strict=True):
            batch.step([one.features[0] for one in group], [one.user_texts[0] for one in group])

    def alone() -> None:
        for batch, session in zip(fresh["alone"], sessions, strict=True):
            for frame in range(1, frames):
                batch.step([session.features[frame]], [session.user_texts[frame]])

    def lock() -> None:
        (batch,) = fresh["lock"]
        for frame in range(1, frames):
            batch.step([one.features[frame] for one in sessions], [one.user_texts[frame] for one in sessions])

    def run() -> None:
        (batch,) = fresh["run"]
        for _ in batch.run([list(session.inputs())[1:frames] for session in sessions]):
            pass

    times = in_turn(
        {"alone": alone, "lock": lock, "run": run},
        repeats,
        {side: partial(begin, side) for side in ("alone", "lock", "run")},
    )
    shown = len(sessions) * (frames - 1)
    return [
        name,
        f"{len(sessions)} x {frames - 1}",
        *(f"{shown / times[side]:.0f}" for side in ("alone", "lock", "run")),
        f"{times['alone'] / times['lock']:.2f} x",
        f"{times['alone'] / times['run']:.2f} x",
    ]


# -- all together -------------------------------------------------------------------------------------------------


def machine() -> str:
    """What the times were measured on."""
    found = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return (
        f"{found[0] if found else platform.machine()}, {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, float32"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)} (default all)")
    parser.add_argument("--model", type=Path, default=Path("outputs/tiny"), help="what training wrote (%(default)s)")
    parser.add_argument(
        "--smolvlm2",
        default="HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
        help="folder or name of the checkpoint whose config.json gives the 256M shape (%(default)s)",
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
        print("error: /proc/self/statm is not there, so memory cannot be measured; Linux is needed.", file=sys.stderr)
        return 2

    torch.manual_seed(0)
    trained = (args.model / "results.json").is_file()
    if trained:
        tiny, processor, sessions = load_trained(args.model)
    else:
        processor = tiny_processor([GOAL, *STEPS], TinyShape())
        tiny = tiny_model(processor, TinyShape()).eval()
        tiny.config.speaking_threshold = tiny.config.dst_update_threshold = NEVER
        sessions = [random_session(tiny, 80) for _ in range(STREAMS)]
    print(f"{machine()}; tiny on one: {args.model if trained else 'fresh'}", flush=True)
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
            print(f"\n## quality\n\n{args.model} holds no trained model: run scripts/train.py first.")
    return 0 if worst <= 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
