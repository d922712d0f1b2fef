"""A trace as one HTML file that answers "why did it speak here?": every frame's decision, beside the reference.

The file has no external resources and works from a disk without network. All text of the trace is data: it travels
as JSON whose markup characters are escaped, and the page's script only ever sets it as text.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prospect_hf.errors import DataError
from prospect_hf.html import write_html
from prospect_hf.streaming.trace import Trace

THUMBNAIL = (240, 160)  # pixels, at most
PROBABILITY_UNITS = 10_000  # probabilities travel as whole numbers of 1 / 10000


def write_page(path: Path, trace: Trace, thumbnails: Iterable[tuple[int, Image.Image]] | None = None) -> None:
    """Write ``trace`` as one self-contained HTML file (beside, then renamed).

    ``thumbnails``: (frame, picture) of as many frames as the caller wants to see in the strip; they are shrunk to
    ``THUMBNAIL`` and embedded as JPEG. Raises ``DataError`` for a trace without events or a thumbnail outside of it.
    """
    if not trace.events:
        raise DataError(f"{path}: the trace has no events, so there is nothing to show.")
    data = _columns(trace)
    last = data["first"] + data["count"] - 1
    pictures = []
    for frame, picture in sorted(thumbnails or (), key=lambda pair: pair[0]):
        if not data["first"] <= frame <= last:
            raise DataError(f"{path}: a thumbnail of frame {frame}, but the trace has {data['first']} to {last}.")
        pictures.append([frame - data["first"], _data_uri(picture)])
    data["thumbnails"] = pictures
    template = resources.files("prospect_hf.streaming").joinpath("timeline.html").read_text(encoding="utf-8")
    write_html(path, template, data)


def _data_uri(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _columns(trace: Trace) -> dict[str, Any]:
    """The trace by column; indices count events from 0, and what is rare is a list of [index, ...].

    ``probabilities`` are base64 of little-endian uint16 [frames, steps, 3], ``speak`` and ``update`` of [frames], in
    units of 1 / ``PROBABILITY_UNITS``. ``states`` is the first event's table, ``changes`` [index, step, state] are all
    later differences: the table itself, not the transitions that explain it.
    """
    events, header = trace.events, trace.header
    table = events[0]["states"]
    changes = []
    for index, event in enumerate(events):
        changes += [[index, step, new] for step, (old, new) in enumerate(zip(table, event["states"], strict=True))
                    if old != new]  # fmt: skip
        table = event["states"]
    parts = sorted({part for event in events for part in event["latency"]})
    first = events[0]["frame"]
    reference = header["reference"]
    if reference is not None:
        reference = {
            "utterances": [[turn["frame"] - first, turn["text"]] for turn in reference["utterances"]],
            "states": sorted([[change[0] - first, change[1], change[2]] for change in reference["states"]]),
        }
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
        **{key: header[key] for key in ("goal", "plan", "fps", "source", "model", "context")},
        "thresholds": [header["speaking_threshold"], header["dst_update_threshold"]],
        "truncated": trace.truncated,
        "reference": reference,
        "first": first,
        "count": len(events),
        "units": PROBABILITY_UNITS,
        "times": [round(event["time"], 3) for event in events],
        "speak": _packed(np.array([event["p_speak"] for event in events]), header["speaking_threshold"]),
        "update": _packed(np.array([event["p_update"] for event in events]), header["dst_update_threshold"]),
        "probabilities": _packed(probabilities),
        "said": [[index, event["text"]] for index, event in enumerate(events) if event["text"] is not None],
        "user": [[index, event["user_text"]] for index, event in enumerate(events) if event["user_text"]],
        "moves": moves,
        "states": list(events[0]["states"]),
        "changes": changes,
        "rejected": [[index, event["rejected"]] for index, event in enumerate(events) if event["rejected"]],
        "cache": [event["cache_length"] for event in events],
        "latency": {part: [round(1000 * event["latency"].get(part, 0), 2) for event in events] for part in parts},
        "contexts": contexts,
    }


def _packed(values: NDArray[np.float64], threshold: float | None = None) -> str:
    """Probabilities in whole units; rounding takes none of them across ``threshold``, which decided about it."""
    scaled = np.clip(values, 0, 1) * PROBABILITY_UNITS
    units = np.rint(scaled)
    if threshold is not None:
        over = values >= threshold
        crossed = (units / PROBABILITY_UNITS >= threshold) != over
        units = np.where(crossed, np.where(over, np.ceil(scaled), np.floor(scaled)), units)
    return base64.b64encode(units.astype("<u2").tobytes()).decode("ascii")
