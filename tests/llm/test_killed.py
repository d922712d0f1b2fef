"""A run that is killed at any moment goes on where it was: nothing is lost, and nothing is paid twice."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from llm_fixtures import GOOD, MESSAGES, SCHEMA, FakeServer, Reply, fake_server, faulty
from llm_processes import Clients, client_processes

from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import sole_writer
from prospect_hf.llm import batch as batch_module
from prospect_hf.llm.batch import BatchClient
from prospect_hf.llm.batch_files import BatchFolder
from prospect_hf.llm.client import LLMClient
from prospect_hf.llm.questions import RESEED, Question

pytest.importorskip("openai", reason="openai is not installed (extra llm)")

Make = Callable[..., BatchClient]


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with client_processes() as started:
        yield started


def word_of(request: dict[str, Any]) -> dict[str, str]:
    return {"word": f"tall {request['seed'] % RESEED}"}


def asked(count: int, **more: Any) -> list[Question]:
    return [Question(MESSAGES, SCHEMA, "word", seed, **more) for seed in range(count)]


def settings(server: FakeServer, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"model": "m", "base_url": server.url, "cache_dir": str(tmp_path / "cache"), "poll_s": 0.01, **more}


def results(path: Path) -> list[Any]:
    """What a client wrote, without a line that it could not end."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def until(true: Callable[[], bool]) -> None:
    """Wait for it, 30 s at most."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def cached(tmp_path: Path) -> int:
    return len(list((tmp_path / "cache").rglob("*.json")))


def stopped(make: BatchClient, count: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a run, and stop it after its first look at the batches."""

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("prospect_hf.llm.batch.time.sleep", interrupted)
        list(make.answers(asked(count), folder, progress=False))


def test_single_calls_killed_twice_lose_nothing_and_pay_nothing_twice(clients: Clients, tmp_path: Path) -> None:
    output = tmp_path / "results"
    with fake_server(faulty(word_of, most_faults=2)) as server:
        given = settings(server, tmp_path, concurrency=6)
        for paid in (10, 25):
            server.hold_after = paid
            client = clients.start(given, 40, output)
            until(lambda: server.held == 6 and cached(tmp_path) == server.paid.total())
            os.kill(client, signal.SIGKILL)
            assert clients.wait() == -signal.SIGKILL
            server.hold_after = None
            until(lambda: server.held == 0)
        clients.start(given, 40, output)
        assert clients.wait() == 0
    assert len(server.paid) == 40 and set(server.paid.values()) == {1}
    last = results(output)[-40:]
    assert sorted(one[0] for one in last) == list(range(40)) and sum(one[2] for one in last) >= 25
    assert all(answer == {"word": f"tall {index}"} for index, answer, _ in last)


def test_a_batch_run_killed_at_each_stage_pays_once(clients: Clients, tmp_path: Path) -> None:
    """After the upload, after the creation before the id is known, while polling, before and after a download."""
    output, folder = tmp_path / "results", tmp_path / "b"
    stages = ["uploaded", "created", "polled", "polled", "polled", "downloaded", "downloaded", "created", "polled"]
    to_come, client, happened = list(stages), [0], []

    def kill(stage: str) -> None:
        """Called before the reply is sent, so that the client never reads it."""
        if to_come and stage == to_come[0]:
            happened.append(to_come.pop(0))
            until(lambda: client[0] > 0)
            os.kill(client[0], signal.SIGKILL)

    with fake_server(faulty(word_of, most_faults=2)) as server:
        server.batches.on = kill
        statuses: list[int] = []
        while not statuses or statuses[-1] != 0:
            client[0] = 0
            client[0] = clients.start(settings(server, tmp_path, batch_requests=15), 30, output, folder)
            statuses.append(clients.wait())
    assert happened == stages and statuses == [-signal.SIGKILL] * len(stages) + [0]
    assert len(server.paid) == 30 and set(server.paid.values()) == {1}
    last = results(output)[-30:]
    assert sorted(one[0] for one in last) == list(range(30))
    assert all(answer == {"word": f"tall {index}"} for index, answer, _ in last)
    # Each file was submitted once, whatever was killed: a batch has a file, and a file one batch.
    files = [batch["input_file_id"] for batch in server.batches.batches.values()]
    assert len(files) == len(set(files)) == len(list(folder.glob("[0-9]*.jsonl")))
    # And uploaded once, but for the one whose reply was not read.
    assert sum(name.startswith("file-") for name in server.batches.files) == len(files) + 1


