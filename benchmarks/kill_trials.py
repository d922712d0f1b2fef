"""Kills a training job with SIGKILL at many moments, and checks that the same command always goes on by itself.

A small job (simulated corpus, first stage, whole sessions, a checkpoint every few steps) is run once without a kill.
Then it is started, killed and started again with the same command, ``training.resume_from_checkpoint=true`` included,
until the kills are used up; the last start is left to end. Its weights must equal the uninterrupted run's bit for bit.

Moments:
    start      up to 8 s after the start: imports, simulating the corpus, frame rows
    look       in the first stage
    encode     while frames are encoded
    train      at any time of the training on whole sessions
    save       while a checkpoint is half written
    results    while held-out sessions are followed, and while results and card are written

Examples:
    python benchmarks/kill_trials.py --moments train --kills 20
    python benchmarks/kill_trials.py --moments save --kills 20
    python benchmarks/kill_trials.py --kills 4

Exit codes: 0 every job ended and its weights are equal, 1 a job refused to go on or its weights differ.
"""

from __future__ import annotations

import argparse
import os
import random
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
    *("model.vocab_size=400", "training.look_steps=4", "training.look_batch_size=2", f"training.max_steps={STEPS}"),
    *("training.per_device_train_batch_size=2", "training.logging_steps=1", "training.save_strategy=steps"),
    *("training.save_total_limit=2", "training.use_cpu=true", "training.resume_from_checkpoint=true"),
]
# The line of progress after which a moment begins, and how many seconds it lasts at most.
MOMENTS = {
    "start": ("", 8.0),
    "look": ("first stage 1/", 0.3),
    "encode": ("first stage 4/4", 0.2),
    "train": ("whole sessions ", 3.0),
    "save": ("whole sessions ", 0.5),
    "results": ("evaluation 1/1", 1.5),
}


def start(folder: Path, log: Path, save_steps: int = 5) -> subprocess.Popen[bytes]:
    """The job, in a group of its own; it appends its lines to ``log``."""
    places = [f"data.root={folder / 'corpus'}", f"data.cache_dir={folder / 'cache'}"]
    places += [f"training.output_dir={folder / 'out'}", f"training.save_steps={save_steps}"]
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "train.py", *SETTINGS, *places],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def half_saved(output: Path) -> set[Path]:
    """The checkpoint folders that are half written."""
    return {folder for folder in output.glob("checkpoint-*") if not (folder / "checkpoint.json").is_file()}


def kill_at(moment: str, folder: Path, log: Path, draw: random.Random) -> bool | None:
    """Start the job and kill it at a moment; None if it ended by itself before.

    Returns:
        Whether it left a checkpoint half written.
    """
    line, seconds = MOMENTS[moment]
    begin = log.stat().st_size if log.exists() else 0
    output = folder / "out"
    before = half_saved(output)
    # A save at each step gives a kill within a save as many chances as there are steps.
    job = start(folder, log, save_steps=1 if moment == "save" else 5)
    while job.poll() is None and line.encode() not in log.read_bytes()[begin:]:
        time.sleep(0.002)
    end = time.monotonic() + draw.uniform(0, seconds)
    while job.poll() is None and (time.monotonic() < end or (moment == "save" and not half_saved(output) - before)):
        time.sleep(0.001)
    if job.poll() is not None:
        return None
    time.sleep(draw.uniform(0, 0.01))
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    return bool(half_saved(output) - before)


def trials(moment: str, kills: int, folder: Path, expected: dict[str, torch.Tensor], draw: random.Random) -> bool:
    """Kill jobs ``kills`` times at a moment, five times each; whether all went on and came to the same weights."""
    done = half = jobs = equal = early = 0
    while done < kills:
        place = folder / f"{moment}-{jobs}"
        place.mkdir()
        jobs += 1
        for _ in range(min(5, kills - done)):
            was_half = kill_at(moment, place, place / "log", draw)
            early += was_half is None
            done += was_half is not None
            half += bool(was_half)
        job = start(place, place / "log")
        if job.wait() != 0:
            print(f"{moment}: the job in {place} does not go on:\n{(place / 'log').read_text()[-1500:]}")
            continue
        weights = load_file(place / "out" / "model.safetensors")
        same = weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in weights)
        if not same:
            print(f"{moment}: the weights of the job in {place} differ")
        equal += same
    print(f"{moment}: {done} kills, {half} of them left a half checkpoint; {equal} of {jobs} jobs ended equal")
    if early:
        print(f"{moment}: {early} starts ended before their kill")
    return equal == jobs


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the trials and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", nargs="+", choices=MOMENTS, default=list(MOMENTS))
    parser.add_argument("--kills", type=int, default=20, help="kills at each moment")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    draw = random.Random(args.seed)
    folder = Path(tempfile.mkdtemp(prefix="kill-trials-"))
    whole = folder / "whole"
    whole.mkdir()
    if start(whole, whole / "log").wait() != 0:
        print((whole / "log").read_text())
        return 1
    expected = load_file(whole / "out" / "model.safetensors")
    results = [trials(moment, args.kills, folder, expected, draw) for moment in args.moments]
    print(f"logs: {folder}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
