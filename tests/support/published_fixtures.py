"""A small dataset in the published layout, written by hand: two sources, three splits, sessions of a few frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prospect_hf.content_hash import file_hash
from prospect_hf.dataset.card import write_card
from prospect_hf.dataset.layout import SPLITS, Manifest, Shard, shard_path, write_manifest
from prospect_hf.dataset.licenses import LICENSES
from prospect_hf.dataset.report import REPORT_FILE, summary, whole_report
from prospect_hf.dataset.row_maker import session_table
from prospect_hf.files import write_json
from prospect_hf.sessions import DSTEvent, Mistake, Session, Step, Turn, frames_file
from prospect_hf.sources.report import start_report
from prospect_hf.sources.splits import SplitCheck

SOURCES = ("epickitchens", "wtag")


def small_session(source: str = "wtag", uid: str = "v1", **changes: Any) -> Session:
    """30 frames: the kettle is filled, boiled, filled again; the user asks and the assistant answers."""
    session = Session(
        session_id=f"{source}.{uid}.talk_some_0",
        source=source,
        video_uid=uid,
        recording=uid,
        user_type="talk_some",
        goal="Make tea",
        steps=(Step("S1", "Fill the kettle."), Step("S2", "Boil the water.")),
        turns=(
            Turn("user", 2.0, "I want tea."),
            Turn("assistant", 2.2, "Fill the kettle.", progress="The user wants tea."),
            Turn("assistant", 9.0, "Now boil it."),
        ),
        events=(
            DSTEvent(1.0, 0, "start"),
            DSTEvent(5.0, 0, "complete"),
            DSTEvent(5.0, 1, "start"),
            DSTEvent(8.0, 0, "start"),
            DSTEvent(11.0, 0, "complete"),
        ),
        fps=2.0,
        first_frame=0,
        num_frames=30,
        frames_file=frames_file(source, uid),
        origin=f"{uid}.json",
        mistakes=(Mistake(6.0, 7.0, "boils without water"),),
    )
    return replace(session, **changes)


def balance_of(table: pa.Table) -> dict[str, int]:
    """Counts of the rows, as in a manifest."""
    counts = {"rows": len(table), "turns_beyond_frames": 0}
    counts["sessions"], counts["videos"] = (
        pc.count_distinct(table[key]).as_py() for key in ("session_id", "video_uid")
    )
    for name, values, words in (
        ("speaking", table["speaking"], {1: "1", 0: "0", -100: "ignored"}),
        ("dst_update", table["dst_update"], {1: "1", 0: "0", -100: "ignored"}),
        (
            "states",
            pc.list_flatten(table["states_after"]),
            {0: "not_started", 1: "in_progress", 2: "completed", -100: "ignored"},
        ),
    ):
        for value, word in words.items():
            counts[f"{name}_{word}"] = pc.sum(pc.equal(values, value)).as_py()
    return counts


def publish(
    folder: Path, sessions: dict[tuple[str, str], list[Session]] | None = None, **settings: Any
) -> tuple[Manifest, dict[str, Any]]:
    """Write a dataset of the sessions by (source, split) and return its manifest and its report."""
    if sessions is None:
        sessions = {
            (source, split): [small_session(source, f"{split}{number}") for number in range(2)]
            for source in SOURCES
            for split in SPLITS
        }
    summaries: dict[tuple[str, str], dict[str, Any]] = {}
    check = SplitCheck("raise")
    balance: dict[str, dict[str, dict[str, int]]] = {}
    shards = []
    for (source, split), of_split in sessions.items():
        read = start_report(source, split, "raise")
        for session in of_split:
            read.add(session)
        check.add(read)
        summaries[split, source] = summary(read)
        table = pa.concat_tables([session_table(session) for session in of_split])
        balance.setdefault(split, {})[source] = balance_of(table)
        path = folder / shard_path(source, split, 0, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        name, size = shard_path(source, split, 0, 1), path.stat().st_size
        shards.append(Shard(name, source, split, len(table), len(of_split), size, file_hash(path)))
    report = whole_report([*SOURCES, "ego4d"], summaries, check)
    write_json(folder / REPORT_FILE, report)
    manifest = Manifest(
        tool_version="1.0",
        label_version="a" * 64,
        fingerprint="b" * 64,
        settings={"form": "dialogs", "dst": "files", "images": False, "simulated": False, **settings},
        licenses=LICENSES,
        balance=balance,
        shards=tuple(shards),
        files={REPORT_FILE: file_hash(folder / REPORT_FILE)},
    )
    write_card(folder, manifest, report)
    write_manifest(folder, manifest)
    return manifest, report
