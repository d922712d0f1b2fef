"""What each choice about rare decisions buys: one factor at a time from the focal loss, on two
simulated corpora.

    python benchmarks/ablation.py FOLDER                       # all cells; the same command goes on where it stopped
    python benchmarks/ablation.py FOLDER --only 5/balanced,1/lm --seeds 0,1 --steps 200 --workers 2
    python benchmarks/ablation.py FOLDER --table               # the table of the cells that are there, nothing trained

The corpora differ in the pauses between the events: about 5 % and about 1 % of the frames have a positive label. A cell
is a corpus, a variant and a seed. For each seed a small model learns to see on the corpus of 5 % (the first stage of
``prospect train``) and loses its two decision heads. From there every variant trains on whole sessions, by the job
``prospect train``: the same start, the same clips in the same order, and decisions that begin anew for all of them, so
differences between variants are differences of pairs. A cell is one file, ``FOLDER/cells/CORPUS-VARIANT-SEED.json``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import transformers

from prospect_hf.checked_json import load_json
from prospect_hf.cli import main as prospect
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.reader import FrameReader
from prospect_hf.files import replacing_folder, sole_writer, write_json
from prospect_hf.metrics.task_score import task_score
from prospect_hf.settings import compose, parse
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.build import build_model, build_processor, load_whole
from prospect_hf.training.resume import run_record
from prospect_hf.training.splits import load_splits
from prospect_hf.training.stages import learn_to_look
from prospect_hf.workers import worker_pool

LOOK_STEPS = 800
GROUPS = {
    "model": "prospect_hf.training.arguments:ModelArguments",
    "data": "prospect_hf.data.arguments:DataArguments",
    "training": "prospect_hf.training.arguments:DSTTrainingArguments",
    "context": "context_dst_smolvlm:Context",
}
# Recordings are those of each of the six sources; ranges of the scene are in frames, two a second.
CORPORA = {
    "5": {
        "data.recordings": "{train:80,val:6,test:8}",
        "data.scene": "{steps:[3,4],p_shared_colour:0.0,idle:[4,20],work:[4,16],trailing:[4,16]}",
        "data.max_seq_len": "640",
    },
    "1": {
        "data.recordings": "{train:24,val:4,test:6}",
        "data.scene": "{steps:[2,3],p_shared_colour:0.0,idle:[50,140],work:[25,80],trailing:[25,90]}",
        "data.max_seq_len": "1024",
    },
}
STEPS = {"5": 300, "1": 150}
# From which each variant differs in one setting.
BASELINE = "focal"
BASELINE_SETTINGS = {"training.decision_loss": "focal"}
VARIANTS = {
    BASELINE: {},
    "balanced": {"training.decision_loss": "balanced"},
    "cross_entropy": {"training.decision_loss": "cross_entropy"},
    "class_weights": {"training.class_weights": "data"},
    "negative_rate": {"data.negative_rate": "0.1"},
    "lm": {"model.decision_source": "lm"},
    "no_feedback": {"model.state_feedback": "false"},
    "state_noise": {"data.state_noise": "0.2"},
}
# The free run on the test sessions, then what the validation clips say of the scores.
FIGURES = {
    "joint state": ("free_run", "table_joint_state_accuracy"),
    "speaking F1": ("free_run", "speaking_f1_1s"),
    "update F1": ("free_run", "dst_update_f1_1s"),
    "speaking AP": ("validation", "eval_speaking_average_precision"),
    "update AP": ("validation", "eval_dst_update_average_precision"),
    "speaking ECE": ("validation", "eval_speaking_calibration_error"),
    "update ECE": ("validation", "eval_dst_update_calibration_error"),
}
TASK = ("joint state", "speaking F1", "update F1")


def corpus_settings(folder: Path, corpus: str) -> list[str]:
    """The settings of ``data``."""
    places = [f"data.root={folder / f'corpus-{corpus}'}", f"data.cache_dir={folder / 'cache'}"]
    return [*places, *(f"{key}={value}" for key, value in CORPORA[corpus].items())]


def arguments(overrides: Sequence[str]) -> tuple[ModelArguments, DataArguments, DSTTrainingArguments]:
    """The dataclasses of a training job."""
    values = compose("train", GROUPS, overrides)
    return (
        parse(ModelArguments, values["model"], "model"),
        parse(DataArguments, values["data"], "data"),
        parse(DSTTrainingArguments, values["training"], "training"),
    )


def balance_line(folder: Path, corpus: str) -> str:
    """Write the corpus and its rows where they are missing, and say how many labels are positive."""
    _, data, _ = arguments([*corpus_settings(folder, corpus), "training.use_cpu=true"])
    counts = load_splits(data).balance["all dialogs train"]
    shares = {
        name: 100 * counts[f"{name}_1"] / (counts[f"{name}_1"] + counts[f"{name}_0"])
        for name in ("speaking", "dst_update")
    }
    return (
        f"Corpus {corpus}: {counts['sessions']} training sessions, {counts['rows']} frames; positive labels: speaking "
        f"{shares['speaking']:.2f} %, DST update {shares['dst_update']:.2f} %."
    )


def make_start(folder: Path, seed: int) -> Path:
    """The model of a seed that has learned to see, without decision heads; made where it is missing."""
    start = folder / "starts" / str(seed)
    if start.is_dir():
        return start
    overrides = [*corpus_settings(folder, "5"), f"training.look_steps={LOOK_STEPS}", f"training.seed={seed}"]
    overrides += [f"{key}={value}" for key, value in BASELINE_SETTINGS.items()]
    overrides += ["training.use_cpu=true", "training.disable_tqdm=true", f"training.output_dir={folder / 'runs'}"]
    model_args, data, args = arguments(overrides)
    transformers.set_seed(seed)
    splits = load_splits(data)
    processor = build_processor(model_args, splits.learned)
    model = build_model(model_args, processor, args)
    reader = FrameReader(Path(str(data.root)), data.frames, processor)
    learn_to_look(model, processor, reader, splits, args, run_record(model_args, data, args, splits), None)
    start.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(folder / "runs" / f"start-{seed}") as whole:
        model.save_pretrained(whole)
        processor.save_pretrained(whole)
        with replacing_folder(start) as temporary:
            bare = ModelArguments(name_or_path=str(whole), decision_source="lm")
            load_whole(bare, processor).save_pretrained(temporary)
            processor.save_pretrained(temporary)
    return start


def cell_settings(folder: Path, corpus: str, variant: str, seed: int, steps: int | None) -> list[str]:
    """What ``prospect train`` is given for a cell."""
    return [
        *corpus_settings(folder, corpus),
        f"model.name_or_path={folder / 'starts' / str(seed)}",
        "model.freeze_vision=true",
        "model.decision_source=heads",
        "training.look_steps=0",
        f"training.max_steps={STEPS[corpus] if steps is None else steps}",
        f"training.seed={seed}",
        "training.use_cpu=true",
        "training.disable_tqdm=true",
        *(f"{key}={value}" for key, value in {**BASELINE_SETTINGS, **VARIANTS[variant]}.items()),
    ]


def cell_path(folder: Path, cell: tuple[str, str, int]) -> Path:
    """The file of a cell."""
    return folder / "cells" / ("-".join(map(str, cell)) + ".json")


def done(folder: Path, cell: tuple[str, str, int], steps: int | None) -> bool:
    """Whether the cell's file is there, with the settings that it has now."""
    path = cell_path(folder, cell)
    return path.is_file() and load_json(path)["settings"] == cell_settings(folder, *cell, steps)


