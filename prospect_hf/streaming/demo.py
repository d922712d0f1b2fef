"""The demo in a browser: a video or a camera, a plan to edit, and a model that follows both, live.

One model serves all visitors; each has a stream of its own and a lock lets one step through the model at a time.
``Visitor`` is what happens behind one page and knows nothing of gradio; ``Demo`` and ``build_app`` are the page. All
text of visitors and of the model is data: it is escaped before it becomes part of the page.
"""

from __future__ import annotations

import base64
import html
import io
import os
import queue
import re
import shutil
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from context_dst_smolvlm import STRATEGIES, StreamError
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import STATE_NAMES, DSTSmolVLMProcessor, one_line
from prospect_hf import __version__
from prospect_hf.checkpoints import load_trained
from prospect_hf.errors import DataError, UsageError
from prospect_hf.streaming.pace import LivePace
from prospect_hf.streaming.page import write_page
from prospect_hf.streaming.run import Strip
from prospect_hf.streaming.sources import SourceFrame, video_frames
from prospect_hf.streaming.trace import KIND, VERSION, TraceWriter, read_trace
from streaming_dst_smolvlm import DSTStream, StreamEvent

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
try:
    import gradio as gr
except ImportError as error:
    raise UsageError('The demo needs gradio, which is not installed: pip install "prospect-hf[demo]".') from error

