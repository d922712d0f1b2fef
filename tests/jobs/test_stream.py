"""scripts/stream.py as a user runs it: videos and sessions, live and from disk, stopped and gone on with, bad input."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_fixtures import picture, small_processor
from PIL import Image
from stream_fixtures import talkative_model

from prospect_hf.jobs import stream as run_module
from prospect_hf.jobs.stream import main
from prospect_hf.simulator.corpus import write_corpus
from prospect_hf.simulator.scene import SceneConfig
from prospect_hf.streaming.frame_sources import SourceFrame
from prospect_hf.streaming.interrupt import Interrupt
from prospect_hf.streaming.thumbnails import THUMBNAILS, ThumbnailStrip
from prospect_hf.streaming.trace import read_trace
from streaming_dst_smolvlm import DSTStream, StreamError
from turns_dst_smolvlm import Turns

pytest.importorskip("rich", reason="rich is not installed (extra stream)")
PLAN = "stream.plan=[attach the wheel,tighten the bolt,two]"


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
    assert len(parts) == 10
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


def test_ctrl_c_twice_ends_at_once() -> None:
    with Interrupt() as interrupt, pytest.raises(KeyboardInterrupt), interrupt.after_this():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it was not heard")
    with Interrupt(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


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
    assert "no session wtag.none.talk_0" in capsys.readouterr().err


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
        ("stream.live drops some", ["stream.source=SOURCE", PLAN, "stream.live=true", "stream.annotate=true"]),
        ("no stream can be read", ["stream.source=SOURCE", PLAN, "stream.restore=true"]),
        ("no frame from 100 s", ["stream.source=SOURCE", PLAN, "stream.start_s=100"]),
    ],
)
def test_what_cannot_be_followed(
    message: str, settings: list[str], model: str, pictures: Path, output: str, capsys: Any
) -> None:
    settings = [setting.replace("SOURCE", str(pictures)) for setting in settings]
    assert main([model, output, *settings]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_help_is_the_usage(capsys: Any) -> None:
    assert main(["--help"], "usage text") == 0
    assert capsys.readouterr().out == "usage text\n"


def test_the_live_view_on_a_terminal() -> None:
    from rich.console import Console

    from prospect_hf.streaming.live_view import LiveView, bar, clock

    console = Console(force_terminal=True, width=100, record=True)
    hostile = "[red]not markup[/red] \x1b[31m"
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
