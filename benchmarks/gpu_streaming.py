"""The streaming part of ``gpu.py``: milliseconds a frame of one stream, and of one pass over a cache of fixed size.

``DSTStream.step`` is the whole of a silent frame: input checks, the pass, the decisions, the event. ``FramePass`` is
the pass alone, without anything that depends on the host: a cache of fixed size, the place as a tensor. It can be
recorded as a CUDA graph, or compiled, and says what a stream would gain by that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from gpu_records import Records, median_ms, peak_gib, reset_peak
from shapes import (
    GOAL,
    SMOLVLM2_2B,
    SMOLVLM2_256M,
    SMOLVLM2_500M,
    STEPS,
    TINY,
    Shape,
    model_of,
    pictures_of,
    processor_of,
)
from transformers.cache_utils import Cache, CacheLayerMixin

from context_dst_smolvlm import Context
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration as Model
from streaming_dst_smolvlm import DSTStream

NEVER = 2.0  # a threshold that no probability reaches
WINDOW = 4096  # tokens
REPEATS = 25
VISION_BATCH = 16


class FixedLayer(CacheLayerMixin):
    """Keys and values ``[1, kv_heads, capacity, head_dim]`` of one layer; a pass writes at the places of its cache."""

    is_sliding = False
    is_compileable = True

    def __init__(self, cache: FixedCache, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.cache, self.is_initialized = cache, True
        shape = (1, keys.shape[0], cache.capacity, keys.shape[2])
        self.keys, self.values = keys.new_zeros(shape), values.new_zeros(shape)
        self.keys[0, :, : keys.shape[1]] = keys
        self.values[0, :, : values.shape[1]] = values
        for kept in (self.keys, self.values):
            torch._dynamo.mark_static_address(kept)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """The tensors are there from the beginning."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the tokens of a pass; return all places, which the mask sorts out."""
        self.keys.index_copy_(2, self.cache.place, key_states)
        self.values.index_copy_(2, self.cache.place, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """All places, from the first."""
        return self.cache.capacity, 0

    def get_seq_length(self) -> int:
        """Not known on the host: the positions are given to each pass."""
        return 0

    def get_max_length(self) -> int:
        """Places."""
        return self.cache.capacity


class FixedCache(Cache):
    """A copy of one stream's keys and values with room for ``capacity`` tokens.

    Args:
        held: of ``StreamCache.read``.
        place: ``[tokens]``, where a pass writes; changed in place between passes.
        capacity: places, more than the stream holds.
    """

    def __init__(self, held: Mapping[str, torch.Tensor], place: torch.Tensor, capacity: int) -> None:
        self.place, self.capacity = place, capacity
        layers = [
            FixedLayer(self, held[f"keys.{number}"], held[f"values.{number}"]) for number in range(len(held) // 2)
        ]
        super().__init__(layers=layers)


def room_for(tokens: int) -> int:
    """Places of a fixed cache with ``tokens`` tokens: a power of 2, as ``StreamCache`` has."""
    return 1 << tokens.bit_length()


class FramePass:
    """The pass over one frame of a stream: text model and heads, with inputs at fixed addresses.

    Args:
        model: in eval mode.
        stream: its cache is copied; the frame comes after its tokens.
        frame: features ``[tokens, hidden]``.
    """

    def __init__(self, model: Model, stream: DSTStream, frame: torch.Tensor) -> None:
        self.model = model
        length, tokens = stream.cache_length, frame.shape[0]
        self.embeds = frame.detach().clone()[None]
        self.place = torch.arange(length, length + tokens, device=frame.device)
        self.step_hidden = stream.batch.step_hidden.detach().clone()
        self.cache = FixedCache(stream.batch.cache.read(0), self.place, room_for(length + tokens))

    def run(self) -> torch.Tensor:
        """The heads' logits of the frame, ``[4 + 3 * steps]``."""
        mask = torch.arange(self.cache.capacity, device=self.place.device) <= self.place[None, None, :, None]
        body = self.model.model.text_model(
            inputs_embeds=self.embeds,
            attention_mask=mask,
            position_ids=self.place[None],
            cache=self.cache,
            use_cache=True,
            return_dict=True,
        )
        heads = self.model.read_heads(body.last_hidden_state[:, -1:], self.step_hidden)
        return torch.cat([logits.flatten() for logits in heads])

    def probabilities(self, logits: torch.Tensor) -> list[float]:
        """p(speak), p(update), then all p(state), of what ``run`` returned."""
        logits = logits.float()
        states = logits[4:].unflatten(0, (-1, 3)).softmax(-1).flatten()
        return [float(logits[:2].softmax(0)[1]), float(logits[2:4].softmax(0)[1]), *states.tolist()]


def silent_stream(model: Model, processor: Any, shape: Shape, features: torch.Tensor, tokens: int) -> DSTStream:
    """A stream that never speaks, with ``tokens`` tokens in its cache, the last ones a frame's."""
    silent = {"speaking_threshold": NEVER, "dst_update_threshold": NEVER}
    stream = DSTStream(model, processor, STEPS, GOAL, context=Context(max_tokens=WINDOW), **silent)
    stream.step(features[0])
    # The frames between are fed in one pass with the next one, as if they had been pending.
    row = stream.batch.rows[0]
    frames = (tokens - stream.cache_length) // shape.frame_tokens - 1
    row.pending.extend([processor.image_id] * (frames * shape.frame_tokens))
    row.features.extend(feature for number in range(frames) for feature in features[number % len(features)])
    stream.step(features[1])
    return stream


def record_graph(run: Callable[[], torch.Tensor]) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    """``run`` as a CUDA graph, and the tensor that each replay fills."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is allocated lazily must be there before
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph, result


class Bench:
    """A model of one shape, with pictures and their features."""

    def __init__(self, shape: Shape, device: str) -> None:
        self.shape, self.device = shape, device
        self.processor = processor_of(shape)
        self.model = model_of(shape, device, torch.bfloat16 if device.startswith("cuda") else torch.float32)
        self.pictures = pictures_of(shape, VISION_BATCH if device.startswith("cuda") else 2, seed=4)
        with torch.no_grad():
            self.pixels = self.processor.pixel_values(self.pictures).to(self.model.device, self.model.dtype)
            self.features = self.model.encode_frames(self.pixels)

    def stream(self, tokens: int) -> DSTStream:
        """A silent stream with about ``tokens`` tokens."""
        return silent_stream(self.model, self.processor, self.shape, self.features, tokens)

    def step_ms(self, stream: DSTStream, frame: Any) -> tuple[float, float]:
        """Milliseconds of a silent frame at the stream's length, and those before its pass, for a picture."""
        vision, length = [], stream.cache_length

        def step() -> None:
            started = stream.step(frame).latency["vision"]
            vision.append(started * 1000)
            stream.batch.cache.truncate(0, length)

        return median_ms(step, self.device, REPEATS, 5), sorted(vision)[len(vision) // 2]

    def vision_rate(self) -> float:
        """Frames a second through the vision tower and the connector, in one batch."""
        with torch.no_grad():
            taken = median_ms(lambda: self.model.encode_frames(self.pixels), self.device, 10, 5)
        return 1000 * len(self.pixels) / taken

    @torch.no_grad()
    def row(self, tokens: int, vision_rate: float) -> dict[str, Any]:
        """The table's row at ``tokens`` cached tokens."""
        reset_peak(self.device)
        stream = self.stream(tokens)
        frame, length = self.features[0], stream.cache_length
        from_features, _ = self.step_ms(stream, frame)
        from_picture, before = self.step_ms(stream, self.pictures[0])

        one = FramePass(self.model, stream, frame)
        event = stream.step(frame)
        stream.batch.cache.truncate(0, length)
        whole = [event.p_speak, event.p_update, *(value for step in event.probabilities for value in step)]
        fixed = median_ms(lambda: one.run().tolist(), self.device, REPEATS, 5)
        answers, graphed = {"fixed": one.probabilities(one.run())}, None
        if self.device.startswith("cuda"):
            graph, result = record_graph(one.run)
            places = one.place.clone()

            def replay() -> None:
                # What a stream would do for every frame: new inputs, the graph, the decisions on the host.
                one.embeds.copy_(frame[None])
                one.place.copy_(places)
                graph.replay()
                result.tolist()

            graphed = median_ms(replay, self.device, REPEATS, 5)
            answers["graph"] = one.probabilities(result)
        apart = max(abs(a - b) for answer in answers.values() for a, b in zip(answer, whole, strict=True))
        return {
            "model": self.shape.name,
            "cached tokens": length,
            "from features, ms": from_features,
            "from a picture, ms": from_picture,
            "of it picture to features, ms": before,
            "pass with a fixed cache, ms": fixed,
            "as a CUDA graph, ms": graphed,
            "largest difference of a probability": apart,
            "vision tower, frames/s": vision_rate,
            "peak, GiB": peak_gib(self.device)[0],
        }


def run(records: Records, device: str, tiny: bool, plan: dict[str, float]) -> None:
    """Record one row for each shape and length of the cache."""
    shapes = (TINY,) if tiny else (SMOLVLM2_256M, SMOLVLM2_500M, SMOLVLM2_2B)
    for shape in shapes:

        def measure(shape: Shape = shape) -> None:
            began = time.monotonic()
            bench = Bench(shape, device)
            rate = bench.vision_rate()
            records.add("note", f"{shape.name}: built and warm after {time.monotonic() - began:.1f} s")
            for tokens in (1000,) if tiny else (500, 2000):
                records.attempt(f"{shape.name}, {tokens} tokens", 5, lambda tokens=tokens: bench.row(tokens, rate))

        records.attempt(shape.name, 10, measure)
    records.add(
        "note",
        "Silent frames of one stream, one token a frame, bfloat16 (float32 on a CPU). The fixed cache has the next "
        f"power of 2 of places, and the pass reads all of them. Times are medians of {REPEATS}.",
    )
