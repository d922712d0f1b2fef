"""The reuse and overhead parts of ``streaming.py``: silent steps against full passes and the bare text model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from streaming_sessions import NEVER, Session, median_seconds, random_session
from transformers import DynamicCache

from context_dst_smolvlm import Context
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration as Model
from processing_dst_smolvlm import DSTSmolVLMProcessor, Stream
from streaming_dst_smolvlm import DSTStream


def filled_stream(
    model: Model, processor: DSTSmolVLMProcessor, session: Session, tokens: int
) -> tuple[DSTStream, Stream]:
    """A silent stream with ``tokens`` tokens in its cache, the last one a frame's; and the same tokens as a Stream."""
    stream = DSTStream(
        model,
        processor,
        session.task.plan,
        session.task.goal,
        context=Context(max_tokens=4096),
        speaking_threshold=NEVER,
        dst_update_threshold=NEVER,
    )
    sequence = stream.batch.rows[0].task.prompt(processor, stream.batch.rows[0].first_states)
    stream.step(session.features[0])
    processor.add_frame(sequence)
    # The frames in between are queued, and fed in one pass with the last one.
    row, between = stream.batch.rows[0], tokens - stream.cache_length - 1
    row.pending.extend([processor.image_id] * between)
    row.features.extend(session.features[1 : 1 + between, 0])
    stream.step(session.features[1 + between])
    for _ in range(between + 1):
        processor.add_frame(sequence)
    assert stream.cache_length == len(sequence.input_ids) == tokens
    return stream, sequence


def head_logits(model: Model, run: Callable[[], object]) -> torch.Tensor:
    """The concatenated logits of the three heads in the forward passes of ``run``."""
    logits: list[torch.Tensor] = []
    heads = (model.speaking_decision_head, model.dst_update_head, model.dst_state_head)
    hooks = [head.register_forward_hook(lambda module, inputs, out: logits.append(out.flatten())) for head in heads]
    run()
    for hook in hooks:
        hook.remove()
    return torch.cat(logits)


@torch.inference_mode()
def reuse_row(model: Model, processor: DSTSmolVLMProcessor, tokens: int, repeats: int) -> tuple[list[str], float]:
    """The table row that compares a step with reading the prefix again; and the largest difference of a logit."""
    session = random_session(model, tokens)
    stream, sequence = filled_stream(model, processor, session, tokens)
    frames = len(sequence.frame_positions)
    prefix = {
        "input_ids": torch.tensor([sequence.input_ids]),
        "attention_mask": torch.ones(1, tokens, dtype=torch.long),
        "frame_features": session.features[:frames],
    }
    heads = {
        "frame_positions": torch.tensor([sequence.frame_positions[-1:]]),
        "step_positions": torch.tensor([sequence.step_positions]),
    }

    def steps(count: int = 10) -> None:
        for _ in range(count):
            stream.batch.cache.truncate(0, tokens - 1)
            stream.step(session.features[frames - 1])

    def forward() -> None:
        model(**prefix, **heads, use_cache=False, logits_to_keep=1)

    def generate() -> None:
        model.generate(**prefix, max_new_tokens=1, do_sample=False)

    stepped, recomputed = head_logits(model, lambda: steps(1)), head_logits(model, forward)
    difference = float((stepped - recomputed).abs().max())
    times = median_seconds({"steps": steps, "forward": forward, "generate": generate}, repeats)
    step = times["steps"] / 10
    row = [
        f"{tokens}",
        f"{1000 * step:.1f} ms",
        f"{1000 * times['forward']:.0f} ms",
        f"{1000 * times['generate']:.0f} ms",
        f"{times['forward'] / step:.0f} x",
        f"{times['generate'] / step:.0f} x",
        f"{difference:.1e}",
        f"{float(recomputed.std()):.1f}",
    ]
    return row, difference


def reuse(
    model: Model, processor: DSTSmolVLMProcessor, lengths: Sequence[int], repeats: int
) -> tuple[list[list[str]], float]:
    """The table of the reuse part for each of ``lengths`` tokens, and the largest difference of a head's logit."""
    head = ["tokens", "step", "forward", "generate", "forward / step", "generate / step", "largest difference"]
    rows, differences = [[*head, "spread of the logits"]], []
    for tokens in lengths:
        row, difference = reuse_row(model, processor, tokens, repeats)
        rows.append(row)
        differences.append(difference)
    return rows, max(differences)


@torch.inference_mode()
def overhead_row(name: str, model: Model, processor: DSTSmolVLMProcessor, tokens: int, repeats: int) -> list[str]:
    """The table row that compares a silent step with the bare text model."""
    session = random_session(model, tokens + 1)
    stream, sequence = filled_stream(model, processor, session, tokens)
    text_model, cache, device = model.model.text_model, stream.batch.cache, model.device
    feature = session.features[0]
    embeds = feature[None].to(model.dtype)
    dynamic = DynamicCache(config=model.config.text_config)
    text_model(
        inputs_embeds=model.joint_embed(
            torch.tensor([sequence.input_ids]), frame_features=session.features[: len(sequence.frame_positions)]
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

    def truncate() -> None:
        cache.truncate(0, tokens)

    def truncate_and_begin() -> None:
        truncate()
        cache.begin(slice(0, 1), [1], device)

    times = median_seconds(
        {"step": step, "own": own, "stock": stock},
        repeats,
        {"step": truncate, "own": truncate_and_begin, "stock": lambda: dynamic.crop(tokens - dynamic.get_seq_length())},
    )
    return [
        name,
        f"{tokens}",
        *(f"{1000 * times[side]:.3f} ms" for side in ("step", "own", "stock")),
        f"{1e6 * (times['step'] - times['own']):.0f} µs",
        f"{100 * (times['step'] / times['own'] - 1):+.1f} %",
        f"{100 * (times['step'] / times['stock'] - 1):+.1f} %",
    ]
