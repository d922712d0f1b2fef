"""Kills a training job with SIGKILL at many moments, and checks that the same command always goes on by itself.

A small job (simulated corpus, first stage, whole sessions, a checkpoint every few steps) is run once without a kill.
Then it is started, killed and started again with the same command, ``training.resume_from_checkpoint=true`` included,
until the kills are used up; the last start is left to end. Its weights must equal the uninterrupted run's bit for bit.

Moments:
    start      up to 8 s after the start: imports, simulating the corpus, frame rows
    look       in the first stage, in the middle of an epoch or between two
    encode     between the stages, while frames are encoded
    train      at any time of the training on whole sessions
    save       while a checkpoint is half written, of either stage
    results    while held-out sessions are followed, and while results and card are written

Variants of the job:
    plain      as above: Muon, clips grouped by length, texts left out
    random     clips in random order, two in a step of two batches, two data-loader workers
    rare       balanced loss, a share of the negative frames, wrong state texts
    streaming  from a streaming dataset, without a first stage
    workers    the same in two data-loader workers, with the settings of ``rare``
    evaluated  with evaluations and free validation between the steps, and the best model kept
    lora       with adapters
    qlora      with adapters on a base in 4 bits

Examples:
    python benchmarks/kill_trials.py --moments train --kills 20
    python benchmarks/kill_trials.py --moments look encode save --kills 20
    python benchmarks/kill_trials.py --variants streaming --moments train --kills 10
    python benchmarks/kill_trials.py --kills 4

Exit codes: 0 every job ended and its weights are equal, 1 a job refused to go on or its weights differ.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
STEPS = 40
SETTINGS = [
    *("data.sources=[wtag]", "data.recordings={train: 4, val: 1, test: 1}", "data.max_seq_len=400"),
    *("data.scene.image_size=16", "data.scene.supersample=1", "data.scene.steps=[2,2]", "data.scene.distractors=[0,0]"),
    *("data.scene.prelude=[3,3]", "data.scene.idle=[0,1]", "model.image_size=16", "model.patch_size=4"),
    *("model.scale_factor=1", "model.hidden_size=32", "model.vision_layers=1", "model.text_layers=1", "model.heads=2"),
    *("model.vocab_size=400", "model.copy_steps=2", "training.look_steps=9", "training.look_batch_size=2"),
    *(f"training.max_steps={STEPS}", "training.per_device_train_batch_size=2", "training.logging_steps=1"),
    *("training.save_strategy=steps", "training.save_total_limit=2", "training.use_cpu=true"),
    "training.resume_from_checkpoint=true",
]
RARE = ("data.negative_rate=0.3", "data.state_noise=0.3")
STREAMED = ("data.streaming=true", "training.look_steps=0")
ADAPTERS = ("training.look_steps=0", "training.muon_learning_rate=null")
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "random": (
        *("training.train_sampling_strategy=random", "training.per_device_train_batch_size=1"),
        *("training.gradient_accumulation_steps=2", "training.dataloader_num_workers=2"),
    ),
    "rare": RARE,
    "streaming": STREAMED,
    "workers": (*STREAMED, *RARE, "training.dataloader_num_workers=2"),
    "evaluated": (
        *("training.eval_strategy=steps", "training.eval_steps=1", "training.free_validation_sessions=1"),
        *("training.load_best_model_at_end=true", "training.metric_for_best_model=loss"),
    ),
    "lora": ("training.mode=lora", *ADAPTERS),
    "qlora": ("training.mode=qlora", *ADAPTERS),
}
# The line of progress after which a moment begins, and how many seconds it lasts at most.
MOMENTS = {
    "start": ("", 8.0),
    "look": ("first stage 1/", 2.5),
    "encode": ("first stage 9/9", 0.4),
    "train": ("whole sessions ", 3.0),
    "save": ("", 0.5),
    "results": ("evaluation 1/1", 1.5),
}


def start(folder: Path, log: Path, settings: Sequence[str], save_steps: int = 4) -> subprocess.Popen[bytes]:
    """The job, in a group of its own; it appends its lines to ``log``."""
    places = [f"data.root={folder / 'corpus'}", f"data.cache_dir={folder / 'cache'}"]
    places += [f"training.output_dir={folder / 'out'}", f"training.save_steps={save_steps}"]
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "train.py", *SETTINGS, *places, *settings],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def half_saved(output: Path) -> bool:
    """Whether a checkpoint of either stage is being written, or its writer was killed."""
    return any(next(output.glob(f"{stage}partial/*/*"), None) is not None for stage in ("", "first_stage/"))


def kill_at(moment: str, folder: Path, log: Path, settings: Sequence[str], draw: random.Random) -> bool | None:
    """Start the job and kill it at a moment; None if it ended by itself before.

    Returns:
        Whether it left a checkpoint half written.
    """
    line, seconds = MOMENTS[moment]
    begin = log.stat().st_size if log.exists() else 0
    output = folder / "out"
    for half in output.rglob("partial"):
        shutil.rmtree(half)  # so that only a half checkpoint of this start is counted
    job = start(folder, log, settings, save_steps=1 if moment == "save" else 4)
    while job.poll() is None and line.encode() not in log.read_bytes()[begin:]:
        time.sleep(0.002)
    if moment == "save":  # with a save at each step, any of its saves
        for _ in range(draw.randrange(1, 12)):
            while job.poll() is None and not half_saved(output):
                time.sleep(0.0005)
            time.sleep(draw.uniform(0, 0.02))
    else:
        end = time.monotonic() + draw.uniform(0, seconds)
        while job.poll() is None and time.monotonic() < end:
            time.sleep(0.001)
    if job.poll() is not None:
        return None
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    return half_saved(output)


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    """The trained weights: of the whole model, or of adapters and heads."""
    adapters = output / "adapter" / "adapter_model.safetensors"
    return load_file(adapters if adapters.is_file() else output / "model.safetensors")


def trials(
    moment: str,
    kills: int,
    folder: Path,
    settings: Sequence[str],
    expected: dict[str, torch.Tensor],
    draw: random.Random,
) -> bool:
    """Kill jobs ``kills`` times at a moment, five times each; whether all went on and came to the same weights."""
    done = half = jobs = equal = early = 0
    while done < kills and early < 3 * kills:
        place = folder / f"{moment}-{jobs}"
        place.mkdir()
        jobs += 1
        for _ in range(min(5, kills - done)):
            was_half = kill_at(moment, place, place / "log", settings, draw)
            early += was_half is None
            done += was_half is not None
            half += bool(was_half)
        job = start(place, place / "log", settings)
        if job.wait() != 0:
            print(f"{moment}: the job in {place} does not go on:\n{(place / 'log').read_text()[-1500:]}")
            continue
        weights = weights_of(place / "out")
        same = weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in weights)
        if not same:
            print(f"{moment}: the weights of the job in {place} differ")
        left = [path.name for path in (place / "out").iterdir() if path.name in ("partial", "first_stage")]
        if left:
            print(f"{moment}: the finished job in {place} left {', '.join(left)}")
        equal += same and not left
    print(f"{moment}: {done} kills, {half} of them left a half checkpoint; {equal} of {jobs} jobs ended equal")
    if early:
        print(f"{moment}: {early} starts ended before their kill")
    return equal == jobs


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the trials and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", nargs="+", choices=MOMENTS, default=list(MOMENTS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain"])
    parser.add_argument("--kills", type=int, default=20, help="kills at each moment")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="kill-trials-"))
    results = []
    for variant in args.variants:
        print(f"-- {variant}")
        draw = random.Random(args.seed)
        settings = list(VARIANTS[variant])
        whole = folder / variant / "whole"
        whole.mkdir(parents=True)
        streamed, adapters = set(STREAMED) <= set(settings), set(ADAPTERS) <= set(settings)
        if streamed or adapters:
            made = folder / variant / "made"  # the rows that are streamed, or the base of the adapters
            made.mkdir()
            if start(made, made / "log", []).wait() != 0:
                print((made / "log").read_text())
                return 1
            rows = next((made / "cache" / "rows").glob("*/manifest.json")).parent
            of_rows = [f"data.root={made / 'corpus'}", f"data.rows={rows}"]
            settings += of_rows if streamed else [f"model.name_or_path={made / 'out'}"]
        if start(whole, whole / "log", settings).wait() != 0:
            print((whole / "log").read_text())
            return 1
        expected = weights_of(whole / "out")
        for moment in args.moments:
            results.append(trials(moment, args.kills, folder / variant, settings, expected, draw))
    print(f"logs: {folder}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
