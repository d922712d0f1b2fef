"""Damaged corpora: dialogs, prepared rows, label files, training records, plans, frame files, the simulator's mark."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from annotation_fixtures import (
    EPIC_HEAD,
    EPIC_INFO,
    EPIC_ROWS,
    HOLO_VIDEO,
    MISTAKE_ROWS,
    RECIPE,
    exo_archive,
    exo_segment,
    goalstep_segment,
    goalstep_video,
    holo_coarse,
    holo_fine,
    holo_record,
    holo_speech,
    write,
    write_epic,
    write_exo,
    write_holo,
    write_mistakes,
    write_recording,
)
from datasets.arrow_writer import ArrowWriter
from fuzzing import Target, assert_no_fault, survey
from mutations import ODD_TEXTS, damaged_json, mutate_bytes
from PIL import Image

from prospect_hf.align.alignment import Task
from prospect_hf.align.by_words import WordAligner
from prospect_hf.checked_json import json_records, load_json
from prospect_hf.dataset.report import load_report
from prospect_hf.dataset.row_maker import session_table
from prospect_hf.errors import DataError
from prospect_hf.frames.store import FrameStore, write_frames
from prospect_hf.frames.stored_features import StoredFeatures
from prospect_hf.labels.annotation_lines import parse_annotation
from prospect_hf.sessions import SOURCES, Session
from prospect_hf.simulator.corpus import MARKER, corpus_is_current
from prospect_hf.simulator.scene import SceneConfig
from prospect_hf.sources.annotations.read import read_annotations
from prospect_hf.sources.annotations.wtag import TIMING
from prospect_hf.sources.knowledge import parse_steps
from prospect_hf.sources.prepared import read_prepared
from prospect_hf.sources.proassist import read_sessions
from prospect_hf.sources.report import FILE_SPLITS
from prospect_hf.sources.training_records import read_training_record
from prospect_hf.streaming.frame_sources import open_source
from tracking_dst_smolvlm import StateTable, Tracking

DATASETS = {"ego4d": "ego4d-goalstep"}
KNOWLEDGE = "Tea\n\nTools\nkettle\n\n1. Fill the kettle with cold\nwater.\n2. Boil the water.\n"
SEGMENTS = "[3.0s-9.0s] fill kettle\n - [3.0s-4.0s] child\n[9.0s-20.0s] boil (mistake: late)\n9.0s - 21s: boil water"
TURNS: list[dict[str, Any]] = [
    {"role": "user", "time": 2.0, "content": "I want tea.", "labels": ""},
    {"role": "assistant", "time": 2.5, "content": "Fill it.", "labels": "initiative|instruction"},
    {"role": "assistant", "time": 9.5, "content": "Boil.", "labels": "", "progress": "Filled."},
]
SPANS = [
    {"type": "step", "id": "S1", "start_ts": 3.0, "end_ts": 9.0, "name": "Fill"},
    {"type": "step", "id": "S2", "start_ts": 9.0, "end_ts": None, "name": "Boil"},
]


def dialog(source: str, uid: str = "v1") -> dict[str, Any]:
    """A record of ``generated_dialogs``."""
    return {
        "video_uid": uid,
        "inferred_goal": "Make tea",
        "inferred_knowledge": KNOWLEDGE,
        "conversations": [
            {"user_type": "talk_some", "user_id": 0, "conversation": TURNS},
            {"user_type": "no_talk", "user_id": 1, "conversation": TURNS[1:2]},
        ],
        "parsed_video_anns": {
            "dataset": DATASETS.get(source, source),
            "all_step_descriptions": SEGMENTS,
            "duration": 40.0,
            "fps": 29.78,
        },
        "dst": SPANS,
    }


def write_corpus(root: Path, source: str, data: bytes, name: str = "generated_dialogs/train_filtered.json") -> None:
    path = root / "processed_data" / source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def take(sessions: list[Session]) -> None:
    """The rows of the sessions."""
    for session in sessions:
        session_table(session)


def dialogs() -> Target:
    def target(rng: random.Random, folder: Path) -> None:
        source = rng.choice(SOURCES)
        records = [dialog(source), dialog(source, "v2")]
        if rng.random() < 0.3:
            records[0]["parsed_video_anns"] |= {"video_start_time": 1.5, "duration": 30.0}
        if rng.random() < 0.2:  # a file a video
            write_corpus(folder, source, damaged_json(records[0], rng, 0.15), "generated_dialogs/train/v1.json")
            write_corpus(folder, source, json.dumps(records[1:]).encode(), "generated_dialogs/train/v2.json")
        else:
            write_corpus(folder, source, damaged_json(records, rng, 0.15))
        how, on_error = rng.choice(["files", "words", "none"]), rng.choice(["raise", "skip"])
        take(read_sessions(folder, source, "train", dst=how, on_error=on_error).sessions)  # type: ignore[arg-type]

    return target


def labels() -> Target:
    def target(rng: random.Random, folder: Path) -> None:
        write_corpus(folder, "wtag", json.dumps([dialog("wtag"), dialog("wtag", "v2")]).encode())
        base: Any = [{"video_uid": uid, "dst": SPANS} for uid in ("v1", "v2")]
        name = rng.choice(["wtag/train.json", "wtag/v1.json", "v1.json"])
        path = folder / "labels" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(damaged_json(base if name == "wtag/train.json" else base[0], rng, 0.15))
        on_error: Any = rng.choice(["raise", "skip"])
        report = read_sessions(folder, "wtag", "train", dst="files", dst_root=folder / "labels", on_error=on_error)
        take(report.sessions)

    return target


def prepared_rows() -> Target:
    row = {
        "video_uid": "v1",
        "dataset": "wtag",
        "clip_idx": 0,
        "max_seq_len": 0,
        "fps": 2,
        "start_frame_idx": 0,
        "end_frame_idx": 20,
        "metadata": {"user_id": "talk_some_0", "user_type": "talk_some", "task_goal": "Tea", "knowledge": KNOWLEDGE},
        "conversation": [
            {"role": "system", "content": "x"},
            {"role": "frames", "start": 0, "end": 4},
            {"role": "assistant", "time": 2.0, "content": "Fill it.", "progress": "None."},
            {"role": "frames", "start": 4, "end": 20},
            {"role": "user", "time": 10.0, "content": "And now?"},
        ],
    }

    def target(rng: random.Random, folder: Path) -> None:
        lines = [json.dumps(row | {"clip_idx": 1}).encode(), damaged_json(row, rng, 0.2)]
        rng.shuffle(lines)
        write_corpus(folder, "wtag", b"\n".join(lines), "prepared/dialog_train_0.jsonl")
        on_error: Any = rng.choice(["raise", "skip"])
        report = read_prepared(folder, "wtag", "train", on_error=on_error)
        take(report.sessions)

    return target


def annotation_releases() -> Target:
    goalstep = {"split": "train", "videos": [
        goalstep_video(
            goalstep_segment(0, 9, "boil", segments=[goalstep_segment(1, 2, "x")]),
            goalstep_segment(8, 20.5, "Pour", category="p"),
            goalstep_segment(30, 40, "pour it", category="p", is_continued=True),
            uid=uid,
        )
        for uid in ("v1", "v2")
    ]}  # fmt: skip
    holo = holo_record(
        holo_coarse(1, 20, "The student opens it."),
        holo_fine(3, 4, "Wrong Action, corrected by student", "The wrong button."),
        holo_speech(2, 4, "instructor-start-conversation_follow-up instruction", "Open it."),
        holo_speech(3.5, 6, "student-start-conversation_ask questions", "This one?"),
    )

    def target(rng: random.Random, folder: Path) -> None:
        source = rng.choice(["ego4d", "assembly101", "holoassist"])
        if source == "ego4d":
            write(folder / "ego4d/goalstep_train.json", damaged_json(goalstep, rng, 0.15))
        elif source == "holoassist":
            write_holo(folder, damaged_json(holo, rng, 0.15))
            if rng.random() < 0.3:
                write(folder / "holoassist/train-v1_2.txt", mutate_bytes(HOLO_VIDEO.encode(), rng, 2))
        else:
            cells = [row.split(",") for row in MISTAKE_ROWS.splitlines()]
            for _ in range(rng.randrange(4)):
                row = rng.choice(cells)
                row[rng.randrange(len(row))] = rng.choice([*ODD_TEXTS[:-1], "1e400", "9" * 5000, "-5", '"'])
            text = "\n".join(",".join(row) for row in cells).encode("utf-8", "replace")
            write_mistakes(folder, mutate_bytes(text, rng, 4) if rng.random() < 0.5 else text)
        on_error: Any = rng.choice(["raise", "skip"])
        take(read_annotations(folder, source, "train", on_error=on_error).sessions)

    return target


def annotation_archives_and_tables() -> Target:
    segments = [exo_segment(8.5, 20, "1. Cut it.\n2. Eat it."), exo_segment(2, 8, "1. Wash it.")]
    archive = gzip.decompress(exo_archive(("l1/v1.json", segments), ("l1/v2.json", segments)))

    def spoilt(rows: str, rng: random.Random, divider: str) -> bytes:
        """A table with odd cells, or damaged bytes, or in another encoding."""
        cells = [row.split(divider) for row in rows.splitlines()]
        for _ in range(rng.randrange(4)):
            row = rng.choice(cells)
            row[rng.randrange(len(row))] = rng.choice([*ODD_TEXTS[:-1], "1e400", "9" * 5000, "-5", '"', "99:99:99"])
        text = "\n".join(divider.join(row) for row in cells)
        data = text.encode(rng.choice(["utf-8", "utf-8", "utf-8", "utf-16", "latin-1"]), "replace")
        return mutate_bytes(data, rng, 4) if rng.random() < 0.4 else data

    def target(rng: random.Random, folder: Path) -> None:
        source = rng.choice(["egoexolearn", "epickitchens", "wtag"])
        if source == "egoexolearn":
            how = rng.random()
            if how < 0.4:
                write_exo(folder, ("l1/v1.json", damaged_json(segments, rng, 0.15)), ("l1/v2.json", segments))
            else:
                packed = gzip.compress(mutate_bytes(archive, rng, 4), 1)
                data = packed if how < 0.7 else mutate_bytes(packed, rng, 2)
                write(folder / "egoexolearn/coarse_annotations.tar.gz", data)
        elif source == "epickitchens":
            write_epic(folder, spoilt(EPIC_HEAD + EPIC_ROWS, rng, ","))
            if rng.random() < 0.5:
                write_epic(folder, spoilt(EPIC_INFO, rng, ","), "EPIC_100_video_info.csv")
        else:
            write(folder / "wtag/recipe_tea.txt", spoilt(RECIPE, rng, " "))
            damaged = write_recording(folder)
            name = rng.choice(["StepDetection/StepDetection.txt", "TextASR/UserAnnotations_intent.txt", TIMING])
            write(damaged / name, spoilt((damaged / name).read_text(), rng, "\t"))
        on_error: Any = rng.choice(["raise", "skip"])
        for split in FILE_SPLITS:
            take(read_annotations(folder, source, split, on_error=on_error).sessions)

    return target


def lists_of_records() -> Target:
    """Read entry by entry, a list gives the entries or the error that it gives as a whole."""

    def target(rng: random.Random, folder: Path) -> None:
        path = folder / "list.json"
        path.write_bytes(damaged_json([dialog("wtag", f"v{number}") for number in range(3)], rng, 0.6))
        read: list[Any] = []
        for load in (lambda: list(json_records(path)), lambda: load_json(path)):
            try:
                read.append(load())
            except DataError as error:
                read.append(str(error))
        if isinstance(read[1], list) or read[0] != f"{path}: expected a list of records.":
            assert repr(read[0]) == repr(read[1])

    return target


def training_records() -> Target:
    record = {
        "video_uid": "v1",
        "dataset": "wtag",
        "inferred_goal": "Make tea",
        "inferred_knowledge": KNOWLEDGE,
        "user_type": "talk_some",
        "fps": 2,
        "start_frame_idx": 0,
        "end_frame_idx": 40,
        "dst": SPANS[:1],
        "conversation": [
            {"role": "system", "content": "x"},
            TURNS[0],
            {"role": "DST_UPDATE", "time": 3.0, "content": [{"id": "S1", "transition": "start"}]},
            {"role": "DST_UPDATE", "time": 9.0, "content": [{"id": "S1", "transition": "complete"}]},
        ],
    }

    def target(rng: random.Random, folder: Path) -> None:
        path = folder / "record.json"
        path.write_bytes(damaged_json(rng.choice([record, [record]]), rng))
        take(list(read_training_record(path)))

    return target


def plans_and_segments() -> Target:
    def target(rng: random.Random, folder: Path) -> None:
        texts = []
        for base in (KNOWLEDGE, SEGMENTS):
            text = mutate_bytes(base.encode(), rng, 4).decode("utf-8", "replace")
            at = rng.randrange(len(text) + 1)
            texts.append(text[:at] + rng.choice(["", *ODD_TEXTS, "9" * 5000 + ". ", "²", "٣", "1e400"]) + text[at:])
        table = StateTable([0, 1, 2], Tracking(source="text"))
        state = "1 completed, 2 in progress"
        table.propose(table.read_text(mutate_bytes(state.encode(), rng).decode("utf-8", "replace")), update=True)
        table.read_text("9" * 5000 + " completed" if rng.random() < 0.1 else texts[0])
        try:
            steps = parse_steps(texts[0], "plan")
        except DataError:
            steps = parse_steps(KNOWLEDGE, "plan")
        WordAligner()(Task("video", "Make tea", steps, parse_annotation(texts[1])))

    return target


def frame_files() -> Target:
    rng = np.random.default_rng(0)
    stored = []
    for form in ("JPEG", "PNG", "GIF"):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).save(file, form)
        stored.append(file.getvalue())
    with tempfile.TemporaryDirectory() as place:
        write_frames(Path(place) / "f.arrow", stored * 30)
        base = (Path(place) / "f.arrow").read_bytes()

    def target(rng: random.Random, folder: Path) -> None:
        path = folder / "f.arrow"
        if rng.random() < 0.6:
            path.write_bytes(mutate_bytes(base, rng, 4))
        else:
            odd: list[Any] = [rng.choice([*ODD_TEXTS[:-6], None]) for _ in range(3)]
            odd += [base64.b64encode(mutate_bytes(stored[n % 3], rng)).decode() for n in range(5)]
            rng.shuffle(odd)
            kind = rng.choice([pa.string(), pa.large_string(), pa.string()])
            values = [value.encode("utf-8", "replace").decode() if value else value for value in odd]
            table = pa.table({rng.choice(["frame", "frame", "frame", "x"]): pa.array(values, kind)})
            if rng.random() < 0.15:
                table = pa.table({"frame": rng.choice([pa.array([1, 2]), pa.array([b"x"]), pa.array([["x"]])])})
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
        if rng.random() < 0.5:
            store = FrameStore(path)
            for index in range(min(len(store), 6)):
                try:
                    store[index].load()
                except DataError:
                    continue
        else:
            for frame in open_source(str(path)):
                frame.frame.load()  # type: ignore[union-attr]

    return target


def stored_features() -> Target:
    with tempfile.TemporaryDirectory() as place:
        writer = ArrowWriter(path=f"{place}/f.arrow")
        for frame in range(40):
            writer.write({"cls": torch.full((1, 6), frame).half(), "2x2": torch.full((4, 6), frame).half()})
        writer.finalize()
        base = (Path(place) / "f.arrow").read_bytes()

    def target(rng: random.Random, folder: Path) -> None:
        path = folder / rng.choice(["f.arrow"] * 9 + ["f.pt"])
        path.write_bytes(mutate_bytes(base, rng, 4))
        features = StoredFeatures(path)
        features.read(0, len(features), features.layouts)

    return target


def simulator_marks() -> Target:
    scene = SceneConfig()
    mark = {"generator": 2, "seed": 0, "sources": ["wtag"], "recordings": {"train": 1}, "views": 1, "finished": True,
            "scene": dict(vars(scene)), "counts": {"wtag": {"train": {"frames": 3}}}}  # fmt: skip

    def target(rng: random.Random, folder: Path) -> None:
        (folder / MARKER).write_bytes(damaged_json(mark, rng, 0.4))
        corpus_is_current(folder, ["wtag"], {"train": 1}, 0, scene)

    return target


def reports_of_rows() -> Target:
    def target(rng: random.Random, folder: Path) -> None:
        report = {"train": {"wtag": {"sessions": 3, "rows": 10, "skipped": [["a", "b"]]}}, "absent": []}
        (folder / "report.json").write_bytes(damaged_json(report, rng, 0.4))
        load_report(folder / "report.json")

    return target


TARGETS: dict[str, tuple[Callable[[], Target], int]] = {
    "dialogs of six sources": (dialogs, 120),
    "label files": (labels, 60),
    "prepared rows": (prepared_rows, 60),
    "annotation releases": (annotation_releases, 120),
    "annotation archives and tables": (annotation_archives_and_tables, 120),
    "lists of records": (lists_of_records, 60),
    "training records": (training_records, 60),
    "plans, segments, state texts": (plans_and_segments, 80),
    "frame files": (frame_files, 80),
    "stored features": (stored_features, 60),
    "marks of simulated corpora": (simulator_marks, 60),
    "reports of rows": (reports_of_rows, 30),
}


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_corpora(name: str, tmp_path: Path) -> None:
    make, inputs = TARGETS[name]
    assert_no_fault(survey(name, make(), inputs, tmp_path))