def train_cells(folder: Path, corpus: str, seed: int, variants: Sequence[str], steps: int | None) -> list[str]:
    """Train the variants of one corpus and seed, each into its file; returns a line for each."""
    torch.set_num_threads(1)
    lines = []
    log = folder / "logs" / f"{corpus}-{seed}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        with sole_writer(folder / "starts" / str(seed), wait=True):  # both corpora need it
            make_start(folder, seed)
        for variant in variants:
            output = folder / "runs" / f"{corpus}-{variant}-{seed}"
            settings = cell_settings(folder, corpus, variant, seed, steps)
            started = time.perf_counter()
            if prospect(["train", *settings, f"training.output_dir={output}"]):
                raise RuntimeError(f"cell {corpus}-{variant}-{seed} failed: see {log}")
            seconds = time.perf_counter() - started
            results = load_json(output / "results.json")["results"]
            figures = {name: results[part].get(key) for name, (part, key) in FIGURES.items()}
            cell = {"settings": settings, "figures": figures, "seconds": seconds}
            cell_path(folder, (corpus, variant, seed)).parent.mkdir(exist_ok=True)
            write_json(cell_path(folder, (corpus, variant, seed)), cell)
            shutil.rmtree(output)
            lines.append(f"{corpus}-{variant}-{seed}: {seconds:.0f} s")
    return lines