VIDEO, CAMERA = "Video file", "Camera"
VIDEO_FILES = [".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".m4v", ".mpg", ".ts"]
MOST_UPLOAD = "1gb"
CAMERA_S = 30.0  # seconds without a picture after which a camera counts as lost
SHOW_EVERY_S = 0.15  # seconds between two views of a running stream
PICTURE = (480, 480)  # pixels of the current picture, at most
WORDS_SHOWN = 100  # utterances; the trace has them all
FPS_OVER = 40  # frames over which the speed is taken
STREAMS = 8  # visitors whose streams run at the same time; the others wait
KEPT_S = 24 * 3600  # seconds that uploads and downloads are kept

# What the simulated toy task shows and says.
EXAMPLE_GOAL = "Making the Snack Plate"
EXAMPLE_PLAN = """Pin the blue cracker onto the plate.
Pin the cyan cracker onto the plate.
Pin the orange pretzel onto the plate.
Pin the red cookie onto the plate."""
STRATEGY_NAMES = {
    "summarize_with_dst": "begin anew with the tracked states",
    "summarize_and_drop": "begin anew with a written summary",
    "drop_middle": "cut out the middle",
    "drop_all": "begin anew with the plan alone",
    "none": "end with an error",
}


@dataclass(frozen=True)
class Settings:
    """What a visitor asks for.

    Args:
        camera: follow the camera instead of ``video``.
        video: path of the uploaded file, None where there is none.
        realtime: keep the video's pace and drop frames where the model is slower.
        plan: the steps, one a line.
        strategy: what happens when the context is full, one of ``STRATEGIES``.
    """

    camera: bool
    video: str | None
    realtime: bool
    goal: str
    plan: str
    strategy: str
    speaking_threshold: float
    dst_update_threshold: float


@dataclass
class Shown:
    """What a visitor's page shows of a stream.

    Args:
        words: (seconds, who, text); who is user, assistant or note.
        times: readings of the clock, in seconds, after the last frames.
        restarts: how often room had to be made in the context.
        files: trace and timeline page, once they are whole.
    """

    goal: str
    plan: list[str]
    thresholds: tuple[float, float]
    message: str = ""
    failed: bool = False
    event: StreamEvent | None = None
    picture: Image.Image | None = None
    words: deque[tuple[float, str, str]] = field(default_factory=lambda: deque(maxlen=WORDS_SHOWN))
    times: deque[float] = field(default_factory=lambda: deque(maxlen=FPS_OVER))
    dropped: int = 0
    restarts: int = 0
    files: tuple[Path, Path] | None = None

    @property
    def frames(self) -> int:
        """Frames followed so far."""
        return 0 if self.event is None else self.event.frame + 1

    @property
    def fps(self) -> float:
        """Frames a second, over the last ``FPS_OVER``."""
        span = self.times[-1] - self.times[0] if len(self.times) > 1 else 0.0
        return (len(self.times) - 1) / span if span else 0.0


class Visitor:
    """One page: at most one stream at a time, the questions for it, and the camera's newest picture.

    Args:
        model, processor: of one folder.
        model_name: for the trace.
        lock: held while the model works, the same for all visitors.
    """

    def __init__(
        self,
        model: DSTSmolVLMForConditionalGeneration,
        processor: DSTSmolVLMProcessor,
        model_name: str,
        lock: threading.Lock,
    ) -> None:
        self.model, self.processor, self.model_name, self.lock = model, processor, model_name, lock
        self.folder = Path(tempfile.mkdtemp(prefix="prospect_hf_demo_"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.stopping = False
        self._busy = threading.Lock()
        self._questions: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._changed = threading.Condition()  # guards the two below and `stopping`
        self._picture: tuple[float, Image.Image] | None = None
        self._dropped = 0

    @property
    def running(self) -> bool:
        """Whether something is being followed."""
        return self._busy.locked()

    def stop(self) -> None:
        """End the stream after the frame under way."""
        with self._changed:
            self.stopping = True
            self._changed.notify_all()

    def ask(self, question: str) -> None:
        """Say something with the next frame.

        Raises:
            UsageError: there is nothing to say, or nobody who hears it.
        """
        if not one_line(question):
            raise UsageError("The question is empty.")
        if not self.running:
            raise UsageError("Nothing is being followed: press Start, then ask.")
        self._questions.put(question)

    def look(self, picture: Image.Image) -> None:
        """A picture of the camera; it takes the place of one that the model had no time for."""
        with self._changed:
            self._dropped += self._picture is not None
            self._picture = time.monotonic(), picture
            self._changed.notify_all()

    def follow(self, asked: Settings) -> Iterator[Shown]:
        """Follow what is asked for; the same object each time, as it is by then, and at the end with the files.

        Raises:
            UsageError, StreamError: the settings cannot be used, or a stream is running. What goes wrong later is
                told by the page, and what was followed until then is kept.
        """
        if not self._busy.acquire(blocking=False):
            raise UsageError("This page follows a video already: stop it first.")
        try:
            with self._changed:
                self.stopping, self._picture, self._dropped = False, None, 0
            while not self._questions.empty():
                self._questions.get()
            yield from self._follow(asked)
        finally:
            self._busy.release()

    def _follow(self, asked: Settings) -> Iterator[Shown]:
        plan = [one_line(line) for line in asked.plan.splitlines() if one_line(line)]
        if not plan:
            raise UsageError("The plan is empty: write at least one step.")
        if not asked.camera and asked.video is None:
            raise UsageError("There is no video yet: choose a file.")
        name = "camera" if asked.video is None or asked.camera else Path(asked.video).name
        with self.lock:
            stream = DSTStream(self.model, self.processor, plan, one_line(asked.goal), context=asked.strategy)
        batch = stream.batch
        batch.speaking_threshold, batch.dst_update_threshold = asked.speaking_threshold, asked.dst_update_threshold
        shown = Shown(one_line(asked.goal), plan, (asked.speaking_threshold, asked.dst_update_threshold))
        shown.message = "Waiting for the camera's first picture." if asked.camera else f"Opening {name}."
        yield shown
        shown.message = f"Following {name}."
        header = {
            "kind": KIND,
            "version": VERSION,
            "goal": shown.goal,
            "plan": plan,
            "fps": self.model.config.fps,
            "speaking_threshold": asked.speaking_threshold,
            "dst_update_threshold": asked.dst_update_threshold,
            "source": name,
            "model": self.model_name,
            "context": {**asdict(batch.context), "max_tokens": batch.max_tokens},
            "reference": None,
        }
        strip, path = Strip(), self.folder / "trace.jsonl"
        failure: ValueError | None = None
        last_view = began = time.perf_counter()
        with ExitStack() as stack:
            trace = stack.enter_context(TraceWriter(path, header))
            frames: Iterable[SourceFrame] = self._camera()
            pace: LivePace | None = None
            if not asked.camera:
                frames = stored = video_frames(str(asked.video), self.model.config.fps)
                if asked.realtime:
                    frames = pace = stack.enter_context(LivePace(stored, realtime=True))
            try:
                for frame in frames:
                    event = self._step(stream, frame, shown)
                    trace.write(event)
                    assert isinstance(frame.frame, Image.Image)
                    strip.add(event.frame, frame.frame)
                    shown.picture, shown.dropped = frame.frame, self._dropped if pace is None else pace.dropped
                    if self.stopping:
                        break
                    if time.perf_counter() - last_view > SHOW_EVERY_S:
                        yield shown
                        last_view = time.perf_counter()
            except (DataError, StreamError) as error:
                failure = error
        seconds = time.perf_counter() - began
        if failure is not None:
            shown.failed, shown.message = True, str(failure).replace(str(asked.video), name)
        elif self.stopping:
            shown.message = f"Stopped after {shown.frames} frames."
        else:
            shown.message = f"Followed to the end: {shown.frames} frames in {seconds:.1f} s."
        if shown.frames:
            page = path.with_name("timeline.html")
            write_page(page, read_trace(path), sorted(strip.pictures.items()))
            shown.files = path, page
        yield shown

    def _step(self, stream: DSTStream, frame: SourceFrame, shown: Shown) -> StreamEvent:
        """Show the stream a frame, with what the user has asked since the last one."""
        asked = []
        while not self._questions.empty():
            asked.append(self._questions.get())
        with self.lock:
            try:
                event = stream.step(frame.frame, " ".join(asked) or None, frame.time)
            except StreamError as error:
                if not asked:
                    raise
                # The stream is as it was; a question that does not fit does not end it.
                shown.words.append((frame.time, "note", str(error)))
                event = stream.step(frame.frame, None, frame.time)
        for who, text in (("user", event.user_text), ("assistant", event.text)):
            if text:
                shown.words.append((event.time, who, one_line(text)))
        shown.event = event
        shown.restarts += event.context is not None
        shown.times.append(time.perf_counter())
        return event

    def _camera(self) -> Iterator[SourceFrame]:
        """The newest picture each time, until the stream is stopped; time counts from the first one."""
        began: float | None = None
        index = 0
        while True:
            with self._changed:
                arrived = self._changed.wait_for(lambda: self._picture is not None or self.stopping, CAMERA_S)
                if self.stopping:
                    return
                if not arrived or self._picture is None:
                    raise DataError(f"The camera has sent no picture for {CAMERA_S:g} s: start it in the page.")
                (at, picture), self._picture = self._picture, None
            began = at if began is None else began
            yield SourceFrame(index, at - began, picture)
            index += 1


# -- the page ---------------------------------------------------------------------------------------------------------

STYLE = """
.gradio-container { width: 100% !important; max-width: 1240px !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: 0 !important; }
.dst { --s0: #d9dde4; --s0ink: #576070; --s1: #f0a92e; --s1ink: #8a5800; --s2: #35a58a; --s2ink: #14705a;
  --speak: #1f5fd0; --update: #8a3fb5; --bad: #b3261e; --soft: #576070; --line: var(--border-color-primary);
  font-size: 14px; line-height: 1.45; color: var(--body-text-color); font-variant-numeric: tabular-nums; }
.dark .dst { --s0: #3a4250; --s0ink: #a3adbd; --s1: #d18f1c; --s1ink: #f5bf5b; --s2: #2a9a7c; --s2ink: #63d3b5;
  --speak: #7db2ff; --update: #d79bf5; --bad: #ff8f85; --soft: #a3adbd; }
.dst .soft, .dst h2, .dst dt, .dst .number { color: var(--soft); }
.dst h1 { font-size: 22px; line-height: 1.25; margin: 4px 0 2px; font-weight: 650; text-wrap: balance; }
.dst h2 { font-size: 13px; font-weight: 600; margin: 0 0 6px; overflow-wrap: anywhere; }
.dst p { margin: 0; }
.dst .card { border: 1px solid var(--line); border-radius: 6px; padding: 12px 14px;
  background: var(--block-background-fill); overflow-wrap: anywhere; }
.dst .status { border-left: 4px solid var(--speak); padding: 8px 12px; }
.dst .status.bad { border-left-color: var(--bad); color: var(--bad); }
.dst .now { display: grid; grid-template-columns: 176px minmax(0, 1fr); gap: 20px; align-items: center; }
.dst .picture { position: relative; aspect-ratio: 4 / 3; border-radius: 6px; overflow: hidden; display: grid;
  place-items: center; background: var(--background-fill-secondary); text-align: center; }
.dst .picture img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; margin: 0; }
.dst .meter { display: grid; grid-template-columns: 72px minmax(0, 1fr) 92px; gap: 10px; align-items: center;
  margin-bottom: 8px; }
.dst .meter .bar { position: relative; height: 12px; border-radius: 6px; background: var(--background-fill-secondary);
  border: 1px solid var(--line); }
.dst .meter .bar i { position: absolute; inset: 0 auto 0 0; border-radius: 5px; opacity: .45; }
.dst .meter.over .bar i { opacity: 1; }
.dst .meter .bar b { position: absolute; top: -4px; bottom: -4px; width: 2px; background: var(--body-text-color); }
.dst .meter > :last-child { text-align: right; white-space: nowrap; }
.dst dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); gap: 6px 12px;
  margin: 14px 0 0; }
.dst dl div { display: flex; flex-direction: column-reverse; }
.dst dt { font-size: 12px; }
.dst dd { margin: 0; font-weight: 600; }
.dst .steps { list-style: none; margin: 0; padding: 0; }
.dst .steps li { display: grid; grid-template-columns: 20px 16px minmax(0, 1fr) 84px 130px 34px; gap: 8px;
  align-items: center; padding: 6px 0; margin: 0; border-top: 1px solid var(--line); }
.dst .steps li:first-child { border-top: 0; }
.dst .number, .dst .sure { text-align: right; }
.dst .state1 .text { font-weight: 600; }
.dst .state0 .ink { color: var(--s0ink); }
.dst .state1 .ink { color: var(--s1ink); }
.dst .state2 .ink { color: var(--s2ink); }
.dst .split { display: flex; height: 10px; border-radius: 5px; overflow: hidden; background: var(--s0); }
.dst .split i:nth-child(1) { background: var(--s0); }
.dst .split i:nth-child(2) { background: var(--s1); }
.dst .split i:nth-child(3) { background: var(--s2); }
.dst .talk { list-style: none; margin: 0; padding: 0; display: flex; flex-direction: column-reverse;
  max-height: 172px; overflow-y: auto; }
.dst .talk li { display: grid; grid-template-columns: 52px 76px minmax(0, 1fr); gap: 8px; padding: 3px 0; margin: 0; }
.dst .talk .who { font-weight: 600; white-space: nowrap; }
.dst .talk .assistant .who { color: var(--speak); }
.dst .talk .note { color: var(--bad); }
@media (max-width: 640px) {
  .dst .now { grid-template-columns: minmax(0, 1fr); gap: 12px; }
  .dst .picture { aspect-ratio: 16 / 9; }
  .dst .steps li { grid-template-columns: 16px 16px minmax(0, 1fr) 34px; gap: 3px 8px; }
  .dst .steps .name, .dst .steps .split { grid-column: 3; }
  .dst .steps .sure { grid-column: 4; grid-row: 1; }
  .dst .talk { max-height: 260px; }
  .dst .talk li { grid-template-columns: 52px minmax(0, 1fr); gap: 0 8px; }
  .dst .talk li > :last-child { grid-column: 1 / 3; }
}
"""
SYMBOLS = ("○", "◐", "●")
# What html.escape leaves and gradio's templates could read as code.
MARKS = str.maketrans({mark: f"&#{ord(mark)};" for mark in "${}`"})


def escaped(text: str) -> str:
    """Text that the page shows as it is."""
    return html.escape(text).translate(MARKS)


def clock(seconds: float) -> str:
    """12.5 to 0:12.5."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 // 10:02d}.{tenths % 10}"


def status_html(message: str, failed: bool = False) -> str:
    """The line that says what goes on or what went wrong."""
    kind = "card status bad" if failed else "card status"
    return f'<div class="dst"><div class="{kind}" role="status">{escaped(message)}</div></div>'


def now_html(shown: Shown | None) -> str:
    """The current picture, the two decisions and the stream's numbers."""
    event = None if shown is None else shown.event
    picture = '<span class="soft">no picture yet</span>'
    meters = _meter("speak"), _meter("update")
    facts = [("time", "–"), ("frames", "–"), ("frames a second", "–"), ("tokens cached", "–")]
    if shown is not None and event is not None:
        if shown.picture is not None:
            picture = f'<img src="{data_uri(shown.picture)}" alt="The picture at {clock(event.time)}">'
        speak, update = shown.thresholds
        meters = _meter("speak", event.p_speak, speak), _meter("update", event.p_update, update)
        facts = [
            ("time", clock(event.time)),
            ("frames", str(shown.frames)),
            ("frames a second", f"{shown.fps:.1f}"),
            ("tokens cached", str(event.cache_length)),
        ]
        facts += [("context restarts", str(shown.restarts))] if shown.restarts else []
        facts += [("frames dropped", str(shown.dropped))] if shown.dropped else []
    numbers = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        f'<div class="dst"><div class="card now"><div class="picture">{picture}</div>'
        f"<div>{''.join(meters)}<dl>{numbers}</dl></div></div></div>"
    )


def _meter(name: str, value: float | None = None, threshold: float = 0.0) -> str:
    """A probability as a bar with its threshold."""
    bar, told, over = "", '<span class="soft">–</span>', False
    if value is not None:
        bar = f'<i style="width:{value:.1%};background:var(--{name})"></i><b style="left:{threshold:.1%}"></b>'
        told, over = f'<span>{value:.2f} <span class="soft">of {threshold:.2f}</span></span>', value >= threshold
    return f'<div class="meter{" over" if over else ""}"><span>p({name})</span><div class="bar">{bar}</div>{told}</div>'


def steps_html(shown: Shown | None) -> str:
    """The tracked table: each step's state, and the state head's probabilities of the three."""
    if shown is None:
        return card("Steps", '<p class="soft">Not begun.</p>')
    event = shown.event
    rows = []
    for number, step in enumerate(shown.plan):
        state, label, parts, sure = 0, "", "", ""
        if event is not None:
            state, row = event.states[number], event.probabilities[number]
            told = ", ".join(f"{name} {value:.2f}" for name, value in zip(STATE_NAMES, row, strict=True))
            label = f' role="img" aria-label="{told}" title="{told}"'
            parts = "".join(f'<i style="width:{value:.1%}"></i>' for value in row)
            sure = f"{row[state]:.2f}"
        rows.append(
            f'<li class="state{state}"><span class="number">{number + 1}</span>'
            f'<span class="ink" aria-hidden="true">{SYMBOLS[state]}</span><span class="text">{escaped(step)}</span>'
            f'<span class="ink name">{STATE_NAMES[state]}</span><div class="split"{label}>{parts}</div>'
            f'<span class="sure">{sure}</span></li>'
        )
    return card(escaped(shown.goal) or "Steps", f'<ol class="steps">{"".join(rows)}</ol>')


def talk_html(shown: Shown | None) -> str:
    """What was said, the newest at the bottom."""
    lines = []
    # Newest first: the list is laid out upwards, so that it stays scrolled to its end without a script.
    for seconds, who, text in reversed(shown.words if shown is not None else ()):
        lines.append(
            f'<li class="{who}"><span class="soft">{clock(seconds)}</span><span class="who">{who}</span>'
            f"<span>{escaped(text)}</span></li>"
        )
    told = f'<ol class="talk">{"".join(lines)}</ol>' if lines else '<p class="soft">Nothing was said yet.</p>'
    return card("Conversation", told)


def card(title: str, content: str) -> str:
    """A titled part of the page; both are HTML."""
    return f'<div class="dst"><div class="card"><h2>{title}</h2>{content}</div></div>'


def data_uri(picture: Image.Image) -> str:
    """A picture as part of the page: shrunk to ``PICTURE``, JPEG."""
    small = picture.convert("RGB")
    small.thumbnail(PICTURE)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


class Demo:
    """What the page's buttons do: the visitors, found by the session that gradio gives each open page."""

    def __init__(self, folder: str) -> None:
        self.model, self.processor = load_trained(Path(folder))
        self.name = Path(folder).name
        self.lock = threading.Lock()
        self.visitors: dict[str, Visitor] = {}

    def visitor(self, request: gr.Request) -> Visitor:
        """The one whose page this is."""
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
        """Follow, and show it; the outputs are status, now, steps, talk, start, stop, trace, page."""
        asked = Settings(
            source == CAMERA, video, realtime, goal, plan, strategy, speaking_threshold, dst_update_threshold
        )
        off, on = gr.update(interactive=False), gr.update(interactive=True)
        buttons: tuple[Any, ...] = off, on, off, off
        before = ("", "", "")
        try:
            for shown in self.visitor(request).follow(asked):
                if shown.files is not None:
                    buttons = on, off, *(gr.update(value=str(path), interactive=True) for path in shown.files)
                parts = views(shown)
                # What stays the same is left alone: a list that is drawn anew loses its place.
                fresh = (part if part != old else gr.skip() for part, old in zip(parts, before, strict=True))
                yield (status_html(shown.message, shown.failed), *fresh, *buttons)
                buttons, before = (gr.skip(),) * 4, parts
        except (UsageError, DataError, StreamError) as error:
            yield (status_html(str(error), failed=True), *(gr.skip(),) * 7)

    def stop(self, request: gr.Request) -> None:
        """End the stream."""
        self.visitor(request).stop()

    def ask(self, question: str, request: gr.Request) -> tuple[Any, Any]:
        """Ask with the next frame; the outputs are the question's box and the status."""
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
    """Now, steps and talk."""
    return now_html(shown), steps_html(shown), talk_html(shown)


def choose(source: str) -> tuple[Any, Any, Any]:
    """Show what belongs to the source; the outputs are video, realtime, camera."""
    stored = gr.update(visible=source == VIDEO)
    return stored, stored, gr.update(visible=source == CAMERA)


def build_app(folder: str) -> gr.Blocks:
    """The page for the trained model in ``folder``; ``launch`` serves it.

    Raises:
        UsageError: there is no DST-SmolVLM2 in the folder.
    """
    demo = Demo(folder)
    config = demo.model.config
    with gr.Blocks(title="DST-SmolVLM2", analytics_enabled=False, delete_cache=(3600, KEPT_S)) as app:
        gr.HTML(
            '<div class="dst"><h1>A task, followed step by step</h1><p class="soft">'
            f"At {config.fps:g} frames a second, {escaped(demo.name)} decides whether to speak and which steps have "
            "moved.</p></div>"
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                source = gr.Radio([VIDEO, CAMERA], value=VIDEO, label="What is followed")
                video = gr.File(label="Video", file_types=VIDEO_FILES, type="filepath", height=120)
                camera = gr.Image(
                    label="Camera", sources=["webcam"], streaming=True, type="pil", height=240, visible=False
                )
                realtime = gr.Checkbox(False, label="At the video's pace", info="Else as fast as the model goes.")
                goal = gr.Textbox(EXAMPLE_GOAL, label="Goal", max_lines=2, max_length=500)
                plan = gr.Textbox(EXAMPLE_PLAN, label="Plan, one step a line", lines=4, max_lines=12, max_length=20_000)
                with gr.Accordion("Thresholds and context", open=False):
                    speak = gr.Slider(0, 1, round(config.speaking_threshold, 3), step=0.001, label="Speaks from")
                    update = gr.Slider(
                        0, 1, round(config.dst_update_threshold, 3), step=0.001, label="Updates the states from"
                    )
                    strategy = gr.Dropdown(
                        [(STRATEGY_NAMES[name], name) for name in reversed(STRATEGIES)],
                        value="summarize_with_dst",
                        label="When the context is full",
                    )
                with gr.Row():
                    start = gr.Button("Start", variant="primary")
                    stop = gr.Button("Stop", interactive=False)
                status = gr.HTML(status_html("Choose a video, then press Start."))
            with gr.Column(scale=3, min_width=320):
                shown = [gr.HTML(part) for part in views(None)]
                question = gr.Textbox(
                    label="Ask while it runs", placeholder="What comes next?", max_length=1000, submit_btn="Ask"
                )
                with gr.Row():
                    trace = gr.DownloadButton("Download the trace", interactive=False)
                    page = gr.DownloadButton("Download the timeline page", interactive=False)

        # Private: the page is the interface. Without a limit: a visitor never waits to stop or to ask.
        quick: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
        settings = [source, video, realtime, goal, plan, strategy, speak, update]
        source.change(choose, source, [video, realtime, camera], **quick)
        # Told at once, since all places may be taken.
        clicked = start.click(
            lambda: (status_html("Waiting for a free place."), gr.update(interactive=False)),
            None,
            [status, start],
            **quick,
        )
        run = clicked.then(
            demo.start, settings, [status, *shown, start, stop, trace, page],
            **quick | {"concurrency_limit": STREAMS},
        )  # fmt: skip
        # Whatever happened: the page can be used again.
        run.then(lambda: (gr.update(interactive=True), gr.update(interactive=False)), None, [start, stop], **quick)
        stop.click(demo.stop, None, None, **quick)
        question.submit(demo.ask, question, [question, status], **quick)
        camera.stream(demo.look, camera, None, stream_every=0.5, **quick)
        app.unload(demo.leave)
    return app


def launch(app: gr.Blocks, host: str, port: int, wait: bool = True) -> None:
    """Serve the page at ``host``:``port``, until it is interrupted or, without ``wait``, ``app.close()``.

    Raises:
        UsageError: the port is taken.
    """
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
            prevent_thread_lock=not wait,
            quiet=not wait,
            footer_links=[],
            max_file_size=MOST_UPLOAD,
            theme=theme,
            css=STYLE,
        )
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be served at, it may be in use: give another port.") from error


APP = '''"""The demo of {model_id}."""

from huggingface_hub import snapshot_download

from prospect_hf.streaming.demo import build_app, launch

launch(build_app(snapshot_download("{model_id}")), host="0.0.0.0", port=7860)
'''
README = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: app.py
license: apache-2.0
models:
  - {model_id}
---

[{model_id}](https://huggingface.co/{model_id}) follows a video or a camera by a plan: at every frame it decides whether
to speak and which steps have moved.
"""


def write_space(folder: Path, model_id: str) -> list[Path]:
    """Write the files of a Hugging Face Space that shows the model ``model_id`` of the Hub; returns their paths.

    Raises:
        UsageError: no such model can exist, or one of the files is there already.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", model_id, re.ASCII):
        raise UsageError(f"{model_id!r} is no model of the Hub: give OWNER/NAME.")
    title = model_id.split("/")[1]
    files = {
        "app.py": APP.format(model_id=model_id),
        "requirements.txt": f"prospect-hf[demo]=={__version__}\n",
        "README.md": README.format(model_id=model_id, title=title, gradio=version("gradio")),
    }
    for name in files:
        if (folder / name).exists():
            raise UsageError(f"{folder / name} is there already: give another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in files]
