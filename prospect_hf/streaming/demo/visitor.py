"""One visitor of the demo: the stream that is running, questions, camera pictures, and the content of the page.

This module does not use gradio.
"""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from context_dst_smolvlm import StreamError
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor, one_line
from prospect_hf.errors import DataError, UsageError
from prospect_hf.streaming.demo.limits import Limits
from prospect_hf.streaming.frame_sources import SourceFrame, video_frames
from prospect_hf.streaming.pace import LivePace
from prospect_hf.streaming.thumbnails import ThumbnailStrip
from prospect_hf.streaming.timeline_page import write_page
from prospect_hf.streaming.trace import TraceWriter, new_trace_path, read_trace, trace_header
from streaming_dst_smolvlm import DSTStream, StreamEvent

CAMERA_S = 30.0  # seconds without a picture after which a camera counts as lost
SHOW_EVERY_S = 0.15  # seconds between two views of a running stream
WORDS_SHOWN = 100  # utterances on the page; the trace has all of them
FPS_OVER = 40  # the speed is measured over this many frames
END_S = 10.0  # seconds within which a stream ends that is replaced by the next one
PLACE_S = 3.0  # seconds that a new stream waits for the place of one whose visitor has just left


@dataclass
class Shared:
    """What all visitors share.

    Args:
        model, processor: from the same folder.
        name: the model's, written to the trace.
        folder: where visitors' folders are made.
        limits: what one visitor may take.
        lock: held while the model computes.
    """

    model: DSTSmolVLMForConditionalGeneration
    processor: DSTSmolVLMProcessor
    name: str
    folder: Path
    limits: Limits = field(default_factory=Limits)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.places = threading.Semaphore(self.limits.streams)


@dataclass(frozen=True)
class Settings:
    """The settings of the page's form.

    Args:
        camera: follow the camera instead of ``video``.
        video: path of the uploaded file, or None.
        realtime: keep the video's pace and drop frames if the model is slower.
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
    """The state of a stream, as the page shows it.

    Args:
        words: (seconds, who, text); who is user, assistant, plan or note.
        times: readings of the clock, in seconds, after the last frames.
        restarts: how often the context was full and was shortened.
        files: trace and timeline page, at the end of the stream.
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
        """Frames a second, over the last ``FPS_OVER`` frames."""
        span = self.times[-1] - self.times[0] if len(self.times) > 1 else 0.0
        return (len(self.times) - 1) / span if span else 0.0


