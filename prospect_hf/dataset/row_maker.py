"""The columns of ``dst_frames``, and the rows of a session: one per frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets

from prospect_hf.sessions import Session
from prospect_hf.timeline import build_timeline

FEATURES = datasets.Features(
    {
        "source": datasets.Value("string"),
        "video_uid": datasets.Value("string"),
        "session_id": datasets.Value("string"),
        "recording": datasets.Value("string"),
        "user_type": datasets.Value("string"),
        "frame_index": datasets.Value("int32"),
        "timestamp": datasets.Value("float32"),
        "frames_file": datasets.Value("string"),
        "goal": datasets.Value("string"),
        "steps": datasets.List(datasets.Value("string")),
        "user_text": datasets.Value("string"),
        "speaking": datasets.Value("int8"),
        "response": datasets.Value("string"),
        "dst_update": datasets.Value("int8"),
        "transitions": datasets.List({"step": datasets.Value("int32"), "transition": datasets.Value("string")}),
        "states_before": datasets.List(datasets.Value("int8")),
        "states_after": datasets.List(datasets.Value("int8")),
        "progress": datasets.Value("string"),
    }
)


def session_rows(session: Session) -> Iterator[dict[str, Any]]:
    """One row per frame, in order. ``timestamp`` is the end of the frame's interval, in seconds."""
    timeline = build_timeline(session)
    shared = {
        "source": session.source,
        "video_uid": session.video_uid,
        "session_id": session.session_id,
        "recording": session.recording,
        "user_type": session.user_type,
        "frames_file": session.frames_file,
        "goal": session.goal,
        "steps": [step.text for step in session.steps],
    }
    before, after = timeline.states_before.tolist(), timeline.states_after.tolist()
    for row in range(timeline.num_frames - timeline.first_frame):
        frame = timeline.first_frame + row
        turn = timeline.turns.get(frame)
        is_response = turn is not None and turn.role == "assistant"
        yield {
            **shared,
            "frame_index": frame,
            "timestamp": (frame + 1) / session.fps,
            "user_text": turn.text if turn is not None and not is_response else "",
            "speaking": int(timeline.speaking[row]),
            "response": turn.text if turn is not None and is_response else "",
            "dst_update": int(timeline.dst_update[row]),
            "transitions": [
                {"step": event.step, "transition": event.transition} for event in timeline.events.get(frame, ())
            ],
            "states_before": before[row],
            "states_after": after[row],
            "progress": turn.progress if turn is not None else "",
        }
