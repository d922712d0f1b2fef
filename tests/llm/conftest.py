"""A client of the fake server that is alone with it, and a key that must show nowhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_fixtures import KEY, FakeServer

from prospect_hf.llm import client as llm
from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.batch import BatchClient
from prospect_hf.llm.client import LLMClient


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of this machine, and no long waits between attempts."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(llm, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def key(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Iterator[str]:
    """The key is set, and after the test it stands in no log, no output and no file."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    yield KEY
    written = capsys.readouterr()
    logged = [record.getMessage() for record in caplog.get_records("call")]
    assert logged and KEY not in "".join(logged) + written.out + written.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY not in path.read_text()


@pytest.fixture
def client(tmp_path: Path) -> Callable[..., LLMClient]:
    """Makes a client of a fake server; its cache is the test's own."""

    def make(server: FakeServer, **settings: Any) -> LLMClient:
        given = {"model": "m", "base_url": server.url, "cache_dir": str(tmp_path / "cache"), "timeout_s": 10.0}
        return LLMClient(LLMArguments(**(given | settings)))

    return make


@pytest.fixture
def batch_client(tmp_path: Path) -> Callable[..., BatchClient]:
    """Makes a client that asks a fake server in batches, with the same cache as ``client``."""

    def make(server: FakeServer, **settings: Any) -> BatchClient:
        given = {"model": "m", "base_url": server.url, "cache_dir": str(tmp_path / "cache"), "poll_s": 0.01}
        return BatchClient(LLMArguments(**(given | settings)))

    return make