class Visitor:
    """One open page: at most one running stream, its pending questions and the newest picture of the camera.

    Args:
        shared: what all visitors share.

    Attributes:
        seen: reading of the clock, in seconds, when the page was last known to be open.
        files: the visitor's files outside ``folder``: uploads, and copies that the page offers.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.folder: Path | None = None
        self.files: set[Path] = set()
        self.seen = time.monotonic()
        self.stopping = False
        self._busy = threading.Lock()
        self._running: Generator[Shown, None, None] | None = None
        self._questions: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._plans: queue.SimpleQueue[tuple[list[str], str]] = queue.SimpleQueue()
        self._changed = threading.Condition()  # guards the two below and `stopping`
        self._picture: tuple[float, Image.Image] | None = None
        self._dropped = 0

    @property
    def running(self) -> bool:
        """Whether a stream is running."""
        return self._busy.locked()

    def stop(self) -> None:
        """End the stream after the current frame."""
        with self._changed:
            self.stopping = True
            self._changed.notify_all()

    def end(self, most_s: float = END_S) -> bool:
        """End the stream, also one that nobody asks for its next view; whether it has ended within ``most_s``."""
        deadline = time.monotonic() + most_s
        while self.running and time.monotonic() < deadline:
            self.stop()
            running = self._running
            if running is not None:
                with suppress(ValueError):  # it is at work on a frame, and ends after it
                    running.close()
            time.sleep(0.02)
        return not self.running

    def remove_folder(self) -> None:
        """Remove what the visitor's streams wrote."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, question: str) -> None:
        """Add a user text to the next frame.

        Raises:
            UsageError: the question is empty, or no stream is running.
        """
        if not one_line(question):
            raise UsageError("The question is empty.")
        if not self.running:
            raise UsageError("Nothing is being followed: press Start, then ask.")
        self._questions.put(question)

    def change_plan(self, plan: str, goal: str) -> None:
        """Change plan (one step a line) and goal before the next frame; a step whose text stays keeps its state.

        Raises:
            UsageError: there is no step, or no stream is running.
        """
        steps = steps_of(plan)
        if not self.running:
            raise UsageError("Nothing is being followed: press Start with this plan.")
        self._plans.put((steps, one_line(goal)))

    def look(self, picture: Image.Image) -> None:
        """Take a picture of the camera; it replaces one that the model has not processed yet."""
        with self._changed:
            self._dropped += self._picture is not None
            self._picture = time.monotonic(), picture
            self._changed.notify_all()

    def follow(self, asked: Settings) -> Iterator[Shown]:
        """Follow the video or the camera; a stream of this page that is still running is ended first.

        Yields:
            The same object each time, with its current content; the last time with ``files``.

        Raises:
            UsageError, StreamError: the settings cannot be used, or all places are taken. Later errors go to
                ``message``, and the trace keeps the frames that were processed before.
        """
        ended = self.end()
        with ExitStack() as held:
            if not ended or not self._busy.acquire(blocking=False):
                raise UsageError("The stream before this one has not ended yet: press Start again in a moment.")
            held.callback(self._busy.release)
            places, streams = self.shared.places, self.shared.limits.streams
            if not places.acquire(timeout=PLACE_S):
                raise UsageError(f"All {streams} places are taken: try again in a few minutes.")
            held.callback(places.release)
            with self._changed:
                self.stopping, self._picture, self._dropped = False, None, 0
            for waiting in (self._questions, self._plans):
                while not waiting.empty():
                    waiting.get()
            self._running = self._holding(held, asked)
            yield from self._running

    def _holding(self, held: ExitStack, asked: Settings) -> Generator[Shown, None, None]:
        """The views of a stream; ``held`` is given back when it ends or is closed, whoever closes it."""
        with held:
            yield from self._follow(asked)

    def _follow(self, asked: Settings) -> Generator[Shown, None, None]:
        plan = steps_of(asked.plan)
        if not asked.camera and asked.video is None:
            raise UsageError("There is no video yet: choose a file.")
        name = "camera" if asked.video is None or asked.camera else Path(asked.video).name
        shared, limits = self.shared, self.shared.limits
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="visitor_", dir=shared.folder))
        with shared.lock:
            stream = DSTStream(
                shared.model,
                shared.processor,
                plan,
                one_line(asked.goal),
                context=asked.strategy,
                speaking_threshold=asked.speaking_threshold,
                dst_update_threshold=asked.dst_update_threshold,
            )
        shown = Shown(one_line(asked.goal), plan, (asked.speaking_threshold, asked.dst_update_threshold))
        shown.message = "Waiting for the camera's first picture." if asked.camera else f"Opening {name}."
        yield shown
        shown.message = f"Following {name}."
        header = trace_header(stream, name, shared.name)
        strip, path = ThumbnailStrip(), new_trace_path(self.folder, 0)
        failure: ValueError | None = None
        limit = ""
        last_view = began = time.perf_counter()
        with ExitStack() as stack:
            trace = stack.enter_context(TraceWriter(path, header))
            frames: Iterable[SourceFrame] = self._camera()
            pace: LivePace | None = None
            if not asked.camera:
                frames = stored = video_frames(str(asked.video), shared.model.config.fps)
                if asked.realtime:
                    frames = pace = stack.enter_context(LivePace(stored, realtime=True))
            try:
                for frame in frames:
                    event = self._step(stream, frame, shown)
                    trace.write(event)
                    assert isinstance(frame.frame, Image.Image)
                    strip.add(event.frame, frame.frame)
                    shown.picture, shown.dropped = frame.frame, self._dropped if pace is None else pace.dropped
                    if time.perf_counter() - began > 60 * limits.minutes:
                        limit = f"a stream may run for {limits.minutes:g} minutes here"
                    elif not asked.camera and frame.time > 60 * limits.video_minutes:
                        limit = f"{limits.video_minutes:g} minutes of a video are followed here"
                    if self.stopping or limit:
                        break
                    if time.perf_counter() - last_view > SHOW_EVERY_S:
                        yield shown
                        last_view = time.perf_counter()
                else:
                    trace.end(stream.deviations_at_end())
            except (DataError, StreamError) as error:
                failure = error
        seconds = time.perf_counter() - began
        if failure is not None:
            shown.failed, shown.message = True, str(failure).replace(str(asked.video), name)
        elif self.stopping:
            shown.message = f"Stopped after {shown.frames} frames."
        elif limit:
            shown.message = f"Ended after {shown.frames} frames: {limit}."
        else:
            shown.message = f"Followed to the end: {shown.frames} frames in {seconds:.1f} s."
        if shown.frames:
            page = path.with_name("timeline.html")
            write_page(page, read_trace(path), sorted(strip.pictures.items()))
            shown.files = path, page
        yield shown

    def _step(self, stream: DSTStream, frame: SourceFrame, shown: Shown) -> StreamEvent:
        """Process a frame, with the plans and questions given since the last one."""
        while not self._plans.empty():
            try:
                stream.change_plan(*self._plans.get())
            except StreamError as error:  # the stream goes on with its plan
                shown.words.append((frame.time, "note", str(error)))
        asked = []
        while not self._questions.empty():
            asked.append(self._questions.get())
        with self.shared.lock:
            try:
                event = stream.step(frame.frame, " ".join(asked) or None, frame.time)
            except StreamError as error:
                if not asked:
                    raise
                # The failed step changed nothing: the stream goes on without the question, which does not fit.
                shown.words.append((frame.time, "note", str(error)))
                event = stream.step(frame.frame, None, frame.time)
        if event.plan_change is not None:
            shown.plan, shown.goal = list(event.plan_change.plan), event.plan_change.goal
            kept = sum(place is not None for place in event.plan_change.kept)
            shown.words.append((event.time, "plan", f"{len(shown.plan)} steps now, {kept} kept"))
        for who, text in (("user", event.user_text), ("assistant", event.text)):
            if text:
                shown.words.append((event.time, who, one_line(text)))
        shown.event = event
        shown.restarts += event.context is not None
        shown.times.append(time.perf_counter())
        return event

    def _camera(self) -> Iterator[SourceFrame]:
        """The newest pictures, until the stream is stopped; time counts from the first one."""
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


def steps_of(plan: str) -> list[str]:
    """The steps of a plan with one a line.

    Raises:
        UsageError: there is none.
    """
    steps = [one_line(line) for line in plan.splitlines() if one_line(line)]
    if not steps:
        raise UsageError("The plan is empty: write at least one step.")
    return steps
