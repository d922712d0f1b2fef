"""scripts/stream.py with a plan that changes at given times: what it refuses, stopped and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from job_fixtures import stream as main
from model_fixtures import picture, small_processor
from PIL import Image
from stream_fixtures import talkative_model

from prospect_hf.jobs import stream as run_module
from prospect_hf.streaming.frame_sources import SourceFrame
from prospect_hf.streaming.trace import read_stream, read_trace
from streaming_dst_smolvlm import Decoding, DSTStream, StreamError

pytest.importorskip("rich", reason="rich is not installed (extra stream)")
PLAN = ["attach the wheel", "tighten the bolt", "two"]
LATER = ["now please", "two", "attach the wheel"]
# 3.2 s lies in frame 6, which is decided at 3.5 s; 6.0 s is the beginning of frame 12.
CHANGES = [{"time": 3.2, "plan": LATER, "goal": "the blue wheel"}, {"time": 6.0, "plan": [*PLAN, "now"]}]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The settings of a stream over 16 pictures of noise, without changes of the plan."""
    folder = tmp_path_factory.mktemp("made")
    talkative_model().save_pretrained(folder / "model")
    small_processor().save_pretrained(folder / "model")
    (folder / "pictures").mkdir()
    for frame in range(16):
        Image.fromarray(picture("clip", frame)).save(folder / "pictures" / f"{frame:02}.png")
    source = [f"stream.model={folder / 'model'}", f"stream.source={folder / 'pictures'}"]
    return [*source, f"stream.plan=[{','.join(PLAN)}]", "stream.goal=the red wheel", "decoding.max_new_tokens=5"]


def changes_in(path: Path, changes: Any) -> str:
    path.write_text(changes if isinstance(changes, str) else json.dumps(changes), encoding="utf-8")
    return f"stream.plan_changes={path}"


def test_the_plan_changes_at_its_times(given: list[str], tmp_path: Path, capsys: Any) -> None:
    arguments = [*given, changes_in(tmp_path / "c.json", CHANGES), f"stream.output_dir={tmp_path / 'out'}"]
    assert main([*arguments, "stream.annotate=true"]) == 0
    told = capsys.readouterr().out
    assert "plan changed: 3 steps, 2 kept" in told and "plan changed: 4 steps, 2 kept" in told
    trace = read_trace(tmp_path / "out" / "trace.jsonl")
    assert [index for index, _ in trace.plan_changes()] == [6, 12] and trace.header["plan"] == PLAN
    assert [change["goal"] for _, change in trace.plan_changes()] == ["the blue wheel"] * 2
    stream = DSTStream(talkative_model(), small_processor(), PLAN, "the red wheel", decoding=Decoding(5))
    for frame, event in enumerate(trace.events):
        if frame in (6, 12):
            stream.change_plan(LATER if frame == 6 else [*PLAN, "now"], "the blue wheel")
        ours = stream.step(picture("clip", frame))
        assert event["p_speak"] == pytest.approx(ours.p_speak) and tuple(event["states"]) == ours.states
    for name in ("trace.html", "trace.srt", "trace.mp4"):
        assert (tmp_path / "out" / name).stat().st_size > 0, name


def test_a_change_after_the_end_is_told(given: list[str], tmp_path: Path, capsys: Any) -> None:
    changes = changes_in(tmp_path / "c.json", [{"time": 0, "plan": LATER}, {"time": 8.0, "plan": PLAN}])
    assert main([*given, changes, f"stream.output_dir={tmp_path / 'out'}"]) == 0
    assert "the source ended before the plan was to change at 8 s" in capsys.readouterr().err
    trace = read_trace(tmp_path / "out" / "trace.jsonl")
    assert [index for index, _ in trace.plan_changes()] == [0] and len(trace.events) == 16


