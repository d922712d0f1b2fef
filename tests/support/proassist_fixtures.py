"""A small ProAssist corpus: a record with two conversations, a prepared row, and their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from prospect_hf.frames.store import write_frames


def make_record(uid: str = "v1") -> dict[str, Any]:
    return {
        "video_uid": uid,
        "inferred_goal": "Make tea",
        "inferred_knowledge": "Tea\n\nTools\nkettle\n\n1. Fill the kettle with cold\nwater.\n2. Boil the water.\n",
        "video_labels": {},
        "conversations": [
            {
                "user_type": "talk_some",
                "conversation": [
                    {"role": "user", "time": 2.0, "content": "I want tea.", "labels": ""},
                    {"role": "assistant", "time": 2.0, "content": "Fill it.", "labels": "initiative|instruction"},
                    {"role": "assistant", "time": 9.5, "content": "Boil.", "labels": "", "progress": "Filled."},
                ],
            },
            {"user_type": "no_talk", "conversation": [{"role": "assistant", "time": 4.0, "content": "Go."}]},
        ],
        "parsed_video_anns": {
            "dataset": "wtag",
            "all_step_descriptions": "[3.0s-9.0s] fill kettle\n[9.0s-20.0s] boil",
            "duration": 40.0,
            "fps": 29.78,
        },
        "dst": [
            {"type": "step", "id": "S1", "start_ts": 3.0, "end_ts": 9.0, "name": "Fill"},
            {"type": "step", "id": "S2", "start_ts": 9.0, "end_ts": 20.0, "name": "Boil"},
        ],
    }


def record_of(source: str, uid: str) -> dict[str, Any]:
    """A video of ``source`` with one conversation."""
    made = make_record(uid)
    made["parsed_video_anns"]["dataset"] = source
    del made["conversations"][1:]
    return made


def write_corpus(root: Path, records: Any, split: str = "train", source: str = "wtag") -> Path:
    path = root / "processed_data" / source / "generated_dialogs" / f"{split}_filtered.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(records if isinstance(records, str) else json.dumps(records))
    return path


def write_store(root: Path, name: str, frames: int) -> None:
    folder = root / "processed_data" / "wtag" / "frames"
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), (9, 9, 9)).save(folder / "one.jpg")
    write_frames(folder / f"{name}.arrow", [(folder / "one.jpg").read_bytes()] * frames)


def make_row() -> dict[str, Any]:
    return {
        "dataset": "wtag",
        "video_uid": "v1",
        "clip_idx": 0,
        "max_seq_len": 0,
        "start_frame_idx": 1,
        "end_frame_idx": 20,
        "fps": 2,
        "conversation": [
            {"role": "system", "content": "Help."},
            {"role": "frames", "start": 1, "end": 4},
            {"role": "user", "time": 2.0, "content": "I want tea."},
            {"role": "frames", "start": 4, "end": 5},
            {"role": "assistant", "time": 2.0, "content": "Fill it."},
            {"role": "frames", "start": 5, "end": 20},
        ],
        "metadata": {
            "user_type": "no_talk",
            "user_id": "no_talk_0",
            "task_goal": "Tea",
            "knowledge": "1. Fill.\n2. Boil.",
        },
    }


def write_prepared(root: Path, *rows: Any, name: str = "dialog_train_L0_I1.jsonl") -> None:
    folder = root / "processed_data" / "wtag" / "prepared"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
