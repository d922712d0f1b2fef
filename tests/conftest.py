"""What every test needs: no network, few threads, and the way to the real inputs."""

from __future__ import annotations

import os
import signal

# Read by libraries when they are imported, so set before any of them is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Several workers with a thread pool each are slower than one thread each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A run in the background of a script (`make test &`) inherits an ignored Ctrl-C, and so would programs that tests stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from pathlib import Path

import hypothesis
import pytest

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes are named by their argument and number: compressed ones hold the second in which they were made.

    Every process of `pytest -n` collects the tests itself, and a name that differs between two of
    them ends the run.
    """
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real inputs beside the source tree; the test is skipped where it is absent."""
    folder = (REPOSITORY / ".." / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no real inputs at {folder}")
    return folder