def test_a_run_that_ends_before_any_write_of_its_state_goes_on_from_the_one_before(
    batch_client: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second question's first answer is rejected: its second try is not forgotten, whatever was not written."""

    def script(request: dict[str, Any]) -> Reply:
        told = len(request["messages"]) > len(MESSAGES)
        return Reply(word_of(request), paid=True) if told or request["seed"] != 1 else Reply("no")

    write, ends_before = BatchFolder.save, 0
    while True:
        saves: list[int] = []

        def save(folder: BatchFolder, written: list[int] = saves, most: int = ends_before) -> None:
            if len(written) == most:
                raise KeyboardInterrupt
            written.append(1)
            write(folder)

        folder = tmp_path / f"b{ends_before}"
        with fake_server(script) as server:
            with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
                patched.setattr(BatchFolder, "save", save)
                list(batch_client(server).answers(asked(3), folder, progress=False))
            if len(saves) < ends_before:
                break
            got = {one.index: one for one in batch_client(server).answers(asked(3), folder, progress=False)}
            assert {index: one.answer for index, one in got.items()} == {n: {"word": f"tall {n}"} for n in range(3)}
            assert got[1].tries == 2 and server.batches.asked == 4 and len(server.batches.batches) == 2
        ends_before += 1
    assert ends_before > 6


def test_a_run_that_is_killed_half_way_through_the_results_yields_the_rest(clients: Clients, tmp_path: Path) -> None:
    """The fifth answer cannot be read by the killed process: its results are a pipe that is full."""
    output, folder = tmp_path / "pipe", tmp_path / "b"
    os.mkfifo(output)
    with fake_server(lambda request: Reply(word_of(request) | {"word": "x" * 30_000}, paid=True)) as server:
        reader = os.open(output, os.O_RDONLY | os.O_NONBLOCK)
        client = clients.start(settings(server, tmp_path), 12, output, folder)
        until(lambda: 0 < cached(tmp_path) < 12 and _is_still(tmp_path))
        os.kill(client, signal.SIGKILL)
        clients.wait()
        os.close(reader)
        half = cached(tmp_path)
        clients.start(settings(server, tmp_path), 12, tmp_path / "results", folder)
        assert clients.wait() == 0
    got = results(tmp_path / "results")
    assert 0 < half < 12 and sorted(one[0] for one in got) == list(range(12)) and sum(one[2] for one in got) == half
    assert len(server.batches.batches) == 1 and set(server.paid.values()) == {1}


def _is_still(tmp_path: Path) -> bool:
    """Whether no answer was added for a moment: the client waits."""
    before = cached(tmp_path)
    time.sleep(0.2)
    return cached(tmp_path) == before


def test_a_file_that_is_not_as_it_was_written_is_named(
    batch_client: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_server([GOOD]) as server:
        stopped(batch_client(server), 2, tmp_path / "b", monkeypatch)
        requests = tmp_path / "b" / "0000.jsonl"
        for damage in (lambda: requests.write_bytes(requests.read_bytes().replace(b"One", b"Two")), requests.unlink):
            damage()
            with pytest.raises(DataError, match=r"0000.jsonl is not as it was written"):
                list(batch_client(server).answers(asked(2), tmp_path / "b", progress=False))


def test_a_batch_that_the_server_does_not_know_is_not_asked_for_anew_unasked(
    batch_client: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_server([GOOD]) as server:
        stopped(batch_client(server), 2, tmp_path / "b", monkeypatch)
        batch = server.batches.batches.pop("batch_0")
        with pytest.raises(UsageError, match=r"has no batch batch_0: use the key of the project that submitted it"):
            list(batch_client(server).answers(asked(2), tmp_path / "b", progress=False))
        server.batches.batches["batch_0"] = {**batch, "status": "completed", "output_file_id": "gone"}
        with pytest.raises(UsageError, match=r"has no result file gone"):
            list(batch_client(server).answers(asked(2), tmp_path / "b", progress=False))


def test_a_lost_reply_to_the_creation_does_not_submit_twice(batch_client: Make, tmp_path: Path) -> None:
    lost: list[str] = []

    def lose(stage: str) -> None:
        if stage == "created" and not lost:
            lost.append(stage)
            # Others submit batches meanwhile, so that the one that was lost is not on the list's first page.
            names = [f"other_{number}" for number in range(5)]
            server.batches.batches |= {name: {"id": name, "metadata": None} for name in names}
            raise ConnectionError("the reply is lost")

    with fake_server([GOOD]) as server:
        server.batches.on = lose
        assert len(list(batch_client(server).answers(asked(3), tmp_path / "b", progress=False))) == 3
        assert lost and [name for name in server.batches.batches if name.startswith("batch")] == ["batch_0"]


def test_trouble_on_the_way_is_waited_out(
    batch_client: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def trouble(stage: str) -> None:
        seen.append(stage)
        if seen.count(stage) < 3:
            raise ConnectionError("now and then")

    with fake_server([GOOD]) as server:
        server.batches.on, server.batches.broken = trouble, 2
        assert len(list(batch_client(server).answers(asked(3), tmp_path / "b", progress=False))) == 3
        assert {stage: seen.count(stage) for stage in ("uploaded", "created", "downloaded")} == {
            "uploaded": 3,
            "created": 1,  # found after its reply was lost
            "downloaded": 5,
        }
        assert "broke off a result file" in caplog.text
        assert "cannot be reached" in caplog.text and "the next attempt follows" in caplog.text
        seen.clear()
        monkeypatch.setattr(batch_module, "PATIENCE", 2)
        with pytest.raises(UsageError, match=r"cannot be reached .* 2 times in a row; .* the same command collects it"):
            list(batch_client(server, temperature=0.5).answers(asked(3), tmp_path / "b", progress=False))


def test_ctrl_c_says_how_to_go_on(
    batch_client: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_server(lambda request: Reply(word_of(request), paid=True)) as server:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):

            def interrupted(seconds: float) -> None:
                raise KeyboardInterrupt

            patched.setattr("prospect_hf.llm.batch.time.sleep", interrupted)
            list(batch_client(server).answers(asked(3), tmp_path / "b", progress=False))
        told = f"go on at the server: 1. The same command collects them; their state is in {tmp_path / 'b'}."
        assert told in caplog.text
        assert len(list(batch_client(server).answers(asked(3), tmp_path / "b", progress=False))) == 3
        assert len(server.batches.batches) == 1 and set(server.paid.values()) == {1}


def test_what_was_submitted_is_kept_although_other_questions_are_asked_now(
    batch_client: Make, client: Callable[..., LLMClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_server(lambda request: Reply(word_of(request), paid=True)) as server:
        stopped(batch_client(server), 6, tmp_path / "b", monkeypatch)
        state = json.loads((tmp_path / "b" / "batches.json").read_text())
        assert [batch["batch_id"] for batch in state["batches"]] == ["batch_0"]
        others = [Question(MESSAGES, SCHEMA, "word", seed) for seed in (4, 5, 6, 7)]
        got = list(batch_client(server).answers(others, tmp_path / "b", progress=False))
        assert sorted(result.index for result in got) == [0, 1, 2, 3] and len(server.batches.batches) == 2
        single = client(server)
        assert single.ask_many(asked(8), progress=False)[7] == {"word": "tall 7"} and single.spent["cached"] == 8
    assert set(server.paid.values()) == {1}


def test_a_folder_belongs_to_one_run_of_one_model(
    batch_client: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "b"
    with fake_server([GOOD]) as server:
        stopped(batch_client(server), 2, folder, monkeypatch)
        with pytest.raises(UsageError, match=r"has 1 open batches of the model m at http"):
            list(batch_client(server, model="other").answers(asked(2), folder, progress=False))
        with sole_writer(folder), pytest.raises(UsageError, match="another run is writing to"):
            list(batch_client(server).answers(asked(2), folder, progress=False))
        assert len(list(batch_client(server).answers(asked(2), folder, progress=False))) == 2
        assert len(list(batch_client(server, model="other").answers(asked(2), folder, progress=False))) == 2


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1}', '{"version": 1, "batches": [{}]}', '{"version": 9}'])
def test_a_broken_state_is_named(batch_client: Make, tmp_path: Path, text: str) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "batches.json").write_text(text)
    with pytest.raises((DataError, UsageError), match=r"batches.json"):
        list(batch_client(FakeServer("http://127.0.0.1:1/v1")).answers(asked(1), tmp_path / "b", progress=False))
