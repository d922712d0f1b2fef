"""Every process of `pytest -n` collects the same tests: no name depends on when or where it was made."""

from __future__ import annotations

import pytest


def test_no_name_of_a_test_is_made_of_bytes_or_of_an_address(request: pytest.FixtureRequest) -> None:
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    assert not [item.nodeid for item in items if " at 0x" in item.nodeid]
    for item in items:
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        for value in values:
            if isinstance(value, bytes) and len(value) > 8:  # a short one may be part of a word
                assert repr(value)[2:-1] not in item.nodeid
