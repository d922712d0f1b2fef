"""One visitor of the demo: the stream behind a page, its limits, and what it leaves behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed (extra demo)")
pytest.importorskip("av", reason="PyAV is not installed (extra stream)")

from demo_fixtures import NASTY, last, settings, shared_by_all
from trace_fixtures import HOSTILE
from video_fixtures import numbered

from prospect_hf.errors import UsageError
from prospect_hf.jobs.command import make_parser
from prospect_hf.jobs.model_commands import DEMO
from prospect_hf.streaming.demo import components as demo_parts
from prospect_hf.streaming.demo import handlers
from prospect_hf.streaming.demo import visitor as visitor_module
from prospect_hf.streaming.demo.folder import remove_abandoned
from prospect_hf.streaming.demo.limits import Limits
from prospect_hf.streaming.demo.visitor import Shown, Visitor
from prospect_hf.streaming.trace import read_trace
from streaming_dst_smolvlm import StreamError


@pytest.fixture
def visitor(tmp_path: Path) -> Visitor:
    return Visitor(shared_by_all(tmp_path))


def test_a_video_is_followed_to_its_end_and_leaves_trace_and_page(visitor: Visitor, clip: Path) -> None:
    shown = last(visitor.follow(settings(clip)))
    assert shown.plan == ["attach the wheel", "tighten the bolt", "two"]
    assert shown.frames == 12 and not shown.failed and shown.message.startswith("Followed to the end: 12 frames")
    assert shown.files is not None and not visitor.running
    trace = read_trace(shown.files[0])
    assert [event["frame"] for event in trace.events] == list(range(12))
    assert trace.header["source"] == "clip.mp4" and trace.header["model"] == "talkative"
    assert trace.header["plan"] == shown.plan and trace.header["goal"] == "the red wheel"
    said = [event["text"] for event in trace.events if event["text"]]
    assert said and len([who for _, who, _ in shown.words if who == "assistant"]) == len(said)
    page = shown.files[1].read_text(encoding="utf-8")
    assert "data:image/jpeg;base64," in page and str(clip.parent) not in page


def test_thresholds_and_strategy_are_those_of_the_page(visitor: Visitor, clip: Path) -> None:
    silent = settings(clip, speaking_threshold=1.0, dst_update_threshold=1.0, strategy="drop_middle")
    shown = last(visitor.follow(silent))
    assert not shown.words and shown.files is not None
    trace = read_trace(shown.files[0])
    assert trace.header["context"]["strategy"] == "drop_middle" and trace.header["speaking_threshold"] == 1.0
    assert all(event["text"] is None and not event["transitions"] for event in trace.events)


def test_a_question_is_heard_with_the_next_frame(visitor: Visitor, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor_module, "SHOW_EVERY_S", 0.0)
    views = visitor.follow(settings(clip))
    next(views)
    assert next(views).frames == 1
    visitor.ask("two now\nplease?")
    visitor.ask("where")
    shown = last(views)
    assert shown.files is not None
    heard = {event["frame"]: event["user_text"] for event in read_trace(shown.files[0]).events if event["user_text"]}
    assert heard == {1: "two now please? where"}
    assert (0.5, "user", "two now please? where") in shown.words


def test_a_question_that_does_not_fit_is_told_and_the_stream_goes_on(
    visitor: Visitor, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visitor_module, "SHOW_EVERY_S", 0.0)
    views = visitor.follow(settings(clip))
    next(views)
    visitor.ask("wheel " * 3000)
    shown = last(views)
    assert shown.frames == 12 and not shown.failed
    notes = [text for _, who, text in shown.words if who == "note"]
    assert len(notes) == 1 and "shorten it" in notes[0]


def test_questions_need_a_stream_and_words(visitor: Visitor, clip: Path) -> None:
    with pytest.raises(UsageError, match="press Start"):
        visitor.ask("two?")
    views = visitor.follow(settings(clip))
    next(views)
    with pytest.raises(UsageError, match="empty"):
        visitor.ask(" \n")


def test_the_plan_can_change_while_it_runs(visitor: Visitor, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor_module, "SHOW_EVERY_S", 0.0)
    with pytest.raises(UsageError, match="Nothing is being followed"):
        visitor.change_plan("two", "")
    views = visitor.follow(settings(clip))
    next(views)
    assert next(views).frames == 1
    with pytest.raises(UsageError, match="plan is empty"):
        visitor.change_plan(" \n\n", "")
    visitor.change_plan("now please\n\ntwo", NASTY[0])
    assert next(views).plan == ["now please", "two"]
    visitor.change_plan("wheel\n" * 3000, "")  # does not fit: it is told, and the stream goes on
    shown = last(views)
    assert shown.frames == 12 and not shown.failed and shown.goal == NASTY[0] and shown.plan == ["now please", "two"]
    assert (0.5, "plan", "2 steps now, 1 kept") in shown.words
    assert sum(who == "note" and "max_tokens" in text for _, who, text in shown.words) == 1
    assert shown.files is not None and shown.event is not None and len(shown.event.states) == 2
    trace = read_trace(shown.files[0])
    assert [(n, change["kept"]) for n, change in trace.plan_changes()] == [(1, [None, 2])]
    for part in handlers.views(shown):
        assert "<img src=x" not in part
    visitor._plans.put((["two"], ""))  # given after the last frame: the next stream does not hear of it
    assert last(visitor.follow(settings(clip))).plan == ["attach the wheel", "tighten the bolt", "two"]


def test_one_stream_a_page_and_it_can_be_stopped(visitor: Visitor, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor_module, "SHOW_EVERY_S", 0.0)
    views = visitor.follow(settings(clip))
    next(views)
    next(views)
    visitor.stop()
    shown = last(views)
    assert shown.message == "Stopped after 2 frames." and shown.files is not None
    assert len(read_trace(shown.files[0]).events) == 2
    assert last(visitor.follow(settings(clip))).frames == 12  # and then begins anew


def test_a_second_stream_of_a_page_ends_the_first(visitor: Visitor, clip: Path) -> None:
    first = visitor.follow(settings(clip))
    next(first)
    assert last(visitor.follow(settings(clip))).frames == 12
    assert list(first) == []  # nobody asked it for its next view, and it has ended all the same
    assert not visitor.running


def test_a_stream_that_nobody_looks_at_any_more_is_ended(tmp_path: Path, clip: Path) -> None:
    visitor = Visitor(shared_by_all(tmp_path))
    views = visitor.follow(settings(clip))
    next(views)
    assert visitor.running and len(list(tmp_path.iterdir())) == 1
    assert visitor.end() and not visitor.running
    visitor.remove_folder()
    assert list(tmp_path.iterdir()) == []
    assert visitor.shared.places.acquire(blocking=False)


def test_a_stream_at_work_is_ended_after_its_frame(visitor: Visitor) -> None:
    views = visitor.follow(settings(None, camera=True))  # it waits for a picture for half a minute
    next(views)
    waiting = threading.Thread(target=lambda: list(views))
    waiting.start()
    began = time.monotonic()
    assert visitor.end() and time.monotonic() - began < 3
    waiting.join(3)
    assert not waiting.is_alive()


def test_places_are_limited_and_free_again(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor_module, "PLACE_S", 0.05)
    shared = shared_by_all(tmp_path, streams=2)
    visitors = [Visitor(shared) for _ in range(3)]
    running = [visitor.follow(settings(clip)) for visitor in visitors]
    next(running[0]), next(running[1])
    with pytest.raises(UsageError, match="All 2 places are taken: try again in a few minutes"):
        next(running[2])
    assert not visitors[2].running and visitors[0].end()
    assert last(visitors[2].follow(settings(clip))).frames == 12
    with pytest.raises(UsageError, match="plan is empty"):  # a start that fails keeps no place
        next(visitors[0].follow(settings(clip, plan="")))
    assert last(visitors[0].follow(settings(clip))).frames == 12


def test_a_stream_ends_at_its_limit_of_time(tmp_path: Path, clip: Path) -> None:
    visitor = Visitor(shared_by_all(tmp_path, minutes=1.2 / 60))
    shown = last(visitor.follow(settings(clip, realtime=True)))  # of 6 seconds
    assert 0 < shown.frames < 8 and shown.files is not None and not shown.failed
    assert shown.message == f"Ended after {shown.frames} frames: a stream may run for 0.02 minutes here."


def test_a_video_ends_at_its_limit_of_length(tmp_path: Path, clip: Path) -> None:
    visitor = Visitor(shared_by_all(tmp_path, video_minutes=3 / 60))
    shown = last(visitor.follow(settings(clip)))
    assert shown.frames == 8 and shown.files is not None
    assert shown.message == "Ended after 8 frames: 0.05 minutes of a video are followed here."


@pytest.mark.parametrize("limits", [{"streams": 0}, {"minutes": float("nan")}, {"upload_mb": -1}])
def test_limits_that_cannot_be_meant_are_one_sentence(limits: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"--{next(iter(limits)).replace('_', '-')} .*: give a number above 0"):
        Limits(**limits)


def test_the_limits_of_the_command_are_those_of_the_class() -> None:
    parsed = vars(make_parser(DEMO, "prospect demo").parse_args(["outputs/tiny"]))
    assert {name: parsed[name] for name in vars(Limits())} == vars(Limits())


def test_the_folder_of_a_killed_demo_is_removed_and_that_of_a_running_one_kept(
    tmp_path: Path, repository: Path
) -> None:
    script = (
        "import sys; from prospect_hf.streaming.demo.folder import demo_folder\n"
        "(demo_folder() / 'upload.mp4').write_text('x'); print(demo_folder(), flush=True); sys.stdin.read()"
    )

    def start() -> tuple[subprocess.Popen[str], Path]:
        environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)}
        command = [sys.executable, "-c", script]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=repository, env=environment, text=True, **pipes)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    killed, of_killed = start()
    killed.kill()
    killed.wait()
    assert of_killed.is_dir()
    running, of_running = start()
    assert not of_killed.exists() and of_running.is_dir()
    remove_abandoned(tmp_path)
    assert (of_running / "upload.mp4").is_file()
    running.communicate("", timeout=20)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan": " \n\n"}, "plan is empty"),
        ({"video": None}, "choose a file"),
        ({"plan": "\n".join(["attach the wheel"] * 3000)}, "max_tokens"),
    ],
)
def test_settings_that_cannot_be_used_are_one_sentence(
    visitor: Visitor, clip: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((UsageError, StreamError), match=message):
        last(visitor.follow(settings(clip, **changes)))
    assert not visitor.running


def test_what_is_no_video_is_told_without_the_servers_paths(visitor: Visitor, tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("not a video")
    shown = last(visitor.follow(settings(path)))
    assert shown.failed and "notes.mp4" in shown.message and str(tmp_path) not in shown.message
    assert shown.frames == 0 and shown.files is None


def test_an_upload_cannot_make_the_server_fetch_something(visitor: Visitor, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        path = tmp_path / "list.m3u8"
        address = f"http://127.0.0.1:{server.getsockname()[1]}/0.ts"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{address}\n#EXT-X-ENDLIST\n")
        shown = last(visitor.follow(settings(path)))
        assert shown.failed and shown.frames == 0
        with pytest.raises(TimeoutError):
            server.accept()


def test_the_camera_gives_its_newest_picture(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor_module, "SHOW_EVERY_S", 0.0)
    views = visitor.follow(settings(None, camera=True))
    assert "camera" in next(views).message
    for number in range(3):
        visitor.look(numbered(number))
    assert next(views).dropped == 2
    visitor.look(numbered(3))
    assert next(views).frames == 2
    threading.Timer(0.2, visitor.stop).start()  # while the stream waits for a picture
    shown = last(views)
    assert shown.message == "Stopped after 2 frames." and shown.files is not None
    first, second = read_trace(shown.files[0]).events
    assert first["time"] == 0.0 and second["time"] > 0.0


def test_a_camera_that_is_never_started_is_told(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor_module, "CAMERA_S", 0.05)
    shown = last(visitor.follow(settings(None, camera=True)))
    assert shown.failed and "no picture" in shown.message


def test_visitors_share_the_model_and_not_the_stream(tmp_path: Path, clip: Path) -> None:
    shared = shared_by_all(tmp_path)
    visitors = [Visitor(shared) for _ in range(3)]
    alone = last(visitors[0].follow(settings(clip)))
    found: list[Shown] = []
    threads = [
        threading.Thread(target=lambda one=one: found.append(last(one.follow(settings(clip))))) for one in visitors
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3
    for shown in found:
        assert shown.event is not None and alone.event is not None
        assert list(shown.words) == list(alone.words) and shown.event.states == alone.event.states


def test_all_text_is_escaped() -> None:
    shown = Shown(NASTY[0], [*NASTY, HOSTILE], (0.5, 0.5))
    shown.words.extend([(1.0, "user", NASTY[1]), (2.0, "assistant", NASTY[2])])
    for part in (*handlers.views(shown), demo_parts.status_html(" ".join(NASTY))):
        assert "<img" not in part and "<script" not in part and "${" not in part and "{{" not in part
    assert demo_parts.clock(59.96) == "1:00.0" and demo_parts.clock(12.5) == "0:12.5"
