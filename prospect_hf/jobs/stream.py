"""The stream job: a video or a session in; a live view, a trace, a timeline page, subtitles and a video out."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from prospect_hf.streaming.frame_sources import OutOfRange, SourceFrame
from prospect_hf.streaming.interrupt import Interrupt
from prospect_hf.streaming.pace import LivePace
from prospect_hf.streaming.plan_changes import due, plan_after
from prospect_hf.streaming.snapshot import restore_stream, save_stream, trace_of
from prospect_hf.streaming.subtitles import annotate_video, write_srt
from prospect_hf.streaming.thumbnails import ThumbnailStrip
from prospect_hf.streaming.timeline_page import write_page
from prospect_hf.streaming.trace import TraceWriter, join_events, new_trace_path, read_stream, trace_header
from prospect_hf.terminal import complain, say
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
    output = Path(stream.output_dir)
    remove_unfinished(output)
    following = begin(
        stream, task, model, processor, context, tracking, decoding, on_text=lambda frame, piece: view.hear(piece)
    )
    batch, first = following.batch, following.batch.rows[0].frame + 1
    now = batch.rows[0].task
    view = LiveView(now.plan, now.goal, batch.speaking_threshold, batch.dst_update_threshold, view=stream.view)
    path = new_trace_path(output, first)
    if not first and path.name != "trace.jsonl":
        say(f"{output} holds traces of earlier streams, which are kept; this one is {path.name}")
    earlier = earlier_trace(output, first) if first else None
    header = trace_header(following, task.source, stream.model, task.reference, earlier)
    strip = ThumbnailStrip()
    outcome = follow(following, task, stream, fps, TraceWriter(path, header), view, strip)
    if not outcome.frames:
        path.unlink(missing_ok=True)  # a header without events
        return report_nothing(outcome, stream, task, output, earlier)
    if task.changes and outcome.failure is None:
        complain(f"the source ended before the plan was to change at {task.changes[0].time:g} s")
    outputs = outputs_of(path, stream, task, strip)
    if batch.rows[0].frame == first + outcome.frames - 1:  # else the trace lacks a frame that the stream has seen
        outputs = {"state": lambda: save(following, output, path)} | outputs
    written, failure = write_all(outputs, path, outcome.failure)
    lost = f", {outcome.dropped} dropped" if stream.live else ""
    speed = outcome.frames / outcome.seconds
    try:
        say(f"{outcome.frames} frames, {speed:.1f} a second{lost}: {', '.join(map(str, [path, *written]))}")
    except OSError as error:  # the console is gone
        failure = failure or error
    return report_failure(failure, first + outcome.frames, output)


def remove_unfinished(output: Path) -> None:
    """Remove what a killed run had begun to write; this run holds the lock on the folder."""
    for path in output.glob("*.partial"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def earlier_trace(output: Path, first: int) -> str | None:
    """File name of the trace that a restored stream continues; None, and a line on stderr, where it is damaged."""
    name = trace_of(state_folder(output))
    if name is None:
        return None
    try:
        join_events(read_stream(output / name).events, [{"frame": first}], output / name)
    except DataError as error:
        complain(f"the trace begins with frame {first}: {error}")
        return None
    return name


def state_folder(output: Path) -> Path:
    """Where the stream is saved: a run that was killed while it replaced ``state`` has left ``state.old``."""
    folder = output / "state"
    old = folder.with_name(folder.name + ".old")
    return old if old.is_dir() and not folder.exists() else folder


def save(following: DSTStream, output: Path, trace: Path) -> Path | None:
    """Save the stream, unless it broke off in the middle of a frame: then its last snapshot stays."""
    if not following.batch.rows[0].phase:
        save_stream(following, output / "state", trace.name)
    return None


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
    start_s, offset_s = args.start_s, 0.0
    if row.frame >= 0 and is_stored(task.source):
        start_s = row.time + 0.5 / fps
        task.said_until(frame_at(row.time, fps))  # the user's texts of the earlier run
    elif row.frame >= 0:
        offset_s = row.time + 1 / fps  # the clock of a camera starts at 0 again
    frames: Any = task.frames(start_s)
    try:
        with ExitStack() as stack:
            if args.live:
                frames = stack.enter_context(LivePace(frames, realtime=is_stored(task.source)))
            interrupt = stack.enter_context(Interrupt())
            stack.enter_context(trace)
            stack.enter_context(view)
            began = time.perf_counter()
            saved = -math.inf  # the first snapshot follows the first frame
            try:
                for frame in frames:
                    with interrupt.after_this():
                        text = task.said_until(frame_at(frame.time, fps))
                        for change in due(task.changes, frame_at(frame.time + offset_s, fps), fps):
                            following.change_plan(change.plan, change.goal)
                        event = following.step(frame.frame, text, frame.time + offset_s)
                        trace.write(event)
                        outcome.frames += 1
                        if args.snapshot_minutes and time.monotonic() - saved > 60 * args.snapshot_minutes:
                            snapshot(following, Path(args.output_dir), trace.path)
                            saved = time.monotonic()
                    outcome.dropped = frames.dropped if args.live else 0
                    view.show(event, outcome.dropped)
                    strip.add(event.frame, frame.frame)
                if outcome.frames:
                    deviations = following.deviations_at_end()
                    trace.end(deviations)
                    view.end(event.time, deviations)
            except (KeyboardInterrupt, Exception) as error:
                outcome.failure = error  # raised or reported when page, subtitles and stream are saved
            outcome.seconds = time.perf_counter() - began
    except (KeyboardInterrupt, Exception) as error:  # while view, trace and source are closed
        outcome.failure = outcome.failure or error
    return outcome


def snapshot(following: DSTStream, output: Path, trace: Path) -> None:
    """Save a stream that goes on, also where the disk is full now."""
    try:
        save(following, output, trace)
    except OSError as error:
        complain(f"no snapshot after frame {following.batch.rows[0].frame}: {error}")


def write_all(
    outputs: Mapping[str, Callable[[], Path | None]], trace: Path, failure: BaseException | None
) -> tuple[list[Path], BaseException | None]:
    """Write as many of the outputs as can be written.

    Returns:
        The files, and the first error: ``failure`` where there is one.
    """
    written = []
    for name, write in outputs.items():
        try:
            path = write()
        except Exception as error:
            if failure is not None:
                complain(f"{trace.stem}: no {name}: {error}")
            failure = failure or error
        else:
            written += [path] if path is not None else []
    return written, failure


def report_nothing(
    outcome: Outcome, args: StreamArguments, task: FollowedTask, output: Path, earlier: str | None
) -> int:
    """The exit code of a stream without a frame; one that was restored at its source's end gets its outputs.

    Raises:
        BaseException: what ended it.
    """
    ended = outcome.failure is None or isinstance(outcome.failure, OutOfRange)
    if ended and earlier is not None:
        path = output / earlier
        written, failure = write_all(outputs_of(path, args, task, ThumbnailStrip()), path, None)
        say(f"{task.source} has ended: {', '.join(map(str, [path, *written]))}")
        if failure is not None:
            raise failure
        return 0
    if outcome.failure is None or isinstance(outcome.failure, KeyboardInterrupt):
        raise DataError(f"{task.source}: no frame was followed.")
    raise outcome.failure


def report_failure(failure: BaseException | None, frame: int, output: Path) -> int:
    """The exit code of a stream that was followed for a while; what ended it is printed.

    Args:
        failure: what ended it.
        frame: the one that would have come next.

    Raises:
        BaseException: a failure that is no stop and no unusable frame.
    """
    if failure is None:
        return 0
    if isinstance(failure, KeyboardInterrupt):
        complain(f"stopped before frame {frame}; stream.restore=true continues {output}")
    elif isinstance(failure, (DataError, StreamError)):
        complain(f"error: {failure}")
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
        StreamError: a plan that cannot be used or leaves no room for a frame; one of ``stream.plan_changes`` too.
    """
    thresholds = args.speaking_threshold, args.dst_update_threshold
    plan, goal = job.plan, job.goal
    if args.restore:
        stream = restore_stream(state_folder(Path(args.output_dir)), model, processor, on_text, *thresholds)
        plan, goal = plan_now(stream, job, model.config.fps)
        task = stream.batch.rows[0].task
        if (list(task.plan), task.goal) != (plan, goal):
            raise UsageError(
                f"{args.output_dir}/state follows another plan or goal; give those, or another output_dir."
            )
    else:
        stream = DSTStream(model, processor, plan, goal, None, context, tracking, decoding, on_text, *thresholds)
    settings = stream.batch.context, stream.batch.tracking, stream.batch.decoding
    for change in job.changes:  # a plan that cannot be followed is refused now, and not when its time has come
        plan, goal = plan_after([change], plan, goal)
        try:
            DSTStream(model, processor, plan, goal, None, *settings)
        except StreamError as error:
            raise StreamError(f"stream.plan_changes, the plan of {change.time:g} s: {error}") from error
    return stream


