"""Sessions written to files, as training reads them."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.testing import assert_array_equal

from prospect_hf.content_hash import file_hash
from prospect_hf.data.session_rows import TRANSITIONS, SessionRows
from prospect_hf.data.session_store import SessionStore, write_sessions
from prospect_hf.dataset.layout import Manifest, Shard, shard_path, write_manifest
from prospect_hf.dataset.row_maker import FEATURES, SCHEMA, row_deviation
from tracking_dst_smolvlm import session_deviations

_FOLDER = tempfile.TemporaryDirectory(prefix="stores-")


def stored(sessions: Iterable[SessionRows], folder: Path, name: str = "sessions") -> SessionStore:
    """The sessions as a store of one file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.arrow"
    write_sessions(sessions, path)
    return SessionStore([path])


def in_store(sessions: Sequence[SessionRows]) -> SessionStore:
    """A store of its own for sessions, below a folder that goes with this process."""
    return stored(sessions, Path(_FOLDER.name) / secrets.token_hex(8))


def rows_of(session: SessionRows) -> list[dict[str, Any]]:
    """The frame rows that ``session`` would come from."""
    rows = []
    found = session_deviations(session.states_after.tolist(), len(session.steps)) if session.labelled else []
    for frame in range(len(session)):
        item = session.item(frame)
        rows.append(
            {
                "source": session.source,
                "video_uid": session.video_uid,
                "session_id": session.session_id,
                "recording": session.video_uid,
                "user_type": session.user_type,
                "frame_index": session.first_frame + frame,
                "timestamp": (session.first_frame + frame) / 2,
                "fps": 2.0,
                "frames_file": session.frames_file,
                "goal": session.goal,
                "steps": session.steps,
                "user_text": item.user_text,
                "speaking": int(session.speaking[frame]),
                "response": item.response,
                "dst_update": int(session.dst_update[frame]),
                "transitions": [{"step": step, "transition": TRANSITIONS[new]} for step, new in item.changes.items()],
                "states_before": session.states_before[frame].tolist(),
                "states_after": session.states_after[frame].tolist(),
                "deviations": [row_deviation(one) for at, one in found if at == frame],
                "state_rule": "reopen",
                "mistake": "",
                "progress": "",
                "license": "MIT",
            }
        )
    return rows


def dataset(rows: list[dict[str, Any]]) -> datasets.Dataset:
    """Frame rows as a dataset in memory."""
    return datasets.Dataset.from_list(rows, features=FEATURES)


def published(shards: Sequence[Sequence[SessionRows]], folder: Path, split: str = "train") -> Manifest:
    """A folder in the published layout, with one shard for each list of sessions."""
    written = []
    for number, sessions in enumerate(shards):
        source = sessions[0].source
        path = shard_path(source, split, number, len(shards))
        table = pa.Table.from_pylist([row for session in sessions for row in rows_of(session)], SCHEMA)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / path, row_group_size=7)
        written.append(
            Shard(
                path, source, split, len(table), len(sessions), (folder / path).stat().st_size, file_hash(folder / path)
            )
        )
    settings = {"form": "dialogs", "dst": "files", "suffix": "_filtered"}
    manifest = Manifest("1", "2", "3", settings, {"wtag": "MIT"}, {split: {"wtag": {"rows": 1}}}, tuple(written))
    write_manifest(folder, manifest)
    return manifest


def assert_equal(a: SessionRows, b: SessionRows) -> None:
    """Every field is the same."""
    for name in vars(a):
        ours, theirs = getattr(a, name), getattr(b, name)
        if isinstance(ours, np.ndarray):
            assert_array_equal(ours, theirs, name, strict=True)
        else:
            assert ours == theirs, name
