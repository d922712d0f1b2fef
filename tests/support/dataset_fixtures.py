"""A small dataset in the published layout with every kind of session, and ways to change it afterwards."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prospect_hf.content_hash import file_hash
from prospect_hf.dataset.balance import balance_of
from prospect_hf.dataset.layout import (
    SAMPLE,
    Manifest,
    Shard,
    configurations,
    load_manifest,
    shard_path,
    write_manifest,
)
from prospect_hf.dataset.licenses import LICENSES
from prospect_hf.dataset.row_maker import SCHEMA, session_table
from prospect_hf.files import write_json
from prospect_hf.hub.front_matter import with_front_matter
from prospect_hf.sessions import DSTEvent, Mistake, Session, Step, Turn

Rows = list[dict[str, Any]]
WTAG, WTAG_2, WTAG_TEST, EGO4D = (
    "data/wtag/train-00000-of-00002.parquet",
    "data/wtag/train-00001-of-00002.parquet",
    "data/wtag/test-00000-of-00001.parquet",
    "data/ego4d/train-00000-of-00001.parquet",
)
PARQUET = {"use_content_defined_chunking": True, "write_page_index": True}
REPORTED = {"rows": "rows", "sessions": "sessions", "videos": "videos", "beyond_turns": "turns_beyond_frames"}
SAMPLE_FILE = "sample/train-00000-of-00001.parquet"


def make_session(name: str, source: str = "wtag", recording: str | None = None, **fields: Any) -> Session:
    """40 frames: step 1 is reopened and step 3 never starts; two events of one step fall on one frame."""
    values: dict[str, Any] = {
        "session_id": name,
        "source": source,
        "video_uid": f"v-{name}",
        "recording": recording or f"r-{name}",
        "user_type": "talk_some",
        "goal": "Make tea",
        "steps": tuple(Step(f"S{n + 1}", text) for n, text in enumerate(("Fill.", "Boil.", "Pour."))),
        "turns": (
            Turn("user", 2.0, "I want tea."),
            Turn("assistant", 2.0, "Fill it.", progress="Asked."),
            Turn("assistant", 9.0, "Boil it."),
        ),
        "events": tuple(
            DSTEvent(time, step, transition)
            for time, step, transition in (
                (3.0, 0, "start"), (6.0, 0, "complete"), (6.0, 1, "start"), (9.0, 0, "start"), (11.0, 0, "complete"),
                (11.2, 0, "start"), (13.0, 0, "complete"), (15.0, 1, "complete"),
            )
        ),
        "fps": 2.0,
        "first_frame": 0,
        "num_frames": 40,
        "frames_file": f"frames/v-{name}.arrow",
        "origin": name,
        "mistakes": (Mistake(7.0, 8.0, "Too much water."),),
    }  # fmt: skip
    return Session(**{**values, **fields})


def monotone_session(name: str, **fields: Any) -> Session:
    events = (DSTEvent(6.0, 0, "start"), DSTEvent(6.1, 0, "complete"), DSTEvent(9.0, 1, "start"))
    return make_session(
        name, "ego4d", state_rule="monotone", first_frame=8, num_frames=30, events=events, turns=(), **fields
    )


def make_sessions() -> dict[tuple[str, str], list[list[Session]]]:
    """(source, split) -> the sessions of each shard."""
    return {
        ("ego4d", "train"): [[monotone_session("d")]],
        ("ego4d", "validation"): [[monotone_session("e", fps=29.97)]],
        ("wtag", "train"): [[make_session("a"), make_session("b", recording="r-a")], [make_session("f", fps=10.0)]],
        ("wtag", "test"): [[make_session("c", events=None), make_session("g", recording="r-c")]],
    }


def write_dataset(folder: Path, parts: Mapping[tuple[str, str], Sequence[Sequence[Session]]]) -> Manifest:
    """Write sessions as ``build_rows`` does; the sample has the last session of each source's training split."""
    shards, balance, summaries = [], {}, {}
    for (source, split), files in parts.items():
        tables = [pa.concat_tables([session_table(session) for session in sessions]) for sessions in files]
        for number, table in enumerate(tables):
            shards.append(_write_shard(folder, shard_path(source, split, number, len(files)), source, split, table))
        balance.setdefault(split, {})[source] = counts = counted(tables)
        summaries.setdefault(split, {})[source] = {key: counts[name] for key, name in REPORTED.items()}
    sampled = [session_table(files[-1][-1]) for (_, split), files in parts.items() if split == "train"]
    sample = _write_shard(folder, SAMPLE_FILE, SAMPLE, "train", pa.concat_tables(sampled))
    write_json(folder / "report.json", {"absent": [], "splits": summaries})
    licenses = {source: LICENSES[source] for source, _ in parts}
    manifest = Manifest(
        "0", "labels", "fingerprint", {"form": "dialogs", "images": False}, licenses, balance, tuple(shards), (sample,)
    )
    configs = [
        {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in paths.items()]}
        for name, paths in configurations(manifest)
    ]
    (folder / "README.md").write_text(with_front_matter({"configs": configs}, ""), encoding="utf-8")
    write_manifest(folder, manifest)
    return manifest


