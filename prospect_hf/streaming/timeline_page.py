"""A trace as one HTML file: the decisions, states and utterances of every frame, compared with the reference.

The file has no external resources and works without a network. The texts of the trace are in it as JSON whose markup
characters are escaped, and the page's script sets them as text only.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prospect_hf.errors import DataError
from prospect_hf.html import picture_uri, write_html
from prospect_hf.metrics.events import match_events
from prospect_hf.sessions import NOT_STARTED
from prospect_hf.streaming.trace import Trace

THUMBNAIL = (240, 160)  # pixels, at most
PROBABILITY_UNITS = 10_000  # probabilities are stored as whole numbers of 1 / 10000
TOLERANCE_S = 1  # seconds between an utterance and the one of the reference that it is matched with, at most


def write_page(path: Path, trace: Trace, thumbnails: Iterable[tuple[int, Image.Image]] | None = None) -> None:
    """Write ``trace`` as one self-contained HTML file, beside its place and then renamed.

    Args:
        path: the page.
        trace: with at least one event.
        thumbnails: (frame, picture) for the strip of pictures; they are shrunk to ``THUMBNAIL`` and embedded as JPEG.

    Raises:
        DataError: a trace without events, or a thumbnail of a frame that is not in it.
    """
    if not trace.events:
        raise DataError(f"{path}: the trace has no events, so there is nothing to show.")
    first, last = trace.events[0]["frame"], trace.events[-1]["frame"]
    pictures = []
    for frame, picture in sorted(thumbnails or (), key=lambda pair: pair[0]):
        if not first <= frame <= last:
            raise DataError(f"{path}: a thumbnail of frame {frame}, but the trace has {first} to {last}.")
        pictures.append([frame - first, picture_uri(picture, THUMBNAIL)])
    template = resources.files("prospect_hf.streaming").joinpath("timeline.html").read_text(encoding="utf-8")
    write_html(path, template, _columns(trace) | {"session": _session(trace), "thumbnails": pictures})


def _session(trace: Trace) -> dict[str, Any]:
    """The session as ``html/session_timeline.js`` draws it, without the probabilities; frames count from 0."""
    events, header = trace.events, trace.header
    first, count = events[0]["frame"], len(events)
    table = [NOT_STARTED] * len(header["plan"])
    changes = []
    for index, event in enumerate(events):
        changes += [[index, step, new] for step, (old, new) in enumerate(zip(table, event["states"], strict=True))
                    if old != new]  # fmt: skip
        table = event["states"]
    said = [{"frame": index, "text": event["text"]} for index, event in enumerate(events) if event["text"] is not None]
    wanted = states = None
    if header["reference"] is not None:
        turns = [(turn["frame"] - first, turn["text"]) for turn in header["reference"]["utterances"]]
        wanted = [{"frame": frame, "text": text} for frame, text in sorted(turns) if 0 <= frame < count]
        _compare(said, wanted, int(TOLERANCE_S * header["fps"]))
        moves = sorted((frame - first, step, state) for frame, step, state in header["reference"]["states"])
        # What changed before the trace begins holds on its first frame.
        states = [[max(frame, 0), step, state] for frame, step, state in moves if frame < count]
    return {
        "id": header["source"],
        "frames": count,
        "fps": header["fps"],
        "first_frame": first,
        "steps": list(header["plan"]),
        "predicted_states": changes,
        "reference_states": states,
        "said": said,
        "reference": wanted,
        "user": [{"frame": index, "text": event["user_text"]} for index, event in enumerate(events)
                 if event["user_text"]],
    }  # fmt: skip


def _compare(said: list[dict[str, Any]], wanted: list[dict[str, Any]], tolerance_frames: int) -> None:
    """Set the verdict of every utterance and the pair of each matched one in ``said``; only their times are matched."""
    ours = {utterance["frame"]: utterance for utterance in said}
    theirs = {utterance["frame"]: index for index, utterance in enumerate(wanted)}
    for utterance in said:
        utterance["verdict"] = "redundant"
    for utterance in wanted:
        utterance["verdict"] = "missed"
    for predicted, expected in match_events(list(ours), list(theirs), tolerance_frames):
        one, index = ours[predicted], theirs[expected]
        same = one["text"].split() == wanted[index]["text"].split()
        one["verdict"] = wanted[index]["verdict"] = "exact" if same else "matched"
        one["pair"] = index


def _columns(trace: Trace) -> dict[str, Any]:
    """The rest of the trace by column; rare values are lists of [index, ...], where the first event has index 0.

    ``probabilities`` are base64 of little-endian uint16 [frames, steps, 3], ``speak`` and ``update`` of [frames], in
    units of 1 / ``PROBABILITY_UNITS``.
    """
    events, header = trace.events, trace.header
    parts = sorted({part for event in events for part in event["latency"]})
    moves = [
        [index, move["step"], move["before"], move["after"]]
        for index, event in enumerate(events)
        for move in event["transitions"]
    ]
    contexts = [
        [index, {key: context[key] for key in ("strategy", "tokens_before", "tokens_after", "summary")}]
        for index, event in enumerate(events)
        if (context := event["context"]) is not None
    ]
    probabilities = np.array([event["probabilities"] for event in events], np.float64)
    return {
        **{key: header[key] for key in ("goal", "source", "model", "context")},
        "thresholds": [header["speaking_threshold"], header["dst_update_threshold"]],
        "tolerance_s": TOLERANCE_S,
        "truncated": trace.truncated,
        "units": PROBABILITY_UNITS,
        "times": [round(event["time"], 3) for event in events],
        "speak": _packed(np.array([event["p_speak"] for event in events]), header["speaking_threshold"]),
        "update": _packed(np.array([event["p_update"] for event in events]), header["dst_update_threshold"]),
        "probabilities": _packed(probabilities),
        "moves": moves,
        "rejected": [[index, event["rejected"]] for index, event in enumerate(events) if event["rejected"]],
        "cache": [event["cache_length"] for event in events],
        "latency": {part: [round(1000 * event["latency"].get(part, 0), 2) for event in events] for part in parts},
        "contexts": contexts,
    }


def _packed(values: NDArray[np.float64], threshold: float | None = None) -> str:
    """Probabilities in whole units; rounding moves no probability across ``threshold``, so decisions stay the same."""
    scaled = np.clip(values, 0, 1) * PROBABILITY_UNITS
    units = np.rint(scaled)
    if threshold is not None:
        over = values >= threshold
        crossed = (units / PROBABILITY_UNITS >= threshold) != over
        units = np.where(crossed, np.where(over, np.ceil(scaled), np.floor(scaled)), units)
    return base64.b64encode(units.astype("<u2").tobytes()).decode("ascii")
