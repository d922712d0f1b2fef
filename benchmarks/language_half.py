"""A real language half learns real dialogues: perplexity of held-out responses before and after LoRA, on a CPU.

The text model is SmolLM2-135M (``prospect_hf.training.text_half``) and the eyes are blind: a vision tower with random
weights, smaller here than SmolVLM2's, for frames of 64 pixels. The pictures are drawn from the labels
(``data.frames=rendered``) and encoded once. LoRA layers and heads are trained on clips of three sources of ProAssist
and tested on sessions of three others, so no video, plan or dialogue is in both.

Figures are teacher-forced: the perplexity of a response's tokens after the true history, its end token included, and
the decisions after the true history. F1 is that of the best threshold, beside the F1 of a coin that always says yes.

Examples:
    python benchmarks/language_half.py --corpus data/proassist
    python benchmarks/language_half.py --corpus data/proassist --gguf SmolLM2-135M.gguf --steps 8 --labels semantic

Exit codes: 0 done and the perplexity fell, 1 it did not, 2 a bad argument or a corpus or file that cannot be used.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from one_sentence import exit_code

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.clip_index import open_clips
from prospect_hf.data.clips import ClipCollator, ClipDataset, ClipInputs
from prospect_hf.data.encode import encoded_frames
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_store import SessionStore
from prospect_hf.evaluation.teacher_forced import teacher_forced
from prospect_hf.machine import machine
from prospect_hf.metrics.decisions import binary_metrics
from prospect_hf.tables import table
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.build import build_model, build_processor
from prospect_hf.training.splits import load_splits
from prospect_hf.training.text_half import PACKAGE, Shape, gguf_path, write_text_half
from prospect_hf.training.trainer import DSTTrainer

TRAINED, HELD_OUT = ("assembly101", "ego4d", "epickitchens"), ("egoexolearn", "holoassist", "wtag")
SMALL_EYES = Shape(
    vision_hidden=192, vision_intermediate=768, vision_layers=2, vision_heads=3, image_size=64, patch_size=8
)


def sessions_of(sources: Sequence[str], corpus: Path, labels: str, cache: Path) -> tuple[DataArguments, SessionStore]:
    """The data settings, and all sessions of ``sources``, whatever their split."""
    data = DataArguments(
        name="proassist", root=str(corpus), sources=list(sources), frames="rendered", dst=labels, cache_dir=str(cache)
    )
    return data, load_splits(data).sessions


def measure(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    frames: FrameFeatures,
    sessions: SessionStore,
    tokens: int,
) -> dict[str, float]:
    """Perplexities of responses and state texts, and the decisions' figures, over all of ``sessions``."""
    model.eval()
    nll, count = np.zeros(2), np.zeros(2)
    scores: dict[str, list[np.ndarray]] = {"speaking": [], "dst_update": []}
    labels: dict[str, list[np.ndarray]] = {"speaking": [], "dst_update": []}
    for number, made in teacher_forced(model, processor, frames, list(sessions), tokens):
        assert made.forced is not None
        for kind in (0, 1):
            chosen = made.forced.is_state == bool(kind)
            nll[kind] += made.forced.nll[chosen].sum()
            count[kind] += made.forced.tokens[chosen].sum()
        for name, values, truth in (
            ("speaking", made.p_speak, sessions[number].speaking),
            ("dst_update", made.p_update, sessions[number].dst_update),
        ):
            scores[name].append(values)
            labels[name].append(truth)
    found = {"responses": math.exp(nll[0] / count[0]), "states": math.exp(nll[1] / max(count[1], 1))}
    found |= {"tokens": count[0], "state tokens": count[1]}
    for name in scores:
        figures = binary_metrics(np.concatenate(scores[name]), np.concatenate(labels[name]), name=name)
        truth = np.concatenate(labels[name])
        share = float((truth == 1).sum() / (truth >= 0).sum())
        found |= {f"{name} f1": float(figures[f"{name}_best_f1"] or 0), f"{name} yes": 2 * share / (1 + share)}
        found[f"{name} precision"] = float(figures[f"{name}_average_precision"] or 0)
    return found


