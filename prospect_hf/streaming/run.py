"""``scripts/stream.py``: a video or a session in; a live view, a trace, a timeline page, subtitles and a video out."""

from __future__ import annotations

import difflib
import logging
import math
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
import transformers
from PIL import Image

from context_dst_smolvlm import Context, StreamError
from modeling_dst_smolvlm import Decoding, DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checkpoints import load_trained
from prospect_hf.data.dst_frames import load_dst_frames
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.rows import iter_sessions
from prospect_hf.errors import DataError, UsageError
from prospect_hf.sessions import SOURCES
from prospect_hf.settings import compose, parse
from prospect_hf.streaming.arguments import GROUPS, StreamArguments
from prospect_hf.streaming.pace import LivePace
from prospect_hf.streaming.page import write_page
from prospect_hf.streaming.snapshot import restore_stream, save_stream
from prospect_hf.streaming.sources import URLS, SourceFrame, SourceFrames, open_source
from prospect_hf.streaming.subtitles import annotate_video, write_srt
from prospect_hf.streaming.trace import KIND, VERSION, TraceWriter, read_trace
from prospect_hf.timeline import frame_at
from streaming_dst_smolvlm import DSTStream
from tracking_dst_smolvlm import Tracking
from video_dst_smolvlm import without_secrets

THUMBNAILS = 200  # pictures in the page's strip at most
NEEDED = 'this needs the packages of `pip install "prospect-hf[stream]"`'


@dataclass
class Job:
    """What is followed.

    Args:
        source: its name.
        frames: seconds -> the frames from then on.
        texts: (frame, what the user says on it), in order.
        reference: utterances and state changes, as the trace's header holds them; None for a video.
    """

    goal: str
    plan: list[str]
    source: str
    frames: Callable[[float], SourceFrames]
    texts: deque[tuple[int, str]]
    reference: dict[str, Any] | None = None

    def said_until(self, frame: int) -> str | None:
        """What the user has said up to a frame and was not asked for yet."""
        said = []
        while self.texts and self.texts[0][0] <= frame:
            said.append(self.texts.popleft()[1])
        return " ".join(said) or None