def plan_now(stream: DSTStream, job: FollowedTask, fps: float) -> tuple[list[str], str]:
    """Plan and goal that a restored stream has by the settings; the changes that were made are taken out of ``job``."""
    row, plan, goal = stream.batch.rows[0], job.plan, job.goal
    if row.frame >= 0:
        plan, goal = plan_after(due(job.changes, frame_at(row.time, fps), fps), plan, goal)
    while row.plan_change is not None and job.changes and (list(row.task.plan), row.task.goal) != (plan, goal):
        plan, goal = plan_after([job.changes.popleft()], plan, goal)  # made for a frame that could not be used
    return plan, goal


def outputs_of(
    trace_path: Path, args: StreamArguments, job: FollowedTask, strip: ThumbnailStrip
) -> dict[str, Callable[[], Path | None]]:
    """What writes timeline page, subtitles and, if asked for, annotated video of a stream from its first frame on."""
    trace = read_stream(trace_path)

    def page() -> Path:
        path = trace_path.with_suffix(".html")
        write_page(path, trace, sorted(strip.pictures.items()))
        return path

    def subtitles() -> Path:
        path = trace_path.with_suffix(".srt")
        write_srt(path, trace)
        return path

    def video() -> Path:
        path = trace_path.with_suffix(".mp4")
        shown = job.frames(trace.events[0]["time"] - 0.25 / trace.header["fps"])
        annotate_video(path, trace, pictures(shown, job.source))
        return path

    outputs: dict[str, Callable[[], Path | None]] = {"page": page, "subtitles": subtitles}
    if args.annotate:
        outputs["video"] = video
    return outputs


def pictures(frames: Iterable[SourceFrame], source: str) -> Iterator[Image.Image]:
    """The pictures of a source.

    Raises:
        UsageError: it holds features, which nobody can see.
    """
    for frame in frames:
        if isinstance(frame.frame, torch.Tensor):
            raise UsageError(f"{source} holds features and no pictures: leave stream.annotate out.")
        yield frame.frame
