"""No recording stands in two splits: it is proved, or repaired by a named rule that is counted and listed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proassist_fixtures import make_record, write_corpus

from prospect_hf.checked_json import load_json
from prospect_hf.dataset.build import build_rows
from prospect_hf.dataset.dst_frames import load_dst_frames
from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.dataset.report import leak_lines, load_report, read_report, report_lines
from prospect_hf.errors import DataError, UsageError
from prospect_hf.sessions import recording_id
from prospect_hf.sources.prepared import read_prepared
from prospect_hf.sources.proassist import read_sessions
from prospect_hf.sources.report import SessionsReport
from prospect_hf.sources.splits import CHECKED_ORDER, SplitCheck, check_forms, check_splits

# Views of sequences 9011 and 9012, as ProAssist names them; 9013 is in one split alone.
VIEWS = {
    "train": ["assembly_nusar-2021_9011__HMC_1_mono10bit", "assembly_nusar-2021_9013__HMC_1_mono10bit"],
    "val": ["disassembly_nusar-2021_9011__HMC_2_mono10bit", "assembly_nusar-2021_9012__C10095_rgb"],
    "test": ["assembly_nusar-2021_9012__HMC_2_mono10bit"],
}


def write_views(root: Path) -> None:
    for split, uids in VIEWS.items():
        records = [make_record(uid) for uid in uids]
        for record in records:
            record["parsed_video_anns"]["dataset"] = "assembly101"
        write_corpus(root, records, split, "assembly101")


def config(root: Path, **settings: Any) -> DstFramesConfig:
    return DstFramesConfig(name="assembly101", root=str(root), sources=("assembly101",), **settings)


def test_views_of_a_sequence_in_two_splits_are_named_with_their_cost_and_the_remedy(tmp_path: Path) -> None:
    write_views(tmp_path)
    with pytest.raises(DataError) as error:
        build_rows(config(tmp_path), tmp_path / "rows", progress=False)
    for words in (
        "val_filtered.json: record 1",
        "recording 'nusar-2021_9012' is in split validation, but",
        "has it in split test",
        "2 sessions (27 rows) of assembly101, validation",
        "set split_leaks=keep_in_evaluation",
    ):
        assert words in str(error.value)


def test_the_repair_keeps_a_recording_where_it_is_evaluated_and_lists_what_it_took_out(tmp_path: Path) -> None:
    write_views(tmp_path)
    manifest = build_rows(config(tmp_path, split_leaks="keep_in_evaluation"), tmp_path / "rows", progress=False)
    report = load_report(tmp_path / "rows/report.json")
    assert report["leaks"] == {
        "assembly101/nusar-2021_9011": {
            "source": "assembly101",
            "kept_in": "validation",
            "taken_out": {"train": {"sessions": 2, "rows": 27}},
        },
        "assembly101/nusar-2021_9012": {
            "source": "assembly101",
            "kept_in": "test",
            "taken_out": {"validation": {"sessions": 2, "rows": 27}},
        },
    }
    assert report["recordings"] == {
        "train": ["assembly101/nusar-2021_9013"],
        "validation": ["assembly101/nusar-2021_9011"],
        "test": ["assembly101/nusar-2021_9012"],
    }
    counts = {split: of["assembly101"] for split, of in report["splits"].items()}
    assert list(counts) == ["train", "validation", "test"]
    assert [(one["sessions"], one["rows"], one["unlabelled"]) for one in counts.values()] == [(2, 27, 2)] * 3
    assert report_lines(report)[-2:] == [
        "assembly101, train: 1 recordings are in validation too: 2 sessions with 27 rows were taken out.",
        "assembly101, validation: 1 recordings are in test too: 2 sessions with 27 rows were taken out.",
    ]
    assert manifest.settings["split_leaks"] == "keep_in_evaluation"


def test_the_builder_of_the_library_repairs_alike(tmp_path: Path) -> None:
    write_views(tmp_path)
    settings: dict[str, Any] = {"cache_dir": tmp_path / "cache", "sources": ["assembly101"]}
    with pytest.raises(DataError, match="split_leaks=keep_in_evaluation"):
        load_dst_frames("assembly101", tmp_path, **settings)
    rows = load_dst_frames("assembly101", tmp_path, split_leaks="keep_in_evaluation", **settings)
    assert {split: set(rows[split]["recording"]) for split in rows} == {
        "train": {"nusar-2021_9013"},
        "validation": {"nusar-2021_9011"},
        "test": {"nusar-2021_9012"},
    }
    assert len(leak_lines(read_report(rows)["leaks"])) == 2


def test_a_split_that_leaks_away_wholly_is_told(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_corpus(tmp_path, [make_record("v1")], split)
    settings = DstFramesConfig(root=str(tmp_path), sources=("wtag",), split_leaks="keep_in_evaluation")
    build_rows(settings, tmp_path / "rows", progress=False)
    report = load_report(tmp_path / "rows/report.json")
    assert list(report["splits"]) == ["validation"]
    assert "wtag, train: 1 recordings are in validation too: 2 sessions" in report_lines(report)[-1]


def test_equal_ids_of_two_sources_are_two_recordings(tmp_path: Path) -> None:
    write_corpus(tmp_path, [make_record("v1")])
    other = make_record("v1")
    other["parsed_video_anns"]["dataset"] = "ego4d"
    write_corpus(tmp_path, [other], "val", "ego4d")
    check_splits([read_sessions(tmp_path, "wtag", "train"), read_sessions(tmp_path, "ego4d", "validation")])


def test_another_value_of_the_setting_is_refused(tmp_path: Path) -> None:
    write_views(tmp_path)
    with pytest.raises(UsageError, match=r"split_leaks is 'drop'; it must be raise or keep_in_evaluation"):
        config(tmp_path, split_leaks="drop").input_files()


def test_two_forms_must_agree(tmp_path: Path) -> None:
    """ProAssist's unfiltered validation list has the videos that its filtered lists divide into two splits."""
    check_forms({"dialogs": {"train": ["a"], "test": ["b"]}, "prepared": {"train": ["a"], "test": ["b", "c"]}})
    with pytest.raises(DataError, match=r"the prepared have b in split test, but the dialogs have them in split valid"):
        check_forms({"dialogs": {"train": ["a"], "validation": ["b"]}, "prepared": {"test": ["b"]}})
    many = [f"v{number}" for number in range(9)]
    with pytest.raises(DataError, match=r"have v0, v1, v2 and 6 more in split test"):
        check_forms({"dialogs": {"train": many}, "prepared": {"test": many}})


