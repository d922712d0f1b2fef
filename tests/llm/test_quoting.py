"""Texts of others in a prompt: one line, and no text can close the quotation marks or the tags round it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.llm.quoting import json_without_tags, plain_line


def test_a_text_is_one_line_without_invisible_characters() -> None:
    assert plain_line(" attach\n\tthe\u2028wheel\u2029 now\x0b") == "attach the wheel now"
    assert plain_line("at\u200btach\x00 \x1b[2K\u202eit \ud83d\U000e0047") == "attach [2Kit"
    assert plain_line("車輪を、Räder. é 🙂") == "車輪を、Räder. é 🙂"


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_quoted_text_reads_back_and_holds_no_tag(text: str) -> None:
    quoted = json_without_tags({"text": text})
    assert json.loads(quoted) == {"text": text}
    assert not set(quoted) & set("<>\n\r")