@pytest.mark.parametrize("at", [6, 13])
def test_a_stopped_stream_goes_on_with_its_plan(
    at: int, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Stopped after a change, and on frame 6, for which the change is made before the frame cannot be used."""
    arguments = [*given, changes_in(tmp_path / "c.json", CHANGES)]
    step = DSTStream.step

    def stopped(self: DSTStream, *args: Any) -> Any:
        if self.batch.rows[0].frame == at - 1:
            raise StreamError("this frame cannot be used")
        return step(self, *args)

    part = f"stream.output_dir={tmp_path / 'part'}"
    with monkeypatch.context() as patch:
        patch.setattr(DSTStream, "step", stopped)
        assert main([*arguments, part]) == 1
    assert main([*arguments, part, "stream.restore=true"]) == 0
    assert main([*arguments, f"stream.output_dir={tmp_path / 'whole'}"]) == 0
    ours, whole = read_stream(tmp_path / "part" / f"trace-{at}.jsonl"), read_trace(tmp_path / "whole" / "trace.jsonl")
    assert ours.plan_changes() == whole.plan_changes() and ours.header["plan"] == PLAN
    for one, other in zip(ours.events, whole.events, strict=True):
        assert one | {"latency": None} == other | {"latency": None}
    capsys.readouterr()
    if at > 6:  # with other changes, the stream would not be in this plan
        assert main([*given, part, "stream.restore=true"]) == 2
        assert "another plan" in capsys.readouterr().err


def test_a_camera_goes_on_in_the_streams_time(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own clock begins at 0 again, the plan does not."""

    def camera(*args: Any) -> Any:
        return (SourceFrame(frame, frame / 2, Image.fromarray(picture("c", frame))) for frame in range(8))

    monkeypatch.setattr("prospect_hf.streaming.followed_task.open_source", camera)
    arguments = [given[0], "stream.source=webcam:0", *given[2:], f"stream.output_dir={tmp_path / 'out'}"]
    arguments.append(changes_in(tmp_path / "c.json", CHANGES))
    assert main(arguments) == 0 and main([*arguments, "stream.restore=true"]) == 0
    trace = read_stream(tmp_path / "out" / "trace-8.jsonl")
    assert [index for index, _ in trace.plan_changes()] == [6, 12] and len(trace.events) == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("", "invalid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ({"time": 1, "plan": PLAN}, "expected a list of changes"),
        ([], "expected a list of changes"),
        ([3], "change 1 is a number; expected an object"),
        ([{"plan": PLAN}], "change 1: key 'time' is missing"),
        ([{"time": "1", "plan": PLAN}], "change 1: 'time' is text; expected a number"),
        ([{"time": True, "plan": PLAN}], "change 1: 'time' is true or false"),
        ([{"time": -1, "plan": PLAN}], "change 1: 'time' is -1; it must not be negative"),
        ('[{"time": NaN, "plan": ["a"]}]', "change 1: 'time' is nan; expected a finite number"),
        ([CHANGES[1], CHANGES[0]], "change 2: time 3.2 does not come after 6"),
        ([CHANGES[0], CHANGES[0]], "change 2: time 3.2 does not come after 3.2"),
        ([{"time": 1}], "change 1: key 'plan' is missing"),
        ([{"time": 1, "plan": "a"}], "change 1: 'plan' is text; expected a list"),
        ([{"time": 1, "plan": []}], "change 1: 'plan' is an empty list"),
        ([{"time": 1, "plan": ["a", " "]}], "change 1: step 2 of 'plan' is ' '; expected text"),
        ([{"time": 1, "plan": ["a", 2]}], "change 1: step 2 of 'plan' is 2; expected text"),
        ('[{"time": 1, "plan": ["\\ud83d"]}]', "the plan of 1 s: Step 1 of the plan holds half a character"),
        ([{"time": 1, "plan": ["\x00"]}], "the plan of 1 s: Step 1 of the plan is empty"),
        ([{"time": 1, "plan": PLAN, "goal": 3}], "change 1: 'goal' is a number; expected text"),
        ([{"time": 1, "plan": PLAN, "steps": PLAN}], "change 1: key 'steps' is unknown; a change has time, plan, goal"),
        ([{"time": 1, "plan": ["attach the wheel"] * 400}], "the plan of 1 s: What must be kept takes"),
        ([{"time": 1, "plan": PLAN, "goal": "wheel " * 2000}], "the plan of 1 s: What must be kept takes"),
        ([{"time": 9, "plan": PLAN}], "the change at 9 s falls outside the part that is followed"),
    ],
)
def test_changes_that_cannot_be_used(
    changes: Any, message: str, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(run_module, "load_trained", lambda _: (talkative_model(), small_processor()))
    file = changes_in(tmp_path / "c.json", changes)
    assert main([*given, file, f"stream.output_dir={tmp_path / 'out'}", "stream.end_s=8"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list((tmp_path / "out").glob("trace*"))
