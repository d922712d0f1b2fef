"""The annotate job without a server: what is labelled is read, runs are continued, and mistakes are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from label_fixtures import WITHOUT, annotate, kind_of, labels_corpus, name_of, record, spans_of
from proassist_fixtures import write_corpus

from prospect_hf.annotate import staging
from prospect_hf.files import sole_writer
from prospect_hf.sessions import SOURCES
from prospect_hf.sources.proassist import read_sessions

COUNT = 28  # 2 of each kind beside the plain ones


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def contents(output: Path) -> dict[str, bytes]:
    """The files of labels, failures and tables."""
    found = [path for path in output.rglob("*") if path.is_file() and "annotate" not in path.relative_to(output).parts]
    return {str(path.relative_to(output)): path.read_bytes() for path in found}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    labels_corpus(tmp_path / "data", COUNT)
    return tmp_path / "data"


def test_what_is_labelled_is_what_is_read(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels_corpus(corpus, 4, "val")
    assert annotate(corpus, tmp_path / "out", "labels.tsv=true") == 1
    told = capsys.readouterr().out
    failed = [name_of(n) for n in range(COUNT) if kind_of(n) in WITHOUT]
    failures = {one["video_uid"]: one["reason"] for one in lines(tmp_path / "out/failed/wtag/train.jsonl")}
    assert sorted(failures) == failed
    found = lines(tmp_path / "out/wtag/train.jsonl")
    assert [one["video_uid"] for one in found] == [name_of(n) for n in range(COUNT) if name_of(n) not in failed]
    for one in found:
        kind = kind_of([name_of(n) for n in range(COUNT)].index(one["video_uid"]))
        assert one["dst"] and all(entry["type"] == "step" for entry in one["dst"])
        if kind != "twice":  # the word aligner does not go back
            assert [(span.step, span.start, span.end) for span in spans_of(kind)] == [
                (int(entry["id"][1:]) - 1, entry["start_ts"], entry["end_ts"]) for entry in one["dst"]
            ]
        assert one["provenance"]["aligner"] == "words" and one["provenance"]["version"]
    report = read_sessions(corpus, "wtag", "train", dst="files", dst_root=tmp_path / "out", on_error="skip")
    assert len(report.skipped) == len(failed) and len(report.sessions) == len(found)
    for session, one in zip(report.sessions, found, strict=True):
        assert session.events is not None
        times = sorted(time for entry in one["dst"] for time in (entry["start_ts"], entry["end_ts"]))
        assert sorted(event.time for event in session.events) == times
    # Reading with the same aligner gives the same labels without a file.
    read = read_sessions(corpus, "wtag", "train", dst="words", on_error="skip").sessions
    assert [one.events for one in read] == [one.events for one in report.sessions]
    table = (tmp_path / "out/wtag/train.tsv").read_text().splitlines()
    assert len(table) == 1 + sum(len(one["dst"]) for one in found)
    assert table[1].split("\t")[:3] == ["aaaa", "S1", "Fill kettle for aaaa."]
    assert len(read_sessions(corpus, "wtag", "validation", dst="files", dst_root=tmp_path / "out").sessions) == 4
    assert "26 videos have labels" in told and "labels.retry_failed=true" in told


def test_the_real_records_get_the_labels_that_reading_gives_them(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "proassist"
    assert annotate(root, tmp_path / "out", f"data.sources=[{','.join(SOURCES)}]") == 0
    for source in SOURCES:
        split = "validation" if source == "egoexolearn" else "train"
        written = read_sessions(root, source, split, dst="files", dst_root=tmp_path / "out").sessions
        read = read_sessions(root, source, split, dst="words").sessions
        assert written and [one.events for one in written] == [one.events for one in read]


def test_parts_are_the_whole(corpus: Path, tmp_path: Path) -> None:
    annotate(corpus, tmp_path / "whole")
    for part in (3, 1, 2):
        annotate(corpus, tmp_path / "parts", f"labels.shard={part}/3")
    files = contents(tmp_path / "parts")
    assert {Path(name).name for name in files} == {f"train-0000{n}-of-00003.jsonl" for n in (1, 2, 3)}
    whole = contents(tmp_path / "whole")
    for folder in ("wtag", "failed/wtag"):
        joined = b"".join(files[f"{folder}/train-0000{n}-of-00003.jsonl"] for n in (1, 2, 3))
        assert sorted(joined.splitlines()) == sorted(whole[f"{folder}/train.jsonl"].splitlines())
    (tmp_path / "cat/wtag").mkdir(parents=True)
    (tmp_path / "cat/wtag/train.jsonl").write_bytes(
        b"".join(files[f"wtag/train-0000{n}-of-00003.jsonl"] for n in (2, 3, 1))
    )
    of_all = [
        read_sessions(corpus, "wtag", "train", dst="files", dst_root=tmp_path / name, on_error="skip").sessions
        for name in ("whole", "parts", "cat")
    ]
    assert of_all[0] == of_all[1] == of_all[2] and of_all[0]
    assert annotate(corpus, tmp_path / "parts", "labels.shard=1/4") == 2  # overlaps with the parts of 3


@pytest.mark.slow
def test_several_processes_write_the_same(corpus: Path, tmp_path: Path) -> None:
    annotate(corpus, tmp_path / "one")
    annotate(corpus, tmp_path / "two", "labels.processes=2")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_run_that_was_killed_continues_to_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    annotate(corpus, tmp_path / "whole")
    staged = tmp_path / "whole/annotate/all/staged.jsonl"
    for kept in (0, 100, staged.stat().st_size // 2, staged.stat().st_size - 1):
        output = tmp_path / f"killed-{kept}"
        shutil.copytree(tmp_path / "whole/annotate", output / "annotate")
        with (output / "annotate/all/staged.jsonl").open("rb+") as file:
            file.truncate(kept)
        there = (output / "annotate/all/staged.jsonl").read_bytes().count(b"\n")
        assert annotate(corpus, output) == 1
        assert contents(output) == contents(tmp_path / "whole")
        report = json.loads((output / "annotate/all/report.json").read_text())
        assert report["run"]["videos"] == len(staged.read_bytes().splitlines()) - there


def test_a_second_run_labels_nothing_and_tells_the_same(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = []
    for _ in range(2):
        assert annotate(corpus, tmp_path / "out") == 1
        told = capsys.readouterr().out
        tables.append(told[told.index("source ") : told.index(" This run")])
    assert tables[0] == tables[1]
    assert "0 of 28 videos are to be labelled; 24 are done (2 of them without labels)" in told
    assert "This run tried 0 in 0:00." in told


def test_a_record_that_has_changed_is_labelled_again(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotate(corpus, tmp_path / "out")
    path = corpus / "processed_data/wtag/generated_dialogs/train_filtered.json"
    records = json.loads(path.read_text())
    records[1] = record(name_of(1), lines=(5, 2))
    records[2]["conversations"][0]["conversation"][0]["content"] = "Labels do not follow from this."
    del records[4]
    path.write_text(json.dumps(records))
    capsys.readouterr()
    annotate(corpus, tmp_path / "out")
    assert "1 of 27 videos are to be labelled, 1 of them since their record has changed" in capsys.readouterr().out
    annotate(corpus, tmp_path / "anew")
    assert contents(tmp_path / "out") == contents(tmp_path / "anew")
    # Labels of what the record was are not shown, even where it is not labelled again.
    records[1] = record(name_of(1), lines=(3,))
    path.write_text(json.dumps(records))
    annotate(corpus, tmp_path / "out", "labels.retry_failed=true")
    assert name_of(1) not in [one["video_uid"] for one in lines(tmp_path / "out/wtag/train.jsonl")]
    assert "1 were not tried" in capsys.readouterr().out


def test_other_settings_are_told_by_name(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert annotate(corpus, tmp_path / "out") == 1
    before = contents(tmp_path / "out")
    for settings in (["labels.overlaps=trim"], ["labels.dry_run=true", "labels.overlaps=trim"]):
        assert annotate(corpus, tmp_path / "out", *settings) == 2
        assert "holds labels of another run (overlaps is trim and was keep)" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before
    assert annotate(corpus, tmp_path / "out", "labels.tsv=true", "labels.retry_failed=true") == 1


def test_failures_are_tried_again_alone(corpus: Path, tmp_path: Path) -> None:
    annotate(corpus, tmp_path / "out")
    staged = tmp_path / "out/annotate/all/staged.jsonl"
    before = [json.loads(line) for line in staged.read_text().splitlines()]
    names = [one["key"][2] for one in before if "failure" in one]
    assert len(names) == 2
    assert annotate(corpus, tmp_path / "out", "labels.retry_failed=true") == 1
    after = [json.loads(line) for line in staged.read_text().splitlines()]
    assert after[: len(before)] == before and [one["key"][2] for one in after[len(before) :]] == names
    # A video that is missing is none that has failed.
    staged.write_text("".join(json.dumps(one) + "\n" for one in before if one["key"][2] != "aaaa"))
    assert annotate(corpus, tmp_path / "out", "labels.retry_failed=true") == 1
    assert "aaaa" not in (tmp_path / "out/wtag/train.jsonl").read_text()


def test_a_dry_run_writes_nothing(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert annotate(corpus, tmp_path / "out", "labels.dry_run=true") == 0
    assert "24 of 28 videos are to be labelled" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_video_that_stands_twice_is_labelled_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_corpus(
        tmp_path / "data", [record("a"), record("b"), record("a"), record("c", "no plan"), record("c", "no plan")]
    )
    assert annotate(tmp_path / "data", tmp_path / "out") == 1
    assert [one["video_uid"] for one in lines(tmp_path / "out/wtag/train.jsonl")] == ["a", "b"]
    assert [one["video_uid"] for one in lines(tmp_path / "out/failed/wtag/train.jsonl")] == ["c"]
    write_corpus(tmp_path / "data", [record("a"), record("b"), record("a", lines=(3, 4))])
    capsys.readouterr()
    assert annotate(tmp_path / "data", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "record 2: video_uid 'a' is that of" in told and "record 0 too, but their goals, plans" in told


def test_records_that_are_none_are_failures_with_their_place(tmp_path: Path) -> None:
    records = [record("a"), 7, record("b") | {"video_uid": "../b"}, {}, record("c") | {"parsed_video_anns": None}]
    write_corpus(tmp_path / "data", records)
    assert annotate(tmp_path / "data", tmp_path / "out") == 1
    failures = lines(tmp_path / "out/failed/wtag/train.jsonl")
    assert [one["video_uid"] for one in failures] == ["", "", "", "c"]
    assert all(one["reason"] and one["answers"] == [] for one in failures)


@pytest.mark.parametrize(
    "settings, match",
    [
        (["data.root=gone"], "data.root=gone has no subfolder processed_data"),
        (["data.sources=[wtag,other]"], "data.sources[1] must be one of"),
        (["data.sources=[ego4d]"], "processed_data/ego4d: no such folder"),
        (["data.suffix=_other"], "no generated_dialogs/{train,val,test}_other.json for wtag"),
        (["data=annotations"], "which data=annotations does not read"),
        (["data.rows=out"], "which data.rows does not read"),
        (["labels=nobody"], "labels=nobody is no choice"),
        (["labels.aligner=nobody"], "labels.aligner must be one of semantic, words, llm, hybrid"),
        (["labels.shard=4/3"], "labels.shard=4/3 must be I/N"),
        (["labels.processes=0"], "labels.processes=0 must be 1 to 1024"),
        (["labels.ask_below=1.5"], "labels.ask_below must lie in [0, 1]"),
        (["labels.overlaps=cut"], "labels.overlaps is 'cut'"),
        (["labels.min_coverage=2"], "labels.min_coverage is 2"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used(
    corpus: Path, tmp_path: Path, settings: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert annotate(corpus, tmp_path / "out", *settings) == 2
    told = capsys.readouterr().err
    assert match in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inside", ["", "processed_data", "processed_data/wtag", "processed_data/wtag/labels"])
def test_the_folder_of_the_corpus_is_refused(corpus: Path, inside: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(corpus.rglob("*"))
    assert annotate(corpus, corpus / inside) == 2
    assert "is the folder of the corpus" in capsys.readouterr().err
    assert sorted(path for path in corpus.rglob("*") if path.name[0] != ".") == before


def test_labels_of_another_origin_are_not_overwritten(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out/wtag").mkdir(parents=True)
    (tmp_path / "out/wtag/train.jsonl").write_text("mine")
    assert annotate(corpus, tmp_path / "out") == 2
    assert "holds wtag/, which this command has not written" in capsys.readouterr().err
    assert (tmp_path / "out/wtag/train.jsonl").read_text() == "mine"


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = staging.Staging.add
    added = 0

    def full(self: staging.Staging, *given: Any) -> None:
        nonlocal added
        added += 1
        if added == 5:
            self._file.write(b'{"key": ["wtag", "tra')  # as much as found room
            raise OSError(28, "No space left on device", str(self.path))
        whole(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(staging.Staging, "add", full)
        assert annotate(corpus, tmp_path / "out") == 1
    assert "staged.jsonl: no space is left on the disk" in capsys.readouterr().err
    assert not (tmp_path / "out/wtag").exists()
    annotate(corpus, tmp_path / "out")
    assert "4 are done" in capsys.readouterr().out
    annotate(corpus, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_output_folder_that_cannot_be_made_is_told_at_once(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert annotate(corpus, tmp_path / "file/out") == 2
    assert "a file stands where a folder is needed" in capsys.readouterr().err


def test_one_run_at_a_time_labels_a_part(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sole_writer(tmp_path / "out/annotate/all"):
        assert annotate(corpus, tmp_path / "out") == 2
        assert "another run is writing to" in capsys.readouterr().err
    with sole_writer(tmp_path / "parts/annotate/00001-of-00002"):
        assert annotate(corpus, tmp_path / "parts", "labels.shard=1/2") == 2
        assert annotate(corpus, tmp_path / "parts", "labels.shard=2/2") != 2


def test_ctrl_c_says_how_to_go_on(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(staging.Staging, "add", stopped)
    assert annotate(corpus, tmp_path / "out") == 1
    assert "stopped; the same command continues with the videos that are missing" in capsys.readouterr().err