def _write_shard(folder: Path, path: str, source: str, split: str, table: pa.Table) -> Shard:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / path, **PARQUET)
    ids = table["session_id"].to_pylist()
    size = (folder / path).stat().st_size
    return Shard(path, source, split, len(table), runs(ids), size, file_hash(folder / path))


def runs(ids: Sequence[Any]) -> int:
    """The number of runs of equal values."""
    return sum(one != above for one, above in zip(ids, [object(), *ids], strict=False))


def change_rows(folder: Path, path: str, change: Callable[[Rows], Rows | None]) -> None:
    """Change the rows of a file (in place, or to those returned), and the manifest and report with them."""
    rows = pq.read_table(folder / path).to_pylist()
    changed = change(rows)
    replace_table(folder, path, pa.Table.from_pylist(rows if changed is None else changed, schema=SCHEMA))


def replace_table(folder: Path, path: str, table: pa.Table, **options: Any) -> None:
    """Replace a file, and state what it holds in manifest and report."""
    pq.write_table(table, folder / path, **{**PARQUET, **options})
    restate(folder)


def restate(folder: Path) -> None:
    """Write manifest and report anew from the files that are there."""
    manifest = load_manifest(folder)
    restated = []
    tables: dict[tuple[str, str], list[pa.Table]] = {}
    for shard in (*manifest.shards, *manifest.sample):
        path = folder / shard.path
        rows, sessions = shard.rows, shard.sessions
        if path.read_bytes()[:4] == b"PAR1":
            table = pq.read_table(path)
            tables.setdefault((shard.split, shard.source), []).append(table)
            if "session_id" in table.column_names:
                ids = table["session_id"].to_pylist()
                rows = len(ids)
                sessions = runs(ids)
        restated.append(
            dataclasses.replace(shard, rows=rows, sessions=sessions, bytes=path.stat().st_size, sha256=file_hash(path))
        )
    report = json.loads((folder / "report.json").read_text())
    for (split, source), of_place in tables.items():
        if source != SAMPLE and all(table.schema.names[: len(SCHEMA)] == SCHEMA.names for table in of_place):
            counts = counted(of_place)
            manifest.balance[split][source] = counts
            report["splits"][split][source] = {key: counts[name] for key, name in REPORTED.items()}
    write_json(folder / "report.json", report)
    count = len(manifest.shards)
    write_manifest(
        folder, dataclasses.replace(manifest, shards=tuple(restated[:count]), sample=tuple(restated[count:]))
    )


def counted(tables: Sequence[pa.Table]) -> dict[str, int]:
    """The label balance, counted row by row."""
    rows = [row for table in tables for row in table.to_pylist()]
    labels = {
        "speaking": Counter(row["speaking"] for row in rows),
        "dst_update": Counter(row["dst_update"] for row in rows),
        "states_after": Counter(state for row in rows for state in row["states_after"] or []),
    }
    videos = len({row["video_uid"] for row in rows})
    return balance_of(labels, len(rows), runs([row["session_id"] for row in rows]), videos, 0)
