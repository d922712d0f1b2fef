"""Damaged records that are to be labelled, staged lines and lines of labels: a record, a reason, or a refusal."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import Target, assert_no_fault, survey
from label_fixtures import record
from mutations import damaged_json, mutate_bytes
from proassist_fixtures import write_corpus

from prospect_hf.align.named import named_aligner
from prospect_hf.annotate.corpus import Corpus, Key, Unusable
from prospect_hf.annotate.label_output import LabelOutput
from prospect_hf.annotate.made import labelled
from prospect_hf.annotate.records import Failure, LabelRecord, Provenance, Repair
from prospect_hf.annotate.run import check_folder
from prospect_hf.annotate.staging import Staging
from prospect_hf.annotate.validation import Policy
from prospect_hf.errors import DataError
from prospect_hf.labels.spans import Span
from prospect_hf.sources.proassist import read_sessions

SOURCE = Provenance("words", "1")


def label(uid: str, step: int = 0) -> LabelRecord:
    repairs = (Repair("a rule", 0, (0.0, 9.0), None),)
    return LabelRecord("wtag", "train", uid, ("a",) * 6, (Span(step, 1.0, 3.0),), (0.5,), 0.5, SOURCE, repairs)


def records_to_label() -> Target:
    """What is made of a damaged record is written, and read back as it was."""
    align = named_aligner("words", "").align

    def target(rng: random.Random, folder: Path) -> None:
        path = write_corpus(folder, [])
        path.write_bytes(damaged_json([record("a"), record("b", "twice")], rng, 0.15))
        for video in Corpus(folder, {("wtag", "train"): [path]}).videos():
            if isinstance(video, Unusable):
                assert video.reason
                continue
            try:
                made = labelled(video, align(video.task), SOURCE, Policy(state_rule="source"))
            except DataError:
                continue
            with Staging(folder / "staged.jsonl") as staging:
                staging.add(video.key, video.inputs, made)
                again = staging.read(staging.index[video.key])
            assert repr(again) == repr(made)

    return target


def staged_files() -> Target:
    def target(rng: random.Random, folder: Path) -> None:
        path = folder / "staged.jsonl"
        with Staging(path) as staging:
            for uid in ("v1", "v2"):
                staging.add(Key("wtag", "train", uid), "x", label(uid))
            staging.add(Key("wtag", "train", "v3"), "x", Failure("wtag", "train", "v3", "why", ("{}",), SOURCE))
        lines = path.read_bytes().splitlines()
        damaged = [damaged_json(json.loads(line), rng, 0.3) for line in lines]
        path.write_bytes(mutate_bytes(b"\n".join(damaged), rng))
        with Staging(path) as staging:
            made = [staging.read(place) for place in staging.index.values()]
        LabelOutput(folder).write("wtag", "train", made, tsv=True)

    return target


def label_lines() -> Target:
    def target(rng: random.Random, folder: Path) -> None:
        write_corpus(folder, [record(uid) for uid in ("v1", "v2")])
        lines = [json.dumps(label("v1").facts()).encode(), damaged_json(label("v2", 1).facts(), rng, 0.3)]
        rng.shuffle(lines)
        path = folder / "labels/wtag/train-00001-of-00002.jsonl"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"\n".join(lines))
        on_error: Any = rng.choice(["raise", "skip"])
        read_sessions(folder, "wtag", "train", dst="files", dst_root=folder / "labels", on_error=on_error)

    return target


def settings_of_runs() -> Target:
    settings = {"aligner": "words", "version": "1", "model": None, "min_coverage": 0.0, "parts": 1}

    def target(rng: random.Random, folder: Path) -> None:
        path = folder / "out/annotate/settings.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(damaged_json(settings, rng, 0.3))
        check_folder(LabelOutput(folder / "out"), settings, folder / "corpus")

    return target


TARGETS: dict[str, tuple[Callable[[], Target], int]] = {
    "records to label": (records_to_label, 60),
    "staged labels": (staged_files, 40),
    "lines of labels": (label_lines, 40),
    "settings of labels": (settings_of_runs, 30),
}


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_labelling(name: str, tmp_path: Path) -> None:
    make, inputs = TARGETS[name]
    assert_no_fault(survey(name, make(), inputs, tmp_path))
