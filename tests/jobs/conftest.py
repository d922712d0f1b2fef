"""What the tests of the commands share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import transformers


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Logging is put back after a command."""
    verbosity, level = transformers.logging.get_verbosity(), logging.getLogger().level
    yield
    transformers.logging.set_verbosity(verbosity)
    transformers.logging.enable_progress_bar()
    logging.getLogger().setLevel(level)
