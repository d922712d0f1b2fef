"""The trace file: written line by line, read back whole, and every fault named by file, line and key."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any

import pytest
from model_fixtures import picture, small_processor
from stream_fixtures import PLAN, talkative_model
from trace_fixtures import HOSTILE, make_trace, with_plan_change

from prospect_hf.errors import DataError, UsageError
from prospect_hf.streaming.trace import EVENT_KEYS, Trace, TraceWriter, read_stream, read_trace, trace_header
from streaming_dst_smolvlm import DSTStream, StreamEvent
from tracking_dst_smolvlm import Deviation

Event = make_dataclass("Event", EVENT_KEYS)


def write(path: Path, trace: Trace) -> None:
    with TraceWriter(path, trace.header) as writer:
        for event in trace.events:
            writer.write(Event(**event))
        if trace.end is not None:
            writer.end([Deviation(**one) for one in trace.end])


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("text", ["", HOSTILE, "\ud800 lone"])
@pytest.mark.parametrize("reference", [True, False])
def test_what_is_written_is_read_back(tmp_path: Path, text: str, reference: bool) -> None:
    trace = make_trace(40, 3, reference=reference, text=text)
    write(tmp_path / "sub" / "t.jsonl", trace)
    back = read_trace(tmp_path / "sub" / "t.jsonl")
    assert back.header == as_json(trace.header) and back.events == as_json(trace.events) and not back.truncated
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["t.jsonl"]


def test_the_streams_own_event_is_taken(tmp_path: Path) -> None:
    trace = make_trace(30, 3)
    path = tmp_path / "t.jsonl"
    with TraceWriter(path, trace.header) as writer:
        for event in trace.events:
            writer.write(StreamEvent(**event))
    assert read_trace(path).events == as_json([event | {"plan_change": None} for event in trace.events])


def test_nested_dataclasses_become_objects(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Move:
        step: int = 1
        before: int = 0
        after: int = 1

    @dataclass(frozen=True)
    class Nested:
        moves: tuple[Move, ...] = field(default=(Move(),))

    trace = make_trace(1, 3)
    path = tmp_path / "t.jsonl"
    with TraceWriter(path, trace.header) as writer:
        writer.write(Event(**{**trace.events[0], "transitions": Nested().moves}))
    assert read_trace(path).events[0]["transitions"] == [{"step": 1, "before": 0, "after": 1}]


def test_a_running_stream_can_be_followed(tmp_path: Path) -> None:
    """Each line is in the file as soon as it is written, whatever becomes of the stream."""
    trace = make_trace(5, 2)
    path = tmp_path / "t.jsonl"
    with pytest.raises(RuntimeError, match="camera"), TraceWriter(path, trace.header) as writer:
        assert read_trace(path).events == []
        for count, event in enumerate(trace.events, start=1):
            writer.write(Event(**event))
            assert len(read_trace(path).events) == count
        raise RuntimeError("camera")
    assert len(read_trace(path).events) == 5
    with pytest.raises(UsageError, match="not open"):
        writer.write(Event(**{**trace.events[-1], "frame": 5}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", None, 1.5])
def test_an_event_that_could_not_be_read_is_not_written(tmp_path: Path, value: Any) -> None:
    trace = make_trace(2, 2)
    path = tmp_path / "t.jsonl"
    with TraceWriter(path, trace.header) as writer:
        writer.write(Event(**trace.events[0]))
        with pytest.raises(DataError, match=r"t\.jsonl.*frame 1.*'p_speak'"):
            writer.write(Event(**{**trace.events[1], "p_speak": value}))
        writer.write(Event(**trace.events[1]))
    assert len(read_trace(path).events) == 2
    with pytest.raises(DataError, match="'plan'"):
        TraceWriter(tmp_path / "other.jsonl", {**trace.header, "plan": "a string"})


def test_a_value_without_a_json_form_is_refused(tmp_path: Path) -> None:
    trace = make_trace(1, 2)
    with (
        pytest.raises(DataError, match=r"the header holds a value"),
        TraceWriter(tmp_path / "t.jsonl", {**trace.header, "context": {"limit": object()}}),
    ):
        pass


def test_a_line_cut_short_anywhere_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write(path, Trace(**{**vars(make_trace(3, 2, text="Grüße")), "end": None}))
    content = path.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(last + 1, len(content) - 1, 7):
        path.write_bytes(content[:end])
        trace = read_trace(path)
        assert trace.truncated and len(trace.events) == 2
    # Only the line break is missing: the event is whole. Nothing after the line break: so is the file.
    for end, events in ((len(content) - 1, 3), (last, 2)):
        path.write_bytes(content[:end])
        trace = read_trace(path)
        assert not trace.truncated and len(trace.events) == events


def test_the_end_of_the_video_is_told_or_was_not_reached(tmp_path: Path) -> None:
    """Without its line, or with a part of it, the stream was stopped; a trace that continues it has the end."""
    trace, path = make_trace(40), tmp_path / "trace.jsonl"
    end = [{"kind": "unfinished", "step": 1, "other": None}, {"kind": "skipped", "step": 0, "other": None}]
    write(path, Trace(trace.header, trace.events, end=end))
    assert read_trace(path).end == end == read_stream(path).end
    content = path.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(content[: last + 9])
    assert read_trace(path).truncated and read_trace(path).end is None and len(read_trace(path).events) == 40
    path.write_bytes(content[:last])
    assert not read_trace(path).truncated and read_trace(path).end is None
    write(tmp_path / "trace-30.jsonl", Trace({**trace.header, "continues": "trace.jsonl"}, trace.events[30:], end=[]))
    assert read_stream(tmp_path / "trace-30.jsonl").end == []
    with (
        TraceWriter(tmp_path / "other.jsonl", trace.header) as writer,
        pytest.raises(DataError, match=r"the end to be written: key 'deviations\[0\]' names step 9"),
    ):
        writer.end([Deviation("skipped", 9)])


def change(line: int, edit: Callable[[dict[str, Any]], Any]) -> Callable[[list[str]], None]:
    def apply(lines: list[str]) -> None:
        record = json.loads(lines[line])
        edit(record)
        lines[line] = json.dumps(record)

    return apply


def put(line: int, **values: Any) -> Callable[[list[str]], None]:
    return change(line, lambda record: record.update(values))


def replace(line: int, text: str) -> Callable[[list[str]], None]:
    def apply(lines: list[str]) -> None:
        lines[line] = text

    return apply


REFERENCE = {"utterances": [], "states": []}
FAULTS = {
    "kind": (put(0, kind="other"), "line 1: key 'kind' is 'other'"),
    "an event first": (lambda lines: lines.pop(0), "line 1: key 'kind' is None"),
    "version": (put(0, version=1), "line 1: key 'version' is 1"),
    "header key": (change(0, lambda header: header.pop("goal")), "line 1: missing key 'goal'"),
    "header is a list": (replace(0, "[1]"), "line 1: expected a JSON object, found list"),
    "fps": (put(0, fps=0), "line 1: key 'fps' is 0"),
    "threshold": (put(0, speaking_threshold=float("nan")), "line 1: key 'speaking_threshold' is nan"),
    "context": (put(0, context={"share": float("inf")}), "line 1: key 'context.share' is inf"),
    "reference step": (put(0, reference={**REFERENCE, "states": [[3, 2, 1]]}), "line 1: .*states.0.' names step 2 of"),
    "reference state": (put(0, reference={**REFERENCE, "states": [[3, 1, 3]]}), r"line 1: .*is \[3, 1, 3\], not"),
    "reference turn": (put(0, reference={**REFERENCE, "utterances": [{"frame": 1}]}), r"line 1: .*utterances\[0\]"),
    "reference list": (put(0, reference={**REFERENCE, "states": 4}), "line 1: key 'reference.states' is not a list"),
    "reference key": (put(0, reference={}), "line 1, reference: missing keys 'utterances', 'states'"),
    "broken line": (replace(2, '{"frame": 1, "ti'), "line 3: broken JSON"),
    "blank line": (replace(2, ""), "line 3: broken JSON"),
    "event key": (change(2, lambda event: event.pop("latency")), "line 3: missing key 'latency'"),
    "gap": (put(3, frame=5), "line 4: key 'frame' is 5, but frame 2 comes next"),
    "negative frame": (put(1, frame=-1), "line 2: key 'frame' is -1"),
    "NaN": (put(2, p_update=float("nan")), r"line 3 \(frame 1\): key 'p_update' is nan"),
    "infinite": (put(2, time=float("inf")), "line 3 .*'time' is inf"),
    "over one": (put(2, p_speak=1.01), "line 3 .*'p_speak' is 1.01, not a probability"),
    "NaN latency": (put(2, latency={"vision": float("nan")}), "line 3 .*'latency'"),
    "step": (put(2, transitions=[{"step": 2, "before": 0, "after": 1}]), r"line 3 .*'transitions\[0\]' names step 2"),
    "move": (put(2, transitions=[{"step": 1, "before": 0, "after": 3}]), r"line 3 .*'transitions\[0\]'"),
    "states": (put(2, states=[0]), "line 3 .*'states' has 1 entries, but the plan has 2"),
    "state": (put(2, states=[0, 4]), r"line 3 .*'states\[1\]' is 4"),
    "row": (put(2, probabilities=[[0.2, 0.2, 0.2], [1, 0, 0]]), r"line 3 .*'probabilities\[0\]'"),
    "row of NaN": (put(2, probabilities=[[1, 0, 0], [float("nan"), 0, 0]]), r"line 3 .*'probabilities\[1\]'"),
    "text": (put(2, text=3), "line 3 .*'text'"),
    "no deviations": (change(2, lambda event: event.pop("deviations")), "line 3: missing key 'deviations'"),
    "deviations": (put(2, deviations={}), "line 3 .*'deviations' is not a list"),
    "kind of deviation": (
        put(2, deviations=[{"kind": "late", "step": 0, "other": None}]),
        r"line 3 .*'deviations\[0\]'",
    ),
    "odd kind": (put(2, deviations=[{"kind": ["skipped"], "step": 0, "other": None}]), r"line 3 .*'deviations\[0\]'"),
    "no other step": (put(2, deviations=[{"kind": "skipped", "step": 0}]), r"line 3 .*'deviations\[0\]' is"),
    "deviating step": (
        put(2, deviations=[{"kind": "skipped", "step": 0, "other": 2}]),
        r"line 3 .*'deviations\[0\]' names step 2 of",
    ),
    "step that is none": (
        put(2, deviations=[{"kind": "repeated", "step": -1, "other": None}]),
        r"line 3 .*'deviations\[0\]'",
    ),
    "end without a key": (replace(5, '{"ended": true}'), "line 6: missing key 'deviations'"),
    "deviation of the end": (put(5, deviations=[3]), r"line 6: key 'deviations\[0\]' is 3"),
    "two ends": (lambda lines: lines.append(lines[-1]), "line 7: a line after the end of the video"),
    "event context": (put(2, context={"strategy": "drop_all"}), "line 3 .*context: missing keys 'tokens_before'"),
    "tokens": (
        put(2, context={"strategy": "x", "summary": "", "tokens_before": 1.5, "tokens_after": 1}),
        "line 3 .*'context.tokens_before' is 1.5",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_file_line_and_key(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "t.jsonl"
    write(path, make_trace(4, 2))
    lines = path.read_text().splitlines()
    edit, message = FAULTS[fault]
    edit(lines)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=rf"t\.jsonl: {message}"):
        read_trace(path)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.jsonl: the file is empty"):
        read_trace(path)


def test_files_that_are_no_traces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such trace"):
        read_trace(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_trace(tmp_path)
    (tmp_path / "v.mp4").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="line 1: broken JSON"):
        read_trace(tmp_path / "v.mp4")


def test_a_header_says_how_the_stream_decides(tmp_path: Path) -> None:
    stream = DSTStream(
        talkative_model(), small_processor(), PLAN, "the red wheel", context="drop_middle", speaking_threshold=0.25
    )
    reference = {"utterances": [{"frame": 3, "text": "two"}], "states": [[3, 2, 1]]}
    header = trace_header(stream, "clip.mp4", "talkative", reference)
    with TraceWriter(tmp_path / "t.jsonl", header):
        pass
    back = read_trace(tmp_path / "t.jsonl").header
    assert back == as_json(header)
    assert (back["goal"], back["plan"], back["fps"]) == ("the red wheel", PLAN, stream.batch.model.config.fps)
    assert (back["speaking_threshold"], back["source"], back["model"]) == (0.25, "clip.mp4", "talkative")
    assert back["dst_update_threshold"] == stream.batch.model.config.dst_update_threshold
    assert back["context"]["strategy"] == "drop_middle" and back["context"]["max_tokens"] == stream.batch.max_tokens
    assert back["reference"] == reference


def test_a_stream_in_several_traces_is_read_as_one(tmp_path: Path) -> None:
    """Killed after frame 19, continued from frame 15, killed after 29, continued from 25."""
    trace = make_trace(40)
    parts = {"trace.jsonl": (0, 20), "trace-15.jsonl": (15, 30), "trace-25.jsonl": (25, 40)}
    earlier = None
    for name, (first, end) in parts.items():
        with TraceWriter(tmp_path / name, {**trace.header, "continues": earlier}) as writer:
            for event in trace.events[first:end]:
                writer.write(Event(**{**event, "rejected": first}))
        earlier = name
    events = read_stream(tmp_path / "trace-25.jsonl").events
    assert [event["frame"] for event in events] == list(range(40))
    assert [event["rejected"] for event in events] == [0] * 15 + [15] * 10 + [25] * 15
    (tmp_path / "trace-15.jsonl").unlink()
    with pytest.raises(DataError, match=r"trace-15\.jsonl: no such trace"):
        read_stream(tmp_path / "trace-25.jsonl")


def test_what_continues_no_trace_is_refused(tmp_path: Path) -> None:
    trace = make_trace(6)
    for continues, message in (("trace.jsonl", "holds no frame 3"), ("later.jsonl", "continues this one")):
        for name, events, before in (
            ("trace.jsonl", trace.events[:3], None),
            ("later.jsonl", trace.events[4:], continues),
        ):
            (tmp_path / name).unlink(missing_ok=True)
            with TraceWriter(tmp_path / name, {**trace.header, "continues": before}) as writer:
                for event in events:
                    writer.write(Event(**event))
        with pytest.raises(DataError, match=message):
            read_stream(tmp_path / "later.jsonl")
    for name in ("../trace.jsonl", "", 3):
        with pytest.raises(DataError, match="not the name of a trace in the same folder"):
            TraceWriter(tmp_path / "t.jsonl", {**trace.header, "continues": name})


# -- a plan that changes ------------------------------------------------------------------------------------------

NEW = ["Fit the roof", "Attach the front bumper"]
CHANGE = {"before": make_trace(4, 3).header["plan"], "plan": NEW, "goal": "", "kept": [None, 2]}
Changed = make_dataclass("Changed", (*EVENT_KEYS, ("plan_change", Any, None)))


def write_changed(path: Path, trace: Trace, **header: Any) -> None:
    with TraceWriter(path, trace.header | header) as writer:
        for event in trace.events:
            writer.write(Changed(**event))


def changed_trace(frames: int = 4) -> Trace:
    return with_plan_change(make_trace(frames, 3, reference=False), 2, NEW, [None, 2])


def test_a_change_of_the_plan_is_in_the_trace(tmp_path: Path) -> None:
    trace = changed_trace(6)
    write_changed(tmp_path / "t.jsonl", trace)
    back = read_trace(tmp_path / "t.jsonl")
    assert back.plan_changes() == [(2, trace.events[2]["plan_change"])]
    assert back.plans() == [trace.header["plan"]] * 2 + [NEW] * 4
    assert [len(event["states"]) for event in back.events] == [3, 3, 2, 2, 2, 2]
    # What a trace without the key says: the plan stays.
    write(tmp_path / "old.jsonl", make_trace(3, 2))
    assert read_trace(tmp_path / "old.jsonl").plan_changes() == []


def test_the_streams_own_change_is_written_and_read(tmp_path: Path) -> None:
    stream = DSTStream(talkative_model(), small_processor(), PLAN, "the red wheel")
    stream.change_plan(PLAN[1:])  # not told yet: the header has the plan before
    with TraceWriter(tmp_path / "t.jsonl", trace_header(stream, "v", "m")) as writer:
        for frame in range(4):
            if frame == 2:
                stream.change_plan([*PLAN, "now"], "the blue wheel")
            writer.write(stream.step(picture("v", frame)))
    back = read_trace(tmp_path / "t.jsonl")
    assert back.header["plan"] == PLAN
    assert back.plans() == [PLAN[1:]] * 2 + [[*PLAN, "now"]] * 2
    assert [change["kept"] for _, change in back.plan_changes()] == [[1, 2], [None, 0, 1, None]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (3, "'plan_change' is neither null nor an object"),
        ({}, "plan_change: missing keys 'before', 'plan', 'goal', 'kept'"),
        (CHANGE | {"before": NEW}, "'plan_change.before' is not the plan of the frame before"),
        (CHANGE | {"before": 3}, "'plan_change.before' is not the plan"),
        (CHANGE | {"plan": []}, "'plan_change.plan' is no list of strings with at least one"),
        (CHANGE | {"plan": ["a", 3]}, "'plan_change.plan' is no list of strings"),
        (CHANGE | {"plan": "ab"}, "'plan_change.plan' is no list of strings"),
        (CHANGE | {"goal": None}, "'plan_change.goal' is not a string"),
        (CHANGE | {"kept": [0]}, "'plan_change.kept' is no list of 2 entries"),
        (CHANGE | {"kept": 3}, "'plan_change.kept' is no list of 2 entries"),
        (CHANGE | {"kept": [1, 1]}, r"'plan_change.kept' is \[1, 1\], not different steps of the 3 before"),
        (CHANGE | {"kept": [0, 3]}, r"'plan_change.kept' is \[0, 3\]"),
        (CHANGE | {"kept": [0, -1]}, r"'plan_change.kept' is \[0, -1\]"),
        (CHANGE | {"kept": [True, None]}, r"'plan_change.kept' is \[True, None\]"),
        (CHANGE | {"kept": ["0", None]}, r"'plan_change.kept' is \['0', None\]"),
        (CHANGE | {"kept": [[0], None]}, r"'plan_change.kept' is \[\[0\], None\]"),
        (None, "'states' has 2 entries, but the plan has 3"),
    ],
)
def test_a_change_that_cannot_be_is_named(tmp_path: Path, change: Any, message: str) -> None:
    path, trace = tmp_path / "t.jsonl", changed_trace()
    write_changed(path, trace)
    lines = path.read_text().splitlines()
    lines[3] = json.dumps(json.loads(lines[3]) | {"plan_change": change})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=rf"t\.jsonl: line 4.*{message}"):
        read_trace(path)
    trace.events[2]["plan_change"] = change
    with pytest.raises(DataError, match=message):
        write_changed(tmp_path / "new.jsonl", trace)


def test_a_stream_in_several_traces_has_the_plan_of_each_frame(tmp_path: Path) -> None:
    """Killed after frame 4, continued from frame 3, which comes after the change of the plan."""
    trace = changed_trace(8)
    write_changed(tmp_path / "trace.jsonl", Trace(trace.header, trace.events[:5]))
    rest = Trace(trace.header | {"plan": NEW, "goal": "Another toy"}, trace.events[3:])
    write_changed(tmp_path / "trace-3.jsonl", rest, continues="trace.jsonl")
    whole = read_stream(tmp_path / "trace-3.jsonl")
    assert whole.plans() == [trace.header["plan"]] * 2 + [NEW] * 6
    assert whole.header["goal"] == trace.header["goal"] and whole.header["continues"] == "trace.jsonl"
    rest.header["plan"] = NEW[::-1]
    (tmp_path / "trace-3.jsonl").unlink()
    write_changed(tmp_path / "trace-3.jsonl", rest, continues="trace.jsonl")
    with pytest.raises(DataError, match=r"trace\.jsonl: frame 2: key 'plan' is not the plan that the stream was cont"):
        read_stream(tmp_path / "trace-3.jsonl")
