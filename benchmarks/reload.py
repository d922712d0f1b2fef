"""Checks that a saved folder gives equal outputs with the package's code and as remote code in a new process.

This process loads the folder with the package's modules. A new process, in which neither ``prospect_hf`` nor the root
modules can be imported, loads a copy of the folder with ``AutoModelForImageTextToText`` and ``AutoProcessor`` and
``trust_remote_code=True``. Both process the same plan, random frames and random utterances with the loaded processor,
and run the model; every tensor is compared. Only code that this repository wrote is run: a folder with other files is
refused unless ``--trust-remote-code`` is given.

Examples:
    python benchmarks/reload.py outputs/tiny
    python benchmarks/reload.py outputs/tiny --frames 200 --seed 1

Exit codes: 0 all equal bit for bit, 1 something differs, 2 the folder cannot be used.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

STEPS = ["Attach the wheels.", "Attach the roof.", "Fasten the cabin.", "Put the load on."]
WORDS = ["attach", "the", "next", "part", "now", "good", "that", "is", "done", "check", "careful", "wheel", "roof"]


def is_own(name: str) -> bool:
    """Whether a module belongs to this project."""
    first = name.partition(".")[0]
    return first == "prospect_hf" or first.endswith("_dst_smolvlm")


class Blocked:
    """An import finder that blocks this project's modules, as on a machine without this project."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Raise for modules of this project; None lets the next finder import any other module."""
        if is_own(name):
            raise ModuleNotFoundError(f"{name} is blocked in this process", name=name)
        return None


@torch.inference_mode()
def answer(model: Any, processor: Any, frames: int, seed: int) -> dict[str, torch.Tensor]:
    """The model's inputs and outputs for a random session."""
    draw = random.Random(seed)
    size = processor.frame_size
    # Not square, and larger than the model's frames, so that resizing is compared as well.
    pictures = list(np.random.default_rng(seed).integers(0, 256, (frames, size + 10, size + 24, 3), dtype=np.uint8))
    inputs = processor(goal="Assemble the toy", steps=STEPS, frames=pictures, states=[draw.randrange(3) for _ in STEPS])
    stream = processor.build("Assemble the toy", STEPS, [0] * len(STEPS), [])
    for _ in range(frames):
        processor.add_frame(stream)
        if draw.random() < 0.1:
            processor.add_turn(stream, draw.choice(["State", "User", "Assistant"]), " ".join(draw.sample(WORDS, 5)))
    talk = {
        "input_ids": torch.tensor([stream.input_ids]),
        "attention_mask": torch.ones(1, len(stream.input_ids), dtype=torch.long),
        "frame_positions": torch.tensor([stream.frame_positions]),
        "step_positions": torch.tensor([stream.step_positions]),
        "pixel_values": inputs["pixel_values"],
    }
    results: dict[str, torch.Tensor] = {}
    for name, given in (("frames only", inputs), ("with utterances", talk)):
        output = model(**given)
        results |= {f"{name}: {key}": given[key].clone() for key in ("input_ids", "pixel_values")}
        results |= {
            f"{name}: {key}": output[key].clone()
            for key in ("logits", "speaking_logits", "dst_update_logits", "dst_state_logits")
        }
    return results


def from_package(folder: Path, frames: int, seed: int) -> dict[str, torch.Tensor]:
    """The inputs and outputs of the folder, loaded with the package's modules."""
    from prospect_hf.checkpoints import load_trained

    model, processor = load_trained(folder)
    return answer(model.to("cpu"), processor, frames, seed)


def from_remote_code(folder: Path, frames: int, seed: int) -> dict[str, torch.Tensor]:
    """The inputs and outputs of the folder, loaded with the code in it; this project's modules are blocked."""
    sys.meta_path.insert(0, Blocked())
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True, use_safetensors=True).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    loaded = [name for name in sys.modules if is_own(name)]
    if loaded or not type(model).__module__.startswith("transformers_modules."):
        raise RuntimeError(f"the check is invalid: {type(model).__module__} and {loaded} are not the folder's code")
    return answer(model, processor, frames, seed)


def foreign_code(folder: Path) -> list[str]:
    """Names of the Python files in the folder that are not this repository's, byte for byte."""
    root = Path(__file__).resolve().parents[1]
    ours = {path.name: path.read_bytes() for path in root.glob("*_dst_smolvlm.py")}
    return sorted(path.name for path in folder.glob("*.py") if ours.get(path.name) != path.read_bytes())


def in_fresh_process(folder: Path, frames: int, seed: int) -> dict[str, torch.Tensor]:
    """``from_remote_code`` on a copy of the folder, in a new process.

    Raises:
        RuntimeError: the process failed; the message has the last line of its error output.
    """
    with tempfile.TemporaryDirectory() as place:
        copied, answers = Path(place, "model"), Path(place, "answers.safetensors")
        copied.mkdir()
        for file in folder.iterdir():
            if file.is_file():
                shutil.copy(file, copied)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["HF_MODULES_CACHE"] = str(Path(place, "modules"))
        environment["HF_HUB_OFFLINE"] = "1"
        command = [sys.executable, str(Path(__file__).resolve()), str(copied), "--remote-into", str(answers)]
        done = subprocess.run(
            [*command, "--frames", str(frames), "--seed", str(seed)],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError("the new process failed: " + (done.stderr.strip().splitlines() or ["?"])[-1])
        return load_file(answers)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the largest difference of each tensor; the exit code tells whether all are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a trained model, with processor and remote code")
    parser.add_argument("--frames", type=int, default=64, help="frames of the session (default 64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trust-remote-code", action="store_true", help="run the folder's code, whatever it is")
    parser.add_argument("--remote-into", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if args.frames < 1:
        parser.error("--frames takes a number of 1 or more")
    for name in ("config.json", "modeling_dst_smolvlm.py"):
        if not (args.folder / name).is_file():
            parser.error(f"{args.folder} has no {name}; give the folder of a trained model")
    if args.remote_into:  # the new process: the first one has checked the folder
        save_file(from_remote_code(args.folder, args.frames, args.seed), args.remote_into)
        return 0

    if (foreign := foreign_code(args.folder)) and not args.trust_remote_code:
        print(
            f"error: {args.folder} holds code that is not this repository's ({', '.join(foreign)}); read it, then give "
            "--trust-remote-code to run it.",
            file=sys.stderr,
        )
        return 2
    try:
        here = from_package(args.folder, args.frames, args.seed)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        there = in_fresh_process(args.folder, args.frames, args.seed)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if here.keys() != there.keys():
        print(f"error: only one side has {sorted(here.keys() ^ there.keys())}", file=sys.stderr)
        return 1
    width = max(map(len, here))
    print(f"{'tensor'.ljust(width)}  {'shape'.ljust(20)}  max |difference|")
    differs = []
    for name, tensor in here.items():
        other = there[name]
        equal = tensor.shape == other.shape and tensor.dtype == other.dtype and torch.equal(tensor, other)
        difference = f"{float((tensor - other).abs().max()):g}" if tensor.shape == other.shape else "other shape"
        print(f"{name.ljust(width)}  {str(list(tensor.shape)).ljust(20)}  {difference}")
        if not equal:
            differs.append(name)
    print("not equal: " + ", ".join(differs) if differs else "all tensors are equal bit for bit")
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
