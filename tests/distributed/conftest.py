"""What the runs of several processes share: the launcher, and the run of one process that they must equal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from process_group import Launcher, process_launcher


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Starts runs; the libraries of the training job are imported once."""
    with process_launcher(tmp_path_factory.mktemp("processes"), ["process_work", "prospect_hf.jobs.train"]) as started:
        yield started
