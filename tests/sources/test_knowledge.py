"""The steps of a plan, from free text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.errors import DataError
from prospect_hf.sources.knowledge import parse_steps


def texts(knowledge: str) -> list[str]:
    steps = parse_steps(knowledge, "here")
    assert [step.id for step in steps] == [f"S{number}" for number in range(1, len(steps) + 1)]
    return [step.text for step in steps]


def test_sections_before_the_plan_are_no_steps() -> None:
    assert texts(
        "Pins\n\nIngredients\n1 8-inch cake\n1.5 cups of water\nSteps\n"
        "1. Cut 1/2-\ninch off.\n2.  Wait.\n3. Eat 2.5 of it."
    ) == ["Cut 1/2-inch off.", "Wait.", "Eat 2.5 of it."]


@pytest.mark.parametrize(
    "section",
    [
        "Ingredients:\n1. Tea leaves\n2. Water",
        "Ingredients:\n1. Tea leaves\n3. Water\n\nTools:\n1. Kettle",  # the numbers of another list are no matter
        "Ingredients:\n1) Tea leaves\n2) Water",
        "Tools\n- kettle\n- cup\n12 oz of water",
        "",
    ],
)
def test_a_numbered_list_before_the_steps_is_no_plan(section: str) -> None:
    assert texts(f"Tea\n\n{section}\n\nSteps:\n1. Fill the\nkettle.\n2. Boil the water.\n") == [
        "Fill the kettle.",
        "Boil the water.",
    ]


FORMS = [
    "1. Fill the kettle.\n2. Boil it.",
    "  1. Fill the\n     kettle.\n  2. Boil it.",
    "1. Fill the kettle.\n    2. Boil it.",  # a text that was indented, without the blanks at its ends
    "1.\nFill the kettle.\n2.\tBoil\n\tit.",
    "1.Fill the kettle.\n2.Boil it.",
    "1) Fill the kettle.\n2) Boil it.",
    "Step 1: Fill the kettle.\nStep 2: Boil it.",
    "STEP 1 - Fill the kettle.\n\nStep 2 - Boil it.",
    "1. Fill the\r\nkettle.\r\n\r\n2. Boil it.\r\n",
    "1. Fill\n\nthe kettle.\n\n2. Boil\n\n   it.",
    "1. Fill the kettle.\n2. Boil it.\n\nNotes\nTea is hot.",
    "\ufeff1. Fill the kettle.\n\u200b2. Boil it.",
]


@pytest.mark.parametrize("knowledge", FORMS)
def test_steps_are_read_as_people_write_them(knowledge: str) -> None:
    assert texts(f"Tea\n\n{knowledge}") == ["Fill the kettle.", "Boil it."]


def test_a_list_below_a_step_is_text_of_that_step() -> None:
    assert texts("1. Prepare:\n   1. fill it\n   2. boil it\n2. Pour,\n1) slowly,\n2) all of it.\n3. Drink.") == [
        "Prepare: 1. fill it 2. boil it",
        "Pour, 1) slowly, 2) all of it.",
        "Drink.",
    ]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([1, 3, 2], "number 3 follows number 1"),
        ([2, 3], "the plan begins with number 2"),
        ([0, 1, 2], "the plan begins with number 0"),  # none of them is dropped
        ([1, 2, 2], "number 2 follows number 2"),
        ([1, 1], "number 1 follows number 1"),
        ([1, 1, 1, 1], "number 1 follows number 1"),  # lists of one item each are one list
    ],
)
def test_a_plan_that_does_not_count_up_from_1_is_refused(numbers: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_steps("\n".join(f"{number}. step" for number in numbers), "here")


@pytest.mark.parametrize("knowledge", ["", "Tea", "Fill it.\nBoil it.", "1.5 cups", "10 eggs"])
def test_a_text_without_a_numbered_line_is_no_plan(knowledge: str) -> None:
    with pytest.raises(DataError, match="here has no numbered step"):
        parse_steps(knowledge, "here")


def test_a_number_without_a_text_is_no_step() -> None:
    with pytest.raises(DataError, match="here: step 2 has a number but no text"):
        parse_steps("1. Fill\n2.\n3. Drink", "here")


WORD = st.text(st.characters(categories=["Lu", "Ll", "Lo"]), min_size=1, max_size=6)
WORDS = st.lists(WORD, min_size=1, max_size=8).filter(lambda words: words[0].casefold() != "step")


@given(st.lists(WORDS, min_size=1, max_size=12), st.integers(1, 30), st.sampled_from(["\n", "\n\n", "\r\n"]))
def test_a_plan_is_read_back_however_its_lines_wrap(plan: list[list[str]], width: int, between: str) -> None:
    written = []
    for number, words in enumerate(plan, start=1):
        lines = [f"{number}."]
        for word in words:
            if len(lines[-1]) > width:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
        written.append("\n".join(lines))
    assert texts(f"Title\nTools\n1. pan\n2. pot\n\n{between.join(written)}\n\nA last word.") == [
        " ".join(words) for words in plan
    ]


@given(st.text())
def test_any_text_is_a_plan_or_is_refused_with_its_place(text: str) -> None:
    try:
        assert all(step.text for step in parse_steps(text, "here"))
    except DataError as error:
        assert str(error).startswith("here")


def test_the_real_plans_are_read(shared_data: Path) -> None:
    found = {}
    for path in sorted((shared_data / "proassist/processed_data").glob("*/generated_dialogs/*.json")):
        for record in json.loads(path.read_text()):
            steps = texts(record["inferred_knowledge"])
            found[path.parts[-3]] = len(steps)
            assert not any(" - " in text or "- i" in text or "\n" in text for text in steps)
            assert all(text[0].isupper() for text in steps)
    assert found == {"assembly101": 8, "ego4d": 5, "egoexolearn": 5, "epickitchens": 9, "holoassist": 8, "wtag": 12}
