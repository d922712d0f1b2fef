"""The annotate job over a server that fails in all ways, killed and continued: nothing lost, paid twice or invented."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from label_fixtures import STEPS, WITHOUT, annotate, kind_of, labels_corpus, name_of, record, right_answer, spans_of
from llm_fixtures import FakeServer, Reply, fake_server, faulty, question_key
from model_task_fixtures import told
from proassist_fixtures import write_corpus

from prospect_hf.align.alignment import Alignment, Task
from prospect_hf.align.named import NamedAligner, named_aligner
from prospect_hf.annotate import by_both, by_processes
from prospect_hf.errors import DataError
from prospect_hf.labels.spans import Span
from prospect_hf.llm import client as llm

pytest.importorskip("openai", reason="openai is not installed (extra llm)")

KEY = "sk-secret-0123456789abcdef"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def spans_in(one: dict[str, Any]) -> list[Span]:
    return [Span(int(entry["id"][1:]) - 1, entry["start_ts"], entry["end_ts"]) for entry in one["dst"]]


def settings(server: FakeServer, cache: Path, *more: str) -> list[str]:
    return ["labels=llm", "llm.model=m", f"llm.base_url={server.url}", f"llm.cache_dir={cache}", *more]


def wrong_answer(request: dict[str, Any]) -> dict[str, Any]:
    """It fits the schema, and names a line that does not exist."""
    return told(STEPS, {0: [(1, 99)]})


def run_in_process(root: Path, output: Path, given: list[str], log: Path) -> None:
    """A run in a process of its own, which ends with the run's exit code; what it prints goes to ``log``."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        os.environ["OPENAI_API_KEY"] = KEY
        llm.FIRST_WAIT_S = 0.01  # type: ignore[attr-defined]
        os._exit(annotate(root, output, *given))


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that start in no time: the job is imported once, in the process that they are copies of."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["prospect_hf.jobs.annotate", "openai"])
    return context


def kill_when_held(process: Any, server: FakeServer, concurrency: int) -> None:
    """Kill a run with SIGKILL when all of its requests wait, so that what was paid has arrived."""
    until = time.monotonic() + 120
    while server.held < concurrency and process.is_alive() and time.monotonic() < until:
        time.sleep(0.005)
    assert server.held == concurrency, f"the run ended with {process.exitcode}"
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def through_kills(tmp_path: Path, processes: Any, count: int, kills: tuple[int, ...]) -> None:
    """Label ``count`` records with a run that is killed after so many paid answers, and check what is there."""
    root, output, log = tmp_path / "data", tmp_path / "out", tmp_path / "log.txt"
    labels_corpus(root, count)
    refused: set[str] = set()  # questions whose right answer has no line, and is refused

    def right(request: dict[str, Any]) -> dict[str, Any]:
        answer = right_answer(request)
        if not any(step["lines"] for step in answer.values()):
            refused.add(question_key(request))
        return answer

    with fake_server(faulty(right, wrong_answer)) as server:
        given = settings(server, tmp_path / "cache", "llm.concurrency=8", "llm.timeout_s=5")
        for paid in (*kills, None):
            server.hold_after = paid
            process = processes.Process(target=run_in_process, args=(root, output, given, log))
            process.start()
            if paid is not None:
                kill_when_held(process, server, 8)
                assert not (output / "wtag").exists()
        process.join()
    assert process.exitcode == 1, log.read_text()[-2000:]
    names = {name_of(number): kind_of(number) for number in range(count)}
    found = {one["video_uid"]: one for one in lines(output / "wtag/train.jsonl")}
    failures = {one["video_uid"]: one for one in lines(output / "failed/wtag/train.jsonl")}
    # None is lost, none is wrongly accepted, none is wrongly refused.
    assert list(found) == [name for name, kind in names.items() if kind not in WITHOUT]
    assert list(failures) == [name for name, kind in names.items() if kind in WITHOUT]
    assert all(spans_in(one) == spans_of(names[name]) for name, one in found.items())
    assert all(one["reason"] for one in failures.values())
    assert all(one["answers"] for name, one in failures.items() if names[name] == "nothing")
    # None is paid twice.
    accepted = {question: paid for question, paid in server.paid.items() if question not in refused}
    assert len(accepted) == len(found) and set(accepted.values()) == {1}
    assert len(refused) == sum(kind == "nothing" for kind in names.values())
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert log in everything and not any(KEY.encode() in path.read_bytes() for path in everything)


