"""State labels from an annotation that is aligned with the plan: ``dst=semantic`` and ``dst=words``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aligner_fixtures import FixedAligner, use_word_hashes
from proassist_fixtures import make_record, make_row, write_corpus, write_prepared, write_store

from prospect_hf.align.named import NamedAligner
from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.label_files import NOT_STATED, made_by
from prospect_hf.labels.spans import JOINED, ONE_SPAN, REOPENED
from prospect_hf.sources import proassist
from prospect_hf.sources.prepared import read_prepared
from prospect_hf.sources.proassist import check_dst, read_sessions


def aligned_as(monkeypatch: pytest.MonkeyPatch, *visits: tuple[int, float, float | None]) -> None:
    """Every annotation is aligned with these visits."""
    fixed = NamedAligner(FixedAligner(visits), "fixed 1")
    monkeypatch.setattr(proassist, "named_aligner", lambda name, encoder: fixed)


@pytest.mark.parametrize(("dst", "aligner"), [("semantic", "semantic 2, "), ("words", "words 2")])
def test_an_annotation_is_aligned_with_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dst: Any, aligner: str
) -> None:
    use_word_hashes(monkeypatch)
    record = make_record()
    record["parsed_video_anns"]["all_step_descriptions"] += "\n - [9.5s] user: now?\n[-1s-2s] boil\nSummary: tea"
    write_corpus(tmp_path, [record])
    report = read_sessions(tmp_path, "wtag", "train", dst=dst, dst_encoder="mine")
    for session in report.sessions:
        events = [(event.time, event.step, event.transition) for event in session.events or ()]
        assert sorted(events) == [(3.0, 0, "start"), (9.0, 0, "complete"), (9.0, 1, "start"), (20.0, 1, "complete")]
    assert (report.steps, report.labelled_steps, report.segments) == (2, 2, 2)
    assert report.left_out_lines == {"a negative time": 1, "below a segment": 1, "a summary": 1}
    ((version, records),) = report.labelled_by.items()
    assert records == 1 and version.startswith(aligner) and ("mine @ " in version) == (dst == "semantic")


APART = ((0, 3.0, 6.0), (1, 6.0, 8.0), (0, 8.0, 9.0), (0, 9.0, 12.0))


@pytest.mark.parametrize(
    ("source", "rule", "events", "repairs"),
    [
        # A step that is taken up again is completed twice, or once at its last end, as the source's rule says.
        ("wtag", "reopen", [(3, "start"), (6, "complete"), (8, "start"), (12, "complete")], {JOINED: 1, REOPENED: 1}),
        ("holoassist", "monotone", [(3, "start"), (12, "complete")], {JOINED: 1, ONE_SPAN: 1}),
    ],
)
def test_several_visits_of_a_step_follow_the_rule_of_the_source(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    rule: str,
    events: list[tuple[float, str]],
    repairs: dict[str, int],
) -> None:
    record = make_record()
    record["parsed_video_anns"]["dataset"] = source
    write_corpus(tmp_path, [record], source=source)
    aligned_as(monkeypatch, *APART)
    report = read_sessions(tmp_path, source, "train", dst="semantic")
    assert {session.state_rule for session in report.sessions} == {rule} and report.repairs == repairs
    for session in report.sessions:
        of_first = [event for event in session.events or () if event.step == 0]
        assert sorted((event.time, event.transition) for event in of_first) == events


def test_visits_with_less_than_a_frame_between_them_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the sources' own annotations, and in the labels of `annotate`: no frame shows the step completed."""
    write_corpus(tmp_path, [make_record()])
    aligned_as(monkeypatch, (0, 3.0, 6.0), (1, 6.0, 6.5), (0, 6.5, 9.0), (1, 10.0, 12.0))
    report = read_sessions(tmp_path, "wtag", "train", dst="semantic")
    events = sorted((event.step, event.time, event.transition) for event in report.sessions[0].events or ())
    assert [one for one in events if one[0] == 0] == [(0, 3.0, "start"), (0, 9.0, "complete")]
    assert len(events) == 6 and report.repairs == {JOINED: 1, REOPENED: 1}


