"""A small GGUF file with a language model and a tokenizer, as that of SmolLM2-135M is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from prospect_hf.training.text_half import Shape

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w"]


def small_tokens() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return [*CONTROL, *sorted(ByteLevel.alphabet()), *("".join(merge.split()) for merge in MERGES)]


SMALL = Shape(
    tokens=264,
    hidden=32,
    intermediate=48,
    layers=2,
    heads=4,
    kv_heads=2,
    positions=2048,
    vision_hidden=16,
    vision_intermediate=16,
    vision_layers=1,
    vision_heads=2,
    image_size=32,
    patch_size=8,
    scale_factor=2,
)


def write_gguf(path: Path, shape: Shape = SMALL, architecture: str = "llama", **changes: Any) -> Path:
    """Write the file, with ``changes`` of the metadata by the last part of the name (``embedding_length=7``), or of
    ``tokens``, ``types`` and ``merges`` (an empty list leaves one out); ``without``, ``added`` and ``infinite`` name a
    tensor, and ``sizes`` gives those of some."""
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    values = {name.rpartition(".")[2]: (name, value) for name, value in shape.of_gguf.items()}
    for short, (name, value) in values.items():
        value = changes.get(short, value)
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(name, value)
    tokens = small_tokens()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("pre", "smollm"))
    types = [3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL))
    lists = {"tokens": tokens, "types": types, "merges": MERGES} | changes
    for name, key in (("tokens", "tokens"), ("types", "token_type"), ("merges", "merges")):
        if lists[name]:
            writer.add_array(f"tokenizer.ggml.{key}", lists[name])
    generator = np.random.default_rng(0)
    width, inner = shape.hidden, shape.intermediate
    kv = width // shape.heads * shape.kv_heads
    sizes = {"token_embd": (shape.tokens, width), "output_norm": (width,)}
    for layer in range(shape.layers):
        of_layer = {
            "attn_q": (width, width),
            "attn_k": (kv, width),
            "attn_v": (kv, width),
            "attn_output": (width, width),
            "ffn_gate": (inner, width),
            "ffn_up": (inner, width),
            "ffn_down": (width, inner),
            "attn_norm": (width,),
            "ffn_norm": (width,),
        }
        sizes |= {f"blk.{layer}.{name}": size for name, size in of_layer.items()}
    sizes |= changes.get("sizes", {})
    if "added" in changes:
        sizes[changes["added"]] = (4, 4)
    for name, size in sizes.items():
        if changes.get("without") != name:
            values_of = (generator.normal(size=size) * 0.3 + name.endswith("norm")).astype(np.float32)
            if changes.get("infinite") == name:
                values_of.flat[3] = np.inf
            writer.add_tensor(f"{name}.weight", values_of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