def test_upstreams_own_splits_share_recordings(shared_data: Path) -> None:
    """A public list of clips with too few frames names videos of ProAssist's splits; its prepared rows name others."""
    splits = {"train.json": "train", "val.json": "validation", "test.json": "test"}
    listed: dict[str, set[str]] = {split: set() for split in splits.values()}
    for record in load_json(shared_data / "dst/assembly101_frame_count_mismatches.json"):
        listed[splits[record["file"]]].add(recording_id("assembly101", record["video_uid"]))
    prepared = {
        session.recording for session in read_prepared(shared_data / "proassist", "assembly101", "train").sessions
    }
    with pytest.raises(
        DataError, match=r"have nusar-2021_action_both_9074-a03_\S+ in split test, but .* in split valid"
    ):
        check_forms({"listed": listed})
    del listed["validation"]
    with pytest.raises(DataError, match=r"have nusar-2021_action_both_9015-c10c_\S+ in split test, but .* split train"):
        check_forms({"prepared": {"train": prepared}, "listed": listed})


def sessions_of(root: Path, uids: Sequence[str], split: str) -> SessionsReport:
    file_split = {"train": "train", "validation": "val", "test": "test"}[split]
    write_corpus(root, [make_record(uid) for uid in uids], file_split)
    return read_sessions(root, "wtag", split)


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, unique=True), min_size=3, max_size=3))
def test_after_the_repair_no_recording_is_in_two_splits_and_none_is_lost(
    tmp_path_factory: pytest.TempPathFactory, recordings: list[list[str]]
) -> None:
    root = tmp_path_factory.getbasetemp() / "splits"
    check = SplitCheck("keep_in_evaluation")
    reports = []
    for split, names in zip(CHECKED_ORDER, recordings, strict=True):
        report = sessions_of(root, [f"{name}__view{number}" for number, name in enumerate(names)], split)
        read = len(report.sessions)
        check.add(report)
        taken = sum(one["taken_out"].get(split, {"sessions": 0})["sessions"] for one in check.taken_out.values())
        assert len(report.sessions) + taken == read and report.unlabelled == len(report.sessions)
        reports.append(report)
    check_splits(reports)
    kept = [{session.recording for session in report.sessions} for report in reports]
    assert set().union(*kept) == set().union(*recordings)
    assert kept[0] == set(recordings[0])  # all of test
