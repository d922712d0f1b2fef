"""The inspection of a dataset: a good one breaks no promise, and each kind of damage breaks the promise of its name."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_fixtures import (
    EGO4D,
    SAMPLE_FILE,
    WTAG,
    WTAG_TEST,
    Rows,
    change_rows,
    make_session,
    make_sessions,
    monotone_session,
    replace_table,
    restate,
    write_dataset,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from model_fixtures import small_processor
from PIL import Image
from proassist_fixtures import write_store

from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem
from prospect_hf.dataset.inspection import blocks, file_checks
from prospect_hf.dataset.inspection.findings import PROMISES
from prospect_hf.dataset.inspection.inspect import Inspection, inspect_dataset
from prospect_hf.dataset.inspection.page import tables, text_report
from prospect_hf.dataset.layout import load_manifest, write_manifest
from prospect_hf.dataset.row_maker import SCHEMA
from prospect_hf.errors import DataError, UsageError
from prospect_hf.sessions import COMPLETED, IN_PROGRESS, DSTEvent
from prospect_hf.timeline import build_timeline

UPDATE_ROW = 5  # step 1 starts on frame 5 of session a, and completes on frame 11, where step 2 starts


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "dst_frames"
    write_dataset(folder, make_sessions())
    return folder


@pytest.fixture()
def dataset(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "dst_frames"))


def inspected(folder: Path, **settings: Any) -> Inspection:
    return inspect_dataset(folder, progress=False, **settings)


def broken(folder: Path, **settings: Any) -> set[str]:
    return {one.promise for one in inspected(folder, **settings).broken}


def test_a_good_dataset_keeps_every_promise(good: Path) -> None:
    assert inspected(good).broken == []


@pytest.mark.parametrize("batch", [1, 7, 40, 1000])
def test_sessions_are_whole_in_blocks_of_any_size(good: Path, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BATCH_ROWS", batch)
    assert inspected(good).broken == []
    read = list(blocks.read_blocks(good / WTAG))
    assert [block.session(start) for block in read for start in block.starts] == ["a", "b"]
    joined = pa.concat_tables([block.table.cast(SCHEMA) for block in read])
    assert joined.equals(pq.read_table(good / WTAG).cast(SCHEMA))


# ---- damage: each is (promise, file, change of its rows, the other promises that it breaks too) ----


def of_session(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Rows], None]:
    def apply(rows: Rows) -> None:
        for row in rows:
            if row["session_id"] == name:
                change(row)

    return apply


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda row: row.update({key: value})


def at(row: int, **values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[row].update(values)


def add_move(row: int, step: int, transition: str) -> Callable[[Rows], None]:
    def apply(rows: Rows) -> None:
        rows[row]["transitions"].append({"step": step, "transition": transition})
        rows[row]["dst_update"] = 1

    return apply


def states_from(row: int, step: int, state: int) -> Callable[[Rows], None]:
    """From ``row`` to the end of session a."""

    def apply(rows: Rows) -> None:
        for number in range(row, 40):
            rows[number]["states_before"][step] = rows[number]["states_after"][step] = state

    return apply


def shift(row: dict[str, Any]) -> None:
    row["frame_index"] -= 100
    row["timestamp"] -= 50


def no_plan(row: dict[str, Any]) -> None:
    row.update(steps=[], states_before=[], states_after=[], transitions=[], dst_update=0)


def second_start_of_a_completed_step(rows: Rows) -> None:
    """In a session whose rule is monotone; all other promises are kept."""
    begin = next(n for n, row in enumerate(rows) if row["states_after"][0] == COMPLETED) + 3
    for row in rows[begin:]:
        row["states_after"][0] = IN_PROGRESS
    for row in rows[begin + 1 :]:
        row["states_before"][0] = IN_PROGRESS
    add_move(begin, 0, "start")(rows)


def completed_without_a_start(rows: Rows) -> None:
    for row in rows[20:40]:
        row["states_after"][2] = COMPLETED
    for row in rows[21:40]:
        row["states_before"][2] = COMPLETED
    add_move(20, 2, "complete")(rows)


def split_run(rows: Rows) -> Rows:
    """Session a before its first change, then session b, then the rest of a."""
    return [*rows[:4], *rows[40:], *rows[4:40]]


def unlabelled(begin: int, end: int) -> Callable[[Rows], None]:
    def apply(rows: Rows) -> None:
        for row in rows[begin:end]:
            row.update(states_before=[-100] * 3, states_after=[-100] * 3, dst_update=-100, transitions=[])

    return apply


ROW_DAMAGE: list[tuple[str, str, Callable[[Rows], Rows | None], set[str]]] = [
    ("no_nulls", WTAG, at(3, goal=None), set()),
    ("no_nulls", WTAG, at(3, speaking=None), set()),
    ("no_nulls", WTAG, at(3, frame_index=None), set()),
    ("no_nulls", WTAG, at(3, session_id=None), {"consecutive_frames"}),
    ("no_nulls", WTAG, at(3, steps=["Fill.", None, "Pour."]), set()),
    ("no_nulls", WTAG, at(3, states_after=[0, None, 0]), set()),
    ("no_nulls", WTAG, at(3, transitions=None), set()),
    ("no_nulls", WTAG, at(3, transitions=[None]), set()),
    ("no_nulls", WTAG, at(3, transitions=[{"step": None, "transition": "start"}]), set()),
    ("one_source", WTAG, of_session("a", put("source", "ego4d")), set()),
    ("license", WTAG, of_session("a", put("license", "Apache-2.0")), set()),
    ("frames_file", WTAG, of_session("a", put("frames_file", "../../secret.arrow")), set()),
    ("frames_file", WTAG, of_session("a", put("frames_file", "/etc/passwd")), set()),
    ("frames_file", WTAG, of_session("a", put("frames_file", "")), set()),
    ("one_run_a_session", WTAG, split_run, set()),
    ("one_run_a_session", WTAG, of_session("a", put("session_id", "f")), {"sample"}),
    ("one_run_a_session", WTAG_TEST, of_session("c", put("session_id", "a")), set()),
    ("recording_in_one_split", WTAG_TEST, of_session("g", put("recording", "r-a")), set()),
    ("session_constant", WTAG, at(3, goal="Make coffee"), set()),
    ("session_constant", WTAG, at(3, steps=["Fill.", "Boil!", "Pour."]), set()),
    ("session_constant", WTAG, at(3, user_type="no_talk"), set()),
    ("session_constant", WTAG, at(3, fps=3.0), {"timestamps"}),
    ("session_constant", WTAG, at(3, state_rule="monotone"), set()),
    ("session_constant", WTAG, at(3, video_uid="w"), set()),
    ("plan_shape", WTAG, at(3, states_after=[0, 0]), set()),
    ("plan_shape", WTAG, at(3, states_before=[0, 0, 0, 0]), set()),
    ("plan_shape", WTAG, of_session("a", no_plan), set()),
    ("one_row_a_frame", WTAG, lambda rows: [*rows[:4], *rows[3:]], {"timestamps"}),
    ("one_row_a_frame", WTAG, lambda rows: rows[4].update(frame_index=3), {"timestamps", "consecutive_frames"}),
    ("consecutive_frames", WTAG, lambda rows: [*rows[:3], *rows[4:]], set()),
    ("consecutive_frames", WTAG, lambda rows: [*rows[:2], rows[3], rows[2], *rows[4:]], {"timestamps"}),
    ("timestamps", WTAG, at(3, timestamp=1.75), set()),
    ("timestamps", WTAG, at(3, timestamp=float("nan")), set()),
    ("timestamps", WTAG, of_session("a", put("fps", 0.0)), set()),
    ("timestamps", WTAG, of_session("a", put("fps", float("nan"))), {"session_constant"}),
    ("frames_in_video", WTAG, of_session("a", shift), set()),
    ("speaking", WTAG, at(4, speaking=0), set()),
    ("speaking", WTAG, at(3, speaking=0), set()),
    ("speaking", WTAG, at(3, speaking=1), set()),
    ("speaking", WTAG, at(6, speaking=1), set()),
    ("speaking", WTAG, at(6, speaking=2), set()),
    ("speaking", WTAG, at(4, user_text="Both at once."), set()),
    ("state_rule", WTAG, of_session("a", put("state_rule", "sometimes")), set()),
    ("state_values", WTAG, at(38, states_after=[2, 2, 3]), {"state_chain", "transitions_match_states"}),
    ("state_values", WTAG, states_from(0, 2, -1), {"first_states"}),
    ("unlabelled_sessions", WTAG, unlabelled(20, 21), {"state_chain"}),
    ("unlabelled_sessions", WTAG, unlabelled(20, 40), {"state_chain"}),
    ("unlabelled_sessions", WTAG, at(38, dst_update=-100), set()),
    ("unlabelled_sessions", WTAG, at(38, states_after=[2, 2, -100]), {"state_chain", "transitions_match_states"}),
    ("unlabelled_sessions", WTAG_TEST, at(3, transitions=[{"step": 0, "transition": "start"}]),
     {"transitions_match_states", "legal_transitions"}),
    ("first_states", WTAG, states_from(0, 2, IN_PROGRESS), set()),
    ("state_chain", WTAG, states_from(20, 2, IN_PROGRESS), set()),
    ("transition_values", WTAG, add_move(UPDATE_ROW, 3, "start"), set()),
    ("transition_values", WTAG, add_move(UPDATE_ROW, -1, "start"), set()),
    ("transition_values", WTAG, add_move(UPDATE_ROW, 0, "undo"), set()),
    ("transitions_match_states", WTAG, add_move(UPDATE_ROW, 2, "start"), set()),
    ("transitions_match_states", WTAG, at(UPDATE_ROW, transitions=[], dst_update=0), set()),
    ("legal_transitions", WTAG, add_move(UPDATE_ROW + 2, 0, "start"), set()),
    ("legal_transitions", WTAG, completed_without_a_start, set()),
    ("legal_transitions", WTAG, states_from(20, 1, 0), {"state_chain", "transitions_match_states"}),
    ("legal_transitions", EGO4D, second_start_of_a_completed_step, {"sample"}),
    ("dst_update", WTAG, at(UPDATE_ROW, dst_update=0), set()),
    ("dst_update", WTAG, at(UPDATE_ROW + 1, dst_update=1), set()),
    ("dst_update", WTAG, at(UPDATE_ROW, dst_update=2), set()),
    ("sample", SAMPLE_FILE, of_session("f", put("goal", "Make coffee")), set()),
    ("sample", SAMPLE_FILE, of_session("f", put("session_id", "z")), set()),
    ("sample", SAMPLE_FILE, lambda rows: rows[:-1], set()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("promise", "path", "change", "others"), ROW_DAMAGE, ids=[f"{n}-{case[0]}" for n, case in enumerate(ROW_DAMAGE)]
)
def test_damaged_rows_break_the_promise_of_that_name(
    promise: str, path: str, change: Callable[[Rows], Rows | None], others: set[str], dataset: Path
) -> None:
    change_rows(dataset, path, change)
    found = inspected(dataset)
    assert {one.promise for one in found.broken} == {promise, *others}
    (one,) = [one for one in found.broken if one.promise == promise]
    assert one.file == path and one.session and one.count >= 1


def test_a_finding_says_where_and_how_often(dataset: Path) -> None:
    def change(rows: Rows) -> None:
        for row in (*rows[7:9], rows[47]):
            row["speaking"] = 1

    change_rows(dataset, WTAG, change)
    (one,) = inspected(dataset).broken
    assert (one.promise, one.file, one.session, one.frame, one.count) == ("speaking", WTAG, "a", 7, 3)
    told = text_report(inspected(dataset))
    assert f"speaking: {WTAG}, session a, frame 7 (3 times in this file): not kept: speaking is 1 exactly" in told
    assert told.endswith(f"1 of {len(PROMISES)} promises are broken: speaking.")


def test_fps_within_a_session_that_is_no_number_of_frames_is_found_in_every_row(dataset: Path) -> None:
    change_rows(dataset, WTAG, of_session("a", put("fps", 500.0)))
    assert broken(dataset) == {"timestamps"}


# ---- damage to files ----


def table_of(dataset: Path) -> pa.Table:
    return pq.read_table(dataset / WTAG)


def edit_manifest(dataset: Path, **fields: Any) -> None:
    write_manifest(dataset, dataclasses.replace(load_manifest(dataset), **fields))


def edit_shard(dataset: Path, **fields: Any) -> None:
    shards = load_manifest(dataset).shards
    number = next(n for n, shard in enumerate(shards) if shard.path == WTAG)
    changed = dataclasses.replace(shards[number], **fields)
    edit_manifest(dataset, shards=(*shards[:number], changed, *shards[number + 1 :]))


def flip_a_byte(dataset: Path) -> None:
    content = bytearray((dataset / WTAG).read_bytes())
    content[-20] ^= 1  # in the footer's text: the rows stay readable or not, the content is another one
    (dataset / WTAG).write_bytes(content)


def garbage(dataset: Path) -> None:
    (dataset / WTAG).write_bytes(b"no Parquet at all")
    restate(dataset)


def cut_in_the_middle(dataset: Path) -> None:
    content = (dataset / WTAG).read_bytes()
    broken_pages = bytearray(content)
    broken_pages[4:200] = bytes(196)
    (dataset / WTAG).write_bytes(broken_pages)
    manifest = load_manifest(dataset)
    from prospect_hf.content_hash import file_hash

    edit_shard(dataset, sha256=file_hash(dataset / WTAG))
    assert manifest.shards


def lying_features(dataset: Path) -> None:
    table = table_of(dataset)
    facts = json.loads(table.schema.metadata[b"huggingface"])
    facts["info"]["features"]["goal"]["dtype"] = "large_string"
    replace_table(dataset, WTAG, table.replace_schema_metadata({"huggingface": json.dumps(facts)}))


def other_balance(dataset: Path) -> None:
    balance = load_manifest(dataset).balance
    balance["train"]["wtag"]["states_completed"] += 1
    edit_manifest(dataset, balance=balance)


def unknown_place(dataset: Path) -> None:
    balance = load_manifest(dataset).balance
    balance["test"]["ego4d"] = dict(balance["test"]["wtag"])
    report = json.loads((dataset / "report.json").read_text())
    report["splits"]["test"]["ego4d"] = report["splits"]["test"]["wtag"]
    (dataset / "report.json").write_text(json.dumps(report))
    edit_manifest(dataset, balance=balance)


def rename(dataset: Path) -> None:
    name = WTAG.replace("of-00002", "of-00003")
    (dataset / WTAG).rename(dataset / name)
    edit_shard(dataset, path=name)


def unnamed_configuration(dataset: Path) -> None:
    card = dataset / "README.md"
    card.write_text(card.read_text().replace("data/wtag/train-*", "data/wtag/tra*"))


FILE_DAMAGE: list[tuple[str, Callable[[Path], Any], set[str]]] = [
    ("files", lambda d: (d / WTAG).unlink(), set()),
    ("files", lambda d: edit_shard(d, sha256="0" * 64), set()),
    ("files", lambda d: edit_shard(d, bytes=7), set()),
    ("files", flip_a_byte, {"readable"}),
    ("files", lambda d: shutil.copy(d / WTAG, d / "data/wtag/train-00009-of-00009.parquet"), set()),
    ("files", lambda d: (d / WTAG).write_bytes(b""), {"readable"}),
    ("file_names", rename, set()),
    ("file_names", lambda d: edit_shard(d, split="dev"), {"label_balance", "recording_in_one_split", "card"}),
    ("card", lambda d: (d / "README.md").unlink(), set()),
    ("card", lambda d: (d / "README.md").write_text("# No front matter\n"), set()),
    ("card", lambda d: (d / "README.md").write_text("---\nconfigs: 7\n---\n"), set()),
    ("card", unnamed_configuration, set()),
    ("report", lambda d: (d / "report.json").unlink(), set()),
    ("report", lambda d: (d / "report.json").write_text("[]"), set()),
    ("report", lambda d: (d / "report.json").write_text('{"splits": {"train": 5}}'), set()),
    ("readable", garbage, set()),
    ("readable", cut_in_the_middle, set()),
    ("schema", lambda d: replace_table(d, WTAG, table_of(d).drop_columns(["mistake"])), set()),
    ("schema", lambda d: replace_table(d, WTAG, table_of(d).append_column("x", pa.nulls(80))), set()),
    ("schema", lambda d: replace_table(d, WTAG, table_of(d).select(SCHEMA.names[::-1])), set()),
    ("schema", lambda d: replace_table(d, WTAG, table_of(d).set_column(12, "speaking", pa.array([0] * 80))), set()),
    ("schema", lying_features, set()),
    ("parquet_layout", lambda d: replace_table(d, WTAG, table_of(d), write_page_index=False), set()),
    ("row_counts", lambda d: edit_shard(d, rows=81), set()),
    ("row_counts", lambda d: edit_shard(d, sessions=3), set()),
    ("label_balance", other_balance, set()),
    ("label_balance", unknown_place, set()),
    ("license", lambda d: edit_manifest(d, licenses={"wtag": "Apache-2.0", "ego4d": "MIT"}), set()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("promise", "damage", "others"), FILE_DAMAGE, ids=[f"{n}-{case[0]}" for n, case in enumerate(FILE_DAMAGE)]
)
def test_damaged_files_break_the_promise_of_that_name(
    promise: str, damage: Callable[[Path], Any], others: set[str], dataset: Path
) -> None:
    damage(dataset)
    found = broken(dataset)
    assert promise in found and found <= {promise, *others}


def test_every_promise_is_broken_by_a_test() -> None:
    assert {case[0] for case in (*ROW_DAMAGE, *FILE_DAMAGE)} == set(PROMISES)


def test_row_groups_have_a_limit(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_checks, "GROUP_BYTES", 1000)
    found = inspected(good).broken
    assert {one.promise for one in found} == {"parquet_layout"} and "row group 0 has 0 MB" in str(found[0])
