"""The demo in a browser: a video or a camera, a plan to edit, and a model that follows both, live.

One model serves all visitors. Each visitor has a stream of their own, and a lock lets one frame at a time through the
model. ``visitor`` follows the video of one page, ``components`` makes the page's HTML.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from context_dst_smolvlm import STRATEGIES, StreamError
from prospect_hf.checkpoints import load_trained
from prospect_hf.errors import DataError, UsageError
from prospect_hf.extras import missing
from prospect_hf.simulator.clip import clip_episode, write_clip
from prospect_hf.streaming.demo.components import (
    STYLE,
    escaped,
    now_html,
    preview_html,
    status_html,
    steps_html,
    talk_html,
    timeline_html,
)
from prospect_hf.streaming.demo.space import write_space as write_space
from prospect_hf.streaming.demo.visitor import Settings, Shown, Visitor

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
try:
    import gradio as gr
except ImportError as error:
    raise missing("The demo", "gradio", "demo") from error

FIRST = "Choose a video or try the example, then press Start."
VIDEO, CAMERA = "Video file", "Camera"
VIDEO_FILES = [".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".m4v", ".mpg", ".ts"]
MOST_UPLOAD = "1gb"
STREAMS = 8  # visitors whose streams run at the same time; the others wait
# On a narrow screen the results are below the form.
SHOW_RESULTS = """() => {
  if (matchMedia("(max-width: 740px)").matches) document.querySelector(".dst .status").scrollIntoView();
}"""
KEPT_S = 24 * 3600  # seconds that uploads and downloads are kept
STRATEGY_NAMES = {
    "summarize_with_dst": "restart with the tracked states",
    "summarize_and_drop": "restart with a written summary",
    "drop_middle": "cut out the middle",
    "drop_all": "restart with the plan alone",
    "none": "end with an error",
}


class Demo:
    """The handlers of the page's buttons; a visitor is found by the session that gradio gives each open page.

    Raises:
        UsageError: there is no DST-SmolVLM2 in the folder.
    """

    def __init__(self, folder: str) -> None:
        self.model, self.processor = load_trained(Path(folder))
        self.name = Path(folder).name
        self.lock = threading.Lock()
        self.visitors: dict[str, Visitor] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="prospect_hf_example_"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def visitor(self, request: gr.Request) -> Visitor:
        """The visitor whose page sent the request."""
        known = str(request.session_hash)
        if known not in self.visitors:
            self.visitors[known] = Visitor(self.model, self.processor, self.name, self.lock)
        return self.visitors[known]

    def start(
        self,
        source: str,
        video: str | None,
        realtime: bool,
        goal: str,
        plan: str,
        strategy: str,
        speaking_threshold: float,
        dst_update_threshold: float,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Follow the video or the camera.

        Yields:
            status, now, steps, talk, start, stop, trace, page, timeline.
        """
        asked = Settings(
            source == CAMERA, video, realtime, goal, plan, strategy, speaking_threshold, dst_update_threshold
        )
        off, on = gr.update(interactive=False), gr.update(interactive=True)
        ends: tuple[Any, ...] = off, on, off, off, ""
        before = ("", "", "")
        try:
            for shown in self.visitor(request).follow(asked):
                if shown.files is not None:
                    downloads = (gr.update(value=str(path), interactive=True) for path in shown.files)
                    ends = on, off, *downloads, timeline_html(shown.files[1].read_text(encoding="utf-8"))
                parts = views(shown)
                # A part that did not change is not sent again: a list that is drawn anew loses its scroll position.
                fresh = (part if part != old else gr.skip() for part, old in zip(parts, before, strict=True))
                yield (status_html(shown.message, shown.failed), *fresh, *ends)
                ends, before = (gr.skip(),) * 5, parts
        except (UsageError, DataError, StreamError) as error:
            yield (status_html(str(error), failed=True), *(gr.skip(),) * 8)

    def stop(self, request: gr.Request) -> None:
        """End the stream."""
        self.visitor(request).stop()

    def example(self) -> tuple[Any, ...]:
        """Load the example clip; the outputs are source, video, goal, plan and status."""
        path = self.folder / "example.mp4"
        try:
            facts = write_clip(path)
        except UsageError as error:
            return *(gr.skip(),) * 4, status_html(str(error), failed=True)
        return VIDEO, str(path), facts.goal, "\n".join(facts.plan), gr.skip()

    def preview(self, video: str | None) -> tuple[Any, Any]:
        """Show the chosen video; the outputs are preview and status."""
        if video is None:
            return "", status_html(FIRST)
        try:
            return preview_html(video, self.model.config.fps), status_html("The video is loaded: press Start.")
        except DataError as error:
            return "", status_html(str(error).replace(video, Path(video).name), failed=True)

    def ask(self, question: str, request: gr.Request) -> tuple[Any, Any]:
        """Put a question to the model with the next frame; the outputs are the question's box and the status."""
        try:
            self.visitor(request).ask(question)
        except UsageError as error:
            return gr.skip(), status_html(str(error), failed=True)
        return "", gr.skip()

    def look(self, picture: Image.Image | None, request: gr.Request) -> None:
        """A picture of the camera."""
        if picture is not None:
            self.visitor(request).look(picture)

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        visitor = self.visitors.pop(str(request.session_hash), None)
        if visitor is not None:
            visitor.stop()


