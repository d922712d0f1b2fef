"""Parts of the LLM client: what is an answer, what fits a schema, and which addresses are this machine's own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_fixtures import Reply

from prospect_hf.errors import DataError, UsageError
from prospect_hf.llm.address import check_address, is_loopback
from prospect_hf.llm.answers import answer_in, mismatch

KEY = "sk-very-secret-0123456789"
WORD = {"type": "object", "properties": {"word": {"type": "string"}}}


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:1/v1", True),
        ("http://127.8.0.1", True),
        ("http://[::1]:80/v1", True),
        ("https://127.0.0.1.evil.org/v1", False),
        ("http://10.0.0.1/v1", False),
        ("https://api.openai.com/v1", False),
    ],
)
def test_only_this_machine_is_asked_past_the_proxy(url: str, local: bool) -> None:
    assert is_loopback(check_address(url, "it")) is local


NESTED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": {"type": "integer", "enum": [1, 2]}},
        "maybe": {"type": ["number", "null"]},
        "sure": {"type": "boolean", "description": "of it"},
    },
    "required": ["items", "maybe", "sure"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"items": [1, 2, 1], "maybe": 0.5, "sure": True}, None),
        ({"items": [], "maybe": None, "sure": False}, None),
        ({"items": [1, 3], "maybe": 1, "sure": True}, "it.items[1] is not one of 1, 2"),
        ({"items": [True], "maybe": 1, "sure": True}, "it.items[0] is not of type integer"),
        ({"items": [1.0], "maybe": 1, "sure": True}, "it.items[0] is not of type integer"),
        ({"items": [], "maybe": "1", "sure": True}, "it.maybe is not of type number or null"),
        ({"items": [], "maybe": 1, "sure": 1}, "it.sure is not of type boolean"),
        ({"items": {}, "maybe": 1, "sure": True}, "it.items is not of type array"),
        ({"items": [], "maybe": 1}, "it must have the keys items, maybe, sure and no others"),
        ({"items": [], "maybe": 1, "sure": True, "x": 1}, "it must have the keys items, maybe, sure and no others"),
        ([], "it is not of type object"),
        (None, "it is not of type object"),
    ],
)
def test_a_value_is_held_against_its_schema(value: Any, fault: str | None) -> None:
    assert mismatch(value, NESTED, "it") == fault


def test_a_schema_that_is_not_checked_in_full_is_refused() -> None:
    with pytest.raises(UsageError, match="minimum"):
        mismatch({"n": 1}, {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}}, "it")


@given(
    st.one_of(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.sampled_from(["choices", "message", "content", "word", "x"]), inner)
            ),
            max_leaves=8,
        ).map(json.dumps),
    )
)
def test_whatever_comes_is_an_answer_or_a_data_error(body: str) -> None:
    for reply in (body, Reply(body).text()):
        try:
            answer = answer_in(reply, WORD, KEY)
        except DataError:
            continue
        assert mismatch(answer, WORD, "it") is None
