"""Small annotation releases, as the sources write them."""

from __future__ import annotations

import io
import json
import tarfile
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


# --- EgoExoLearn ---

EXO_VIDEO = "bee96ec4-ac78-11ee-819f-80615f12b59e"


def exo_segment(start: Any, end: Any, text: Any, **changes: Any) -> dict[str, Any]:
    facts = {"start": start, "end": end, "attribute": "12", "duration": 60.5, "id": "x", "type": 0}
    return facts | {"textAttribute_en": text} | changes


def exo_archive(*files: tuple[str, Any], links: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    """A tar.gz of (name, bytes or JSON value)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for link in links:
            archive.addfile(link)
    return packed.getvalue()


def write_exo(root: Path, *files: tuple[str, Any]) -> Path:
    return write(root / "egoexolearn/coarse_annotations.tar.gz", exo_archive(*files))


# --- EPIC-KITCHENS-100 ---

EPIC_HEAD = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)


def epic_row(number: int, start: str, stop: str, narration: str, video: str = "P01_01") -> str:
    return f"{video}_{number},P01,{video},,{start},{stop},1,2,{narration},open,3,door,3,\"['door', 'x']\",[3]\n"


EPIC_ROWS = (
    epic_row(0, "00:00:00.14", "00:00:03.37", "open door")
    + epic_row(10, "00:00:20.00", "00:00:22.50", "open door")
    + epic_row(1, "00:00:03.00", "00:00:06.17", "turn on light")
)
EPIC_INFO = "video_id,duration,fps,resolution\nP01_01,42.25,59.94,1920x1080\n"


def write_epic(root: Path, content: Any = EPIC_HEAD + EPIC_ROWS, name: str = "EPIC_100_train.csv") -> Path:
    return write(root / "epickitchens" / name, content)


# --- WTaG ---

RECIPE = "Tea\n\nTools\nkettle\n\nSteps\n1. Fill the kettle with cold\nwater.\n2. Boil the water.\n3. Drink it.\n"


def ticks(seconds: float) -> int:
    return 630_000_000_000_000_000 + round(seconds * 10_000_000)


def write_recording(
    root: Path, name: str = "T1", steps: Any = None, assistant: Any = None, user: Any = None, timing: Any = None
) -> Path:
    """A recording of 60 s; each file gets rows (start, end, text), or the content as it stands."""
    folder = root / "wtag" / name
    files = {
        "StepDetection/StepDetection.txt": steps or [(0, 2, "start"), (3, 9, "Fill kettle"), (9.5, 20, "Boil water")],
        "TextASR/InstructorAnnotations_intent.txt": assistant
        or [(2.5, 4, "Fill the kettle."), (9, 10, "Now boil it.")],
        "TextASR/UserAnnotations_intent.txt": user or [(2, 3, "I want tea.")],
    }
    for path, rows in files.items():
        text = rows if isinstance(rows, str | bytes) else "".join(
            f"{ticks(start)}\t{ticks(end)}\t{said}\tintent\n" for start, end, said in rows
        )  # fmt: skip
        write(folder / path, text)
    write(folder / "Video/VideoMpegTiming.txt", timing or f"{ticks(0)}\n{ticks(60)}\n")
    return folder