@pytest.mark.parametrize(
    ("visit", "stored", "message"),
    [
        ((1, 9.0, 25.0), 40, "frame file has 40 frames, labels need 50"),
        ((1, 25.0, None), 40, "frame file has 40 frames, labels need 50"),
        ((1, 9.0, 20_000.0), None, r"a label is at 20000 s, but the video ends at 40 s"),
        ((1, 20_000.0, None), None, r"a label is at 20000 s, but the video ends at 40 s"),
    ],
)
def test_spans_outside_of_the_video_are_refused_like_all_others(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    visit: tuple[int, float, float | None],
    stored: int | None,
    message: str,
) -> None:
    write_corpus(tmp_path, [make_record()])
    if stored is not None:
        write_store(tmp_path, "v1", stored)
    aligned_as(monkeypatch, visit)
    with pytest.raises(DataError, match=message):
        read_sessions(tmp_path, "wtag", "train", dst="semantic")
    aligned_as(monkeypatch, (1, 9.0, None))
    (event,) = read_sessions(tmp_path, "wtag", "train", dst="semantic").sessions[0].events or ()
    assert (event.step, event.transition) == (1, "start")


def test_a_video_that_cannot_be_aligned_is_refused_or_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_word_hashes(monkeypatch)
    bad = make_record("v2")
    bad["parsed_video_anns"]["all_step_descriptions"] = "Summary: tea"
    write_corpus(tmp_path, [make_record("v1"), bad, make_record("v3")])
    for dst in ("semantic", "words"):
        with pytest.raises(DataError, match=r"record 1 \(v2\)"):
            read_sessions(tmp_path, "wtag", "train", dst=dst)  # type: ignore[arg-type]
        report = read_sessions(tmp_path, "wtag", "train", dst=dst, on_error="skip")  # type: ignore[arg-type]
        assert len(report.sessions) == 4 and [origin.rpartition(": ")[2] for origin, _ in report.skipped] == [
            "record 1"
        ]
        assert list(report.labelled_by.values()) == [2]


def test_the_place_of_the_labels_has_four_names(tmp_path: Path) -> None:
    for name in ("files", "semantic", "words", "none"):
        check_dst(name, "data.dst")
    with pytest.raises(UsageError, match=r"^data\.dst must be one of files, semantic, words, none, not 'aling'\.$"):
        check_dst("aling", "data.dst")
    write_corpus(tmp_path, [make_record()])
    with pytest.raises(UsageError, match=r"^dst=align is gone: dst=semantic aligns .*, dst=words does"):
        read_sessions(tmp_path, "wtag", "train", dst="align")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({"aligner": "semantic", "version": "semantic 1, mine"}, "semantic 1, mine"),
        ({"aligner": "llm", "version": "3", "model": "big"}, "llm 3, big"),
        ({"aligner": "hybrid"}, "hybrid"),
        ({"version": "2\n| x"}, "2 | x"),
        ({"model": "big"}, NOT_STATED),
        ({"aligner": 7, "version": None, "model": []}, NOT_STATED),
        ("words", NOT_STATED),
        (None, NOT_STATED),
        ({"aligner": "a" * 999}, "a" * 200),
    ],
)
def test_what_made_the_labels_of_a_file_is_read_where_it_is_stated(provenance: object, said: str) -> None:
    assert made_by({"dst": [], "provenance": provenance}) == said


def test_the_report_counts_what_made_the_labels_of_files(tmp_path: Path) -> None:
    semantic = {"provenance": {"aligner": "semantic", "version": "1"}}
    write_corpus(tmp_path, [make_record("v1") | semantic, make_record("v2") | semantic, make_record("v3")])
    in_records = read_sessions(tmp_path, "wtag", "train", dst="files")
    assert in_records.labelled_by == {"semantic 1": 2, NOT_STATED: 1}
    assert not read_sessions(tmp_path, "wtag", "train", dst="none").labelled_by
    folder = tmp_path / "labels/wtag"
    folder.mkdir(parents=True)
    words = {"provenance": {"aligner": "words", "version": "1"}}
    (folder / "train.json").write_text(json.dumps([make_record(uid) | words for uid in ("v1", "v2")]))
    (folder / "v3.json").write_text(json.dumps(make_record("v3") | semantic))
    listed = read_sessions(tmp_path, "wtag", "train", dst="files", dst_root=tmp_path / "labels")
    assert listed.labelled_by == {"words 1": 2, "semantic 1": 1}
    write_prepared(tmp_path, make_row())
    assert read_prepared(tmp_path, "wtag", "train", dst_root=tmp_path / "labels").labelled_by == {"words 1": 1}
