"""The demo: what happens behind a page, the files of a Space, and the page itself in a real browser."""

from __future__ import annotations

import gc
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("gradio", reason="gradio is not installed (extra demo)")
pytest.importorskip("av", reason="PyAV is not installed (extra stream)")

import browser
from browser import open_browser
from hostile_fixtures import change_json, poison
from model_fixtures import picture, small_processor
from PIL import Image
from stream_fixtures import talkative_model
from trace_fixtures import HOSTILE
from video_fixtures import numbered, write_clip

from prospect_hf.errors import DataError, UsageError
from prospect_hf.simulator.clip import clip_episode
from prospect_hf.streaming.demo import app as demo
from prospect_hf.streaming.demo import components as demo_parts
from prospect_hf.streaming.demo import visitor as visitor_module
from prospect_hf.streaming.demo.app import build_app, launch, write_space
from prospect_hf.streaming.demo.visitor import Settings, Shown, Visitor
from prospect_hf.streaming.trace import read_trace
from streaming_dst_smolvlm import StreamError

PLAN = "attach the wheel\n\n  tighten the bolt \ntwo\n"
# Templates and markup: none of it may be more than text in the page.
NASTY = ["<img src=x onerror=alert(1)>", "${alert(2)} {{value}} `x`", "</div></script><script>alert(3)</script> &amp;"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of noise, on which the model speaks now and then; 6 seconds at 2 a second."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    pictures = [Image.fromarray(picture("clip", frame)) for frame in range(12)]
    return write_clip(path, range(12), Fraction(1, 2), rate=2, options={"crf": "0"}, pictures=pictures)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that speaks on about half of the frames, saved as training does."""
    path = tmp_path_factory.mktemp("model") / "talkative"
    talkative_model().save_pretrained(path)
    small_processor().save_pretrained(path)
    return path


def test_the_demo_runs_no_code_of_its_folder(folder: Path, tmp_path: Path) -> None:
    hostile = Path(shutil.copytree(folder, tmp_path / "model"))
    poison(hostile, tmp_path / "it ran")
    assert type(demo.Demo(str(hostile)).model) is type(talkative_model())
    change_json(hostile / "config.json", model_type="evil")
    with pytest.raises(UsageError, match="code of its own, which never happens"):
        demo.Demo(str(hostile))
    assert not (tmp_path / "it ran").exists()


@pytest.fixture
def visitor() -> Visitor:
    return Visitor(talkative_model(), small_processor(), "talkative", threading.Lock())


def settings(path: Path | None, **changes: Any) -> Settings:
    config = talkative_model().config
    given = Settings(
        camera=False,
        video=None if path is None else str(path),
        realtime=False,
        goal="the red wheel",
        plan=PLAN,
        strategy="summarize_with_dst",
        speaking_threshold=config.speaking_threshold,
        dst_update_threshold=config.dst_update_threshold,
    )
    return replace(given, **changes)


def last(views: Iterator[Shown]) -> Shown:
    *_, shown = views
    return shown


# -- behind the page --------------------------------------------------------------------------------------------------


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


def test_one_stream_a_page_and_it_can_be_stopped(visitor: Visitor, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor_module, "SHOW_EVERY_S", 0.0)
    views = visitor.follow(settings(clip))
    next(views)
    with pytest.raises(UsageError, match="already"):
        next(visitor.follow(settings(clip)))
    next(views)
    visitor.stop()
    shown = last(views)
    assert shown.message == "Stopped after 2 frames." and shown.files is not None
    assert len(read_trace(shown.files[0]).events) == 2
    assert last(visitor.follow(settings(clip))).frames == 12  # and then begins anew


def test_a_page_that_is_closed_leaves_nothing_behind(clip: Path) -> None:
    visitor = Visitor(talkative_model(), small_processor(), "talkative", threading.Lock())
    folder, views = visitor.folder, visitor.follow(settings(clip))
    next(views)
    assert visitor.running and folder.is_dir()
    views.close()  # type: ignore[attr-defined]
    assert not visitor.running
    del views, visitor
    gc.collect()
    assert not folder.exists()


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


def test_visitors_share_the_model_and_not_the_stream(clip: Path) -> None:
    lock = threading.Lock()
    visitors = [Visitor(talkative_model(), small_processor(), "talkative", lock) for _ in range(3)]
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
    for part in (*demo.views(shown), demo_parts.status_html(" ".join(NASTY))):
        assert "<img" not in part and "<script" not in part and "${" not in part and "{{" not in part
    assert demo_parts.clock(59.96) == "1:00.0" and demo_parts.clock(12.5) == "0:12.5"


# -- a Space ----------------------------------------------------------------------------------------------------------


def test_the_files_of_a_space(tmp_path: Path, repository: Path) -> None:
    written = write_space(tmp_path / "space", "owner/dst-smolvlm2")
    modules = [path.name for path in sorted(repository.glob("*_dst_smolvlm.py"))]
    assert [path.name for path in written] == ["app.py", "requirements.txt", "README.md", "prospect_hf", *modules]
    assert sorted(written) == sorted((tmp_path / "space").iterdir())
    app, requirements, card = (path.read_text(encoding="utf-8") for path in written[:3])
    compile(app, "app.py", "exec")
    assert 'snapshot_download("owner/dst-smolvlm2")' in app
    front = card.split("---\n")[1]
    assert "sdk: gradio\n" in front and "app_file: app.py\n" in front and "  - owner/dst-smolvlm2\n" in front
    # The package is on no index; what it needs is, with the extras demo and stream.
    names = {re.split("[<>=]", line)[0] for line in requirements.splitlines()}
    assert {"av", "rich", "gradio", "torch", "transformers", "bitsandbytes"} <= names
    assert not names & {"prospect-hf", "openai", "pytest", "playwright"} and ";" not in requirements


def test_a_space_runs_on_its_own_copy_of_the_code(tmp_path: Path, folder: Path) -> None:
    """Only the Space's folder holds the package: app.py starts with a model that the Hub gave."""
    space = tmp_path / "space"
    write_space(space, "owner/name")
    script = f"""
import sys
from pathlib import Path
sys.path[:] = [{str(space)!r}] + [path for path in sys.path if path and not (Path(path) / "prospect_hf").is_dir()
    or "site-packages" in path]
import huggingface_hub, gradio
huggingface_hub.snapshot_download = lambda model: {{"owner/name": {str(folder)!r}}}[model]
gradio.Blocks.launch = lambda self, **settings: print("served", settings["server_name"], settings["server_port"])
gradio.Blocks.block_thread = lambda self: None
import runpy
runpy.run_path("app.py", run_name="__main__")
ours = [name for name in sys.modules if name.startswith("prospect_hf") or name.endswith("_dst_smolvlm")]
files = [Path(sys.modules[name].__file__) for name in ours]
print(len(files), {{Path({str(space)!r}) in file.parents for file in files}})
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=space, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "served 0.0.0.0 7860" in done.stdout
    count, places = done.stdout.splitlines()[-1].split(" ", 1)
    assert int(count) > 20 and places == "{True}"


@pytest.mark.parametrize("model_id", ["", "outputs/tiny/x", 'a/b"); import os', "name", "../x", "a/b\n"])
def test_a_space_needs_a_model_of_the_hub(tmp_path: Path, model_id: str) -> None:
    with pytest.raises(UsageError, match="OWNER/NAME"):
        write_space(tmp_path / "space", model_id)
    assert not (tmp_path / "space").exists()


def test_a_space_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UsageError, match=r"README\.md is there already"):
        write_space(tmp_path, "owner/name")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"space cannot be written \(Not a directory\): give another folder"):
        write_space(tmp_path / "file" / "space", "owner/name")


def test_the_script_says_what_is_wrong(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(repository / "scripts/demo.py"), str(tmp_path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "config.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_gradio_is_one_sentence(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "gradio.py").write_text("raise ImportError('none')")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['demo.py', 'nowhere']; " + (
        f"import runpy; runpy.run_path({str(repository / 'scripts/demo.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and 'pip install -e ".[demo]"' in done.stderr
    assert done.stderr.count("\n") == 1


# -- in a browser -----------------------------------------------------------------------------------------------------


class Watched(demo.Demo):
    """The demo, which tells who visits."""

    seen: ClassVar[list[Watched]] = []

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.seen.append(self)


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The demo, served on a free port of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "Demo", Watched)
        app = build_app(str(folder))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    launch(app, "127.0.0.1", port, wait=False)
    yield f"http://127.0.0.1:{port}"
    app.close()


@pytest.mark.parametrize("port", [99999999, 0, -1])
def test_a_port_that_does_not_exist_is_one_sentence(folder: Path, port: int) -> None:
    with pytest.raises(UsageError, match=rf"--port {port}: a port is a number from 1 to 65535"):
        launch(build_app(str(folder)), "127.0.0.1", port)


def test_a_taken_port_is_one_sentence(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="another port"):
        launch(build_app(str(folder)), "127.0.0.1", taken.getsockname()[1], wait=False)


def open_page(new_page: Any, address: str, **options: Any) -> Any:
    """The demo's page; ``elsewhere`` lists what it asks of other servers."""
    page = new_page(viewport={"width": 1280, "height": 900}, **options)
    page.elsewhere = []
    page.on(
        "request",
        lambda request: (
            request.url.startswith(("http", "ws"))
            and not request.url.startswith(address)
            and page.elsewhere.append(request.url)
        ),
    )
    page.goto(address)
    page.get_by_role("button", name="Start").wait_for()
    return page


def upload(page: Any, path: Path) -> None:
    page.set_input_files("input[type=file]", str(path))
    page.locator(".file-preview").wait_for()


def test_a_visit(address: str, clip: Path, tmp_path: Path) -> None:
    with open_browser() as new_page:
        page = open_page(new_page, address)
        status, steps = page.locator(".dst .status"), page.locator(".dst .steps li")

        page.get_by_role("button", name="Start").click()
        page.get_by_text("choose a file").wait_for()

        plan = page.get_by_label("Plan, one step a line")
        assert plan.input_value().splitlines() == list(clip_episode().plan)
        plan.fill("\n".join([*NASTY, "attach the wheel"]))
        page.get_by_label("Ask while it runs").fill("where?")
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("press Start, then ask").wait_for()

        upload(page, clip)
        page.get_by_text("At the video's pace").click()
        page.get_by_role("button", name="Start").click()
        page.get_by_text("Following clip.mp4.").wait_for()
        assert page.get_by_role("button", name="Start").is_disabled()
        frames = page.locator("dl div", has_text="frames").first.locator("dd")
        page.wait_for_function("document.querySelector('.dst dl div:nth-child(2) dd').textContent >= '2'")
        before = int(frames.text_content() or "0")
        question = page.get_by_label("Ask while it runs")
        question.fill(NASTY[0])
        page.get_by_role("button", name="Ask").click()
        heard = page.locator(".dst .talk .user")
        heard.wait_for()
        assert NASTY[0] in (heard.text_content() or "") and question.input_value() == ""
        page.get_by_text("Followed to the end: 12 frames").wait_for()
        assert before < 12 and frames.text_content() == "12"

        assert steps.count() == 4
        assert [step.text_content() for step in steps.locator(".text").all()] == [*NASTY, "attach the wheel"]
        assert page.locator(".dst .talk .assistant").count() >= 1
        assert page.locator(".dst .picture img").evaluate("image => image.naturalWidth") > 0

        files = []
        for name in ("Download the trace", "Download the timeline page"):
            with page.expect_download() as download:
                page.get_by_role("button", name=name).click()
            files.append(tmp_path / download.value.suggested_filename)
            download.value.save_as(files[-1])
        trace = read_trace(files[0])
        assert len(trace.events) == 12 and trace.header["plan"] == [*NASTY, "attach the wheel"]
        assert [event["user_text"] for event in trace.events if event["user_text"]] == [NASTY[0]]
        assert files[1].suffix == ".html" and "SessionTimeline.draw(" in files[1].read_text(encoding="utf-8")

        # The timeline is in the page, and its script runs although it cannot reach the page around it.
        timeline = page.frame_locator("iframe.timeline")
        timeline.locator(".st-caption").wait_for()
        assert NASTY[0] in timeline.locator("#timeline").inner_text() and timeline.locator("img[src=x]").count() == 0
        (inner,) = [frame for frame in page.frames if frame.url == "about:srcdoc"]
        assert inner.evaluate("timeline.selected") == inner.evaluate("S.said[0].frame")
        assert inner.evaluate("try { parent.document.title } catch (error) { error.name }") == "SecurityError"

        table = [step.get_attribute("class") for step in steps.all()]
        assert table == [f"state{state}" for state in trace.events[-1]["states"]]
        assert "Followed" in (status.text_content() or "") and page.get_by_role("button", name="Start").is_enabled()
        assert page.problems == [] and page.elsewhere == []


def test_the_example(address: str) -> None:
    with open_browser() as new_page:
        page = open_page(new_page, address)
        page.get_by_label("Camera").click()
        page.get_by_label("Goal").fill("something else")
        page.get_by_label("Plan, one step a line").fill("another step")
        page.get_by_role("button", name="Try the example").click()
        page.get_by_text("The video is loaded: press Start.").wait_for()
        episode = clip_episode()
        assert page.get_by_label("Goal").input_value() == episode.flavour.title
        assert page.get_by_label("Plan, one step a line").input_value().splitlines() == list(episode.plan)
        assert page.get_by_label("Video file").is_checked()
        page.wait_for_function("document.querySelector('video.preview').duration > 10")
        page.get_by_role("button", name="Start").click()
        page.get_by_text(f"Followed to the end: {len(episode.frames)} frames").wait_for(timeout=60_000)
        assert page.problems == [] and page.elsewhere == []


def test_on_a_phone_start_leads_to_the_results(address: str, clip: Path) -> None:
    with open_browser() as new_page:
        page = open_page(new_page, address)
        page.set_viewport_size({"width": 390, "height": 844})
        upload(page, clip)
        page.locator("video.preview").wait_for()
        page.get_by_role("button", name="Start").click()
        page.get_by_text("Followed to the end: 12 frames").wait_for()
        for part in (".dst .status", ".dst .steps", "text=Conversation"):
            box = page.locator(part).first.bounding_box()
            assert box["y"] >= 0 and box["y"] + min(box["height"], 60) <= 844, part
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_file_that_is_no_video_has_no_preview(address: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("no video")
    with pytest.raises(DataError, match=r"notes\.mp4"):
        demo_parts.preview_html(str(path), 2.0)
    with open_browser() as new_page:
        page = open_page(new_page, address)
        upload(page, path)
        page.locator(".dst .status.bad", has_text="notes.mp4").wait_for()
        assert page.locator("video.preview").count() == 0


def test_a_camera(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    monkeypatch.setattr(browser, "ARGUMENTS", [*browser.ARGUMENTS, *fake])
    with open_browser() as new_page:
        page = open_page(new_page, address, permissions=["camera"])
        page.get_by_label("Camera").click()
        page.get_by_role("button", name="Start").click()
        page.get_by_text("Waiting for the camera").wait_for()
        page.get_by_text("access webcam").click()
        page.locator("button", has_text="Record").click()
        page.wait_for_function("parseInt(document.querySelector('.dst dl div:nth-child(2) dd').textContent) >= 4")
        page.get_by_role("button", name="Stop", exact=True).click()
        page.get_by_text("Stopped after").wait_for()
        assert page.problems == [] and page.elsewhere == []


def test_two_pages_do_not_see_each_other(address: str, clip: Path) -> None:
    with open_browser() as new_page:
        first, second = open_page(new_page, address), open_page(new_page, address)
        upload(first, clip)
        first.get_by_role("button", name="Start").click()
        first.get_by_text("Followed to the end").wait_for()
        assert second.locator(".dst .steps").count() == 0
        started = time.monotonic()
        while first.get_by_role("button", name="Download the trace").is_disabled():
            assert time.monotonic() - started < 10
        assert second.get_by_role("button", name="Download the trace").is_disabled()


def test_a_page_that_is_left_ends_its_stream(address: str, clip: Path) -> None:
    (served,) = Watched.seen
    with open_browser() as new_page:
        page = open_page(new_page, address)
        upload(page, clip)
        page.get_by_text("At the video's pace").click()
        page.get_by_role("button", name="Start").click()
        page.get_by_text("Following clip.mp4.").wait_for()
        (visitor,) = [visitor for visitor in served.visitors.values() if visitor.running]
        page.close()
        started = time.monotonic()
        while visitor.running or visitor in served.visitors.values():
            assert time.monotonic() - started < 20
            time.sleep(0.05)
        assert visitor.stopping
