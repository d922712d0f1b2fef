"""The inspection of a dataset: a good one breaks no promise, and each kind of damage breaks the promise of its name."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_fixtures import (
    EGO4D,
    SAMPLE_FILE,
    WTAG,
    WTAG_2,
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
from prospect_hf.content_hash import file_hash
from prospect_hf.dataset import frame_fingerprints
from prospect_hf.dataset.inspection import blocks, file_checks
from prospect_hf.dataset.inspection.findings import PROMISES
from prospect_hf.dataset.inspection.inspect import Inspection, inspect_dataset
from prospect_hf.dataset.inspection.page import tables, text_report
from prospect_hf.dataset.layout import load_manifest, write_manifest
from prospect_hf.dataset.row_maker import FEATURES, SCHEMA
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
    rows = [row for block in read for row in block.table.to_pylist()]
    plans = [block.plan(row) for block in read for row in range(block.count)]
    assert [{**row, "steps": plan} for row, plan in zip(rows, plans, strict=True)] == pq.read_table(
        good / WTAG
    ).to_pylist()


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


def done_again_within_a_frame(rows: Rows) -> None:
    """A completed step starts and completes on one frame, though the rule is monotone; no state shows it."""
    add_move(20, 0, "start")(rows)
    add_move(20, 0, "complete")(rows)


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
    ("one_run_a_session", WTAG_2, of_session("f", put("session_id", "a")), {"sample"}),
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
    ("legal_transitions", WTAG, at(38, states_after=[2, 0, 0]), {"state_chain", "transitions_match_states"}),
    ("legal_transitions", EGO4D, at(20, states_after=[1, 1, 0]),
     {"state_chain", "transitions_match_states", "sample"}),
    ("legal_transitions", EGO4D, done_again_within_a_frame, {"sample"}),
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
    assert (
        f"speaking: {WTAG}, session a, frame 7 (3 times in this file): not kept: speaking is 1 with a response" in told
    )
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


def pages_without_content(dataset: Path) -> None:
    content = bytearray((dataset / WTAG).read_bytes())
    content[4:200] = bytes(196)
    (dataset / WTAG).write_bytes(content)
    edit_shard(dataset, sha256=file_hash(dataset / WTAG))


def with_pictures(table: pa.Table) -> pa.Table:
    pictures = pa.array([{"bytes": jpeg((n, 9, 9)), "path": None} for n in range(len(table))], datasets.Image().pa_type)
    return table.append_column("image", pictures)


def jpeg(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def declared(table: pa.Table) -> pa.Table:
    features = datasets.Features({**FEATURES, "image": datasets.Image()})
    return table.replace_schema_metadata(features.arrow_schema.metadata)


def a_row_without_a_picture(dataset: Path) -> None:
    table = declared(with_pictures(table_of(dataset)))
    pictures = [*table["image"].to_pylist()[:-1], None]
    column = table.column_names.index("image")
    changed = table.set_column(column, "image", pa.array(pictures, table["image"].type))
    replace_table(dataset, WTAG, changed.replace_schema_metadata(table.schema.metadata))


def pictures_that_are_not_declared(dataset: Path) -> None:
    replace_table(dataset, WTAG, with_pictures(table_of(dataset)).replace_schema_metadata(None))


def unreadable_features(dataset: Path) -> None:
    replace_table(dataset, WTAG, table_of(dataset).replace_schema_metadata({"huggingface": '{"info": {"features": 7'}))


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
    ("readable", pages_without_content, set()),
    ("schema", lambda d: replace_table(d, WTAG, table_of(d).drop_columns(["mistake"])), set()),
    ("schema", lambda d: replace_table(d, WTAG, table_of(d).append_column("x", pa.nulls(80))), set()),
    ("schema", lambda d: replace_table(d, WTAG, table_of(d).select(SCHEMA.names[::-1])), set()),
    ("schema", lambda d: replace_table(d, WTAG, table_of(d).set_column(12, "speaking", pa.array([0] * 80))), set()),
    ("schema", unreadable_features, set()),
    ("schema", pictures_that_are_not_declared, set()),
    ("parquet_layout", lambda d: replace_table(d, WTAG, table_of(d), write_page_index=False), set()),
    ("pictures", a_row_without_a_picture, set()),
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


def test_rows_with_pictures_are_as_good(dataset: Path) -> None:
    table = declared(with_pictures(table_of(dataset)))
    replace_table(dataset, WTAG, table)
    found = inspected(dataset, session="a")
    assert found.broken == []
    (shown,) = found.shown
    assert len(shown.pictures) == 24 and shown.pictures[-1][0] == 39
    assert abs(shown.pictures[-1][1].getpixel((5, 5))[0] - 39) < 6


# ---- the manifest ----


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("balance", {"train": [1]}),
        ("balance", {"train": {"wtag": 5}}),
        ("balance", {"train": {"wtag": {"rows": "many"}}}),
        ("balance", []),
        ("licenses", {"wtag": None}),
        ("shards", {}),
        ("shards", [{"path": "../outside.parquet"}]),
        ("format", "dst_frames 1"),
    ],
)
def test_a_damaged_manifest_is_one_sentence(key: str, value: Any, dataset: Path) -> None:
    path = dataset / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(DataError, match=r"manifest\.json"):
        inspected(dataset)


def test_a_folder_without_a_manifest_is_no_dataset(dataset: Path) -> None:
    (dataset / "manifest.json").unlink()
    with pytest.raises(UsageError, match=r"no manifest\.json, so it is no finished dataset"):
        inspected(dataset)


# ---- videos ----


def test_speech_beyond_the_end_of_its_video_is_found(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    (root / "processed_data" / "wtag").mkdir(parents=True)
    for name, frames in (("v-a", 39), ("v-b", 40), ("v-c", 41)):
        write_store(root, name, frames)
    (root / "processed_data/wtag/frames/v-f.arrow").write_bytes(b"no frames")
    found = inspected(dataset, frames=root / "processed_data", session="b")
    assert {(one.promise, one.file, one.session, one.frame) for one in found.broken} == {
        ("frames_in_video", WTAG, "a", 39),
        ("frames_in_video", WTAG_2, "f", 0),
    }
    assert "the video has 39 frames (v-a.arrow)" in str(found.broken[0])
    assert found.videos_missing == 3 and "The frames of 3 videos are not at hand" in text_report(found)
    assert len(found.shown[0].pictures) == 24


def test_the_lengths_of_frames_json_count_without_any_frames(dataset: Path) -> None:
    marks = [[0, "0" * 64, "0" * 32, "0" * 6]]
    facts = {
        f"wtag/frames/v-{name}.arrow": {"frames": frames, "used": frames, "marks": marks}
        for name, frames in (("a", 39), ("b", 40))
    }
    path = dataset / "frames.json"
    path.write_text(json.dumps({"format": frame_fingerprints.FORMAT, "videos": facts}))
    edit_manifest(dataset, files={"frames.json": file_hash(path)})
    found = inspected(dataset)
    assert [(one.promise, one.session, one.frame) for one in found.broken] == [("frames_in_video", "a", 39)]
    assert "the video has 39 frames (frames.json)" in str(found.broken[0])
    path.write_text("{}")
    assert broken(dataset) == {"files"}


# ---- figures ----


def test_the_figures_of_a_source(good: Path) -> None:
    found = inspected(good)
    head, *rows = tables(found)["sources"]
    wtag = dict(zip(head, rows[1], strict=True))
    assert [row[0] for row in rows] == ["ego4d", "wtag", "all"]
    assert (wtag["videos"], wtag["recordings"], wtag["sessions"], wtag["rows"]) == ("5", "3", "5", "200")
    assert wtag["hours"] == f"{(4 * 20 + 4) / 3600:.2f}" and wtag["turns"] == "14"
    # Session f ends before its last turn.
    assert float(wtag["speaking %"]) == pytest.approx(100 * (4 * 2 + 1) / (200 - 5), abs=0.05)
    assert wtag["gap s"] == "6.5"
    states = [float(wtag[f"{state} %"]) for state in ("not started", "in progress", "completed")]
    cells = [session for files in make_sessions().values() for one in files for session in one]
    after = [
        build_timeline(one).states_after.ravel() for one in cells if one.source == "wtag" and one.events is not None
    ]
    total = sum(len(of) for of in after)
    assert states == pytest.approx([100 * sum((of == s).sum() for of in after) / total for s in range(3)], abs=0.05)
    balance = {row[0]: row[1:] for row in tables(found)["balance"]}
    stated = load_manifest(good).balance["test"]["wtag"]
    assert (
        balance["test, wtag"][0] == f"{stated['rows']}" and balance["test, wtag"][-2] == f"{stated['states_ignored']}"
    )


@pytest.mark.parametrize("tokens_per_frame", [1, 4, 16])
def test_lengths_are_those_of_the_sequence_builder(good: Path, tokens_per_frame: int) -> None:
    found = inspected(good, processor=small_processor(4))
    builder = small_processor()
    builder = DSTSmolVLMProcessor(builder.image_processor, builder.tokenizer, tokens_per_frame=tokens_per_frame)
    expected = []
    for (source, _), files in make_sessions().items():
        for session in [one for of_file in files for one in of_file] if source == "wtag" else []:
            timeline = build_timeline(session)
            items = []
            for frame in range(session.first_frame, session.num_frames):
                turn = timeline.turns.get(frame)
                said = {"user_text" if turn.role == "user" else "response": turn.text} if turn else {}
                moves = timeline.events.get(frame, ())
                changes = {one.step: IN_PROGRESS if one.transition == "start" else COMPLETED for one in moves}
                items.append(FrameItem(changes, **said))
            states = None if session.events is None else [0, 0, 0]
            stream = builder.build(session.goal, [step.text for step in session.steps], states, items)
            expected.append(len(stream.input_ids))
    assert sorted(one.tokens(tokens_per_frame) for one in found.lengths["wtag"]) == sorted(expected)
    head, _, wtag = tables(found)["lengths"]
    assert len(head) == 17 and wtag[0] == "wtag"


# ---- any session that the project can make keeps the promises ----

TIMES = st.lists(st.integers(1, 60), min_size=2, max_size=12).map(sorted)


@settings(max_examples=25)
@given(times=st.lists(TIMES, min_size=1, max_size=4), fps=st.sampled_from([2.0, 5.0, 29.97]), monotone=st.booleans())
def test_rows_of_any_session_keep_the_promises(
    times: list[list[int]], fps: float, monotone: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Starts and completions at multiples of 0.1 s, so that several of one step fall on one frame."""
    events = []
    for step, of_step in enumerate(times[:3]):
        different = sorted(set(of_step))[: 2 if monotone else None]
        for n, time in enumerate(different):
            events.append(DSTEvent(time / 10, step, "complete" if n % 2 else "start"))
    rule = "monotone" if monotone else "reopen"
    session = make_session("x", events=tuple(events), fps=fps, state_rule=rule)
    folder = tmp_path_factory.mktemp("any") / "dst_frames"
    write_dataset(folder, {("wtag", "train"): [[session]]})
    assert inspected(folder).broken == []


def test_sessions_of_one_block_are_checked_apart(tmp_path: Path) -> None:
    sessions = [make_session(name) for name in "abcd"]
    write_dataset(tmp_path / "d", {("wtag", "train"): [[*sessions[:2], make_session("x", events=None), *sessions[2:]]]})
    (most, _) = blocks.read_blocks(tmp_path / "d" / WTAG.replace("00002", "00001"))
    assert len(most.starts) == 4 and inspected(tmp_path / "d").broken == []


# ---- which session is shown ----


def test_one_session_a_source_is_shown_with_labels_where_there_are_any(tmp_path: Path) -> None:
    parts = {("wtag", "train"): [[make_session("c", events=None), make_session("b"), make_session("a")]]}
    write_dataset(tmp_path / "d", {**parts, ("ego4d", "train"): [[monotone_session("d")]]})
    assert [one.session_id for one in inspected(tmp_path / "d").shown] == ["d", "b"]
    assert [one.session_id for one in inspected(tmp_path / "d", session="a").shown] == ["a"]
    with pytest.raises(UsageError, match="no session nobody"):
        inspected(tmp_path / "d", session="nobody")