def spread(values: Sequence[float | None], signed: bool = False) -> str:
    """Mean and standard deviation over seeds."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):{'+' if signed else ''}.3f}"
    return mean if len(known) < 2 else f"{mean} ± {statistics.stdev(known):.3f}"


def task(figures: Mapping[str, Any]) -> float:
    """The task score of a cell; a figure that is undefined, such as the F1 of a decision never taken, counts 0."""
    return task_score(*(figures[name] or 0.0 for name in TASK)) or 0.0


def corpus_table(folder: Path, corpus: str, seeds: Sequence[int]) -> str:
    """The Markdown table of a corpus: mean and standard deviation over the seeds that are there.

    ``against focal`` is the difference of the task score to the baseline's, seed by seed.
    """
    found = {
        (variant, seed): load_json(path)["figures"]
        for variant in VARIANTS
        for seed in seeds
        if (path := cell_path(folder, (corpus, variant, seed))).is_file()
    }
    lines = [
        f"| {corpus} % | seeds | task score | against {BASELINE} | {' | '.join(FIGURES)} |",
        "|---" * (4 + len(FIGURES)) + "|",
    ]
    for variant in VARIANTS:
        own = {seed: figures for (name, seed), figures in found.items() if name == variant}
        if not own:
            continue
        pairs = [task(own[seed]) - task(found[BASELINE, seed]) for seed in own if (BASELINE, seed) in found]
        cells = [variant, str(len(own)), spread([task(figures) for figures in own.values()])]
        cells += ["" if variant == BASELINE else spread(pairs, signed=True)]
        cells += [spread([figures[name] for figures in own.values()]) for name in FIGURES]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def chosen_cells(only: str | None, seeds: Sequence[int]) -> list[tuple[str, str, int]]:
    """The cells that are asked for, seed by seed.

    Raises:
        ValueError: ``only`` names a corpus or a variant that is not there.
    """
    pairs = [(corpus, variant) for corpus in CORPORA for variant in VARIANTS]
    if only is not None:
        wanted = [tuple(one.split("/")) for one in only.split(",")]
        unknown = ["/".join(one) for one in wanted if one not in pairs]
        if unknown:
            raise ValueError(
                f"--only {unknown[0]}: write CORPUS/VARIANT, of {', '.join(CORPORA)} and {', '.join(VARIANTS)}."
            )
        pairs = [pair for pair in pairs if pair in wanted]
    return [(corpus, variant, seed) for seed in seeds for corpus, variant in pairs]


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where corpora, starts and cells are kept")
    parser.add_argument("--only", help="CORPUS/VARIANT, several with commas (default: all)")
    parser.add_argument("--seeds", default="0,1,2", help="seeds (default 0,1,2)")
    parser.add_argument("--steps", type=int, help="steps of the second stage (default 300 and 150)")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each (default 1)")
    parser.add_argument("--table", action="store_true", help="only print the tables of the cells that are there")
    args = parser.parse_args(argv)
    if not all(seed.isdecimal() for seed in args.seeds.split(",")) or args.workers < 1 or (args.steps or 1) < 1:
        parser.error("--seeds takes whole numbers with commas; --workers and --steps are 1 or more")
    seeds = [int(seed) for seed in args.seeds.split(",")]
    try:
        cells = chosen_cells(args.only, seeds)
    except ValueError as error:
        parser.error(str(error))
    folder = args.folder.resolve()
    if not args.table:
        for corpus in CORPORA:
            print(balance_line(folder, corpus), flush=True)
        missing: dict[tuple[str, int], list[str]] = {}
        for corpus, variant, seed in cells:
            if not done(folder, (corpus, variant, seed), args.steps):
                missing.setdefault((corpus, seed), []).append(variant)
        with worker_pool(args.workers) as pool:
            waiting = [
                pool.submit(train_cells, folder, corpus, seed, variants, args.steps)
                for (corpus, seed), variants in missing.items()
            ]
            for lines in waiting:
                print("\n".join(lines.result()), flush=True)
    for corpus in CORPORA:
        print(f"\n{corpus_table(folder, corpus, seeds)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
