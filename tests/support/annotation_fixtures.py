"""Small annotation releases, as the sources write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write(path: Path, content: Any) -> Path:
    """Write bytes, text, or a JSON value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# --- Ego4D Goal-Step ---


def goalstep_segment(start: Any, end: Any, text: str, *, category: str = "c", **changes: Any) -> dict[str, Any]:
    segment = {"start_time": start, "end_time": end, "step_category": category, "step_description": text}
    return segment | {"is_continued": False, "is_relevant": "essential", "segments": []} | changes


def goalstep_video(*segments: dict[str, Any], uid: str = "v1", start: Any = 0.0, end: Any = 60.0) -> dict[str, Any]:
    goal = {"goal_category": "COOKING:TEA", "goal_description": "Make tea"}
    return {"video_uid": uid, "start_time": start, "end_time": end, **goal, "segments": list(segments)}


def write_goalstep(root: Path, *videos: Any, split: str = "train") -> Path:
    return write(root / f"ego4d/goalstep_{split}.json", {"version": "1.0", "split": split, "videos": list(videos)})


# --- Assembly101 ---

SEQUENCE = "nusar-2021_action_both_9011-c13b_9011_user_id_2021-02-01_160915"  # in the training split
MISTAKE_ROWS = (
    "300,600,attach,wheel,chassis,correct,\n"
    "600,900,attach,cabin,chassis,mistake,wrong order\n"
    "900,960,detach,cabin,chassis,correction,\n"
    "960,1200,attach,interior,chassis,correct\n"
)


def write_mistakes(root: Path, content: Any = MISTAKE_ROWS, name: str = SEQUENCE) -> Path:
    return write(root / f"assembly101/mistake_annots/{name}.csv", content)


# --- HoloAssist ---

HOLO_VIDEO = "R034-12July-Switch"  # in the training split


def holo_event(label: str, start: Any, end: Any, **attributes: Any) -> dict[str, Any]:
    return {"id": 1, "label": label, "type": "range", "start": start, "end": end, "attributes": attributes}


def holo_coarse(start: Any, end: Any, text: str) -> dict[str, Any]:
    return holo_event("Coarse grained action", start, end, **{"Action sentence": text})


def holo_fine(start: Any, end: Any, correctness: str = "Correct Action", why: str = "none") -> dict[str, Any]:
    attributes = {"Verb": "press", "Adjective": "green", "Noun": "power_button"}
    attributes |= {"Action Correctness": correctness, "Incorrect Action Explanation": why}
    return holo_event("Fine grained action", start, end, **attributes)


def holo_speech(start: Any, end: Any, purpose: str, text: str) -> dict[str, Any]:
    return holo_event("Conversation", start, end, **{"Conversation Purpose": purpose, "Transcription": text})


def holo_record(*events: dict[str, Any], name: str = HOLO_VIDEO, raw: str = "00:01:00.52") -> dict[str, Any]:
    metadata = {"duration": {"raw": raw, "seconds": 60}}
    return {"video_name": name, "taskType": "setup switch", "videoMetadata": metadata, "events": list(events)}


def write_holo(root: Path, record: Any, name: str = HOLO_VIDEO) -> Path:
    return write(root / f"holoassist/labels/{name}.json", record)
