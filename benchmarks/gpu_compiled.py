"""The part of ``gpu.py`` that compiles the pass of one frame: what ``torch.compile`` buys, and what it costs."""

from __future__ import annotations

import time
from typing import Any

import torch
from gpu_records import Records, median_ms
from gpu_streaming import REPEATS, Bench, FramePass
from shapes import SMOLVLM2_2B, SMOLVLM2_256M, SMOLVLM2_500M, TINY, Shape

TOKENS = 1000


@torch.no_grad()
def compiled_row(shape: Shape, device: str) -> dict[str, Any]:
    """Milliseconds of the pass with a fixed cache, eager and compiled, and the seconds until it was compiled."""
    bench = Bench(shape, device)
    stream = bench.stream(TOKENS)
    one = FramePass(bench.model, stream, bench.features[0])
    eager_logits = one.run()
    eager = median_ms(lambda: one.run().tolist(), device, REPEATS, 5)
    # Without a GPU nothing is generated: tracing alone is tried.
    options = {"mode": "reduce-overhead"} if device.startswith("cuda") else {"backend": "aot_eager"}
    quick = torch.compile(one.run, dynamic=False, **options)
    torch._dynamo.utils.counters.clear()
    began = time.monotonic()
    for _ in range(3):  # the first compiles, the second and third record the CUDA graph
        logits = quick().clone()
    seconds = time.monotonic() - began
    return {
        "model": shape.name,
        "cached tokens": stream.cache_length,
        "how": ", ".join(f"{key}={value}" for key, value in options.items()),
        "eager, ms": eager,
        "compiled, ms": median_ms(lambda: quick().tolist(), device, REPEATS, 5),
        "compiling, s": seconds,
        "graph breaks": sum(torch._dynamo.utils.counters["graph_break"].values()),
        "largest difference of a logit": float((logits.float() - eager_logits.float()).abs().max()),
        "spread of the logits": float(eager_logits.float().std()),
    }


def run(records: Records, device: str, tiny: bool, plan: dict[str, float]) -> None:
    """Record one row for each shape, the smallest first."""
    for shape in (TINY,) if tiny else (SMOLVLM2_256M, SMOLVLM2_500M, SMOLVLM2_2B):
        records.attempt(shape.name, 2 if tiny else 50, lambda shape=shape: compiled_row(shape, device))
        torch.compiler.reset()