def report(before: dict[str, float], after: dict[str, float]) -> str:
    """The table of the held-out sessions."""
    rows = [["held-out sessions", "base, new heads", "LoRA", "always yes"]]
    for label, key in (("perplexity of responses", "responses"), ("perplexity of state texts", "states")):
        rows.append([label, f"{before[key]:.2f}", f"{after[key]:.2f}", ""])
    for label, name in (("speaking", "speaking"), ("DST update", "dst_update")):
        rows.append(
            [f"{label}, best F1", *(f"{f[name + ' f1']:.3f}" for f in (before, after)), f"{after[name + ' yes']:.3f}"]
        )
        rows.append([f"{label}, average precision", *(f"{f[name + ' precision']:.3f}" for f in (before, after)), ""])
    return str(table(rows))


def run(args: argparse.Namespace, folder: Path) -> int:
    """Assemble, measure, train, measure again; returns the exit code."""
    began = time.perf_counter()
    base, cache = folder / "base", folder / "cache"
    write_text_half(gguf_path(args.gguf), base, SMALL_EYES)
    data, learned = sessions_of(TRAINED, args.corpus, args.labels, cache)
    _, held_out = sessions_of(HELD_OUT, args.corpus, args.labels, cache)
    settings = DSTTrainingArguments(
        output_dir=str(folder / "run"),
        mode="lora",
        lora_dropout=0.0,
        max_steps=args.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=args.batch,
        learning_rate=args.rate,
        lr_scheduler_type="cosine",
        warmup_steps=3,
        logging_steps=5,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        seed=args.seed,
    )
    transformers.set_seed(args.seed)
    chosen = ModelArguments(name_or_path=str(base), tokens_per_frame=1, freeze_vision=True)
    processor = build_processor(chosen, [])
    model = build_model(chosen, processor, settings)
    reader = FrameReader(args.corpus, data.frames, processor)
    frames = encoded_frames(model.eval(), reader, SessionStore([*learned.files, *held_out.files]), data, progress=False)
    clips = ClipDataset(
        open_clips(learned, processor, args.tokens, cache, 1), ClipInputs(processor, frames, 0.0, args.seed, 0.0)
    )
    print(
        f"{len(learned)} sessions in {len(clips)} clips of at most {args.tokens} tokens are trained on, "
        f"{len(held_out)} are held out.",
        flush=True,
    )
    before = measure(model, processor, frames, held_out, args.tokens)
    trainer = DSTTrainer(
        model=model,
        args=settings,
        train_dataset=clips,
        data_collator=ClipCollator(processor.tokenizer.pad_token_id),
        processing_class=processor,
    )
    started = time.perf_counter()
    trainer.train()
    trained = time.perf_counter() - started
    after = measure(model, processor, frames, held_out, args.tokens)
    print(report(before, after))
    print(
        f"\n{int(before['tokens'])} tokens of responses, {int(before['state tokens'])} of state texts; {args.steps} "
        f"steps of {args.batch} clips; {model.num_parameters(only_trainable=True) / 1e6:.2f} M of "
        f"{model.num_parameters() / 1e6:.1f} M parameters trained; {trained:.0f} s of training, "
        f"{time.perf_counter() - began:.0f} s in all.\n{machine()}"
    )
    return 0 if after["responses"] < before["responses"] else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder that holds processed_data of ProAssist")
    parser.add_argument("--gguf", default=PACKAGE, help=f"GGUF file of SmolLM2-135M (default: the package {PACKAGE})")
    parser.add_argument("--labels", choices=("words", "semantic"), default="words", help="state labels (default words)")
    parser.add_argument("--steps", type=int, default=24, help="training steps (default 24)")
    parser.add_argument("--batch", type=int, default=2, help="clips a step (default 2)")
    parser.add_argument("--tokens", type=int, default=512, help="largest clip in tokens (default 512)")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate (default 5e-4)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default 0)")
    args = parser.parse_args(argv)
    if min(args.steps, args.batch) < 1 or args.tokens < 256:
        parser.error("--steps and --batch are 1 or more, --tokens is 256 or more")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        return run(args, Path(folder))


if __name__ == "__main__":
    sys.exit(exit_code(main))
