"""A record of labels is what is read back from its line, and its line is what label files are read as."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import mutate_json

from prospect_hf.annotate.label_output import COLUMNS, LabelOutput, rows
from prospect_hf.annotate.records import Failure, LabelRecord, Provenance, Repair
from prospect_hf.errors import DataError
from prospect_hf.labels.label_files import LabelFiles, made_by, parse_spans
from prospect_hf.labels.spans import Span
from prospect_hf.sessions import Step

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).filter(str.strip)
TIMES = st.floats(0, 1e5, allow_nan=False)
SHARES = st.floats(0, 1)


def record(uid: str = "v1", **changes: object) -> LabelRecord:
    given = {
        "source": "wtag",
        "split": "train",
        "video_uid": uid,
        "steps": ("Boil.", "Pour."),
        "spans": (Span(0, 1.0, 2.5), Span(1, 3.0, None)),
        "confidences": (0.5, 1.0),
        "confidence": 0.75,
        "provenance": Provenance("llm", "1", "m", "hash", 2, 10, 20, 0.001),
        "repairs": (Repair("a rule", 1, (0.0, 2.0), (1.0, 2.0)), Repair("another", 0, (math.inf, None), None)),
        "end_s": 9.0,
        "notes": {"a rule that notes": 2},
        "unexplained_s": 1.5,
    }
    return LabelRecord(**(given | changes))  # type: ignore[arg-type]


@st.composite
def records(draw: st.DrawFn) -> LabelRecord:
    steps = draw(st.lists(TEXTS, min_size=1, max_size=4))
    spans = []
    for _ in range(draw(st.integers(1, 5))):
        start, length = draw(TIMES), draw(st.none() | st.floats(0.01, 1e5))
        spans.append(Span(draw(st.integers(0, len(steps) - 1)), start, None if length is None else start + length))
    odd_times = st.floats() | st.none()
    repairs = [
        Repair(draw(TEXTS), draw(st.integers(0, len(steps) - 1)), (draw(TIMES), draw(odd_times)), None)
        for _ in range(draw(st.integers(0, 2)))
    ]
    paid = Provenance(draw(TEXTS), draw(TEXTS), draw(st.none() | TEXTS), None, 3, draw(st.integers(0, 10**9)), 7, 0.5)
    confidences = tuple(draw(SHARES) for _ in spans)
    return LabelRecord(
        "wtag",
        "train",
        draw(TEXTS),
        tuple(steps),
        tuple(spans),
        confidences,
        draw(SHARES),
        paid,
        tuple(repairs),
        1.0,
        notes=draw(st.dictionaries(TEXTS, st.integers(1, 9), max_size=2)),
        unexplained_s=draw(TIMES),
    )


def as_read(one: LabelRecord | Failure) -> dict[str, object]:
    read: dict[str, object] = json.loads(json.dumps(one.facts(), ensure_ascii=False, allow_nan=False))
    return read


@given(records())
def test_a_record_is_read_back_as_it_was(one: LabelRecord) -> None:
    facts = as_read(one)
    again = LabelRecord.from_facts(facts, "here")
    assert repr(again) == repr(one)  # NaN is not equal to itself
    steps = tuple(Step(f"S{number}", text) for number, text in enumerate(one.steps, start=1))
    assert parse_spans(facts, steps, "here") == one.spans
    assert [entry["name"] for entry in facts["dst"]] == [one.steps[span.step] for span in one.spans]  # type: ignore[attr-defined]
    assert [len(cells) for cells in rows(one)] == [len(COLUMNS)] * len(one.spans)
    assert not any(set("\t\n\r") & set(cell) for cells in rows(one) for cell in cells)


def test_a_failure_is_read_back_as_it_was() -> None:
    for one in (
        Failure("wtag", "train", "", "no plan"),
        Failure("wtag", "val", "v", "w\n", ("{", "ü"), Provenance("llm", "1", usd=None)),
    ):
        assert Failure.from_facts(as_read(one), "here") == one


def test_a_record_without_a_span_is_never_written() -> None:
    with pytest.raises(ValueError, match="at least one span"):
        record(spans=(), confidences=()).facts()


def test_a_line_that_was_changed_is_refused_or_read() -> None:
    refused = 0
    for seed in range(400):
        facts = mutate_json(as_read(record()), random.Random(seed))
        try:
            LabelRecord.from_facts(facts if isinstance(facts, dict) else {}, "here")
        except DataError as error:
            refused += 1
            assert str(error).startswith("here")
    assert refused > 100


@pytest.mark.parametrize(
    ("plan", "fault"),
    [
        (["Boil.", "Pour."], None),
        ([" Boil.\n", "Pour."], None),  # the same words
        (["Boil.", "Stir."], "whose S2 is 'Pour.', not 'Stir.'; label it again"),
        (["Pour.", "Boil."], "whose S1 is 'Boil.', not 'Pour.'"),
        (["Boil.", "Pour.", "Drink."], "a plan of 2 steps, not of 3; label it again"),
    ],
)
def test_labels_of_another_plan_are_refused(tmp_path: Path, plan: list[str], fault: str | None) -> None:
    # The ids S1 and S2 exist in each of these plans, so without the texts the labels would be taken for other steps.
    LabelOutput(tmp_path).write("wtag", "validation", [record()], tsv=False)
    found, where = LabelFiles(tmp_path, "wtag", "val", lambda where, error: None).find("v1", "here")
    steps = [Step(f"S{number}", text) for number, text in enumerate(plan, start=1)]
    if fault is None:
        assert parse_spans(found, steps, where) == record().spans
        return
    with pytest.raises(DataError, match=fault) as error:
        parse_spans(found, steps, where)
    assert "val.jsonl: line 1 (v1)" in str(error.value)


def test_lines_are_label_files(tmp_path: Path) -> None:
    output = LabelOutput(tmp_path)
    failure = Failure("wtag", "validation", "v3", "no plan")
    output.write(
        "wtag",
        "validation",
        [record("v1"), failure, record("v2", spans=(Span(1, 0.0, 9.0),), confidences=(0.5,))],
        tsv=True,
    )
    assert output.path("wtag", "validation") == tmp_path / "wtag/val.jsonl"
    refused: list[str] = []
    files = LabelFiles(tmp_path, "wtag", "val", lambda where, error: refused.append(str(error)))
    found, where = files.find("v1", "here")
    assert parse_spans(found, [Step("S1", "Boil."), Step("S2", "Pour.")], where) == record().spans
    assert where.endswith("val.jsonl: line 1 (v1)") and made_by(found) == "llm 1, m"
    assert files.find("v2", "here")[1].endswith("line 2 (v2)") and not refused
    with pytest.raises(DataError, match=r"no state labels for v3 .* wtag/val\*\.jsonl"):
        files.find("v3", "here")
    assert (tmp_path / "wtag/val.tsv").read_text().splitlines()[1:] == [
        "v1\tS1\tBoil.\t1.0\t2.5\t0.5",
        "v1\tS2\tPour.\t3.0\t\t1.0",
        "v2\tS2\tPour.\t0.0\t9.0\t0.5",
    ]
    # What has gone goes from the disk, too.
    output.write("wtag", "validation", [failure], tsv=True)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["val.jsonl"]
    output.write("wtag", "validation", [record()], tsv=False)
    assert [path.parent.name for path in tmp_path.rglob("*.*")] == ["wtag"]


def test_a_damaged_line_of_a_label_file_is_refused_with_its_number(tmp_path: Path) -> None:
    lines = [json.dumps(record(uid).facts()) for uid in ("v1", "v2", "v3")]
    (tmp_path / "wtag").mkdir()
    path = tmp_path / "wtag/train-00001-of-00002.jsonl"
    path.write_text("\n".join([lines[0], lines[1][:40], "7", lines[2], lines[0]]))
    refused: list[str] = []
    files = LabelFiles(tmp_path, "wtag", "train", lambda where, error: refused.append(str(error)))
    assert len(refused) == 2 and "line 2: invalid JSON" in refused[0] and "line 3 is a number" in refused[1]
    assert files.find("v3", "here") and files.unused == 1
    path.write_text(lines[0] + "\n" + lines[0].replace("2.5", "2.75"))
    LabelFiles(tmp_path, "wtag", "train", lambda where, error: refused.append(str(error)))
    assert "line 2 (v1): state labels differ from those in" in refused[-1]
