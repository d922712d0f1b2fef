"""What is followed: a video with a plan, or a session of a corpus with its labels as reference."""

from __future__ import annotations

import difflib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.corpus import prepare_rows, split_sessions
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_store import SessionStore
from prospect_hf.dataset.layout import SPLITS
from prospect_hf.errors import UsageError
from prospect_hf.sessions import SOURCES
from prospect_hf.streaming.arguments import StreamArguments
from prospect_hf.streaming.frame_sources import URLS, SourceFrame, SourceFrames, open_source
from prospect_hf.streaming.plan_changes import PlannedChange, read_plan_changes
from prospect_hf.timeline import frame_at
from video_dst_smolvlm import without_secrets


@dataclass
class FollowedTask:
    """What is followed.

    Args:
        source: its name.
        frames: seconds -> the frames from then on.
        texts: (frame, what the user says on it), in order.
        reference: utterances and state changes, as the trace's header holds them; None for a video.
        changes: of the plan, in order of time.
    """

    goal: str
    plan: list[str]
    source: str
    frames: Callable[[float], SourceFrames]
    texts: deque[tuple[int, str]]
    reference: dict[str, Any] | None = None
    changes: deque[PlannedChange] = field(default_factory=deque)

    def said_until(self, frame: int) -> str | None:
        """What the user has said up to a frame and was not asked for yet."""
        said = []
        while self.texts and self.texts[0][0] <= frame:
            said.append(self.texts.popleft()[1])
        return " ".join(said) or None


def is_stored(source: str) -> bool:
    """Whether a source lies on disk and has to be played at its pace to be live."""
    return not source.startswith((*URLS, "webcam:", "/dev/video"))


def video_task(args: StreamArguments, fps: float) -> FollowedTask:
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

    changes = deque(read_plan_changes(Path(args.plan_changes))) if args.plan_changes else deque()
    for change in changes:
        if not args.start_s <= change.time < end_s:
            raise UsageError(
                f"stream.plan_changes: the change at {change.time:g} s falls outside the part that is followed."
            )
    return FollowedTask(args.goal, plan, without_secrets(source), frames, deque(texts), changes=changes)


def session_task(args: StreamArguments, processor: DSTSmolVLMProcessor, fps: float) -> FollowedTask:
    """A session of a corpus, with its labels as reference; time counts from its first frame.

    Raises:
        UsageError: the corpus has no such session.
    """
    source = str(args.session).partition(".")[0]
    if source not in SOURCES:
        raise UsageError(f"stream.session={args.session} begins with none of the sources {', '.join(SOURCES)}.")
    root = Path(str(args.root))
    data = DataArguments(
        "proassist",
        str(root),
        sources=[source],
        dst=args.dst,
        dst_encoder=args.dst_encoder,
        cache_dir=args.cache_dir,
    )
    loaded = prepare_rows(data)
    store = SessionStore([file for split in SPLITS for file in split_sessions(loaded, split).files])
    names = store.column("session_id")
    if str(args.session) not in names:
        near = difflib.get_close_matches(str(args.session), names, n=4, cutoff=0.0)
        raise UsageError(
            f"{root} has no session {args.session} among the {len(names)} of {source}; the nearest names are "
            f"{', '.join(near)}."
        )
    session = store[names.index(str(args.session))]
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
    return FollowedTask(session.goal, session.steps, session.session_id, frames, texts, reference)
