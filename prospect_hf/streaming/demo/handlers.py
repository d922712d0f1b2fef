"""What the demo's page does: the handlers of its buttons, and the watch over its visitors."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from PIL import Image

from context_dst_smolvlm import StreamError
from prospect_hf.checkpoints import load_trained
from prospect_hf.errors import DataError, UsageError
from prospect_hf.simulator.clip import write_clip
from prospect_hf.streaming.demo.components import (
    now_html,
    preview_html,
    status_html,
    steps_html,
    talk_html,
    timeline_html,
)
from prospect_hf.streaming.demo.folder import CACHE, demo_folder, old_files, remove_files
from prospect_hf.streaming.demo.limits import Limits
from prospect_hf.streaming.demo.visitor import Settings, Shared, Shown, Visitor

FIRST = "Choose a video or try the example, then press Start."
VIDEO, CAMERA = "Video file", "Camera"
WATCH_S = 0.5  # seconds between two looks at who is there
GONE_S = 2.5  # seconds without a connection after which a visitor has left
KEPT_S = 3600  # seconds that a file is kept which no visitor uses
SLIDER_DIGITS = 3  # of the thresholds that the page shows


def unrounded(slider: float, models: float) -> float:
    """The threshold that a slider shows; the model's own, with all its digits, where the slider shows that."""
    return models if slider == round(models, SLIDER_DIGITS) else slider


class Demo:
    """The handlers of the page's buttons; a visitor is found by the session that gradio gives each open page.

    Args:
        folder: of the trained model.
        limits: what one visitor may take.

    Attributes:
        visitors: session -> visitor, of those that have chosen a video or started a stream.
        connections: session -> number of the connections that its page keeps open.

    Raises:
        UsageError: there is no DST-SmolVLM2 in the folder.
    """

    def __init__(self, folder: str, limits: Limits) -> None:
        model, processor = load_trained(Path(folder))
        self.shared = Shared(model, processor, Path(folder).name, demo_folder(), limits)
        self.visitors: dict[str, Visitor] = {}
        self.connections: Counter[str] = Counter()
        self._closed = threading.Event()

    def visitor(self, request: gr.Request) -> Visitor:
        """The visitor whose page sent the request."""
        known = str(request.session_hash)
        if known not in self.visitors:
            self.visitors[known] = Visitor(self.shared)
        self.visitors[known].seen = time.monotonic()
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
            status, now, steps, talk, start, stop, change, trace, page, timeline.
        """
        config = self.shared.model.config
        thresholds = (
            unrounded(speaking_threshold, config.speaking_threshold),
            unrounded(dst_update_threshold, config.dst_update_threshold),
        )
        asked = Settings(source == CAMERA, video, realtime, goal, plan, strategy, *thresholds)
        off, on = gr.update(interactive=False), gr.update(interactive=True)
        ends: tuple[Any, ...] = off, on, on, off, off, ""
        before = ("", "", "")
        visitor = self.visitor(request)
        try:
            self._use(visitor, video)
            for shown in visitor.follow(asked):
                if shown.files is not None:
                    offered = [save_file_to_cache(path, str(self.shared.folder / CACHE)) for path in shown.files]
                    visitor.files.update(map(Path, offered))
                    downloads = (gr.update(value=path, interactive=True) for path in offered)
                    ends = on, off, off, *downloads, timeline_html(shown.files[1].read_text(encoding="utf-8"))
                parts = views(shown)
                # A part that did not change is not sent again: a list that is drawn anew loses its scroll position.
                fresh = (part if part != old else gr.skip() for part, old in zip(parts, before, strict=True))
                yield (status_html(shown.message, shown.failed), *fresh, *ends)
                ends, before = (gr.skip(),) * 6, parts
        except (UsageError, DataError, StreamError) as error:
            yield (status_html(str(error), failed=True), *(gr.skip(),) * 9)

    def stop(self, request: gr.Request) -> None:
        """End the stream."""
        visitor = self.visitors.get(str(request.session_hash))
        if visitor is not None:
            visitor.stop()

    def example(self) -> tuple[Any, ...]:
        """Load the example clip; the outputs are source, video, goal, plan and status."""
        path = self.shared.folder / "example.mp4"
        try:
            facts = write_clip(path)
        except UsageError as error:
            return *(gr.skip(),) * 4, status_html(str(error), failed=True)
        return VIDEO, str(path), facts.goal, "\n".join(facts.plan), gr.skip()

    def preview(self, video: str | None, request: gr.Request) -> tuple[Any, Any]:
        """Show the chosen video; the outputs are preview and status."""
        if video is None:
            return "", status_html(FIRST)
        try:
            self._use(self.visitor(request), video)
            return preview_html(video, self.shared.model.config.fps), status_html("The video is loaded: press Start.")
        except DataError as error:
            return "", status_html(str(error).replace(video, Path(video).name), failed=True)

    def ask(self, question: str, request: gr.Request) -> tuple[Any, Any]:
        """Put a question to the model with the next frame; the outputs are the question's box and the status."""
        try:
            self.visitor(request).ask(question)
        except UsageError as error:
            return gr.skip(), status_html(str(error), failed=True)
        return "", gr.skip()

    def change_plan(self, plan: str, goal: str, request: gr.Request) -> Any:
        """Change the plan of the running stream; the output is the status."""
        try:
            self.visitor(request).change_plan(plan, goal)
        except UsageError as error:
            return status_html(str(error), failed=True)
        return gr.skip()

    def look(self, picture: Image.Image | None, request: gr.Request) -> None:
        """A picture of the camera."""
        visitor = self.visitors.get(str(request.session_hash))
        if picture is not None and visitor is not None:
            visitor.look(picture)

    def _use(self, visitor: Visitor, video: str | None) -> None:
        """Note that the visitor uses an upload."""
        if video is not None and self.shared.folder / CACHE in Path(video).parents:
            visitor.files.add(Path(video))

    def watch(self) -> None:
        """Until ``close``: end the streams of visitors who have left, and remove what they leave behind."""
        swept = time.monotonic()
        while not self._closed.wait(WATCH_S):
            now = time.monotonic()
            for session, visitor in list(self.visitors.items()):
                if self.connections[session]:
                    visitor.seen = now
                elif now - visitor.seen > GONE_S and visitor.end(most_s=1.0):
                    del self.visitors[session]
                    self._clean(visitor)
            if now - swept > KEPT_S / 10:  # uploads that nobody ever used
                swept = now
                used = {path for visitor in list(self.visitors.values()) for path in visitor.files}
                remove_files(set(old_files(self.shared.folder / CACHE, KEPT_S)) - used)

    def close(self) -> None:
        """End all streams and the watch."""
        self._closed.set()
        for session in list(self.visitors):
            visitor = self.visitors.pop(session)
            visitor.end(most_s=1.0)
            self._clean(visitor)

    def _clean(self, visitor: Visitor) -> None:
        """Remove a visitor's files; of an upload that two visitors made, gradio keeps one."""
        used = {path for other in list(self.visitors.values()) for path in other.files}
        visitor.remove_folder()
        remove_files(visitor.files - used)


def views(shown: Shown | None) -> tuple[str, str, str]:
    """The HTML of now, steps and talk."""
    return now_html(shown), steps_html(shown), talk_html(shown)
