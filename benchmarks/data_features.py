"""Encoded frames: how fast a 256M-shaped model fills a cache, and what an epoch from the cache saves.

    OMP_NUM_THREADS=1 python benchmarks/data_features.py [--frames 16] [--size 512] [--repeats 1]

The model has the sizes of SmolVLM2-256M (vision: 12 layers of width 768, patches of 16 pixels, pixel shuffle by 4;
language: 30 layers of width 576) and random weights with a small vocabulary, one token a frame; speed does not depend
on the weights. Frames are JPEG pictures of 384 x 384 pixels in a frame file, as in the corpus. An epoch is forward and
backward over all clips with vision tower and connector frozen; both ways see the same clips, alternating. Times are
seconds of the processor, so that other programs do not count: give one thread. Printed is the median of the repeats.

Exit codes: 0 done; 1 the two ways give other losses.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.content_hash import KnownHashes
from prospect_hf.data.clip_index import clips_of
from prospect_hf.data.clips import ClipCollator, ClipDataset, ClipInputs
from prospect_hf.data.encode import Settings, encode_videos
from prospect_hf.data.encode_plan import feature_bytes, videos_of
from prospect_hf.data.features import HASHES_FILE, FrameFeatures, fingerprint
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.frames.store import write_frames
from prospect_hf.simulator.render import encode_jpeg
from prospect_hf.tables import table
from prospect_hf.training.arguments import TinyShape
from prospect_hf.training.build import freeze_vision
from prospect_hf.training.tiny import tiny_config, tiny_processor

STEPS = ["Attach the red wheel.", "Tighten the bolt.", "Place the lid."]
GOAL = "Assemble the toy."
CORPUS_FRAMES = 3_450_000  # unique frames of ProAssist's corpus
# Width, inner width, layers and heads of the two halves of SmolVLM2-256M.
VISION, LANGUAGE = (768, 3072, 12, 12), (576, 1536, 30, 9)
PICTURE = 384  # pixels of a stored frame
# Width of SmolVLM2's language models by name, and their tokens of a whole frame.
MODELS = {"256M": (576, 64), "500M": (960, 64), "2.2B": (2048, 81)}


def large_model(size: int) -> tuple[DSTSmolVLMForConditionalGeneration, DSTSmolVLMProcessor]:
    """A model of the sizes of SmolVLM2-256M, vision tower and connector frozen."""
    shape = TinyShape(image_size=size, patch_size=16, scale_factor=4, hidden_size=96, heads=4, vocab_size=340)
    processor = tiny_processor([GOAL, *STEPS] * 3, shape)
    config = tiny_config(processor, shape)
    vision, text = config.vision_config, config.text_config
    vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers, vision.num_attention_heads = VISION
    text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.num_attention_heads = LANGUAGE
    text.num_key_value_heads, text.head_dim = 3, 64
    model = DSTSmolVLMForConditionalGeneration(config)
    freeze_vision(model)
    return model.eval(), processor


def make_corpus(root: Path, frames: int) -> SessionRows:
    """A frame file of smooth noise, and a session on it."""
    rng = np.random.default_rng(0)
    path = root / "processed_data" / "wtag" / "frames" / "v.arrow"
    coarse = [Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)) for _ in range(frames)]
    write_frames(path, (encode_jpeg(one.resize((PICTURE, PICTURE), Image.Resampling.BICUBIC)) for one in coarse))
    states = np.zeros((frames, len(STEPS)), np.int8)
    nothing = np.zeros(frames, np.int8)
    return SessionRows(
        "wtag.v.talk_some_0",
        "wtag",
        "v",
        "talk_some",
        GOAL,
        STEPS,
        "frames/v.arrow",
        0,
        nothing,
        nothing,
        states,
        states,
    )


def epoch(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    sessions: Sequence[SessionRows],
    frames: FrameReader | FrameFeatures,
) -> tuple[float, float, float]:
    """Seconds of an epoch: forward and backward of the language half; the part of reading; and the loss."""
    clips = ClipDataset(clips_of(sessions, processor, 400), ClipInputs(processor, frames))
    collator = ClipCollator(processor.tokenizer.pad_token_id)
    started, reading, loss = time.process_time(), 0.0, 0.0
    for index in range(len(clips)):
        before = time.process_time()
        batch = collator([clips[index]])
        reading += time.process_time() - before
        labels = {name: batch.pop(name) for name in ("speaking_labels", "dst_update_labels", "dst_state_labels")}
        out = model(**batch)
        states = torch.nn.functional.cross_entropy(
            out.dst_state_logits.flatten(0, 2), labels["dst_state_labels"].flatten()
        )
        states.backward()
        model.zero_grad()
        loss += states.item()
    return time.process_time() - started, reading, loss


def compare(frames: int, size: int, repeats: int) -> tuple[float, list[list[str]], float]:
    """Frames encoded a second, the rows of the epochs' table, and the difference of their losses."""
    torch.manual_seed(0)
    model, processor = large_model(size)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        session = make_corpus(root, frames)
        reader = FrameReader(root, "store", processor, keep=False)
        expected = fingerprint(model, processor, "store")
        features = FrameFeatures(root / expected.digest, reader, expected, KnownHashes(root / HASHES_FILE))
        started = time.process_time()
        encode_videos(model, features, videos_of([session], reader), Settings(8, 1), progress=False)
        rate = frames / (time.process_time() - started)
        ways: dict[str, list[tuple[float, float, float]]] = {"pixels": [], "features": []}
        for _ in range(repeats):
            for name, source in (("pixels", reader), ("features", features)):
                ways[name].append(epoch(model, processor, [session], source))
    median = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in ways.items()}
    rows = [["epoch from", "seconds", "of which reading", "frames/s", "times"]]
    for name, (whole, reading, _) in median.items():
        ratio = median["pixels"][0] / whole
        rows.append([name, f"{whole:.3f}", f"{reading:.3f}", f"{frames / whole:.1f}", f"{ratio:.1f}"])
    return rate, rows, abs(median["pixels"][2] - median["features"][2])


def corpus_plan(rate: float) -> list[list[str]]:
    """Bytes of the features of the whole corpus, by model and tokens a frame; hours at ``rate`` frames a second."""
    rows = [["model, tokens a frame", "bytes a frame, float16", "corpus, float16", "corpus, float32", "hours"]]
    for name, (width, whole_frame) in MODELS.items():
        for tokens in (1, 4, 9, 16, whole_frame):
            one = feature_bytes(tokens, width, "float16")
            whole = CORPUS_FRAMES * one / 1e9
            hours = f"{CORPUS_FRAMES / rate / 3600:,.0f}" if name == "256M" else ""
            rows.append([f"{name}, {tokens}", f"{one:,}", f"{whole:,.1f} GB", f"{2 * whole:,.1f} GB", hours])
    return rows


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=512, help="pixels of a side")
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    rate, rows, difference = compare(given.frames, given.size, given.repeats)
    print(f"Encoding: {given.frames} frames of {given.size} pixels, {rate:.2f} frames/s.\n")
    print(table(rows), end="\n\n")
    print(f"Features of {CORPUS_FRAMES:,} frames (SmolVLM2-256M at the rate above, one core):")
    print(table(corpus_plan(rate)))
    if difference > 1e-4:
        print(f"the losses differ by {difference}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
