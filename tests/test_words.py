"""Words of any script: nothing that a reader sees apart is one word, whatever form a keyboard gave it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.words import same_text, spaced, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't cut_it 8-fold", ["don", "t", "cut", "it", "8", "fold"]),
        ("Das ÖL, café", ["das", "öl", "café"]),
        ("cafe\u0301", ["café"]),
        ("हिन्दी पहिया", ["हिन्दी", "पहिया"]),  # vowel signs and viramas are marks
        ("把轮子 A4 装上。", ["把", "轮", "子", "a4", "装", "上"]),
        ("スープ", ["ス", "ー", "プ"]),
        ("น้ำ", ["น้", "ำ"]),  # a tone mark belongs to its consonant
        ("물을 넣어", ["물을", "넣어"]),
        ("می\u200cخواهم \u200fכוס", ["میخواهم", "כוס"]),  # invisible characters
        ("co\u00adop a\u200bb", ["coop", "a", "b"]),
        ("\U0001f600 \u2764\ufe0f …", []),
        ("\u0301 \u0940", []),
        ("", []),
    ],
)
def test_words_by_hand(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text())
def test_the_form_of_a_text_changes_no_word(text: str) -> None:
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    assert words(forms[0]) == words(forms[1]) == words(text)
    assert same_text(forms[0], forms[1]) and spaced(forms[0]) == spaced(forms[1])
    assert all(word and not word.isspace() for word in words(text))


@given(st.text())
def test_blanks_are_put_beside_characters_without_blanks_alone(text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    assert spaced(text).replace(" ", "") == composed.replace(" ", "")
    if text.isascii():
        assert spaced(text) == text
    assert spaced("回す now") == " 回 す  now"


def test_equal_texts() -> None:
    assert same_text(" Äpfel ", "A\u0308pfel") and not same_text("Äpfel", "Öpfel") and not same_text("a", "A")
