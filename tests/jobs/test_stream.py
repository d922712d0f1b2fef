"""scripts/stream.py as a user runs it: videos and sessions, live and from disk, stopped and gone on with, bad input."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_fixtures import stream as main
from model_fixtures import picture, small_processor
from PIL import Image
from stream_fixtures import talkative_model

from prospect_hf.jobs import stream as run_module
from prospect_hf.simulator.corpus import write_corpus
from prospect_hf.simulator.scene import SceneConfig
from prospect_hf.simulator.script import USER_TYPES
from prospect_hf.streaming.frame_sources import SourceFrame
from prospect_hf.streaming.interrupt import Interrupt
from prospect_hf.streaming.thumbnails import THUMBNAILS, ThumbnailStrip
from prospect_hf.streaming.trace import TraceWriter, read_stream, read_trace
from streaming_dst_smolvlm import DSTStream, StreamError
from turns_dst_smolvlm import Turns

pytest.importorskip("rich", reason="rich is not installed (extra stream)")
PLAN = "stream.plan=[attach the wheel,tighten the bolt,two]"
RANGE = ["stream.source=SOURCE", PLAN]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A trained folder, as far as files go."""
    folder = tmp_path_factory.mktemp("model")
    talkative_model().save_pretrained(folder)
    small_processor().save_pretrained(folder)
    return f"stream.model={folder}"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 pictures of noise."""
    folder = tmp_path_factory.mktemp("pictures")
    for frame in range(24):
        Image.fromarray(picture("clip", frame)).save(folder / f"{frame}.png")
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Iterator[str]:
    yield f"stream.output_dir={tmp_path / 'out'}"


def test_a_folder_of_pictures(model: str, pictures: Path, output: str, tmp_path: Path, capsys: Any) -> None:
    words = "stream.user_texts=['3.0 where does the wheel']"
    arguments = [model, f"stream.source={pictures}", PLAN, "stream.goal=the red wheel", output, words]
    assert main([*arguments, "decoding.max_new_tokens=5", "stream.annotate=true"]) == 0
    told = capsys.readouterr().out
    trace = read_trace(tmp_path / "out" / "trace.jsonl")
    assert len(trace.events) == 24 and trace.header["reference"] is None
    # Said at 3.0 s: heard on frame 5, which ends then.
    assert [event["frame"] for event in trace.events if event["user_text"]] == [5]
    assert "user: where does the wheel" in told and "24 frames" in told
    stream = DSTStream(
        talkative_model(),
        small_processor(),
        ["attach the wheel", "tighten the bolt", "two"],
        "the red wheel",
        decoding=run_module.Decoding(5),
    )
    for frame, event in enumerate(trace.events):
        ours = stream.step(picture("clip", frame), event["user_text"])
        assert event["p_speak"] == pytest.approx(ours.p_speak) and event["text"] == ours.text
        assert tuple(event["states"]) == ours.states
    assert trace.end == [asdict(one) for one in stream.deviations_at_end()]
    for name in ("trace.html", "trace.srt", "trace.mp4", "state/stream.json"):
        assert (tmp_path / "out" / name).stat().st_size > 0, name


def test_a_stopped_stream_goes_on(
    model: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = "stream.user_texts=['2 where','9 where does the wheel']"
    arguments = [model, f"stream.source={pictures}", PLAN, "decoding.temperature=1.1", words]
    assert main([*arguments, f"stream.output_dir={tmp_path / 'whole'}"]) == 0
    step = DSTStream.step

    def interrupted(self: DSTStream, frame: Any, user_text: str | None = None, time: float | None = None) -> Any:
        if self.batch.rows[0].frame == 9:
            raise KeyboardInterrupt
        return step(self, frame, user_text, time)

    monkeypatch.setattr(DSTStream, "step", interrupted)
    part = f"stream.output_dir={tmp_path / 'part'}"
    assert main([*arguments, part]) == 1
    assert "stream.restore=true" in capsys.readouterr().err
    monkeypatch.setattr(DSTStream, "step", step)
    assert main([*arguments, part, "stream.restore=true"]) == 0
    whole = read_trace(tmp_path / "whole" / "trace.jsonl").events
    parts = [*read_trace(tmp_path / "part" / "trace.jsonl").events]
    assert len(parts) == 10 and read_trace(tmp_path / "part" / "trace.jsonl").end is None
    assert read_stream(tmp_path / "part" / "trace-10.jsonl").end == read_trace(tmp_path / "whole" / "trace.jsonl").end
    parts += read_trace(tmp_path / "part" / "trace-10.jsonl").events
    for ours, theirs in zip(parts, whole, strict=True):
        assert {**ours, "latency": None} == {**theirs, "latency": None}
    assert main([model, f"stream.source={pictures}", "stream.plan=[two]", part, "stream.restore=true"]) == 2
    assert "another plan" in capsys.readouterr().err


def test_a_camera_goes_on_in_time(model: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own time begins anew with every run, the stream's goes on."""

    def camera(spec: str, fps: float, start_s: float, end_s: float) -> Any:
        assert spec == "webcam:0" and start_s == 0.0
        for index in range(4):
            yield SourceFrame(index, index / fps, Image.fromarray(picture("camera", index)))

    monkeypatch.setattr("prospect_hf.streaming.followed_task.open_source", camera)
    arguments = [model, "stream.source=webcam:0", PLAN, output]
    assert main(arguments) == 0 and main([*arguments, "stream.restore=true"]) == 0
    events = [
        *read_trace(tmp_path / "out" / "trace.jsonl").events,
        *read_trace(tmp_path / "out" / "trace-4.jsonl").events,
    ]
    assert [event["time"] for event in events] == [frame / 2 for frame in range(8)]


