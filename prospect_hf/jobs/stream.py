"""The stream job: a video or a session in; a live view, a trace, a timeline page, subtitles and a video out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from context_dst_smolvlm import Context, StreamError
from decoding_dst_smolvlm import Decoding
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checkpoints import load_trained
from prospect_hf.errors import DataError, UsageError
from prospect_hf.extras import missing
from prospect_hf.streaming.arguments import StreamArguments
from prospect_hf.streaming.followed_task import FollowedTask, is_stored, session_task, video_task
from prospect_hf.streaming.frame_sources import SourceFrame
from prospect_hf.streaming.interrupt import Interrupt
from prospect_hf.streaming.pace import LivePace
from prospect_hf.streaming.snapshot import restore_stream, save_stream
from prospect_hf.streaming.subtitles import annotate_video, write_srt
from prospect_hf.streaming.thumbnails import ThumbnailStrip
from prospect_hf.streaming.timeline_page import write_page
from prospect_hf.streaming.trace import TraceWriter, read_trace, trace_header
from prospect_hf.timeline import frame_at
from streaming_dst_smolvlm import DSTStream
from tracking_dst_smolvlm import Tracking

if TYPE_CHECKING:
    from prospect_hf.streaming.live_view import LiveView  # needs rich, which may be missing


@dataclass
class Outcome:
    """What became of following a source.

    Args:
        frames: how many were followed.
        seconds: that took.
        dropped: frames that a live source had to drop.
        failure: what ended it before its end; a KeyboardInterrupt is a stop that was asked for.
    """

    frames: int = 0
    seconds: float = 0.0
    dropped: int = 0
    failure: BaseException | None = None


def run(stream: StreamArguments, context: Context, tracking: Tracking, decoding: Decoding) -> int:
    """Follow the source; 0 at its end, 1 where it was stopped or broke off.

    Args:
        stream: what is followed, by which model, and what is written.
        context: what happens when the context is full.
        tracking: how proposals become moves of the table.
        decoding: how texts are written.
    """
    try:
        from prospect_hf.streaming.live_view import LiveView
    except ImportError as error:
        raise missing("The live view", "rich", "stream") from error

    model, processor = load_trained(Path(stream.model))
    fps = model.config.fps
    task = session_task(stream, processor, fps) if stream.session else video_task(stream, fps)
    following = begin(
        stream, task, model, processor, context, tracking, decoding, on_text=lambda frame, piece: view.hear(piece)
    )
    batch, first = following.batch, following.batch.rows[0].frame + 1
    view = LiveView(task.plan, task.goal, batch.speaking_threshold, batch.dst_update_threshold, view=stream.view)
    output = Path(stream.output_dir)
    path = output / (f"trace-{first}.jsonl" if first else "trace.jsonl")
    strip = ThumbnailStrip()
    trace = TraceWriter(path, trace_header(following, task.source, stream.model, task.reference))
    outcome = follow(following, task, stream, fps, trace, view, strip)
    if not outcome.frames:
        if outcome.failure is None or isinstance(outcome.failure, KeyboardInterrupt):
            raise DataError(f"{task.source}: no frame was followed.")
        raise outcome.failure
    between_frames = not batch.rows[0].phase
    if between_frames:
        save_stream(following, output / "state")
    written = [path, *write_outputs(path, stream, task, strip)]
    lost = f", {outcome.dropped} dropped" if stream.live else ""
    speed = outcome.frames / outcome.seconds
    print(f"{outcome.frames} frames, {speed:.1f} a second{lost}: {', '.join(map(str, written))}")
    return report_failure(outcome.failure, between_frames)


def follow(
    following: DSTStream,
    task: FollowedTask,
    args: StreamArguments,
    fps: float,
    trace: TraceWriter,
    view: LiveView,
    strip: ThumbnailStrip,
) -> Outcome:
    """Show the stream every frame of its source, and write and show what comes of it."""
    row, outcome = following.batch.rows[0], Outcome()
    first = row.frame + 1
    start_s, offset_s = args.start_s, 0.0
    if first and is_stored(task.source):
        start_s = row.time + 0.5 / fps
        task.said_until(frame_at(row.time, fps))  # the user's texts of the earlier run
    elif first:
        offset_s = row.time + 1 / fps  # the clock of a camera starts at 0 again
    frames: Any = task.frames(start_s)
    with ExitStack() as stack:
        if args.live:
            frames = stack.enter_context(LivePace(frames, realtime=is_stored(task.source)))
        interrupt = stack.enter_context(Interrupt())
        stack.enter_context(trace)
        stack.enter_context(view)
        began = time.perf_counter()
        try:
            for frame in frames:
                with interrupt.after_this():
                    text = task.said_until(frame_at(frame.time, fps))
                    event = following.step(frame.frame, text, frame.time + offset_s)
                    trace.write(event)
                outcome.dropped = frames.dropped if args.live else 0
                view.show(event, outcome.dropped)
                strip.add(event.frame, frame.frame)
        except (KeyboardInterrupt, Exception) as error:
            outcome.failure = error  # raised or reported when page, subtitles and stream are saved
        outcome.seconds = time.perf_counter() - began
    outcome.frames = row.frame + 1 - first
    return outcome


def report_failure(failure: BaseException | None, between_frames: bool) -> int:
    """The exit code of a stream that was followed for a while; what ended it is printed.

    Raises:
        BaseException: a failure that is no stop and no unusable frame.
    """
    if failure is None:
        return 0
    if isinstance(failure, KeyboardInterrupt):
        state = "stream.restore=true continues from here" if between_frames else "in the middle of a frame"
        print(f"stopped; {state}", file=sys.stderr)
    elif isinstance(failure, (DataError, StreamError)):
        print(f"error: {' '.join(str(failure).split())}", file=sys.stderr)
    else:
        raise failure
    return 1


def begin(
    args: StreamArguments,
    job: FollowedTask,
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    context: Context,
    tracking: Tracking,
    decoding: Decoding,
    on_text: Callable[[int, str], None],
) -> DSTStream:
    """A new stream, or with ``restore`` the saved one; ``on_text`` gets its utterances piece by piece.

    Raises:
        UsageError: the saved stream follows another plan or goal.
    """
    thresholds = args.speaking_threshold, args.dst_update_threshold
    if not args.restore:
        return DSTStream(model, processor, job.plan, job.goal, None, context, tracking, decoding, on_text, *thresholds)
    stream = restore_stream(Path(args.output_dir) / "state", model, processor, on_text, *thresholds)
    task = stream.batch.rows[0].task
    if (list(task.plan), task.goal) != (job.plan, job.goal):
        raise UsageError(f"{args.output_dir}/state follows another plan or goal; give those, or another output_dir.")
    return stream


def write_outputs(trace_path: Path, args: StreamArguments, job: FollowedTask, strip: ThumbnailStrip) -> list[Path]:
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
