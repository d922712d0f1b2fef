"""The demo in a real browser: the page, and visitors who leave."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed (extra demo)")
pytest.importorskip("av", reason="PyAV is not installed (extra stream)")

import browser
import httpx
from browser import open_browser
from demo_fixtures import NASTY, PLAN
from hostile_fixtures import change_json, poison
from video_fixtures import numbered, write_clip

from prospect_hf.errors import DataError, UsageError
from prospect_hf.simulator.clip import clip_episode
from prospect_hf.streaming.demo import components as demo_parts
from prospect_hf.streaming.demo.app import App, build_app, launch
from prospect_hf.streaming.demo.folder import CACHE
from prospect_hf.streaming.demo.handlers import unrounded
from prospect_hf.streaming.demo.limits import Limits
from prospect_hf.streaming.demo.presence import SILENT_S
from prospect_hf.streaming.trace import read_trace


@pytest.fixture(scope="module")
def app(folder: Path) -> Iterator[App]:
    """The demo, served on a free port of this machine, where two can follow a video."""
    app = build_app(str(folder), Limits(streams=2, upload_mb=1))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    launch(app, "127.0.0.1", port, wait=False)
    yield app
    app.close()


@pytest.fixture(scope="module")
def address(app: App) -> str:
    """Where it is served."""
    return str(app.page.local_url).rstrip("/")


def test_the_demo_runs_no_code_of_its_folder(folder: Path, tmp_path: Path) -> None:
    hostile = Path(shutil.copytree(folder, tmp_path / "model"))
    poison(hostile, tmp_path / "it ran")
    build_app(str(hostile)).close()
    change_json(hostile / "config.json", model_type="evil")
    with pytest.raises(UsageError, match="code of its own, which never happens"):
        build_app(str(hostile))
    assert not (tmp_path / "it ran").exists()


def test_a_slider_that_was_not_moved_stands_for_the_models_threshold_with_all_its_digits() -> None:
    assert unrounded(0.372, 0.37186) == 0.37186 and unrounded(0.0, 0.0004) == 0.0004
    assert unrounded(0.4, 0.37186) == 0.4


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
        trace_plan = ["Fit the roof", *NASTY, "attach the wheel"]
        change = page.get_by_role("button", name="Change the plan while it runs")
        plan.fill("\n".join(trace_plan))
        change.click()
        page.get_by_text("5 steps now, 4 kept").wait_for()
        question = page.get_by_label("Ask while it runs")
        question.fill(NASTY[0])
        page.get_by_role("button", name="Ask").click()
        heard = page.locator(".dst .talk .user")
        heard.wait_for()
        assert NASTY[0] in (heard.text_content() or "") and question.input_value() == ""
        page.get_by_text("Followed to the end: 12 frames").wait_for()
        assert before < 12 and frames.text_content() == "12"

        assert steps.count() == 5 and change.is_disabled()
        assert [step.text_content() for step in steps.locator(".text").all()] == trace_plan
        assert page.locator(".dst .talk .assistant").count() >= 1
        assert page.locator(".dst .picture img").evaluate("image => image.naturalWidth") > 0

        files = []
        for name in ("Download the trace", "Download the timeline page"):
            with page.expect_download() as download:
                page.get_by_role("button", name=name).click()
            files.append(tmp_path / download.value.suggested_filename)
            download.value.save_as(files[-1])
        trace = read_trace(files[0])
        assert len(trace.events) == 12 and trace.header["plan"] == trace_plan[1:]
        assert [one["plan"] for _, one in trace.plan_changes()] == [trace_plan]
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


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five minutes, which a stream at the video's pace does not end within any test."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return write_clip(path, range(600), Fraction(1, 2), rate=2, options={"crf": "40"}, pictures=[numbered(0)] * 600)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.05)


def test_a_page_that_is_left_ends_its_stream_and_another_visitor_is_served(
    app: App, address: str, long_clip: Path, clip: Path
) -> None:
    visitors, cache = app.demo.visitors, app.demo.shared.folder / CACHE
    wait_for(lambda: not visitors, 10)
    with open_browser() as new_page:
        pages = [open_page(new_page, address) for _ in range(3)]
        for page in pages[:2]:
            upload(page, long_clip)
            page.get_by_text("At the video's pace").click()
            page.get_by_role("button", name="Start").click()
            page.get_by_text("Following long.mp4.").wait_for()
        streams = list(visitors.values())
        assert [visitor.running for visitor in streams] == [True, True]
        upload(pages[2], clip)
        pages[2].get_by_role("button", name="Start").click()
        pages[2].get_by_text("All 2 places are taken").wait_for()

        pages[0].close()
        wait_for(lambda: not streams[0].running, 5)
        assert list(cache.rglob("long.mp4"))  # gradio keeps one upload for both
        pages[2].get_by_role("button", name="Start").click()
        pages[2].get_by_text("Followed to the end: 12 frames").wait_for()

        pages[1].reload()  # a new visitor, as gradio sees it
        wait_for(lambda: not streams[1].running, 5)
        pages[2].close()
        wait_for(lambda: not visitors, 10)
        assert not [path for path in cache.rglob("*") if path.suffix]  # uploads, traces and pages
        assert not list(app.demo.shared.folder.glob("visitor_*"))


def test_an_upload_that_is_too_large_is_told(address: str, tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(bytes(1_200_000))
    with open_browser() as new_page:
        page = open_page(new_page, address)
        page.set_input_files("input[type=file]", str(path))
        page.get_by_text("exceed the maximum allowed size").first.wait_for()


@pytest.mark.parametrize("listens", [True, False])
def test_a_client_without_a_page_ends_its_stream_too(app: App, address: str, long_clip: Path, listens: bool) -> None:
    """Whoever asks for a stream and listens to none, or stops listening: nothing tells the server that it has left."""
    config = httpx.get(f"{address}/config").json()
    (start,) = [each["id"] for each in config["dependencies"] if len(each["outputs"]) == 10]
    api = f"{address}/gradio_api"
    with long_clip.open("rb") as file:
        (path,) = httpx.post(f"{api}/upload", files={"files": file}).json()
    video = {"path": path, "meta": {"_type": "gradio.FileData"}}
    data = ["Video file", video, True, "goal", PLAN, "summarize_with_dst", 0.5, 0.5]
    session = f"script-{listens}"
    httpx.post(f"{api}/queue/join", json={"data": data, "fn_index": start, "session_hash": session}).raise_for_status()
    wait_for(lambda: session in app.demo.visitors and app.demo.visitors[session].running, 5)
    visitor = app.demo.visitors[session]
    if listens:
        with httpx.stream("GET", f"{api}/queue/data?session_hash={session}") as replies:
            for _, _ in zip(replies.iter_lines(), range(12), strict=False):
                assert visitor.running
            assert time.monotonic() - visitor.seen < 2
    wait_for(lambda: not visitor.running and session not in app.demo.visitors, 6)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such option")
def test_a_connection_whose_other_end_is_silent_is_given_up(app: App) -> None:
    """A lost connection closes nothing; what the system does about it is set on the socket that accepts it."""
    (server,) = app.page.server.servers
    for listening in server.sockets:
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * SILENT_S
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
