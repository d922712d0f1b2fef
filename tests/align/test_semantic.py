"""The semantic aligner with an encoder of the tests' own, whose embeddings are the words of a text."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from prospect_hf.align.alignment import Alignment, Task
from prospect_hf.align.by_words import NO_MATCH, UNDOES
from prospect_hf.align.semantic import FITTED, LONGEST_RUN, SemanticAligner, gather, most_agreed, run_features
from prospect_hf.align.similarity import centred, cohesion, content_words, word_similarity
from prospect_hf.errors import DataError
from prospect_hf.labels.annotation_lines import Annotation, AnnotationLine, parse_annotation
from prospect_hf.sessions import Step

PLAN = ("Boil the water in the kettle", "Grind the coffee beans", "Pour milk into the jug", "Slice the lemon cake")


class WordEncoder:
    """Each stem of a word has a direction of its own."""

    identity = "words @ 0"

    def __call__(self, texts: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        return {text: self._vector(text) for text in texts}

    def _vector(self, text: str) -> NDArray[np.float32]:
        vector = np.full(4096, 1e-3)
        for word in content_words(text):
            vector[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % 4096] += 1
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


def task(descriptions: str, plan: Sequence[str] = PLAN) -> Task:
    steps = tuple(Step(f"S{number}", text) for number, text in enumerate(plan, start=1))
    return Task("record 7", "breakfast", steps, parse_annotation(descriptions))


def align(descriptions: str, plan: Sequence[str] = PLAN) -> Alignment:
    return SemanticAligner(WordEncoder())(task(descriptions, plan))


def found(alignment: Alignment) -> list[tuple[int, float, float | None]]:
    return [(visit.span.step, visit.span.start, visit.span.end) for visit in alignment.visits]


IN_ORDER = """\
[2s-5s] fill kettle with water
[6s-9s] boil water
[15s-20s] take coffee beans
[21s-30s] grind coffee
[40s-50s] pour milk
[60s-70s] slice cake
[70s-72s] lemon cake
"""


def test_runs_of_segments_become_visits() -> None:
    alignment = align(IN_ORDER)
    assert found(alignment) == [(0, 2, 9), (1, 15, 30), (2, 40, 50), (3, 60, 72)]
    assert [visit.lines for visit in alignment.visits] == [(0, 1), (2, 3), (4,), (5, 6)]
    assert alignment.abstained == {}
    assert all(visit.aligner == "semantic" and 0.8 < visit.confidence <= 1 for visit in alignment.visits)
    assert 0.8 < alignment.confidence <= 1


def test_same_task_same_bits_whatever_the_order_of_the_lines() -> None:
    aligner = SemanticAligner(WordEncoder())
    first = aligner(task(IN_ORDER))
    assert aligner(task(IN_ORDER)) == first == SemanticAligner(WordEncoder())(task(IN_ORDER))
    backwards = "\n".join(reversed(IN_ORDER.splitlines()))
    assert found(aligner(task(backwards))) == found(first)


def test_a_step_that_is_taken_up_again_has_two_visits() -> None:
    alignment = align(
        "[1s-9s] boil water in kettle\n[20s-29s] grind coffee beans\n[40s-49s] pour milk into jug\n"
        "[60s-69s] grind coffee beans\n[80s-89s] slice lemon cake"
    )
    assert found(alignment) == [(0, 1, 9), (1, 20, 29), (2, 40, 49), (1, 60, 69), (3, 80, 89)]


def test_a_visit_ends_with_the_last_end_of_its_lines() -> None:
    alignment = align("[1s-30s] boil water in kettle\n[4s-9s] boil water\n[40s-49s] grind coffee beans", PLAN[:2])
    assert found(alignment) == [(0, 1, 30), (1, 40, 49)]


def test_a_step_without_a_segment_has_no_visit() -> None:
    alignment = align("[1s-9s] boil water in kettle\n[40s-49s] pour milk into jug\n[60s-69s] slice lemon cake")
    assert [step for step, _, _ in found(alignment)] == [0, 2, 3]


def test_mistakes_and_corrections_belong_to_no_step() -> None:
    alignment = align(
        "[1s-9s] boil water\n[10s-12s] boil milk (mistake: wrong pot)\n[13s-14s] pour back (correction of 'boil')\n"
        "[20s-29s] grind coffee\n[30s-39s] pour milk\n[40s-49s] slice cake"
    )
    assert alignment.abstained == {1: UNDOES, 2: UNDOES}
    assert found(alignment)[0] == (0, 1, 9)


@pytest.mark.parametrize(
    ("descriptions", "reason"),
    [
        ("", "no segment with a start and an end"),
        ("Summary: she makes coffee", "no segment with a start and an end"),
        ("[1s-2s] boil water (mistake: cold)", "only segments that are a mistake or its correction"),
    ],
)
def test_what_cannot_be_aligned_is_an_error_with_its_reason(descriptions: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"record 7: the annotation has {reason}"):
        align(descriptions)


def test_a_failure_says_what_the_lines_were() -> None:
    with pytest.raises(
        DataError, match=r"a start and an end \(left out: no time: 2, a time in another form: 1\), so no"
    ):
        align("boil water\n\npour milk\n\nfrom 3s on: slice cake")


def test_segments_off_the_plan() -> None:
    aligner = SemanticAligner(WordEncoder())
    foreign = "[10s-12s] answer phone\n[12s-14s] wave hand\n[14s-16s] look outside\n"
    alignment = aligner(task(f"[1s-9s] boil water in kettle\n{foreign}[20s-29s] grind coffee beans"))
    assert alignment.abstained == {1: NO_MATCH, 2: NO_MATCH, 3: NO_MATCH}
    assert found(alignment) == [(0, 1, 9), (1, 20, 29)]
    with pytest.raises(
        DataError, match=r"record 7: plan and annotation are of different things: the 6 segments .* of 0\.0"
    ):
        aligner(task(foreign + foreign))


@pytest.mark.parametrize(
    ("descriptions", "plan"),
    [
        ("[1s-2s] boil water", PLAN),
        ("[1s-2s] boil water", PLAN[:1]),
        (IN_ORDER, PLAN[:1]),
        (IN_ORDER, ["the same"] * 3),
        ("[1s-2s] boil water\n[1s-2s] grind beans\n[1s-2s] pour milk", PLAN),
        ("[1s-90s] boil water\n[2s-3s] grind beans\n[80s-95s] slice cake", PLAN),
        ("[0s-0.001s] boil water", PLAN),
        ("[1s-2s] ...\n[3s-4s] !!", PLAN),
        ("[1s-2s] 沸かす\n[3s-4s] 豆を挽く", ["水を沸かす", "豆を挽く"]),
        ("\n".join(f"[{i}s-{i + 1}s] stir" for i in range(60)), [f"step {i}" for i in range(80)]),
    ],
)
def test_odd_tasks_give_valid_visits(descriptions: str, plan: Sequence[str]) -> None:
    made = task(descriptions, plan)
    try:
        alignment = SemanticAligner(WordEncoder())(made)
    except DataError as error:
        assert "of different things" in str(error)
        return
    used = [index for visit in alignment.visits for index in visit.lines]
    assert sorted([*used, *alignment.abstained]) == list(range(len(made.annotation.lines)))
    assert [visit.span.start for visit in alignment.visits] == sorted(visit.span.start for visit in alignment.visits)
    for visit in alignment.visits:
        lines = [made.annotation.lines[index] for index in visit.lines]
        assert visit.span.start == min(line.start for line in lines)
        assert visit.span.end == max(line.end or 0.0 for line in lines)
        assert 0 <= visit.span.step < len(plan)
        assert 0 < visit.confidence <= 1
    assert 0 < alignment.confidence <= 1


def test_points_in_time_last_until_the_next_line() -> None:
    lines = (AnnotationLine(1, 3.0, None, "boil water"), AnnotationLine(2, 8.0, None, "grind coffee beans"))
    steps = tuple(Step(f"S{number}", text) for number, text in enumerate(PLAN[:2], start=1))
    alignment = SemanticAligner(WordEncoder())(Task("r", "", steps, Annotation(lines)))
    assert found(alignment) == [(0, 3, 8), (1, 8, 9)]


def test_confidence_falls_where_the_texts_say_less() -> None:
    vague = "\n".join(line.split("]")[0] + "] boil, grind, pour, slice" for line in IN_ORDER.splitlines())
    assert align(vague).confidence < align(IN_ORDER).confidence - 0.1


def test_long_annotations_take_little_time_and_a_stay_may_exceed_the_longest_run() -> None:
    aligner = SemanticAligner(WordEncoder())
    tools = ["saw", "drill", "hammer", "file", "clamp", "plane", "brush", "glue", "sander", "ruler", "chisel", "torch"]
    plan = [f"work with the {tool}" for tool in tools]
    lines = [f"[{i}s-{i + 1}s] use {tools[min(i // 40, 11)]}" for i in range(800)]  # the last step has 360 lines
    began = time.process_time()
    alignment = aligner(task("\n".join(lines), plan))
    assert time.process_time() - began < 5
    assert len(alignment.visits) == 12
    assert len(alignment.visits[-1].lines) > LONGEST_RUN


def test_version_tells_encoders_and_parameters_apart() -> None:
    other = WordEncoder()
    other.identity = "words @ 1"
    versions = {
        SemanticAligner(WordEncoder()).version,
        SemanticAligner(other).version,
        SemanticAligner(WordEncoder(), replace(FITTED, run=-1.0)).version,
    }
    assert len(versions) == 3
    assert SemanticAligner(WordEncoder(), replace(FITTED)).version in versions


def test_the_path_that_agrees_most() -> None:
    starts, ends = np.array([0.0, 10.0, 20.0, 30.0]), np.array([10.0, 20.0, 30.0, 40.0])
    paths = np.array([[0, 0, 1, 1]] * 4 + [[0, 1, 1, 1]] * 3 + [[0, 0, 0, 1]] * 3)
    states = [_states(path, starts, ends, 2) for path in paths]
    agreed = [np.mean([(one == other).all(1).mean() for other in states]) for one in states]
    path, share = most_agreed(paths, starts, ends, 2)
    assert path.tolist() == paths[int(np.argmax(agreed))].tolist() == [0, 0, 1, 1]
    assert share == pytest.approx(max(agreed))


def _states(
    path: NDArray[np.int64], starts: NDArray[np.float64], ends: NDArray[np.float64], steps: int
) -> NDArray[np.int8]:
    """The states on frames whose middles lie in the seconds 0 to 40."""
    times = np.arange(0.25, 40, 0.5)
    table = np.zeros((len(times), steps), np.int8)
    for step in range(steps):
        if (path == step).any():
            table[:, step] = (times >= starts[path == step].min()).astype(np.int8) + (times >= ends[path == step].max())
    return table


def test_features_of_runs() -> None:
    lines = [
        AnnotationLine(1, 0.0, 4.0, "boil water"),
        AnnotationLine(2, 5.0, 6.0, "boil water"),
        AnnotationLine(3, 26.0, 30.0, "slice cake"),
    ]
    features = run_features(gather(lines, PLAN[:2], WordEncoder()))
    assert features["pause"][:, 0, 0].tolist() == [0.0, 0.2, 1.0]
    assert features["log_pause"][:, 0, 0].tolist() == pytest.approx([0.0, np.log(2), np.log(21)])
    assert features["length"][0, :3, 0].tolist() == pytest.approx(np.log([4 / 15, 6 / 15, 30 / 15]))
    assert features["cohesion"][0, 1, 0] == pytest.approx(0.5)
    assert features["cohesion"][0, 2, 0] < 0.5
    assert features["meaning"][0, 0, 0] > 0 > features["meaning"][0, 0, 1]


def test_cohesion_is_the_sum_over_the_pairs_of_a_run() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    alike = vectors @ vectors.T
    table = cohesion(alike, 6)
    for first in range(6):
        for length in range(1, 7 - first):
            rows = range(first, first + length)
            pairs = sum(alike[a, b] for a in rows for b in rows if a < b)
            assert table[first, length - 1] == pytest.approx(pairs / length)


def test_centred_tables_favour_no_text_and_no_step() -> None:
    table = centred(np.random.default_rng(0).normal(size=(5, 3)))
    assert np.abs(table.mean(0)).max() < 1e-12 and np.abs(table.mean(1)).max() < 1e-12


def test_a_rare_word_weighs_more_than_one_of_all_steps() -> None:
    table = word_similarity(
        ["turn the red knob", "turn the blue knob"], ["Turn the red knob", "Turn the blue knob", "Turn it"]
    )
    assert table[0, 0] == pytest.approx(1) == pytest.approx(table[1, 1])
    assert table[0, 1] < 0.7 and table[0, 2] < 0.7
    assert word_similarity(["wave"], ["Turn it"]).tolist() == [[0.0]]
