"""The right part: an utterance names the words of the reference's step, and no words of another step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.metrics.counts import plain, total
from prospect_hf.metrics.named_parts import named_part_counts, named_part_figures, step_words
from prospect_hf.metrics.texts import words

PLAN = [
    "Screw the green tile onto the wall.",
    "Screw the blue joint onto the wall.",
    "Screw the pink tile onto the wall.",
]
WORDS = ["screw", "the", "green", "blue", "pink", "tile", "joint", "onto", "wall", "now", "Good."]
texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
plans = st.lists(texts, max_size=4)


def test_the_words_that_tell_steps_apart() -> None:
    assert step_words(PLAN) == {"green", "tile", "blue", "joint", "pink"}
    assert step_words(PLAN[:1]) == step_words([]) == step_words([PLAN[0], PLAN[0].upper()]) == frozenset()


@pytest.mark.parametrize(
    ("said", "reference", "counts"),
    [
        ("Good. Now screw the blue joint onto the wall.", PLAN[1], (1, 1)),
        ("Now the JOINT, the blue one!", PLAN[1], (1, 1)),
        ("Good. Now screw the blue tile onto the wall.", PLAN[1], (1, 0)),
        ("The green tile and the blue joint.", "The green tile.", (1, 0)),  # one part too many
        ("Go on.", PLAN[1], (1, 0)),
        ("Screw the blue joint.", "Well done.", (0, 0)),  # the reference names no part
    ],
)
def test_a_pair_counts_where_the_reference_names_a_part(said: str, reference: str, counts: tuple[int, int]) -> None:
    found = named_part_counts([(said, reference)], PLAN)
    assert (found["parts_named"], found["parts_right"]) == counts


def test_no_pair_is_undefined() -> None:
    assert plain(named_part_figures(named_part_counts([], PLAN))) == {"names_right_part": None}
    assert plain(named_part_figures(named_part_counts([("go on", "well done")], PLAN))) == {"names_right_part": None}


@given(plans, st.lists(texts, max_size=5))
def test_the_reference_itself_is_always_right(plan: list[str], references: list[str]) -> None:
    found = named_part_counts([(text, text) for text in references], plan)
    assert found["parts_right"] == found["parts_named"]
    assert plain(named_part_figures(found))["names_right_part"] in (1.0, None)


@given(plans, st.lists(st.tuples(texts, texts), max_size=6), st.integers(0, 6))
def test_counts_add_up_and_order_does_not_matter(plan: list[str], pairs: list[tuple[str, str]], cut: int) -> None:
    whole = named_part_counts(pairs, plan)
    assert whole == total([named_part_counts(pairs[:cut], plan), named_part_counts(pairs[cut:], plan)])
    assert whole == named_part_counts(pairs[::-1], plan[::-1])
    assert 0 <= whole["parts_right"] <= whole["parts_named"] <= len(pairs)


@given(plans, texts, texts, st.permutations(WORDS))
def test_only_words_that_tell_steps_apart_matter(plan: list[str], said: str, reference: str, order: list[str]) -> None:
    common = [word for word in order if words(word)[0] not in step_words(plan)]
    changed = " ".join([*common, said.upper(), said])
    assert named_part_counts([(changed, reference)], plan) == named_part_counts([(said, reference)], plan)