def test_a_run_that_is_killed_twice_loses_and_repeats_nothing(tmp_path: Path, processes: Any) -> None:
    through_kills(tmp_path, processes, 56, (12, 30))


@pytest.mark.slow
def test_a_thousand_records_through_two_kills(tmp_path: Path, processes: Any) -> None:
    through_kills(tmp_path, processes, 1000, (200, 700))


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight records that all get labels; without long waits."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(llm, "FIRST_WAIT_S", 0.01)
    write_corpus(tmp_path / "data", [record(name_of(number)) for number in range(8)])
    return tmp_path / "data"


def right_reply(request: dict[str, Any]) -> Reply:
    return Reply(right_answer(request))


def test_a_limit_ends_a_run_cleanly_and_the_next_goes_on(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_server(right_reply) as server:
        given = settings(server, tmp_path / "cache", "llm.concurrency=1")
        assert annotate(corpus, tmp_path / "out", *given, "llm.max_requests=3") == 1
        told = capsys.readouterr()
        assert "stopped: llm.max_requests: all 3 requests are used" in told.err
        assert "3 videos have labels, 0 have none, 5 were not tried." in told.out
        assert len(lines(tmp_path / "out/wtag/train.jsonl")) == 3
        assert annotate(corpus, tmp_path / "out", *given) == 0
        assert len(server.requests) == 8
        found = lines(tmp_path / "out/wtag/train.jsonl")
        assert [one["video_uid"] for one in found] == [name_of(number) for number in range(8)]
        # The cache answers another run of the same questions; its records are the same.
        assert annotate(corpus, tmp_path / "again", *given) == 0
        assert len(server.requests) == 8
    assert (tmp_path / "again/wtag/train.jsonl").read_bytes() == (tmp_path / "out/wtag/train.jsonl").read_bytes()
    assert found[0]["provenance"].items() >= {"aligner": "llm", "model": "m", "tries": 1, "input_tokens": 100}.items()
    assert found[0]["provenance"]["prompt"] and found[0]["provenance"]["version"]


def test_a_dry_run_tells_the_cost_and_asks_nothing(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    prices = ["llm.usd_per_million_input=1000", "llm.usd_per_million_output=4000"]
    with fake_server(right_reply) as server:
        given = settings(server, tmp_path / "cache", "labels.dry_run=true", *prices)
        assert annotate(corpus, tmp_path / "out", *given) == 0
        assert not server.requests
    told = capsys.readouterr().out
    assert "8 of 8 videos are to be labelled" in told and "8 requests about 8 videos" in told
    dollars, batch = re.search(r"\$([0-9.]+) \(at most \$[0-9.]+\); as a batch \$([0-9]+[.][0-9]+)", told).groups()
    assert 0 < float(batch) == pytest.approx(float(dollars) / 2, abs=0.01)
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_a_wrong_key_ends_the_run_with_a_sentence(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_server([Reply(status=401, body=json.dumps({"error": {"message": f"no such key {KEY}"}}))]) as server:
        assert annotate(corpus, tmp_path / "out", *settings(server, tmp_path / "cache")) == 2
    told = capsys.readouterr()
    assert "check the key in the environment variable OPENAI_API_KEY" in told.err and KEY not in told.err + told.out
    assert "8 requests about 8 videos" in told.out  # before the first call


def test_failures_keep_their_answers_and_are_asked_again_alone(corpus: Path, tmp_path: Path) -> None:
    bad = {name_of(2), name_of(5)}

    def reply(request: dict[str, Any]) -> Reply:
        if any(f"for {name}." in request["messages"][1]["content"] for name in bad):
            return Reply("I cannot say, but line 99 looks right.")
        return right_reply(request)

    with fake_server(reply) as server:
        given = settings(server, tmp_path / "cache", "llm.max_retries=1")
        assert annotate(corpus, tmp_path / "out", *given) == 1
        failures = lines(tmp_path / "out/failed/wtag/train.jsonl")
        assert [one["video_uid"] for one in failures] == sorted(bad)
        assert all(one["answers"] == ["I cannot say, but line 99 looks right."] * 2 for one in failures)
        assert all(one["provenance"]["tries"] == 2 for one in failures)
        assert annotate(corpus, tmp_path / "out", *given) == 1  # failures stay as they are
        asked = len(server.requests)
        assert asked == 6 + 2 * 2
        bad.clear()
        assert annotate(corpus, tmp_path / "out", *given, "labels.retry_failed=true") == 0
        assert len(server.requests) == asked + 2
    assert not (tmp_path / "out/failed/wtag/train.jsonl").exists()
    assert len(lines(tmp_path / "out/wtag/train.jsonl")) == 8


def test_equal_questions_of_two_videos_are_paid_and_counted_once(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = [record("a") | {"video_uid": f"a__view{view}"} for view in range(3)]
    write_corpus(corpus, views)
    with fake_server(right_reply) as server:
        assert annotate(corpus, tmp_path / "out", *settings(server, tmp_path / "cache")) == 0
        assert len(server.requests) == 1
    report = json.loads((tmp_path / "out/annotate/all/report.json").read_text())
    assert report["sources"]["wtag"].items() >= {"labelled": 3, "tries": 1, "input_tokens": 100}.items()


def test_a_long_annotation_is_asked_in_parts_and_is_one_video(corpus: Path, tmp_path: Path) -> None:
    write_corpus(corpus, [record("a", lines=(0,) * 250 + (1,) * 200), record("b")])
    with fake_server(right_reply) as server:
        given = settings(server, tmp_path / "cache", "llm.concurrency=3")
        assert annotate(corpus, tmp_path / "out", *given, "labels.state_rule=monotone") == 0
        asked = len(server.requests)
    long, short = lines(tmp_path / "out/wtag/train.jsonl")
    assert spans_in(long) == [Span(0, 0.0, 1249.0), Span(1, 1250.0, 2249.0)] and spans_in(short) == spans_of("plain")
    assert long["provenance"]["tries"] == asked - 1 == 3 and long["provenance"]["input_tokens"] == 300


def test_a_batch_gives_the_labels_of_single_calls(corpus: Path, tmp_path: Path) -> None:
    prices = ["llm.usd_per_million_input=1", "llm.usd_per_million_output=1", "llm.poll_s=0.01"]
    with fake_server(faulty(right_answer, wrong_answer)) as server:
        assert annotate(corpus, tmp_path / "single", *settings(server, tmp_path / "1", *prices)) == 0
        single = len(server.requests)
    with fake_server(faulty(right_answer, wrong_answer)) as server:
        given = settings(server, tmp_path / "2", *prices, "llm.batch=true")
        assert annotate(corpus, tmp_path / "batch", *given) == 0
        assert len(server.requests) == 0 and single > 8
    records = {name: lines(tmp_path / name / "wtag/train.jsonl") for name in ("single", "batch")}
    assert [one["dst"] for one in records["single"]] == [one["dst"] for one in records["batch"]]
    assert all(one["provenance"]["usd"] > 0 for one in records["batch"])


def test_a_hybrid_run_asks_only_where_meaning_is_not_sure(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = {name_of(number) for number in (0, 3, 6)}

    words = named_aligner("words", "")

    def align(task: Task) -> Alignment:
        """By words, with a confidence of our own."""
        if task.goal.endswith(name_of(1)):
            raise DataError(f"{task.origin}: none of it matches.")
        return replace(words.align(task), confidence=0.9 if task.goal.split()[-1] in sure else 0.2)

    for module in (by_both, by_processes):
        monkeypatch.setattr(module, "named_aligner", lambda name, encoder: NamedAligner(align, f"fake {name}"))
    with fake_server(right_reply) as server:
        given = [*settings(server, tmp_path / "cache"), "labels=hybrid", "llm.usd_per_million_input=1"]
        given += ["llm.usd_per_million_output=1"]
        assert annotate(corpus, tmp_path / "out", *given, "labels.dry_run=true") == 0
        assert "asked about 5 of 8 videos: 5 calls instead of 8, 38% saved" in capsys.readouterr().out
        assert not server.requests
        assert annotate(corpus, tmp_path / "out", *given, "llm.max_requests=2", "llm.concurrency=1") == 1
        assert "5 videos have labels, 0 have none, 3 were not tried." in capsys.readouterr().out
        assert annotate(corpus, tmp_path / "out", *given) == 0
        assert "3 questions instead of 3" in capsys.readouterr().out
        assert len(server.requests) == 5
    found = lines(tmp_path / "out/wtag/train.jsonl")
    assert all(spans_in(one) == spans_of("plain") for one in found)
    by_model = {one["video_uid"] for one in found if one["provenance"]["model"]}
    assert by_model == {one["video_uid"] for one in found} - sure
    assert {one["provenance"]["aligner"] for one in found} == {"hybrid"}
    assert {one["provenance"]["tries"] for one in found if one["video_uid"] in sure} == {0}
