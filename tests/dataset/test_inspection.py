"""The inspection of a dataset: a good one breaks no promise, and each kind of damage breaks the promise of its name."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from dataset_fixtures import (
    WTAG,
    WTAG_2,
    Rows,
    change_rows,
    make_session,
    make_sessions,
    monotone_session,
    replace_table,
    write_dataset,
)
from file_damage import FILE_DAMAGE, declared, edit_manifest, table_of, with_pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from model_fixtures import small_processor
from proassist_fixtures import write_store
from row_damage import ROW_DAMAGE, at, of_session, put

from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem
from prospect_hf.content_hash import file_hash
from prospect_hf.dataset import frame_fingerprints
from prospect_hf.dataset.inspection import blocks, file_checks
from prospect_hf.dataset.inspection.findings import PROMISES
from prospect_hf.dataset.inspection.inspect import Inspection, inspect_dataset
from prospect_hf.dataset.inspection.page import tables, text_report
from prospect_hf.dataset.layout import load_manifest
from prospect_hf.errors import DataError, UsageError
from prospect_hf.sessions import COMPLETED, IN_PROGRESS, DSTEvent
from prospect_hf.timeline import build_timeline


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


def test_a_session_without_speech_beside_others_is_as_good(tmp_path: Path) -> None:
    silent = dataclasses.replace(make_session("b"), turns=(), speech=False)
    write_dataset(tmp_path / "d", {("wtag", "train"): [[make_session("a"), silent, make_session("c")]]})
    assert inspected(tmp_path / "d").broken == []
    change_rows(tmp_path / "d", WTAG.replace("00002", "00001"), at(45, speaking=0))  # one silence among the 40 rows
    assert broken(tmp_path / "d") == {"speaking"}


def test_long_plans_are_read_in_smaller_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path / "d", {("wtag", "train"): [[make_session(name) for name in "abcd"]]})
    path = tmp_path / "d" / WTAG.replace("00002", "00001")
    assert [block.count for block in blocks.read_blocks(path)] == [120, 40]  # the last session may go on
    monkeypatch.setattr(blocks, "BATCH_CELLS", 60)  # 20 rows of 3 steps, and then to the end of the session
    assert [block.count for block in blocks.read_blocks(path)] == [40, 40, 40, 40]
    assert inspected(tmp_path / "d").broken == []


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
