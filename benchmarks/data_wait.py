"""How long a training step waits for its data: the small model of ``make train`` with one worker and with none.

    python benchmarks/data_wait.py [--steps 60]

A simulated corpus of 60 recordings; rows, sessions, clips and encoded frames as in ``make train``; batches of 8 clips
of similar length. Waiting is the time until the loader hands over the next batch; the first batch, for which the worker
starts, is not counted. Pictures: the same with frames from frame files, nothing kept in memory between epochs.

Exit codes: 0 done.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.clips import ClipCollator, ClipDataset
from prospect_hf.data.encode import encoded_frames
from prospect_hf.data.reader import FrameReader
from prospect_hf.tables import table
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.build import build_processor, freeze_vision
from prospect_hf.training.splits import load_splits
from prospect_hf.training.stages import pack_clips
from prospect_hf.training.tiny import tiny_model

RECORDINGS = {"train": 60, "val": 6, "test": 6}
BATCH = 8


def waited(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    clips: ClipDataset,
    workers: int,
    steps: int,
) -> tuple[float, float]:
    """Mean milliseconds of a step, and of waiting in it."""
    order = sorted(range(len(clips)), key=clips.clips.lengths.__getitem__)
    batches = [order[at : at + BATCH] for at in range(0, len(order) - BATCH + 1, BATCH)]
    batches = (batches * (1 + (steps + 1) // len(batches)))[: steps + 1]
    loader = iter(
        DataLoader(
            clips,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=ClipCollator(processor.tokenizer.pad_token_id),
        )
    )
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], 1e-4)
    next(loader)
    wait = 0.0
    began = time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(loader)
        wait += time.perf_counter() - asked
        losses(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    return 1000 * (time.perf_counter() - began) / steps, 1000 * wait / steps


def losses(model: DSTSmolVLMForConditionalGeneration, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The losses of all heads, for a step that does the work of training."""
    labels = {name: batch.pop(name) for name in ("speaking_labels", "dst_update_labels", "dst_state_labels")}
    out = model(**batch, use_cache=False)
    pairs = (
        (out.speaking_logits, labels["speaking_labels"]),
        (out.dst_update_logits, labels["dst_update_labels"]),
        (out.dst_state_logits, labels["dst_state_labels"]),
    )
    total = sum(
        torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))
        for logits, target in pairs
    )
    return torch.as_tensor(total + (0 if out.loss is None else out.loss))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        data = DataArguments(root=str(root / "corpus"), cache_dir=str(root / "cache"), recordings=RECORDINGS)
        splits = load_splits(data)
        shape = ModelArguments()
        processor = build_processor(shape, splits.train)
        model = tiny_model(processor, shape)
        freeze_vision(model)
        reader = FrameReader(Path(str(data.root)), data.frames, processor, keep=False)
        clips = pack_clips(splits, processor, reader, data, DSTTrainingArguments(output_dir=str(root / "run")))
        rows = [["frames from", "workers", "step, ms", "waiting, ms", "share"]]
        for name in ("frame files", "features"):
            if name == "features":
                clips.read_from(encoded_frames(model, reader, splits.sessions, data, progress=False))
            for workers in (0, 1):
                step, wait = waited(model, processor, clips.train, workers, given.steps)
                rows.append([name, str(workers), f"{step:.1f}", f"{wait:.2f}", f"{wait / step:.1%}"])
        print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
