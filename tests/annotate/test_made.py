"""From an alignment to a record of labels: what the rules find stands in the record, and the report counts it."""

from __future__ import annotations

from model_task_fixtures import segment, task_of

from prospect_hf.align.alignment import Alignment, Visit
from prospect_hf.annotate.corpus import Key, Video
from prospect_hf.annotate.made import Made, labelled
from prospect_hf.annotate.records import Failure, LabelRecord, Provenance
from prospect_hf.annotate.report import SourceReport, tables
from prospect_hf.annotate.validation import NO_SPAN, Bounds, Policy
from prospect_hf.labels.spans import ONE_SPAN, Span
from prospect_hf.sources.annotations.video import BEYOND_END, OVERLAP

TASK = task_of([segment(0.0, 10.0), segment(10.0, 16.0), segment(20.0, 40.0)])
BY_WORDS = Provenance("words", "1")


def made(source: str, policy: Policy, *spans: Span) -> Made:
    """What is made of visits to a video of 30 seconds."""
    visits = tuple(Visit(span, (0,), 0.8, "words") for span in spans)
    video = Video(Key(source, "train", "v1"), "hash-30", TASK, Bounds(0.0, 30.0), None)
    return labelled(video, Alignment(visits, {}, 0.8), BY_WORDS, policy)


def test_what_the_rules_find_is_recorded_and_counted() -> None:
    record = made("wtag", Policy(), Span(0, 0.0, 10.0), Span(2, 8.0, 10.0), Span(0, 20.0, 40.0))
    assert isinstance(record, LabelRecord)
    assert [one.rule for one in record.repairs] == [BEYOND_END]
    assert record.notes == {OVERLAP: 1, NO_SPAN: 1} and record.unexplained_s == 6.0
    report = SourceReport()
    for _ in range(2):
        report.add(record, "v1")
    assert report.facts()["notes"] == {OVERLAP: 2, NO_SPAN: 2} and report.facts()["unexplained_seconds"] == 12.0
    assert report.facts()["covered_seconds"] == 40.0  # 0 to 10 and 20 to 30, twice
    told = tables({"wtag": report}).splitlines()
    assert [line.split()[-1] for line in told if line.startswith((OVERLAP, NO_SPAN))] == ["2", "2"]
    assert any(line.startswith("noted, and left as it is") for line in told)


def test_visits_mean_what_the_source_means_by_them() -> None:
    visits = Span(0, 0.0, 10.0), Span(0, 20.0, 30.0)
    reopened, joined = (made(source, Policy(state_rule="source"), *visits) for source in ("wtag", "ego4d"))
    assert isinstance(reopened, LabelRecord) and reopened.spans == visits
    assert isinstance(joined, LabelRecord) and joined.spans == (Span(0, 0.0, 30.0),)
    assert {one.rule for one in joined.repairs} == {ONE_SPAN}


def test_labels_that_the_policy_refuses_are_a_failure() -> None:
    failure = made("wtag", Policy(min_coverage=0.5), Span(0, 0.0, 10.0))
    assert isinstance(failure, Failure) and failure.provenance == BY_WORDS
    assert failure.reason == "Only 1 of 3 steps have a span, which is under min_coverage 0.5."
