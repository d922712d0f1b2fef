"""Rows are made anew when the labels that they are read from change, and only then."""

from __future__ import annotations

from pathlib import Path

from proassist_fixtures import make_record, write_corpus

from prospect_hf.dataset.input_files import DstFramesConfig


def test_rows_follow_the_label_files_that_are_read(tmp_path: Path) -> None:
    write_corpus(tmp_path / "data", [make_record()])
    labels = tmp_path / "labels"
    (labels / "wtag").mkdir(parents=True)
    (labels / "annotate/all").mkdir(parents=True)
    config = DstFramesConfig(
        name="all", root=str(tmp_path / "data"), sources=("wtag",), dst="files", dst_root=str(labels)
    )
    seen = {config.fingerprint()}
    for path in ("wtag/train.jsonl", "wtag/train-00001-of-00002.jsonl", "wtag/train.json", "wtag/v1.json", "v1.json"):
        (labels / path).write_text("{}\n")
        seen.add(config.fingerprint())
        (labels / path).write_text('{"dst": []}\n')
        seen.add(config.fingerprint())
    assert len(seen) == 11
    # The report tells the time of its run, and a run's own files are no labels.
    for path in ("annotate/all/report.json", "annotate/all/staged.jsonl", "wtag/train.tsv"):
        (labels / path).write_text("{}\n")
    assert config.fingerprint() in seen
