"""``scripts/stream.py``: a video or a session in; a live view, a trace, a timeline page, subtitles and a video out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

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


def run(stream: StreamArguments, context: Context, tracking: Tracking, decoding: Decoding) -> int:
    """Follow the source; 0 at its end, 1 where it was stopped or broke off.

    Args:
        stream: what is followed, by which model, and what is written.
        context: what happens when the context is full.
        tracking: how proposals become moves of the table.
        decoding: how texts are written.
    """
    args = stream
    try:
        from prospect_hf.streaming.live_view import LiveView
    except ImportError as error:
        raise missing("The live view", "rich", "stream") from error

    model, processor = load_trained(Path(args.model))
    fps = model.config.fps
    job = session_task(args, processor, fps) if args.session else video_task(args, fps)
    output = Path(args.output_dir)
    following = begin(
        args, job, model, processor, context, tracking, decoding, on_text=lambda frame, piece: view.hear(piece)
    )
    batch, first = following.batch, following.batch.rows[0].frame + 1
    view = LiveView(job.plan, job.goal, batch.speaking_threshold, batch.dst_update_threshold, view=args.view)
    header = trace_header(following, job.source, args.model, job.reference)
    path = output / (f"trace-{first}.jsonl" if first else "trace.jsonl")
    strip = ThumbnailStrip()
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
                    event = following.step(frame.frame, text, frame.time + later)
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
        save_stream(following, output / "state")
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
    job: FollowedTask,
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    context: Context,
    tracking: Tracking,
    decoding: Decoding,
    on_text: Callable[[int, str], None],
) -> DSTStream:
    """A new stream, or the one that an earlier run left; ``on_text`` gets its utterances piece by piece.

    Raises:
        UsageError: the stream that is there is about something else.
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
