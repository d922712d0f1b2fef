"""A stream on disk: saved between two frames, it continues later as if it had never stopped.

A folder with ``stream.safetensors`` (KV cache, plan states, what waits to be fed) and ``stream.json`` (all else). A
hash over both shows that they are what was saved: a flipped bit or an edited value would otherwise go on as another
stream.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from context_dst_smolvlm import Context
from decoding_dst_smolvlm import Decoding
from events_dst_smolvlm import FrameFacts, PlanChange
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checked_json import as_dict, load_json
from prospect_hf.content_hash import file_hash
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import replacing_folder, write_json
from streaming_dst_smolvlm import DSTStream
from tracking_dst_smolvlm import StateTable, Tracking

VERSION = 3
TENSORS, FACTS = "stream.safetensors", "stream.json"


def save_stream(stream: DSTStream, folder: Path, trace: str | None = None) -> None:
    """Write a stream to ``folder``, replacing an earlier one; written beside it, then renamed.

    Args:
        trace: file name of the trace that holds its last frame; see ``trace_of``.

    Raises:
        UsageError: the folder holds something that is no stream, or the stream was broken off in the middle of a frame.
    """
    if stream.batch.rows[0].phase:
        raise UsageError(
            f"The stream broke off in the middle of frame {stream.batch.rows[0].frame} and cannot be saved."
        )
    if folder.exists() and not (folder / FACTS).is_file():
        raise UsageError(f"{folder} is there and holds no stream; give another folder.")
    batch = stream.batch
    row = batch.rows[0]
    tensors = {f"cache.{name}": tensor for name, tensor in batch.cache.read(0).items()}
    tensors["step_hidden"] = batch.step_hidden[0].clone()
    tensors["generator"] = row.generator.get_state()
    if row.features:
        tensors["features"] = torch.stack(list(row.features))
    facts = {
        "kind": "dst_stream_state",
        "version": VERSION,
        "model": fingerprint(batch.model),
        "trace": trace,
        "plan": list(row.task.plan),
        "goal": row.task.goal,
        "first_states": row.first_states,
        "say_states": row.task.say_states,
        "context": asdict(batch.context),
        "decoding": asdict(batch.decoding),
        "table": row.table.save(),
        "speaking_threshold": batch.speaking_threshold,
        "dst_update_threshold": batch.dst_update_threshold,
        "frame": row.frame,
        "time": row.time if row.frame >= 0 else None,
        "opened": row.opened,
        "plan_change": None if row.plan_change is None else asdict(row.plan_change),
        "talked": row.facts.talked,
        "pending": row.pending,
        "user_turn": row.user_turn,
        "head_length": row.head_length,
        "frame_starts": list(row.frame_starts),
    }
    with replacing_folder(folder) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary / TENSORS)
        write_json(temporary / FACTS, {**facts, "content": _content(facts, temporary / TENSORS)})


def restore_stream(
    folder: Path,
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    on_text: Callable[[int, str], None] | None = None,
    speaking_threshold: float | None = None,
    dst_update_threshold: float | None = None,
) -> DSTStream:
    """The stream that ``save_stream`` wrote to ``folder``, on the same model.

    Args:
        on_text: called with (frame, piece) while an utterance is being written.
        speaking_threshold, dst_update_threshold: of the decisions from now on; None: those that the stream had.

    Raises:
        DataError: a file is missing or is not as ``save_stream`` wrote it, or another model wrote the stream.
    """
    path = folder / FACTS
    try:
        facts = as_dict(load_json(path), str(path))
        if facts.get("kind") != "dst_stream_state" or facts.get("version") != VERSION:
            raise DataError(f"its kind or version is not that of a stream, version {VERSION}")
        if facts.pop("content", None) != _content(facts, folder / TENSORS):
            raise DataError("a file was damaged or changed after it was saved")
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(
            f"{folder}: no stream can be read there ({error}); give a folder that save_stream wrote."
        ) from error
    if facts["model"] != fingerprint(model):
        raise DataError(f"{path}: another model wrote this stream; its cache means nothing to this one.")
    stream = DSTStream(
        model,
        processor,
        facts["plan"],
        facts["goal"],
        facts["first_states"],
        Context(**facts["context"]),
        Tracking(**facts["table"]["tracking"]),
        Decoding(**facts["decoding"]),
        on_text,
        facts["speaking_threshold"] if speaking_threshold is None else speaking_threshold,
        facts["dst_update_threshold"] if dst_update_threshold is None else dst_update_threshold,
    )
    batch = stream.batch
    row = batch.rows[0]
    cached = {
        name.removeprefix("cache."): t.to(model.device) for name, t in tensors.items() if name.startswith("cache.")
    }
    batch.cache.write(0, cached)
    batch.step_hidden[0] = tensors["step_hidden"].to(model.device)
    row.generator.set_state(tensors["generator"])
    row.features = deque(tensors["features"].to(model.device)) if "features" in tensors else deque()
    row.table = StateTable.load(facts["table"])
    row.frame = facts["frame"]
    row.time = row.time if facts["time"] is None else facts["time"]
    row.opened, change = facts["opened"], facts["plan_change"]
    row.plan_change = change and PlanChange(
        tuple(change["before"]), tuple(change["plan"]), change["goal"], tuple(change["kept"])
    )
    row.facts = FrameFacts(talked=facts["talked"])
    row.pending, row.user_turn = facts["pending"], facts["user_turn"]
    row.head_length, row.frame_starts = facts["head_length"], deque(facts["frame_starts"])
    return stream


def trace_of(folder: Path) -> str | None:
    """File name of the trace that holds the last frame of a saved stream, which ``restore_stream`` has accepted."""
    name = json.loads((folder / FACTS).read_text()).get("trace")
    return name if isinstance(name, str) else None


def _content(facts: dict[str, Any], tensors: Path) -> str:
    """A hash of both files: of the facts, whatever their layout, and of the tensors' bytes."""
    return hashlib.sha256(f"{json.dumps(facts, sort_keys=True)} {file_hash(tensors)}".encode()).hexdigest()


def fingerprint(model: DSTSmolVLMForConditionalGeneration) -> str:
    """16 hex digits of what makes a cache a model's own: its shapes, and the weights of a few of its layers."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
        if weight.dim() == 1 or "dst_" in name:
            digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
