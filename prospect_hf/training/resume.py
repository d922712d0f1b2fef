"""Which checkpoint a run may go on from: a whole one, of a run with the same settings and the same sessions."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import load_json
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.reader import frames_path
from prospect_hf.data.session_store import SessionStore
from prospect_hf.errors import UsageError
from prospect_hf.frames.folder import PictureFolder
from prospect_hf.training.arguments import FIRST_STAGE, DSTTrainingArguments, ModelArguments
from prospect_hf.training.checkpoint_files import (
    LIST,
    checkpoints,
    fault_in_files,
    fault_in_list,
    read_list,
)
from prospect_hf.training.splits import Splits

logger = logging.getLogger(__name__)

# Settings that a resumed run may change: how long, where, on which machine, and what is logged, saved and evaluated.
LENGTH = ("max_steps", "num_train_epochs")
FREE = (
    *LENGTH,
    "activation_checkpointing",
    "dataloader_multiprocessing_context",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
    "early_stopping_patience",
    "free_validation_sessions",
    "ddp_backend",
    "ddp_timeout",
    "disable_tqdm",
    "enable_jit_checkpoint",
    "gradient_checkpointing",
    "local_rank",
    "memory_check",
    "output_dir",
    "per_device_eval_batch_size",
    "project",
    "push_to_hub",
    "report_to",
    "resume_from_checkpoint",
    "run_name",
    "skip_memory_metrics",
    "temperature_scaling",
    "torch_empty_cache_steps",
    "use_cpu",
)
FREE_BEGINNINGS = ("eval_", "hub_", "log_", "logging_", "save_", "torch_compile", "trackio_")
FREE_DATA = ("root", "rows", "dst_root", "cache_dir", "processes")
# A frame file is compared by its size and by this much of its beginning and of its end: a corpus may have terabytes.
ENDS = 2**16


@dataclass(frozen=True)
class Interrupted:
    """A checkpoint to go on from.

    Args:
        folder: of the checkpoint.
        parts: the earlier parts of its stage: ``until_step``, and the length that was planned then, as settings.
        first_stage: whether it is of the first stage (``training.look_steps``).
        run_name: under which trackers know the run, where the settings give none.
    """

    folder: Path
    parts: list[dict[str, Any]]
    first_stage: bool = False
    run_name: str = ""


def run_record(
    model: ModelArguments, data: DataArguments, args: DSTTrainingArguments, splits: Splits
) -> dict[str, Any]:
    """What determines the weights that a run comes to, as JSON values; each checkpoint has it.

    It is the record of the second stage; :func:`first_stage_record` makes that of the first one.

    Raises:
        DataError: a frame file is missing.
    """
    training = {name: value for name, value in args.given.items() if not is_free(name)}
    of_data = {name: value for name, value in asdict(data).items() if name not in FREE_DATA}
    root = Path(str(data.root)) if data.frames == "store" else None
    record = {
        "settings": _flat({"model": asdict(model), "data": of_data, "training": training}),
        "processes": args.world_size,
        "length": {f"training.{name}": getattr(args, name) for name in LENGTH},
        "sessions": {
            "training": sessions_hash(splits.train, root) if splits.stream is None else splits.stream.hash,
            "validation": sessions_hash(splits.validation, root),
        },
        "first_stage": False,
        "run_name": "" if args.run_name else f"{Path(str(args.output_dir)).name} {datetime.now():%Y-%m-%d %H.%M.%S}",
        "parts": [],
    }
    return dict(json.loads(json.dumps(record)))


def first_stage_record(run: Mapping[str, Any]) -> dict[str, Any]:
    """The record for checkpoints of the first stage; its length is ``look_steps``, which is among the settings."""
    return {**run, "first_stage": True, "length": {}}


def is_free(name: str) -> bool:
    """Whether a resumed run may change ``training.{name}``."""
    return name in FREE or name.startswith(FREE_BEGINNINGS)


def sessions_hash(sessions: SessionStore, root: Path | None) -> str:
    """A hash of everything that is learned from ``sessions``.

    Args:
        sessions: of a split.
        root: the folder that holds ``processed_data``, for frames that are read from there.

    Raises:
        DataError: a frame file is missing.
    """
    digest = hashlib.sha256(b"".join(sessions.column("hash")))
    if root is not None:
        videos = zip(sessions.column("source"), sessions.column("frames_file"), strict=True)
        first = {video: number for number, video in reversed(list(enumerate(videos)))}
        for path in sorted({frames_path(root, sessions[number]) for number in first.values()}):
            digest.update(_ends(path))
    return digest.hexdigest()


def find_checkpoint(args: DSTTrainingArguments, run: Mapping[str, Any]) -> Interrupted | None:
    """The checkpoint that ``training.resume_from_checkpoint`` asks for; None to start from the beginning.

    ``true`` takes the newest checkpoint in the output folder that is whole and of this run, and says which newer ones
    it leaves aside; those of the first stage are older than all of the second. Where no checkpoint was ever saved
    whole, the run starts from its beginning, so that a job that is restarted whenever it is killed can always give
    ``true``.

    Raises:
        UsageError: there is no such checkpoint, it is not whole, or it is of a run with other settings or sessions.
    """
    wanted = args.resume_from_checkpoint
    if not wanted:
        return None
    if isinstance(wanted, str):
        folder = Path(wanted)
        if not folder.is_dir():
            raise UsageError(f"training.resume_from_checkpoint={wanted}: no such folder.")
        if fault := _fault(folder, run):
            raise UsageError(f"training.resume_from_checkpoint={wanted} cannot be used: {fault}.")
        return _interrupted(folder, args, run)
    output = Path(str(args.output_dir))
    aside: dict[str, list[str]] = {}
    found = [*checkpoints(output), *checkpoints(output / FIRST_STAGE)]
    for folder in found:
        fault, name = _fault(folder, run), folder.relative_to(output).as_posix()
        if fault is None:
            if aside:
                logger.warning("Left aside: %s; the run goes on from %s.", _listed(aside), name)
            return _interrupted(folder, args, run)
        aside.setdefault(fault, []).append(name)
    if any((folder / LIST).is_file() for folder in found):
        raise UsageError(
            f"training.resume_from_checkpoint=true, but {output} holds no checkpoint to go on from ({_listed(aside)}): "
            "give what that run had, or start anew in another training.output_dir."
        )
    holds = f"no whole checkpoint ({_listed(aside)})" if aside else "no checkpoint"
    logger.warning("%s holds %s: the run starts from its beginning.", output, holds)
    return None


def _interrupted(folder: Path, args: DSTTrainingArguments, run: Mapping[str, Any]) -> Interrupted:
    """The checkpoint, which is whole and of this run, unless it is already past the end of this one."""
    state, before = load_json(folder / "trainer_state.json"), read_list(folder)["run"]
    step, epoch = state["global_step"], state["epoch"]
    if before["first_stage"]:
        return Interrupted(folder, [*before["parts"], {"until_step": step}], True, before["run_name"])
    if step > args.max_steps > 0 or (args.max_steps < 0 and epoch > args.num_train_epochs):
        raise UsageError(
            f"{folder} is at step {step} (epoch {epoch:.2f}), past the end that training.max_steps={args.max_steps} "
            f"and training.num_train_epochs={args.num_train_epochs:g} set: raise them, or name an earlier checkpoint."
        )
    if before["length"] != run["length"]:
        changed = _differences(run["length"], before["length"])
        logger.warning("%s: from step %d on, the learning rate follows the schedule of the new length.", changed, step)
    return Interrupted(folder, [*before["parts"], {"until_step": step, **before["length"]}], False, before["run_name"])


def _fault(folder: Path, run: Mapping[str, Any]) -> str | None:
    """Why the run cannot go on from a checkpoint; None if it can. Files are read last, since that takes longest."""
    return fault_in_list(folder) or _other_run(read_list(folder)["run"], run) or fault_in_files(folder)


def _other_run(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """How the interrupted run differs from this one; None for the same run, its length aside."""
    if set(before) != set(now):
        return f"{LIST} is of another version of this package"
    if before["settings"] != now["settings"]:
        return _differences(now["settings"], before["settings"])
    if before["processes"] != now["processes"]:
        return f"there are {now['processes']} processes and the interrupted run had {before['processes']}"
    for split, digest in now["sessions"].items():
        if before["sessions"][split] != digest:
            return f"the {split} sessions in data.root, or their frames, are not those of the interrupted run"
    return None


def _listed(aside: Mapping[str, list[str]]) -> str:
    """``checkpoint-4: optimizer.pt is missing``, for each fault with its checkpoints."""
    return "; ".join(f"{', '.join(names)}: {fault}" for fault, names in aside.items())


def _differences(now: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """``training.seed is 1 and the interrupted run has 0``, for each key that differs."""
    keys = [key for key in sorted({*now, *before}) if key not in now or key not in before or now[key] != before[key]]
    return ", ".join(f"{key} is {_shown(now, key)} and the interrupted run has {_shown(before, key)}" for key in keys)


def _shown(settings: Mapping[str, Any], key: str) -> str:
    if key not in settings:
        return "its default"
    return settings[key] if isinstance(settings[key], str) else json.dumps(settings[key])


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names. Of an absolute path the last part is kept: folders move."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[above + name] = Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
    return flat


def _ends(path: Path) -> bytes:
    """Size, beginning and end of a file; of a folder of pictures, the names and sizes."""
    if path.is_dir():
        pictures = PictureFolder(path).files
        return "".join(f"{picture.name} {picture.stat().st_size}\n" for picture in pictures).encode()
    with path.open("rb") as file:
        size = path.stat().st_size
        beginning = file.read(ENDS)
        file.seek(max(size - ENDS, 0))
        return str(size).encode() + beginning + file.read(ENDS)
