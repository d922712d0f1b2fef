"""Frame rows: what the builder yields, when it builds anew, and what it tells about what it left out."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from frame_fixtures import pictures, video

from prospect_hf.dataset.balance import label_balance
from prospect_hf.dataset.dst_frames import DstFrames, load_dst_frames
from prospect_hf.dataset.report import load_report, read_report
from prospect_hf.dataset.row_maker import FEATURES
from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.rendered import COLOURS, render_timeline_frame
from prospect_hf.frames.store import write_frames
from prospect_hf.sources.proassist import read_sessions
from prospect_hf.timeline import build_timeline


def make_record(uid: str, dataset: str = "wtag") -> dict[str, Any]:
    return {
        "video_uid": uid,
        "inferred_goal": "Make tea",
        "inferred_knowledge": "Tea\n1. Fill the kettle.\n2. Boil the water.",
        "conversations": [
            {
                "user_type": "talk_some",
                "conversation": [
                    {"role": "user", "time": 2.0, "content": "I want tea."},
                    {"role": "assistant", "time": 2.0, "content": "Fill it.", "progress": "Asked."},
                ],
            }
        ],
        "parsed_video_anns": {"dataset": dataset, "all_step_descriptions": "[3.0s-9.0s] fill kettle", "duration": 40.0},
        "dst": [
            {"type": "step", "id": "S1", "start_ts": 3.0, "end_ts": 9.0},
            {"type": "step", "id": "S2", "start_ts": 9.0, "end_ts": None},
        ],
    }


def write_corpus(root: Path, split: str, *records: dict[str, Any], source: str = "wtag") -> Path:
    path = root / "processed_data" / source / "generated_dialogs" / f"{split}_filtered.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records))
    return path


@pytest.fixture()
def corpus(tmp_path: Path) -> Path:
    write_corpus(tmp_path, "train", make_record("v1"), make_record("v2"))
    write_corpus(tmp_path, "val", make_record("v3"))
    return tmp_path


def load(root: Path, name: str = "wtag", **settings: Any) -> datasets.DatasetDict:
    return load_dst_frames(name, root, cache_dir=root / "cache", **{"dst": "files", **settings})


def test_a_row_a_frame_with_its_labels(corpus: Path) -> None:
    rows = load(corpus)
    assert set(rows) == {"train", "validation"} and rows["train"].features == FEATURES
    assert rows["train"]["frame_index"] == [*range(18), *range(18)]
    row = rows["validation"]
    assert row[3] == {
        "source": "wtag",
        "video_uid": "v3",
        "session_id": "wtag.v3.talk_some_0",
        "recording": "v3",
        "user_type": "talk_some",
        "frame_index": 3,
        "timestamp": 2.0,
        "fps": 2.0,
        "frames_file": "frames/v3.arrow",
        "goal": "Make tea",
        "steps": ["Fill the kettle.", "Boil the water."],
        "user_text": "I want tea.",
        "speaking": -100,
        "response": "",
        "dst_update": 0,
        "transitions": [],
        "states_before": [0, 0],
        "states_after": [0, 0],
        "deviations": [],
        "state_rule": "reopen",
        "mistake": "",
        "progress": "",
        "license": "MIT",
    }
    assert (row[4]["speaking"], row[4]["response"], row[4]["progress"]) == (1, "Fill it.", "Asked.")
    assert row[17]["transitions"] == [{"step": 0, "transition": "complete"}, {"step": 1, "transition": "start"}]
    assert (row[17]["dst_update"], row[17]["states_before"], row[17]["states_after"]) == (1, [1, 0], [2, 1])


def test_the_rows_are_the_timeline(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "proassist"
    rows = load_dst_frames("wtag", root, cache_dir=tmp_path, dst="words")["train"]
    (session,) = read_sessions(root, "wtag", "train", dst="words").sessions
    timeline = build_timeline(session)
    for column in ("speaking", "dst_update", "states_before", "states_after"):
        assert np.array_equal(np.asarray(rows[column]), getattr(timeline, column))
    spoken = {row["frame_index"]: row["response"] or row["user_text"] for row in rows if row["speaking"]}
    assert spoken == {frame: turn.text for frame, turn in timeline.turns.items()}


def test_the_real_records_and_rows_give_these_labels(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "proassist"
    dialogs = load_dst_frames("all", root, cache_dir=tmp_path, dst="words")
    assert {split: label_balance(rows) for split, rows in dialogs.items()} == {
        "train": balance(18591, 6, 5, (211, 18339, 41), (56, 18535, 0), (71282, 16162, 26965, 0)),
        "validation": balance(532, 1, 1, (17, 511, 4), (4, 528, 0), (2290, 244, 126, 0)),
    }
    prepared = load_dst_frames("all", root, cache_dir=tmp_path, dst="words", form="prepared")
    assert {split: label_balance(rows) for split, rows in prepared.items()} == {
        "train": balance(2809, 6, 2, (176, 2582, 51), (0, 0, 2809), (0, 0, 0, 19663))
    }
    report = read_report(prepared)
    assert len(report["absent"]) == 5 and report["splits"]["train"]["assembly101"]["unlabelled"] == 6


def balance(rows: int, sessions: int, videos: int, *labels: tuple[int, ...]) -> dict[str, int]:
    speaking, update, states = labels
    return {
        "rows": rows,
        "sessions": sessions,
        "videos": videos,
        **dict(zip(("speaking_1", "speaking_0", "speaking_ignored"), speaking, strict=True)),
        **dict(zip(("dst_update_1", "dst_update_0", "dst_update_ignored"), update, strict=True)),
        **dict(
            zip(("states_not_started", "states_in_progress", "states_completed", "states_ignored"), states, strict=True)
        ),
        "turns_beyond_frames": 0,
    }


def test_without_state_labels_all_states_are_ignored(corpus: Path) -> None:
    counts = label_balance(load(corpus, dst="none")["train"])
    assert counts["dst_update_ignored"] == counts["rows"] and counts["states_ignored"] == 2 * counts["rows"]


def test_unchanged_inputs_are_taken_from_the_cache_and_changed_ones_are_read_again(corpus: Path) -> None:
    def files() -> set[str]:
        return {str(file["filename"]) for rows in load(corpus).values() for file in rows.cache_files}

    first = files()
    assert files() == first
    # Same size, other content, later time.
    changed = make_record("v3")
    changed["conversations"][0]["conversation"][1]["content"] = "Empty it"
    path = write_corpus(corpus, "val", changed)
    os.utime(path, (time.time() + 5, time.time() + 5))
    assert files().isdisjoint(first)
    assert load(corpus)["validation"][4]["response"] == "Empty it"
    # Same size, other content, and the time of before, as a copy that keeps times leaves it.
    stat, before = path.stat(), files()
    path.write_text(path.read_text().replace("Empty it", "Steep it"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert files().isdisjoint(before)
    assert load(corpus)["validation"][4]["response"] == "Steep it"
    store = corpus / "processed_data/wtag/frames/v3.arrow"
    before = files()
    store.parent.mkdir()
    store.write_bytes(b"")
    with pytest.raises(DataError, match=r"v3\.arrow"):
        load(corpus)
    store.unlink()
    assert files() == before
    # Every form of frames counts, and a picture more in a folder.
    video(store.parent, "v3", 25)
    assert (of_video := files()).isdisjoint(before)
    (store.parent / "v3.mp4").unlink()
    folder = pictures(store.parent, "v3", 25)
    assert (of_pictures := files()).isdisjoint(before | of_video)
    (folder / "25.png").write_bytes((folder / "24.png").read_bytes())
    assert files().isdisjoint(before | of_pictures)
    assert load(corpus)["validation"].num_rows == 26


def test_the_report_tells_what_was_left_out_also_from_the_cache(corpus: Path) -> None:
    bad = make_record("v9") | {"dst": []}
    write_corpus(corpus, "train", make_record("v1"), bad)
    for _ in range(2):
        builder = DstFrames(
            config_name="wtag", root=str(corpus), cache_dir=str(corpus / "c"), dst="files", on_error="skip"
        )
        builder.download_and_prepare()
        train = builder.report["splits"]["train"]["wtag"]
        assert (train["sessions"], train["rows"], len(train["skipped"])) == (1, 18, 1)
        assert "v9" in train["skipped"][0]["reason"] and "empty" in train["skipped"][0]["reason"]
    rows = builder.as_dataset()
    assert read_report(rows) == builder.report == read_report(rows["train"].select(range(3)))


def test_turns_beyond_the_frames_are_counted_in_the_balance(corpus: Path, tmp_path: Path) -> None:
    store = tmp_path / "processed_data/wtag/frames/v3.arrow"
    store.parent.mkdir()
    write_frames(store, [b"x"] * 4)
    assert label_balance(load(corpus, dst="none")["validation"])["turns_beyond_frames"] == 1


def test_concatenated_builds_are_counted_together(corpus: Path, tmp_path: Path) -> None:
    one = load(corpus)["train"]
    two = load_dst_frames("wtag", corpus, cache_dir=tmp_path / "other", dst="none")["train"]
    counts = label_balance(datasets.concatenate_datasets([one, two], split=datasets.Split.TRAIN))
    assert counts["rows"] == len(one) + len(two) and counts["sessions"] == 2
    with pytest.raises(UsageError, match="split None"):
        label_balance(datasets.concatenate_datasets([one, two]))
    with pytest.raises(UsageError, match="2 builds"):
        read_report(datasets.concatenate_datasets([one, two]))


def test_errors_come_out_as_they_are(corpus: Path) -> None:
    """The library wraps what goes wrong while rows are written; a bad record must not end in its traceback."""
    write_corpus(corpus, "test", make_record("v4") | {"dst": []})
    with pytest.raises(DataError, match=r"v4.*dst"):
        load(corpus)
    write_corpus(corpus, "test", make_record("v1"))
    with pytest.raises(DataError, match=r"is in split train, but .* has it in split test"):
        load(corpus)


def test_bad_settings_are_named(corpus: Path) -> None:
    with pytest.raises(UsageError, match="config_name"):
        DstFrames(root=str(corpus))
    with pytest.raises(UsageError, match=r"config_name.*'youtube'.*wtag"):
        load(corpus, "youtube")
    with pytest.raises(UsageError, match="root is not set"):
        DstFrames(config_name="wtag")
    with pytest.raises(UsageError, match="nowhere"):
        load(corpus / "nowhere")
    with pytest.raises(UsageError, match="ego4d"):
        load(corpus, "ego4d")
    with pytest.raises(UsageError, match="no generated_dialogs"):
        load(corpus, "all", sources=("wtag",), suffix="_other")
    with pytest.raises(UsageError, match="no prepared"):
        load(corpus, form="prepared")
    with pytest.raises(UsageError, match="form"):
        load(corpus, form="clips")
    with pytest.raises(UsageError, match=r"dst must be one of .*'guess'"):
        load(corpus, dst="guess")
    with pytest.raises(UsageError, match="youtube"):
        load(corpus, "all", sources=("wtag", "youtube"))


def test_all_reads_what_is_there_and_names_what_is_not(corpus: Path) -> None:
    write_corpus(corpus, "train", make_record("e1", "ego4d-goalstep"), source="ego4d")
    rows = load(corpus, "all")
    assert set(rows["train"].unique("source")) == {"wtag", "ego4d"}
    assert set(read_report(rows)["absent"]) == {"assembly101", "egoexolearn", "epickitchens", "holoassist"}


def test_several_processes_and_streaming_give_the_same_rows(corpus: Path) -> None:
    rows = load(corpus)["train"]
    other = load_dst_frames("wtag", corpus, cache_dir=corpus / "two", dst="files", num_proc=2)["train"]
    assert rows[:] == other[:]
    builder = DstFrames(config_name="wtag", root=str(corpus), cache_dir=str(corpus / "three"), dst="files")
    assert list(builder.as_streaming_dataset("train")) == list(rows)


def test_drawn_frames_show_the_states_and_nothing_else_but_noise() -> None:
    states = [0, 1, 2, -100, 2]
    picture = np.asarray(render_timeline_frame("v1", 7, states, 48)).astype(int)
    assert picture.shape == (48, 48, 3) and picture.max() > 0
    for step, state in enumerate(states):  # 3 columns, 2 rows
        cell = picture[24 * (step // 3) :, 16 * (step % 3) :][:24, :16]
        assert np.abs(cell.mean((0, 1)) - COLOURS[state]).max() < 8
    same = np.asarray(render_timeline_frame("v1", 7, np.array(states, np.int8), 48)).astype(int)
    assert (same == picture).all()
    for other in (("v1", 8), ("v2", 7)):
        assert (np.asarray(render_timeline_frame(*other, states, 48)) != picture).mean() > 0.5
    for steps in (1, 2, 30, 200):
        assert render_timeline_frame("v1", 0, [1] * steps, 64).size == (64, 64)


def test_what_was_left_out_is_logged_when_rows_are_built_and_when_they_are_cached(
    corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = make_record("v4")
    record["conversations"][0]["conversation"][0]["time"] = 9.0  # the answer is at 2.0 s
    record["parsed_video_anns"]["all_step_descriptions"] += "\n[9s-12s] sneeze\n[-1s-2s] boil\n - [3s] look"
    write_corpus(corpus, "train", record, make_record("v5") | {"inferred_goal": ""})
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO", logger="prospect_hf"):
            load(corpus, dst="words", on_error="skip")
        lines = [message for message in caplog.messages if "wtag" in message]
        assert lines[0] == (
            "dialogs: wtag, train: sessions read: 1; skipped records: 1; "
            "turns that go back in time and keep their place: 1; "
            "plan steps without a label: 1; annotated segments without a step: 1 of 2 (matches no step: 1); "
            "annotation lines that are no segment: 2 (a negative time: 1, below a segment: 1)."
        )
        assert "the first skipped record: " in lines[1] and "record 1 (v5): 'inferred_goal' is empty text" in lines[1]


def test_a_corpus_of_which_all_is_used_logs_nothing(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="prospect_hf"):
        load(corpus)
    assert not [message for message in caplog.messages if "sessions read" in message]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"splits": 7}'])
def test_a_report_that_is_none_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"report\.json"):
        load_report(path)
