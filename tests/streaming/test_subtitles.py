"""Subtitles and the annotated video: times, hostile texts, and a file that decodes as it was meant."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trace_fixtures import HOSTILE, make_trace

from prospect_hf.errors import DataError, UsageError
from prospect_hf.streaming.subtitles import annotate_video, one_line, write_srt
from prospect_hf.streaming.trace import Trace

CUE = re.compile(r"(\d+)\n(\d\d):(\d\d):(\d\d),(\d{3}) --> (\d\d):(\d\d):(\d\d),(\d{3})\n((?:.+\n)+)")


def cues(path: Path) -> list[tuple[float, float, str]]:
    """(start, end, text) of each cue, by a reader that takes every blank line for an end."""
    read = []
    for number, block in enumerate(path.read_bytes().decode().removesuffix("\n").split("\n\n"), start=1):
        match = CUE.fullmatch(block + "\n")
        assert match is not None and int(match[1]) == number, block
        begin, end = (int(match[i]) * 3600 + int(match[i + 1]) * 60 + int(match[i + 2]) + int(match[i + 3]) / 1000
                      for i in (2, 6))  # fmt: skip
        read.append((begin, end, match[10].rstrip("\n")))
    return read


def spoken(texts: dict[int, str], frames: int = 40, users: dict[int, str] | None = None) -> Trace:
    trace = make_trace(frames, 2)
    for event in trace.events:
        event["text"] = texts.get(event["frame"])
        event["user_text"] = (users or {}).get(event["frame"], "")
    return trace


def test_a_cue_begins_when_its_frame_has_been_seen(tmp_path: Path) -> None:
    trace = spoken({0: "Short.", 20: "x" * 89, 22: "Cut short", 23: "by this."}, users={20: "Hm?"})
    assert write_srt(tmp_path / "t.srt", trace) == 4
    assert cues(tmp_path / "t.srt") == [
        (0.5, 2.5, "Assistant: Short."),
        (10.5, 11.5, "User: Hm?\nAssistant: " + "x" * 89),
        (11.5, 12.0, "Assistant: Cut short"),
        (12.0, 14.0, "Assistant: by this."),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["t.srt"]


def test_a_long_text_stays_longer(tmp_path: Path) -> None:
    write_srt(tmp_path / "t.srt", spoken({3: "x" * 89}))
    assert cues(tmp_path / "t.srt") == [(2.0, 8.0, "Assistant: " + "x" * 89)]


def test_times_past_the_hour(tmp_path: Path) -> None:
    trace = spoken({0: "Late."}, frames=1)
    trace.events[0] |= {"frame": 7201, "time": 3600.5}
    write_srt(tmp_path / "t.srt", trace)
    assert "01:00:01,000 --> 01:00:03,000" in (tmp_path / "t.srt").read_text()


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE,
        "a\n\nb",
        "a\r\n\r\n2\r\n00:00:00,000 --> 00:00:01,000",
        "\u2028\u2029\x85\x0b\x0c",
        "\ud800",
        "--->",
        "\u202e",
    ],
)
def test_no_text_breaks_the_file(tmp_path: Path, text: str) -> None:
    trace = spoken({4: text, 8: "fine"}, users={4: text})
    write_srt(tmp_path / "t.srt", trace)
    read = cues(tmp_path / "t.srt")
    assert read[-1] == (4.5, 6.5, "Assistant: fine") and len(read) <= 2
    assert not any("-->" in cue[2] or "<" in cue[2] for cue in read)


def test_nothing_said_is_an_empty_file(tmp_path: Path) -> None:
    assert write_srt(tmp_path / "t.srt", spoken({})) == 0
    assert (tmp_path / "t.srt").read_bytes() == b""


def test_one_line() -> None:
    assert one_line(" a\tb\x00\x1b[31m\u2029c \u202ed\ud800 ") == "a b [31m c d\ufffd"


def gray(level: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def decode(path: Path) -> tuple[list[Any], float, float]:
    """The pictures [height, width, 3], seconds and frames a second of a video."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return pictures, float(stream.duration * stream.time_base), float(stream.average_rate)


@pytest.mark.parametrize("fps", [2.0, 0.5, 29.97])
def test_the_video_plays_at_the_streams_speed(tmp_path: Path, fps: float) -> None:
    pytest.importorskip("av")
    trace = make_trace(12, 3)
    trace.header["fps"] = fps
    path = tmp_path / "v.mp4"
    levels = [20 * i for i in range(12)]
    assert annotate_video(path, trace, (gray(level) for level in levels), size=(360, 480)) == 12
    pictures, seconds, rate = decode(path)
    assert len(pictures) == 12 and seconds == pytest.approx(12 / fps, abs=1e-3) and rate == pytest.approx(fps, rel=1e-3)
    assert pictures[0].shape == (480, 360, 3)
    for picture, level in zip(pictures, levels, strict=True):
        assert abs(float(picture[100:140, 160:200].mean()) - level) < 6
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.mp4"]


def test_arrays_hostile_texts_and_long_plans_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "v.mp4"
    pictures = (np.full((9, 30, 3), 200, np.uint8) for _ in range(20))
    assert annotate_video(path, make_trace(12, 60, text=HOSTILE * 5), pictures, size=(320, 400)) == 12
    assert len(decode(path)[0]) == 12


def test_the_panel_shows_the_state(tmp_path: Path) -> None:
    """A changed state, a probability and a text each change the picture below the video's."""
    pytest.importorskip("av")
    trace = spoken({1: "Well done."}, frames=5)
    for event in trace.events:
        event.update(p_speak=0.1, p_update=0.1, states=[0, 0], transitions=[], probabilities=[[1, 0, 0]] * 2)
        event.update(cache_length=0, context=None)
    trace.events[3].update(p_speak=0.9)
    trace.events[4].update(p_speak=0.9, states=[1, 0], probabilities=[[0, 1, 0], [1, 0, 0]])
    path = tmp_path / "v.mp4"
    annotate_video(path, trace, [gray(128)] * 5, size=(720, 960))
    pictures = [picture.astype(int) for picture in decode(path)[0]]
    regions = {"text": (505, 590), "bars": (600, 645), "steps": (670, 740)}
    changed = [
        {name for name, (a, b) in regions.items() if abs(after[a:b] - before[a:b]).max() > 60}
        for before, after in itertools.pairwise(pictures)
    ]
    assert changed == [{"text"}, set(), {"bars"}, {"steps"}]


def test_what_a_video_cannot_be_made_of(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "v.mp4"
    path.write_bytes(b"old")
    trace = make_trace(4, 2)
    with pytest.raises(DataError, match="no picture for frame 3; the trace has 4 events"):
        annotate_video(path, trace, [gray(1)] * 3)
    with pytest.raises(DataError, match=r"picture of frame 0: expected uint8 .* found float64 \[4, 4\]"):
        annotate_video(path, trace, [np.zeros((4, 4))])  # type: ignore[list-item]
    with pytest.raises(DataError, match="no events"):
        annotate_video(path, Trace(trace.header, []), [])
    with pytest.raises(UsageError, match="must be even"):
        annotate_video(path, trace, [gray(1)] * 4, size=(721, 960))
    with pytest.raises(UsageError, match="no TrueType font"):
        annotate_video(path, trace, [gray(1)] * 4, font=path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_missing_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=re.escape('needs PyAV, which is not installed: `pip install -e ".[stream]"`')):
        annotate_video(tmp_path / "v.mp4", make_trace(2, 2), [gray(1)] * 2)