def test_a_trace_holds_no_password(model: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(spec: str, *times: float) -> Any:
        assert spec == "rtsp://me:secret@host/live"
        yield SourceFrame(0, 0.0, Image.fromarray(picture("camera", 0)))

    monkeypatch.setattr("prospect_hf.streaming.followed_task.open_source", stream)
    assert main([model, "stream.source='rtsp://me:secret@host/live'", PLAN, output]) == 0
    assert read_trace(tmp_path / "out" / "trace.jsonl").header["source"] == "rtsp://host/live"
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_ctrl_c_waits_for_the_frame(
    model: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """In the middle of a frame it is heard at its end, and the stream goes on as if it had never stopped."""
    arguments = [model, f"stream.source={pictures}", PLAN]
    assert main([*arguments, f"stream.output_dir={tmp_path / 'whole'}"]) == 0
    decide = Turns.decide
    asked = []

    def signalled(self: Any, row: Any, *answers: Any) -> None:
        if row.frame == 7 and not asked:
            asked.append(row.phase)
            signal.raise_signal(signal.SIGINT)
        decide(self, row, *answers)

    monkeypatch.setattr(Turns, "decide", signalled)
    before = signal.getsignal(signal.SIGINT)
    part = f"stream.output_dir={tmp_path / 'part'}"
    assert main([*arguments, part]) == 1 and asked == ["frame"]
    assert "stream.restore=true" in capsys.readouterr().err and signal.getsignal(signal.SIGINT) == before
    assert main([*arguments, part, "stream.restore=true"]) == 0
    parts = [*read_trace(tmp_path / "part" / "trace.jsonl").events]
    assert len(parts) == 8
    parts += read_trace(tmp_path / "part" / "trace-8.jsonl").events
    for ours, theirs in zip(parts, read_trace(tmp_path / "whole" / "trace.jsonl").events, strict=True):
        assert {**ours, "latency": None} == {**theirs, "latency": None}


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_second_stop_ends_the_frame_at_once(stop: signal.Signals) -> None:
    with Interrupt() as interrupt, pytest.raises(KeyboardInterrupt), interrupt.after_this():
        signal.raise_signal(stop)
        signal.raise_signal(stop)
        raise AssertionError("it was not heard")
    with Interrupt(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(stop)


def test_an_unexpected_error_loses_no_output(
    model: str, pictures: Path, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = DSTStream.step

    def fails(self: DSTStream, frame: Any, user_text: str | None = None, time: float | None = None) -> Any:
        if self.batch.rows[0].frame == 4:
            raise RuntimeError("a fault")
        return step(self, frame, user_text, time)

    monkeypatch.setattr(DSTStream, "step", fails)
    with pytest.raises(RuntimeError, match="a fault"):
        main([model, f"stream.source={pictures}", PLAN, output])
    assert len(read_trace(tmp_path / "out" / "trace.jsonl").events) == 5
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"trace.html", "trace.srt", "state"}


def test_a_source_that_breaks_off_keeps_what_was_seen(
    model: str, pictures: Path, output: str, tmp_path: Path, capsys: Any
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in pictures.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "7.png").write_bytes(b"no picture")
    assert main([model, f"stream.source={broken}", PLAN, output]) == 1
    assert "7.png" in capsys.readouterr().err
    assert len(read_trace(tmp_path / "out" / "trace.jsonl").events) == 7


def test_live_from_disk_drops_frames_and_counts_them(
    model: str, pictures: Path, output: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hurried(run_module.LivePace):
        def __init__(self, source: Any, *, realtime: bool) -> None:
            assert realtime
            super().__init__(source)  # as fast as the disk gives them

    monkeypatch.setattr(run_module, "LivePace", Hurried)
    assert main([model, f"stream.source={pictures}", PLAN, output, "stream.live=true"]) == 0
    events = read_trace(tmp_path / "out" / "trace.jsonl").events
    assert f"{24 - len(events)} dropped" in capsys.readouterr().out
    assert events[-1]["time"] == 11.5  # the last frame is never dropped
    times = [event["time"] for event in events]
    assert times == sorted(set(times)) and [event["frame"] for event in events] == list(range(len(events)))


def test_a_session_is_compared_with_its_labels(model: str, output: str, tmp_path: Path, capsys: Any) -> None:
    root = tmp_path / "corpus"
    write_corpus(root, ["wtag"], {"test": 2}, 0, SceneConfig(steps=(2, 3)), progress=False)
    dialogs = json.loads((root / "processed_data/wtag/generated_dialogs/test_filtered.json").read_text())
    name = f"wtag.{dialogs[0]['video_uid']}.{dialogs[0]['conversations'][0]['user_type']}_0"
    cache = f"stream.cache_dir={tmp_path / 'cache'}"
    assert main([model, f"stream.root={root}", f"stream.session={name}", output, cache]) == 0
    trace = read_trace(tmp_path / "out" / "trace.jsonl")
    reference = trace.header["reference"]
    assert trace.header["source"] == name and reference["states"]
    assert {state for _, _, state in reference["states"]} == {1, 2}
    assert main([model, f"stream.root={root}", "stream.session=wtag.none.talk_0", output, cache]) == 2
    error = capsys.readouterr().err
    assert "no session wtag.none.talk_0 among the 2 of wtag" in error
    assert all(f"wtag.T-sim-test-0000{index}__view0.{kind}_0" in error for index, kind in enumerate(USER_TYPES[:2]))


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("stream.source=VIDEO", [PLAN]),
        ("Give the plan", ["stream.source=SOURCE"]),
        ("no such file", ["stream.source=/no/where.mp4", PLAN]),
        ("plan is empty", ["stream.source=SOURCE", "stream.plan_file=/dev/null"]),
        ("cannot be read", ["stream.source=SOURCE", "stream.plan_file=/no/plan.txt"]),
        ("context strategy", ["stream.source=SOURCE", PLAN, "context.strategy=forget"]),
        ("max_tokens=50", ["stream.source=SOURCE", PLAN, "context.max_tokens=50"]),
        ("no config.json", ["stream.source=SOURCE", PLAN, "stream.model=/no/where"]),
        ("did you mean stream.source", ["stream.sorce=SOURCE", PLAN]),
        ("temperature", ["stream.source=SOURCE", PLAN, "decoding.temperature=-1"]),
        ("leave those settings out", ["stream.session=wtag.x", "stream.root=.", PLAN]),
        ("stream.root", ["stream.session=wtag.x"]),
        ("stream.frames must be", ["stream.session=wtag.x", "stream.root=.", "stream.frames=drawn"]),
        ("none of the sources", ["stream.session=x.y", "stream.root=."]),
        ("number of seconds", ["stream.source=SOURCE", PLAN, "stream.user_texts=[soon hello]"]),
        ("/no/changes.json: no such file", [*RANGE, "stream.plan_changes=/no/changes.json"]),
        ("the changes of the plan cannot be read", [*RANGE, "stream.plan_changes=SOURCE"]),
        ("leave those settings out", ["stream.session=wtag.x", "stream.root=.", "stream.plan_changes=x.json"]),
        ("stream.live drops some", ["stream.source=SOURCE", PLAN, "stream.live=true", "stream.annotate=true"]),
        ("no stream can be read", ["stream.source=SOURCE", PLAN, "stream.restore=true"]),
        ("no frame from 100 s", ["stream.source=SOURCE", PLAN, "stream.start_s=100"]),
        ("snapshot_minutes must be 0 or more minutes, not -1", [*RANGE, "stream.snapshot_minutes=-1"]),
        ("start_s must be 0 or more seconds, not -5", ["stream.source=SOURCE", PLAN, "stream.start_s=-5"]),
        ("start_s must be 0 or more seconds, not nan", ["stream.source=SOURCE", PLAN, "stream.start_s=.nan"]),
        ("end_s=5 must come after stream.start_s=5", [*RANGE, "stream.start_s=5", "stream.end_s=5"]),
        ("end_s=-1 must come after stream.start_s=0", [*RANGE, "stream.end_s=-1"]),
        ("speaking_threshold must lie in [0, 1], not 7", [*RANGE, "stream.speaking_threshold=7"]),
        ("dst_update_threshold must lie in [0, 1], not -0.1", [*RANGE, "stream.dst_update_threshold=-0.1"]),
        ("followed whole: leave stream.start_s", ["stream.session=wtag.x", "stream.root=.", "stream.start_s=10"]),
        ("followed whole: leave stream.start_s", ["stream.session=wtag.x", "stream.root=.", "stream.end_s=5"]),
        ("'2 hello' falls outside the part", [*RANGE, "stream.start_s=3", "stream.user_texts=[2 hello]"]),
        ("'9 hello' falls outside the part", [*RANGE, "stream.end_s=8", "stream.user_texts=[9 hello]"]),
        ("'nan hello' falls outside the part", [*RANGE, "stream.user_texts=[nan hello]"]),
        ("'-1 hello' falls outside the part", [*RANGE, "stream.user_texts=['-1 hello']"]),
    ],
)
def test_what_cannot_be_followed(
    message: str, settings: list[str], model: str, pictures: Path, output: str, capsys: Any
) -> None:
    settings = [setting.replace("SOURCE", str(pictures)) for setting in settings]
    assert main([model, output, *settings]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_the_live_view_on_a_terminal() -> None:
    from rich.console import Console

    from prospect_hf.streaming.live_view import LiveView, bar, clock

    console = Console(force_terminal=True, width=100, record=True)
    hostile = "[red]not markup[/red] \x1b[31m\x9b\u202e"
    plan = [hostile, *(f"step {number}" for number in range(2, 41))]
    with LiveView(plan, hostile, 0.0, 0.5, console) as view:
        stream = DSTStream(
            talkative_model(),
            small_processor(),
            plan,
            hostile,
            on_text=lambda frame, piece: view.hear(piece),
            speaking_threshold=0.0,
        )
        for frame in range(4):
            view.show(stream.step(picture("v", frame), hostile if frame == 1 else None), dropped=2)
    shown = console.export_text()
    assert r"\x1b[31m\x9b\u202e" in shown and not {"\x1b", "\x9b", "\u202e"} & set(shown)
    assert "[red]not markup[/red]" in shown and "steps 1 to 20 of 40" in shown and "2 frames dropped" in shown
    assert (
        view.fps > 0 and clock(75.25) == "1:15.2" and clock(59.96) == "1:00.0" and str(bar(0.5, 1.0)).count("█") == 10
    )


def test_pictures_of_the_strip_stay_few() -> None:
    strip = ThumbnailStrip()
    for frame in range(2000):
        strip.add(frame, np.zeros((300, 200, 3), np.uint8))
    assert len(strip.pictures) <= THUMBNAILS
    assert set(np.diff(sorted(strip.pictures))) == {16} and max(strip.pictures[0].size) == 160


def test_errors_of_the_stream_are_one_sentence(
    model: str, pictures: Path, output: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def refused(self: Any, *args: Any) -> Any:
        raise StreamError("the first frame\nis refused")

    monkeypatch.setattr(DSTStream, "step", refused)
    assert main([model, f"stream.source={pictures}", PLAN, output]) == 2
    assert capsys.readouterr().err == "error: the first frame is refused\n"
    assert sys.exc_info() == (None, None, None)


def test_a_part_of_a_source(model: str, pictures: Path, output: str, tmp_path: Path) -> None:
    """Frames, times and words are those of the source's own clock."""
    words = "stream.user_texts=[3 where does the wheel,5 where]"
    assert main([model, f"stream.source={pictures}", PLAN, output, "stream.start_s=3", "stream.end_s=5", words]) == 0
    events = read_trace(tmp_path / "out" / "trace.jsonl").events
    assert [event["time"] for event in events] == [3.0, 3.5, 4.0, 4.5]
    # 3 s is where the part begins, 5 s is the end of its last frame.
    assert [event["user_text"] for event in events] == ["where does the wheel", "", "", "where"]


# --- a stream that lives long


def run_process(settings: list[str], until_frames: int, output: Path, stop: signal.Signals) -> int:
    """The job in a process of its own, which gets a signal when its trace holds some frames; its exit code."""
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, str(root / "scripts" / "stream.py"), *settings],
        env={**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    trace = output / "trace.jsonl"
    while not trace.exists() or trace.read_bytes().count(b"\n") <= until_frames:
        assert process.poll() is None and time.monotonic() < deadline, process.stderr and process.stderr.read()
        time.sleep(0.02)
    process.send_signal(stop)
    process.communicate(timeout=60)
    return process.returncode


# The number of threads decides about the last digits.
ROUNDED = dict.fromkeys(("latency", "p_speak", "p_update", "probabilities"))


def same_events(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert {**one, **ROUNDED} == {**other, **ROUNDED}
        assert one["p_speak"] == pytest.approx(other["p_speak"], abs=1e-4)
        assert np.allclose(one["probabilities"], other["probabilities"], atol=1e-4)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_stream_that_is_killed_goes_on(
    stop: signal.Signals, model: str, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    """What follows is the stream that was never interrupted, whether its last frames were lost with the process or not.

    The process follows a longer source than is left afterwards, so that it is stopped on the way.
    """
    long, part = tmp_path / "long", tmp_path / "part"
    long.mkdir()
    for frame in range(240):
        (long / f"{frame}.png").symlink_to(pictures / f"{frame % 24}.png")
    arguments = [model, f"stream.source={long}", PLAN, "decoding.temperature=1.1"]
    code = run_process([*arguments, "stream.snapshot_minutes=0.001", f"stream.output_dir={part}"], 4, part, stop)
    before = read_trace(part / "trace.jsonl").events
    assert 4 <= len(before) < 240
    for frame in range(len(before) + 10, 240):
        (long / f"{frame}.png").unlink()
    if stop == signal.SIGTERM:
        assert code == 1 and (part / "trace.html").is_file() and (part / "trace.srt").is_file()
    else:
        assert code == -signal.SIGKILL and not (part / "trace.html").exists()
    assert main([*arguments, f"stream.output_dir={part}", "stream.restore=true"]) == 0
    (last,) = part.glob("trace-*.jsonl")
    assert main([*arguments, f"stream.output_dir={tmp_path / 'whole'}"]) == 0
    same_events(read_stream(last).events, read_trace(tmp_path / "whole" / "trace.jsonl").events)
    assert read_trace(part / "trace.jsonl").events == before
    if stop == signal.SIGTERM:
        assert last.name == f"trace-{len(before)}.jsonl"
    shown = last.with_suffix(".srt").read_text()
    assert shown == (tmp_path / "whole" / "trace.srt").read_text()
    # At the end there is nothing to follow: outputs that a kill prevented are written then.
    last.with_suffix(".html").unlink()
    assert main([*arguments, f"stream.output_dir={part}", "stream.restore=true"]) == 0
    assert last.with_suffix(".html").is_file() and "has ended" in capsys.readouterr().out
    assert len(list(part.glob("trace*.jsonl"))) == 2


def test_a_trace_is_never_replaced(model: str, pictures: Path, output: str, tmp_path: Path, capsys: Any) -> None:
    arguments = [model, f"stream.source={pictures}", PLAN, output]
    assert main([*arguments, "stream.end_s=2"]) == 0
    first = (tmp_path / "out" / "trace.jsonl").read_bytes()
    assert main([*arguments, "stream.end_s=3"]) == 0
    assert "this one is trace_2.jsonl" in capsys.readouterr().out
    assert (tmp_path / "out" / "trace.jsonl").read_bytes() == first
    assert len(read_trace(tmp_path / "out" / "trace_2.jsonl").events) == 6
    assert (tmp_path / "out" / "trace_2.html").is_file()
    # Twice from one snapshot: of the frames that were followed twice, those of the later trace count.
    shutil.copytree(tmp_path / "out" / "state", tmp_path / "kept")
    assert main([*arguments, "stream.restore=true", "stream.end_s=5"]) == 0
    shutil.rmtree(tmp_path / "out" / "state")
    (tmp_path / "kept").rename(tmp_path / "out" / "state.old")  # killed between the two renames
    (tmp_path / "out" / "state.1-ab.partial").mkdir()
    assert main([*arguments, "stream.restore=true"]) == 0
    assert not list((tmp_path / "out").glob("*.partial"))
    trace = read_stream(tmp_path / "out" / "trace-6_2.jsonl")
    assert trace.header["continues"] == "trace_2.jsonl"
    assert [event["frame"] for event in trace.events] == list(range(24))


def test_a_stream_without_a_frame_leaves_no_trace(model: str, pictures: Path, output: str, tmp_path: Path) -> None:
    assert main([model, f"stream.source={pictures}", PLAN, output, "stream.start_s=100"]) == 2
    assert not list((tmp_path / "out").glob("trace*"))


def test_the_first_error_is_the_one_that_is_told(
    model: str, pictures: Path, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The source breaks off, then the disk is full: all that can be written is, and the source's error is told."""
    broken = tmp_path / "broken"
    shutil.copytree(pictures, broken)
    (broken / "7.png").write_bytes(b"no picture")

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_page", full)
        patch.setattr(TraceWriter, "__exit__", full)
        assert main([model, f"stream.source={broken}", PLAN, output]) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ") and "7.png" in error.splitlines()[-1]
    assert "no page" in error and "Traceback" not in error
    assert (tmp_path / "out" / "trace.srt").is_file() and (tmp_path / "out" / "state" / "stream.json").is_file()
    # Without an earlier one it is the error of the page.
    monkeypatch.setattr(run_module, "write_page", full)
    assert main([model, f"stream.source={pictures}", PLAN, output]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: no space is left on the disk: ")
    assert (tmp_path / "out" / "trace_2.srt").is_file()


@pytest.mark.parametrize("part", ["trace", "console"])
def test_an_error_of_disk_or_console_loses_no_output(
    part: str, model: str, pictures: Path, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from prospect_hf.streaming.live_view import LiveView

    calls = []

    def fails(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) >= 5:
            raise OSError(errno.EIO, "Input/output error")
        method(*arguments)

    place, name = (TraceWriter, "_append") if part == "trace" else (LiveView, "show")
    method = getattr(place, name)
    monkeypatch.setattr(place, name, fails)
    assert main([model, f"stream.source={pictures}", PLAN, output]) == 1
    assert "error: the disk cannot be read or written" in capsys.readouterr().err
    assert len(read_trace(tmp_path / "out" / "trace.jsonl").events) == (3 if part == "trace" else 5)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"trace.html", "trace.srt", "state"}


def test_a_snapshot_that_cannot_be_written_stops_no_stream(
    model: str, pictures: Path, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    save = run_module.save_stream

    def full(stream: DSTStream, *arguments: Any) -> None:
        if stream.batch.rows[0].frame == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(stream, *arguments)

    monkeypatch.setattr(run_module, "save_stream", full)
    assert main([model, f"stream.source={pictures}", PLAN, output]) == 0
    assert "no snapshot after frame 0: [Errno 28]" in capsys.readouterr().err
    assert len(read_trace(tmp_path / "out" / "trace.jsonl").events) == 24
