"""A session as it is shown: the data of its timeline, of bounded size, and some of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from prospect_hf.dataset.inspection.blocks import Block, States, Whole
from prospect_hf.dataset.inspection.file_checks import IMAGE
from prospect_hf.dataset.inspection.videos import Videos, stored_pictures
from prospect_hf.dataset.layout import Shard
from prospect_hf.metrics.states import transitions
from prospect_hf.sessions import COMPLETED, HIGHEST_FPS, IN_PROGRESS, NOT_STARTED
from prospect_hf.terminal import visible

# What a page can show of one session; the rest is left out, and ``ShownSession.left_out`` says so.
MOST_CHARACTERS, MOST_UTTERANCES, MOST_STEPS, MOST_MISTAKES = 1_000, 4_000, 1_000, 200
PICTURES = 24


@dataclass(frozen=True)
class ShownSession:
    """One session to show.

    Args:
        session_id, source, split, file: which it is.
        goal, user_type, state_rule: of its rows.
        labelled: whether it has state labels that can be shown.
        turns: utterances of the assistant and of the user.
        view: as ``html/session_timeline.js`` takes it; the labels stand for the predicted states and words.
        mistakes: (first frame, frame after the last, text), frames from 0.
        pictures: (frame from 0, picture) in order, those that are at hand.
        left_out: what is not shown, in words.
    """

    session_id: str
    source: str
    split: str
    file: str
    goal: str
    user_type: str
    state_rule: str
    labelled: bool
    turns: tuple[int, int]
    view: dict[str, Any]
    mistakes: list[tuple[int, int, str]]
    pictures: list[tuple[int, Image.Image]]
    left_out: str


def shown_session(block: Block, number: int, shard: Shard, folder: Path, videos: Videos) -> ShownSession:
    """Session ``number`` of a block whose states have the shape that they promise."""
    bounds = np.append(block.starts, block.count)
    begin, end = int(bounds[number]), int(bounds[number + 1])
    rows = block.part(begin, end)
    states = States.of(rows)
    first = {name: rows.table[name][0].as_py() for name in ("goal", "user_type", "state_rule", "frame_index")}
    fps = float(rows.numbers("fps")[0])
    steps = rows.plan(0)
    labelled = bool(np.isin(states.after, (NOT_STARTED, IN_PROGRESS, COMPLETED)).all())
    changes: list[list[int]] = []
    if labelled:
        table = states.after.reshape(rows.count, len(steps))[:, :MOST_STEPS]
        changes = [[int(part) for part in move] for move in transitions(table)]
    said, user = np.flatnonzero(rows.given("response")), np.flatnonzero(rows.given("user_text"))
    mistakes = _mistakes(rows)
    more = {
        "utterances": max(0, len(said) - MOST_UTTERANCES) + max(0, len(user) - MOST_UTTERANCES),
        "steps": max(0, len(steps) - MOST_STEPS),
        "mistakes": max(0, len(mistakes) - MOST_MISTAKES),
    }
    return ShownSession(
        session_id=_short(rows.session(0)),
        source=shard.source,
        split=shard.split,
        file=shard.path,
        goal=_short(first["goal"]),
        user_type=_short(first["user_type"]),
        state_rule=_short(first["state_rule"]),
        labelled=labelled,
        turns=(len(said), len(user)),
        view={
            "id": _short(rows.session(0)),
            "frames": rows.count,
            "fps": fps if 0 < fps <= HIGHEST_FPS else 1.0,
            "first_frame": first["frame_index"],
            "steps": [_short(step) for step in steps[:MOST_STEPS]],
            "predicted_states": changes,
            "reference_states": None,
            "p_speak": [],
            "p_update": [],
            "said": _utterances(rows, "response", said),
            "reference": None,
            "user": _utterances(rows, "user_text", user),
        },
        mistakes=mistakes[:MOST_MISTAKES],
        pictures=_pictures(rows, folder / shard.path, videos),
        left_out=", ".join(f"{count:,} more {name}" for name, count in more.items() if count),
    )


def _short(text: str) -> str:
    """The text on one line, what no screen shows as a code, cut where it is too long."""
    shown = visible(text[: MOST_CHARACTERS + 1])
    return shown if len(shown) <= MOST_CHARACTERS else shown[: MOST_CHARACTERS - 1] + "…"


def _utterances(rows: Block, column: str, at: Whole) -> list[dict[str, Any]]:
    """The utterances of the rows ``at``; of too many, ``MOST_UTTERANCES`` that are evenly spread."""
    if len(at) > MOST_UTTERANCES:
        at = at[np.linspace(0, len(at) - 1, MOST_UTTERANCES).astype(int)]
    texts = rows.table[column].take(pa.array(at)).to_pylist()
    return [{"frame": frame, "text": _short(text)} for frame, text in zip(at.tolist(), texts, strict=True)]


def _mistakes(rows: Block) -> list[tuple[int, int, str]]:
    """Runs of frames with one text of mistakes."""
    codes, texts = rows.codes("mistake")
    bounds = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), rows.count]
    runs = [(begin, end, str(texts[codes[begin]])) for begin, end in pairwise(bounds)]
    return [(begin, end, _short(text)) for begin, end, text in runs if text]


def _pictures(rows: Block, path: Path, videos: Videos) -> list[tuple[int, Image.Image]]:
    """Evenly spaced frames of a session: of its video, or of the rows themselves."""
    frames = rows.numbers("frame_index")
    at = np.unique(np.linspace(0, rows.count - 1, min(PICTURES, rows.count)).astype(int))
    wanted = frames[at].tolist()
    found = videos.pictures(rows, 0, wanted)
    if not found and IMAGE in pq.read_schema(path).names:
        found = stored_pictures(path, rows.session(0), wanted)
    place = dict(zip(wanted, at.tolist(), strict=True))
    return sorted(((place[frame], picture) for frame, picture in found), key=lambda pair: pair[0])
