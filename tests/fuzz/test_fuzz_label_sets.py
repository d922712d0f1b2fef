"""Damaged label sets: a comparison measures a video, lists it with a reason, or says why nothing can be compared."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from fuzzing import Target, assert_no_fault, survey
from mutations import damaged_json, mutate_json
from proassist_fixtures import make_record

from prospect_hf.annotate.comparison.compare import compare_sets
from prospect_hf.annotate.comparison.label_sets import read_corpus, read_label_set
from prospect_hf.annotate.comparison.page import text_report, write_csv, write_figures, write_page
from prospect_hf.sessions import MONOTONE, REOPEN

LABELS: dict[str, Any] = {
    "video_uid": "v1",
    "dst": make_record()["dst"],
    "confidence": 0.5,
    "provenance": {"aligner": "words", "version": "1"},
    "source": "wtag",
    "steps": ["Fill the kettle with cold water.", "Boil the water."],
}


def label_sets() -> Target:
    """One of two sets is damaged, or the corpus that tells their plans; what comes of it is written in all forms."""

    def target(rng: random.Random, folder: Path) -> None:
        dialogs = [make_record("v1"), make_record("v2")]
        where = rng.choice(["processed_data/wtag/generated_dialogs/train_filtered.json", "v1.json", "wtag/train.jsonl"])
        damaged = folder / "a" / where
        damaged.parent.mkdir(parents=True)
        if damaged.suffix == ".jsonl":
            lines = [json.dumps(mutate_json(LABELS | {"video_uid": uid}, rng)) for uid in ("v1", "v2", "v3")]
            damaged.write_text("\n".join(lines), encoding="utf-8")
        else:
            damaged.write_bytes(damaged_json(LABELS if where == "v1.json" else dialogs, rng, 0.15))
        (folder / "b.json").write_text(json.dumps([LABELS, LABELS | {"video_uid": "v2", "dst": [["S1", 3, 4]]}]))
        rule = rng.choice([REOPEN, MONOTONE])
        b = read_label_set(str(folder / "b.json"))
        if rng.random() < 0.3:
            found = compare_sets(b, read_label_set(str(folder / "b.json")), read_corpus(folder / "a"), rule)
        else:
            found = compare_sets(read_label_set(str(folder / "a")), b, None, rule)
        assert all(one.reason for one in found.left)
        text_report(found).encode()
        write_figures(folder / "agreement.json", found)
        write_csv(folder / "agreement.csv", found)
        write_page(folder / "page.html", found, 5, 5, ["v1"])

    return target


def test_label_sets_to_compare(tmp_path: Path) -> None:
    assert_no_fault(survey("label sets to compare", label_sets(), 60, tmp_path))
