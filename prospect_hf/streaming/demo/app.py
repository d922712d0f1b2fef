"""The demo in a browser: a video or a camera, a plan to edit, and a model that follows both, live.

One model serves all visitors. Each visitor has a stream of their own, and a lock lets one frame at a time through the
model. ``handlers`` answers the page, ``visitor`` follows the video of one page, ``components`` makes the page's HTML,
``presence`` knows whose page is open.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from context_dst_smolvlm import STRATEGIES
from prospect_hf.errors import UsageError
from prospect_hf.simulator.clip import clip_episode
from prospect_hf.streaming.demo.components import STYLE, escaped, status_html
from prospect_hf.streaming.demo.handlers import CAMERA, FIRST, SLIDER_DIGITS, VIDEO, Demo, views
from prospect_hf.streaming.demo.limits import Limits
from prospect_hf.streaming.demo.presence import Presence, give_up_silent

VIDEO_FILES = [".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".m4v", ".mpg", ".ts"]
# On a narrow screen the results are below the form.
SHOW_RESULTS = """() => {
  if (matchMedia("(max-width: 740px)").matches) document.querySelector(".dst .status").scrollIntoView();
}"""
STRATEGY_NAMES = {
    "summarize_with_dst": "restart with the tracked states",
    "summarize_and_drop": "restart with a written summary",
    "drop_middle": "cut out the middle",
    "drop_all": "restart with the plan alone",
    "none": "end with an error",
}


@dataclass(frozen=True)
class App:
    """The page, and what answers it."""

    page: gr.Blocks
    demo: Demo

    def close(self) -> None:
        """End all streams and stop serving."""
        self.demo.close()
        self.page.close(verbose=False)


def choose(source: str) -> tuple[Any, ...]:
    """Show the fields of the source; the outputs are video, preview, realtime, camera."""
    stored = gr.update(visible=source == VIDEO)
    return stored, stored, stored, gr.update(visible=source == CAMERA)


def build_app(folder: str, limits: Limits | None = None) -> App:
    """The page for the trained model in ``folder``; ``launch`` serves it.

    Args:
        folder: of the trained model.
        limits: what one visitor may take; by default those of ``Limits``.

    Raises:
        UsageError: there is no DST-SmolVLM2 in the folder.
    """
    demo = Demo(folder, limits or Limits())
    config, episode = demo.shared.model.config, clip_episode()
    with gr.Blocks(title="DST-SmolVLM2", analytics_enabled=False) as page:
        gr.HTML(
            '<div class="dst"><h1>A task, followed step by step</h1><p class="soft">'
            f"At {config.fps:g} frames a second, {escaped(demo.shared.name)} decides whether to speak and which steps "
            "have moved.</p></div>"
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
                change = gr.Button("Change the plan while it runs", interactive=False, size="sm")
                with gr.Accordion("Thresholds and context", open=False):
                    speak = gr.Slider(
                        0,
                        1,
                        round(config.speaking_threshold, SLIDER_DIGITS),
                        step=10**-SLIDER_DIGITS,
                        label="Speaks at p(speak) of",
                    )
                    update = gr.Slider(
                        0,
                        1,
                        round(config.dst_update_threshold, SLIDER_DIGITS),
                        step=10**-SLIDER_DIGITS,
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
                    written = gr.DownloadButton("Download the timeline page", interactive=False)
        timeline = gr.HTML("")

        # Private: the page is the interface. Without a limit: a visitor never waits to stop or to ask.
        quick: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
        settings = [source, video, realtime, goal, plan, strategy, speak, update]
        source.change(choose, source, [video, preview, realtime, camera], **quick)
        example.click(demo.example, None, [source, video, goal, plan, status], **quick)
        video.change(demo.preview, video, [preview, status], **quick)
        start.click(None, None, None, js=SHOW_RESULTS)
        # At once, since the first frame may take a while.
        clicked = start.click(
            lambda: (status_html("Starting."), gr.update(interactive=False)), None, [status, start], **quick
        )
        run = clicked.then(
            demo.start, settings, [status, *shown, start, stop, change, trace, written, timeline], **quick
        )
        # Also after an error, so that the page can be used again.
        off, on = gr.update(interactive=False), gr.update(interactive=True)
        run.then(lambda: (on, off, off), None, [start, stop, change], **quick)
        stop.click(demo.stop, None, None, **quick)
        change.click(demo.change_plan, [plan, goal], status, **quick)
        question.submit(demo.ask, question, [question, status], **quick)
        camera.stream(demo.look, camera, None, stream_every=0.5, **quick)
    return App(page, demo)


def launch(app: App, host: str, port: int, wait: bool = True) -> None:
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
        app.page.queue(default_concurrency_limit=None).launch(
            server_name=host,
            server_port=port,
            share=False,
            ssr_mode=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            max_file_size=app.demo.shared.limits.upload_mb * 10**6,
            max_threads=40 + app.demo.shared.limits.streams,  # a stream takes one while it computes
            app_kwargs={"middleware": [Middleware(Presence, connections=app.demo.connections)]},
            theme=theme,
            css=STYLE,
        )
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be served; the port may be in use: give another port.") from error
    give_up_silent(app.page)
    threading.Thread(target=app.demo.watch, name="visitors", daemon=True).start()
    if not wait:
        return
    print(f"Serving at http://{host}:{port}; Ctrl-C ends it.", flush=True)
    try:
        while True:
            time.sleep(1)
    finally:
        app.close()