def views(shown: Shown | None) -> tuple[str, str, str]:
    """The HTML of now, steps and talk."""
    return now_html(shown), steps_html(shown), talk_html(shown)


def choose(source: str) -> tuple[Any, ...]:
    """Show the fields of the source; the outputs are video, preview, realtime, camera."""
    stored = gr.update(visible=source == VIDEO)
    return stored, stored, stored, gr.update(visible=source == CAMERA)


def build_app(folder: str) -> gr.Blocks:
    """The page for the trained model in ``folder``; ``launch`` serves it.

    Raises:
        UsageError: there is no DST-SmolVLM2 in the folder.
    """
    demo = Demo(folder)
    config, episode = demo.model.config, clip_episode()
    with gr.Blocks(title="DST-SmolVLM2", analytics_enabled=False, delete_cache=(3600, KEPT_S)) as app:
        gr.HTML(
            '<div class="dst"><h1>A task, followed step by step</h1><p class="soft">'
            f"At {config.fps:g} frames a second, {escaped(demo.name)} decides whether to speak and which steps have "
            "moved.</p></div>"
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                source = gr.Radio([VIDEO, CAMERA], value=VIDEO, label="Source")
                example = gr.Button("Try the example", size="sm")
                video = gr.File(label="Video", file_types=VIDEO_FILES, type="filepath", height=120)
                preview = gr.HTML("")
                camera = gr.Image(
                    label="Camera", sources=["webcam"], streaming=True, type="pil", height=240, visible=False
                )
                realtime = gr.Checkbox(False, label="At the video's pace", info="Otherwise as fast as the model can.")
                goal = gr.Textbox(episode.flavour.title, label="Goal", max_lines=2, max_length=500)
                plan = gr.Textbox(
                    "\n".join(episode.plan),
                    label="Plan, one step a line",
                    lines=4,
                    max_lines=12,
                    max_length=20_000,
                )
                with gr.Accordion("Thresholds and context", open=False):
                    speak = gr.Slider(
                        0, 1, round(config.speaking_threshold, 3), step=0.001, label="Speaks at p(speak) of"
                    )
                    update = gr.Slider(
                        0,
                        1,
                        round(config.dst_update_threshold, 3),
                        step=0.001,
                        label="State update threshold",
                    )
                    strategy = gr.Dropdown(
                        [(STRATEGY_NAMES[name], name) for name in reversed(STRATEGIES)],
                        value="summarize_with_dst",
                        label="When the context is full",
                    )
                start = gr.Button("Start", variant="primary")
            with gr.Column(scale=3, min_width=320, elem_classes="results"):
                with gr.Row(equal_height=True):
                    with gr.Column(scale=5, min_width=200):
                        status = gr.HTML(status_html(FIRST))
                    stop = gr.Button("Stop", interactive=False, scale=1, min_width=80)
                shown = [gr.HTML(part) for part in views(None)]
                question = gr.Textbox(
                    label="Ask while it runs", placeholder="What comes next?", max_length=1000, submit_btn="Ask"
                )
                with gr.Row():
                    trace = gr.DownloadButton("Download the trace", interactive=False)
                    page = gr.DownloadButton("Download the timeline page", interactive=False)
        timeline = gr.HTML("")

        # Private: the page is the interface. Without a limit: a visitor never waits to stop or to ask.
        quick: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
        settings = [source, video, realtime, goal, plan, strategy, speak, update]
        source.change(choose, source, [video, preview, realtime, camera], **quick)
        example.click(demo.example, None, [source, video, goal, plan, status], **quick)
        video.change(demo.preview, video, [preview, status], **quick)
        start.click(None, None, None, js=SHOW_RESULTS)
        # At once, since the stream may have to wait for a free place.
        clicked = start.click(
            lambda: (status_html("Waiting for a free place."), gr.update(interactive=False)),
            None,
            [status, start],
            **quick,
        )
        run = clicked.then(
            demo.start, settings, [status, *shown, start, stop, trace, page, timeline],
            **quick | {"concurrency_limit": STREAMS},
        )  # fmt: skip
        # Also after an error, so that the page can be used again.
        run.then(lambda: (gr.update(interactive=True), gr.update(interactive=False)), None, [start, stop], **quick)
        stop.click(demo.stop, None, None, **quick)
        question.submit(demo.ask, question, [question, status], **quick)
        camera.stream(demo.look, camera, None, stream_every=0.5, **quick)
        app.unload(demo.leave)
    return app


def launch(app: gr.Blocks, host: str, port: int, wait: bool = True) -> None:
    """Serve the page at ``host``:``port``, until it is interrupted or, without ``wait``, ``app.close()``.

    Raises:
        UsageError: there is no such port, it is taken, or the host is no address of this machine.
    """
    if not 1 <= port <= 65535:
        raise UsageError(f"--port {port}: a port is a number from 1 to 65535.")
    # Fonts of the visitor's system: nothing is fetched from elsewhere.
    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ).set(  # the default ones are too pale to read
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
    )
    try:
        app.queue(default_concurrency_limit=None).launch(
            server_name=host,
            server_port=port,
            share=False,
            ssr_mode=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            max_file_size=MOST_UPLOAD,
            theme=theme,
            css=STYLE,
        )
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be served; the port may be in use: give another port.") from error
    if wait:
        print(f"Serving at http://{host}:{port}; Ctrl-C ends it.", flush=True)
        app.block_thread()