def main(argv: Sequence[str], usage: str | None = None) -> int:
    """Follow what the command line names and return the exit code."""
    if {"-h", "--help"} & set(argv):
        print(usage or main.__doc__)
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        return run(argv)
    except (UsageError, DataError, StreamError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def run(overrides: Sequence[str]) -> int:
    """Follow the source; 0 at its end, 1 where it was stopped or broke off."""
    groups = compose("stream", GROUPS, overrides)
    args = parse(StreamArguments, groups["stream"], "stream")
    context = parse(Context, groups["context"], "context")
    tracking = parse(Tracking, groups["tracking"], "tracking")
    decoding = parse(Decoding, groups["decoding"], "decoding")
    try:
        from prospect_hf.streaming.live import LiveView
    except ImportError as error:
        raise UsageError(f"{error}: {NEEDED}.") from error

    model, processor = load_trained(Path(args.model))
    fps = model.config.fps
    job = session_job(args, processor, fps) if args.session else video_job(args, fps)
    output = Path(args.output_dir)
    stream = begin(args, job, model, processor, context, tracking, decoding)
    batch, first = stream.batch, stream.batch.rows[0].frame + 1
    view = LiveView(job.plan, job.goal, batch.speaking_threshold, batch.dst_update_threshold, view=args.view)
    batch.on_text = lambda _, frame, piece: view.hear(piece)
    header = {
        "kind": KIND,
        "version": VERSION,
        "goal": job.goal,
        "plan": job.plan,
        "fps": fps,
        "speaking_threshold": batch.speaking_threshold,
        "dst_update_threshold": batch.dst_update_threshold,
        "source": job.source,
        "model": args.model,
        "context": {**asdict(batch.context), "max_tokens": batch.max_tokens},
        "reference": job.reference,
    }
    path = output / (f"trace-{first}.jsonl" if first else "trace.jsonl")
    strip = Strip()
    failure: BaseException | None = None
    dropped = 0
    begin_s, later = args.start_s, 0.0
    if first and is_stored(job.source):
        begin_s = batch.rows[0].time + 0.5 / fps
        job.said_until(frame_at(batch.rows[0].time, fps))  # was said before the stop
    elif first:
        later = batch.rows[0].time + 1 / fps  # a camera's own time begins anew
    frames: Any = job.frames(begin_s)
    with ExitStack() as stack:
        if args.live:
            frames = stack.enter_context(LivePace(frames, realtime=is_stored(job.source)))
        interrupt = stack.enter_context(Interrupt())
        trace = stack.enter_context(TraceWriter(path, header))
        stack.enter_context(view)
        began = time.perf_counter()
        try:
            for frame in frames:
                with interrupt.after_this():
                    text = job.said_until(frame_at(frame.time, fps))
                    event = stream.step(frame.frame, text, frame.time + later)
                    trace.write(event)
                dropped = frames.dropped if args.live else 0
                view.show(event, dropped)
                strip.add(event.frame, frame.frame)
        except (KeyboardInterrupt, DataError, StreamError) as error:
            failure = error  # what was followed so far is kept
        seconds = time.perf_counter() - began
    count = batch.rows[0].frame + 1 - first
    if not count:
        if failure is None or isinstance(failure, KeyboardInterrupt):
            raise DataError(f"{job.source}: no frame was followed.")
        raise failure
    if not batch.rows[0].phase:
        save_stream(stream, output / "state")
    written = [path, *write_outputs(path, args, job, strip)]
    lost = f", {dropped} dropped" if args.live else ""
    print(f"{count} frames, {count / seconds:.1f} a second{lost}: {', '.join(map(str, written))}")
    if isinstance(failure, KeyboardInterrupt):
        goes_on = "in the middle of a frame" if batch.rows[0].phase else "stream.restore=true goes on from here"
        print(f"stopped; {goes_on}", file=sys.stderr)
    elif failure is not None:
        print(f"error: {' '.join(str(failure).split())}", file=sys.stderr)
    return 0 if failure is None else 1


def begin(
    args: StreamArguments,
    job: Job,
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    context: Context,
    tracking: Tracking,
    decoding: Decoding,
) -> DSTStream:
    """A new stream, or the one that an earlier run left.

    Raises:
        UsageError: the stream that is there is about something else.
    """
    if args.restore:
        stream = restore_stream(Path(args.output_dir) / "state", model, processor)
        task = stream.batch.rows[0].task
        if (list(task.plan), task.goal) != (job.plan, job.goal):
            raise UsageError(
                f"{args.output_dir}/state follows another plan or goal; give those, or another output_dir."
            )
    else:
        stream = DSTStream(model, processor, job.plan, job.goal, None, context, tracking, decoding)
    if args.speaking_threshold is not None:
        stream.batch.speaking_threshold = args.speaking_threshold
    if args.dst_update_threshold is not None:
        stream.batch.dst_update_threshold = args.dst_update_threshold
    return stream


def is_stored(source: str) -> bool:
    """Whether a source lies on disk and has to be played at its pace to be live."""
    return not source.startswith((*URLS, "webcam:", "/dev/video"))


def write_outputs(trace_path: Path, args: StreamArguments, job: Job, strip: Strip) -> list[Path]:
    """The timeline page, the subtitles and, if asked for, the annotated video, named after the trace."""
    trace = read_trace(trace_path)
    page, subtitles = trace_path.with_suffix(".html"), trace_path.with_suffix(".srt")
    write_page(page, trace, sorted(strip.pictures.items()))
    write_srt(subtitles, trace)
    written = [page, subtitles]
    if args.annotate:
        video = trace_path.with_suffix(".mp4")
        shown = job.frames(trace.events[0]["time"] - 0.25 / trace.header["fps"])
        annotate_video(video, trace, pictures(shown, job.source))
        written.append(video)
    return written


def pictures(frames: Iterable[SourceFrame], source: str) -> Iterator[Image.Image]:
    """The pictures of a source.

    Raises:
        UsageError: it holds features, which nobody can see.
    """
    for frame in frames:
        if isinstance(frame.frame, torch.Tensor):
            raise UsageError(f"{source} holds features and no pictures: leave stream.annotate out.")
        yield frame.frame


class Interrupt:
    """Ctrl-C between two frames and not in the middle of one, so that the stream can be saved; a context manager."""

    def __init__(self) -> None:
        self._busy = self._asked = False

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self._busy:  # asked for twice, it ends at once
            raise KeyboardInterrupt
        self._asked = True

    @contextmanager
    def after_this(self) -> Iterator[None]:
        """What must not be broken off."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._asked:
            raise KeyboardInterrupt


class Strip:
    """Pictures for the page: as many as fit, evenly over the stream, however long it gets."""

    def __init__(self) -> None:
        self.pictures: dict[int, Image.Image] = {}
        self.every = 1

    def add(self, frame: int, picture: Any) -> None:
        """Keep the picture of ``frame`` if it is its turn; features have none."""
        if not isinstance(picture, torch.Tensor) and frame % self.every == 0:
            small = (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).convert("RGB")
            small.thumbnail((160, 160))
            self.pictures[frame] = small
        if len(self.pictures) > THUMBNAILS:
            self.every *= 2
            self.pictures = {number: kept for number, kept in self.pictures.items() if number % self.every == 0}


def video_job(args: StreamArguments, fps: float) -> Job:
    """A source with the plan that the settings give."""
    plan = list(args.plan)
    if args.plan_file:
        try:
            lines = Path(args.plan_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"stream.plan_file={args.plan_file} cannot be read: {error}") from error
        plan = [line.strip() for line in lines if line.strip()]
    source, end_s = str(args.source), math.inf if args.end_s is None else args.end_s
    texts = [(frame_at(second, fps) - 1, text) for second, text in args.said()]

    def frames(start_s: float) -> SourceFrames:
        return open_source(source, fps, max(start_s, 0.0), end_s)

    return Job(args.goal, plan, without_secrets(source), frames, deque(texts))


def session_job(args: StreamArguments, processor: DSTSmolVLMProcessor, fps: float) -> Job:
    """A session of a corpus, with its labels as reference; time counts from its first frame.

    Raises:
        UsageError: the corpus has no such session.
    """
    source = str(args.session).partition(".")[0]
    if source not in SOURCES:
        raise UsageError(f"stream.session={args.session} begins with none of the sources {', '.join(SOURCES)}.")
    root = Path(str(args.root))
    rows = load_dst_frames(source, root, cache_dir=Path(args.cache_dir), dst=cast(Any, args.dst))
    sessions = {session.session_id: session for split in rows.values() for session in iter_sessions(split)}
    session = sessions.get(str(args.session))
    if session is None:
        near = difflib.get_close_matches(str(args.session), sessions, n=1, cutoff=0.0)
        raise UsageError(
            f"{root} has no session {args.session} among the {len(sessions)} of {source}; near: {near[0]}."
        )
    reader = FrameReader(root, args.frames, processor)

    def frames(start_s: float) -> SourceFrames:
        for frame in range(max(math.ceil(start_s * fps - 1e-6), 0), len(session)):
            yield SourceFrame(frame, frame / fps, Image.fromarray(reader.read(session, frame, frame + 1)[0]))

    items = sorted(session.items.items())
    reference = {
        "utterances": [{"frame": frame, "text": item.response} for frame, item in items if item.response],
        "states": [[frame, step, state] for frame, item in items for step, state in sorted(item.changes.items())],
    }
    texts = deque((frame, item.user_text) for frame, item in items if item.user_text)
    return Job(session.goal, session.steps, session.session_id, frames, texts, reference)
