"""What can be set about following a video: the ``stream`` group of ``scripts/stream.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from prospect_hf.align.named import ENCODER
from prospect_hf.data.arguments import FRAME_SOURCES
from prospect_hf.errors import UsageError
from prospect_hf.sources.proassist import check_dst


@dataclass
class StreamArguments:
    """What is followed, by which model, and what is written.

    Args:
        model: folder of a trained DST-SmolVLM2.
        source: a video, a folder of pictures, an ``.arrow`` frame file, a ``.safetensors`` feature file, a URL, or
            ``webcam:N``; with ``session`` none.
        root: folder that holds ``processed_data``, for ``session``.
        session: a session of that corpus (``wtag.T-sim-test-00001__view0.talk_some_0``); its goal, plan, frames and
            user texts are followed, and the trace contains its labels as the reference.
        frames: the session's pictures: ``store`` (the corpus' frame files), ``rendered`` (drawn from the labels, where
            there are no videos) or ``blank``.
        dst: where the session's labels come from: ``files``, ``semantic``, ``words`` or ``none`` (``data.dst``).
        dst_encoder: sentence encoder of ``dst=semantic`` (``data.dst_encoder``).
        cache_dir: where the corpus' frame rows are kept.
        goal: what the user wants to do.
        plan: the steps.
        plan_file: in place of ``plan``, a text file with one step a line.
        plan_changes: a JSON file of plans that take the place of the one before them at their times (seconds of the
            source), ``[{"time": 30.0, "plan": ["first step", "second step"], "goal": "may be left out"}]``; steps whose
            text stays keep their state.
        user_texts: what the user says, "SECONDS TEXT" each.
        start_s, end_s: the part of the source that is followed, in seconds; a session is followed whole.
        live: keep up with the source: frames are dropped by time, and counted, where the model is slower.
        output_dir: where trace, page, subtitles and video are written.
        annotate: write an MP4 of the stream with its table and words (stored frames only).
        restore: continue the stream in ``output_dir/state``, which every run saves when it ends or is stopped, and
            every ``snapshot_minutes``.
        snapshot_minutes: minutes between two snapshots, so that a stream can be continued that was killed; 0: none.
        speaking_threshold, dst_update_threshold: replace the model's decision thresholds.
        view: show the live view; otherwise words and moves are printed line by line.
    """

    model: str = "outputs/tiny"
    source: str | None = None
    root: str | None = None
    session: str | None = None
    frames: str = "store"
    dst: str = "files"
    dst_encoder: str = ENCODER
    cache_dir: str = "outputs/cache"
    goal: str = ""
    plan: list[str] = field(default_factory=list)
    plan_file: str | None = None
    plan_changes: str | None = None
    user_texts: list[str] = field(default_factory=list)
    start_s: float = 0.0
    end_s: float | None = None
    live: bool = False
    output_dir: str = "outputs/stream"
    annotate: bool = False
    restore: bool = False
    snapshot_minutes: float = 2.0
    speaking_threshold: float | None = None
    dst_update_threshold: float | None = None
    view: bool = True

    def __post_init__(self) -> None:
        if (self.source is None) == (self.session is None):
            raise UsageError("Give stream.source=VIDEO, or stream.session=ID with stream.root=FOLDER, and only one.")
        if self.session is not None:
            if self.root is None:
                raise UsageError("stream.session needs stream.root, the folder that holds processed_data.")
            if self.plan or self.plan_file or self.plan_changes or self.goal or self.user_texts:
                raise UsageError("A session brings its own goal, plan and user texts: leave those settings out.")
            if self.start_s or self.end_s is not None:
                raise UsageError("A session is followed whole: leave stream.start_s and stream.end_s out.")
        elif bool(self.plan) == bool(self.plan_file):
            raise UsageError("Give the plan: stream.plan=[first step,second step] or stream.plan_file=FILE.")
        if not 0 <= self.start_s < math.inf:
            raise UsageError(f"stream.start_s must be 0 or more seconds, not {self.start_s:g}.")
        if self.end_s is not None and not self.end_s > self.start_s:
            raise UsageError(f"stream.end_s={self.end_s:g} must come after stream.start_s={self.start_s:g}.")
        if not 0 <= self.snapshot_minutes < math.inf:
            raise UsageError(f"stream.snapshot_minutes must be 0 or more minutes, not {self.snapshot_minutes:g}.")
        for name in ("speaking_threshold", "dst_update_threshold"):
            value = vars(self)[name]
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"stream.{name} must lie in [0, 1], not {value:g}.")
        if self.annotate and self.live:
            raise UsageError("stream.annotate needs every frame and stream.live drops some: set one of them to false.")
        if self.frames not in FRAME_SOURCES:
            raise UsageError(f"stream.frames must be one of {', '.join(FRAME_SOURCES)}, not {self.frames!r}.")
        check_dst(self.dst, "stream.dst")
        self.said()

    def said(self) -> list[tuple[float, str]]:
        """``user_texts`` as (seconds, text), in order of time.

        Raises:
            UsageError: one does not begin with a number of seconds, or with one outside the part that is followed.
        """
        end_s = math.inf if self.end_s is None else self.end_s
        pairs = []
        for line in self.user_texts:
            second, _, text = line.partition(" ")
            try:
                time = float(second)
            except ValueError:
                raise UsageError(f"stream.user_texts: {line!r} does not begin with a number of seconds.") from None
            if not (math.isfinite(time) and self.start_s <= time <= end_s):
                raise UsageError(f"stream.user_texts: {line!r} falls outside the part that is followed.")
            pairs.append((time, text))
        return sorted(pairs)
