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
from tracking_dst_smolvlm import Deviation, Deviations

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
    texts, rows = step_rows(trace)
    data = _columns(trace, len(texts), rows) | {"session": _session(trace, texts, rows), "thumbnails": pictures}
    write_html(path, template, data)


def step_rows(trace: Trace) -> tuple[list[str], list[list[int]]]:
    """The steps of all plans of a trace, each once: a kept step stays in its row.

    The rows stand in the order of the last plan; a step that was left out stays behind the one that it followed.

    Returns:
        The steps' texts; for each event the row of each step of its plan.
    """
    texts, plan = list(trace.header["plan"]), list(range(len(trace.header["plan"])))
    order, plans, changes = plan, [], dict(trace.plan_changes())
    for index in range(len(trace.events)):
        if index in changes:
            before, plan = plan, []
            for text, place in zip(changes[index]["plan"], changes[index]["kept"], strict=True):
                plan.append(len(texts) if place is None else before[place])
                texts += [text] if place is None else []
            merged, inside = list(plan), set(plan)
            for at, row in enumerate(order):
                if row not in inside:
                    merged.insert(merged.index(order[at - 1]) + 1 if at else 0, row)
            order = merged
        plans.append(plan)
    shown = {row for plan in plans for row in plan}  # a plan that was changed before the first frame is not
    order = [row for row in order if row in shown]
    place_of = {row: place for place, row in enumerate(order)}
    return [texts[row] for row in order], [[place_of[row] for row in plan] for plan in plans]


def _stretches(count: int, rows: list[list[int]]) -> list[list[list[int]]]:
    """Of each of ``count`` rows the frames in which it is in the plan: [from, to (exclusive), its number from 1]."""
    found: list[list[list[int]]] = [[] for _ in range(count)]
    for index, plan in enumerate(rows):
        for number, row in enumerate(plan, start=1):
            if found[row] and found[row][-1][1:] == [index, number]:
                found[row][-1][1] += 1
            else:
                found[row].append([index, index + 1, number])
    return found


def _session(trace: Trace, texts: list[str], rows: list[list[int]]) -> dict[str, Any]:
    """The session as ``html/session_timeline.js`` draws it, without the probabilities; frames count from 0."""
    events, header = trace.events, trace.header
    first, count = events[0]["frame"], len(events)
    table = [NOT_STARTED] * len(texts)
    changes = []
    for index, event in enumerate(events):
        for row, state in zip(rows[index], event["states"], strict=True):
            changes += [[index, row, state]] if state != table[row] else []
            table[row] = state
    said = [{"frame": index, "text": event["text"]} for index, event in enumerate(events) if event["text"] is not None]
    found = [(index, Deviation(**one)) for index, event in enumerate(events) for one in event["deviations"]]
    found += [(count - 1, Deviation(**one)) for one in trace.end or ()]
    wanted = states = wanted_deviations = None
    if header["reference"] is not None:
        turns = [(turn["frame"] - first, turn["text"]) for turn in header["reference"]["utterances"]]
        wanted = [{"frame": frame, "text": text} for frame, text in sorted(turns) if 0 <= frame < count]
        _compare(said, wanted, int(TOLERANCE_S * header["fps"]))
        moves = sorted((frame - first, step, state) for frame, step, state in header["reference"]["states"])
        # What changed before the trace begins holds on its first frame. Of another plan than its own, the reference
        # says nothing.
        if not trace.plan_changes():
            states = [[max(frame, 0), step, state] for frame, step, state in moves if frame < count]
            wanted_deviations = _reference_deviations(moves, len(texts), count, trace.end is not None)
    return {
        "id": header["source"],
        "frames": count,
        "fps": header["fps"],
        "first_frame": first,
        "steps": texts,
        "stretches": _stretches(len(texts), rows) if trace.plan_changes() else None,
        "predicted_states": changes,
        "reference_states": states,
        "deviations": [[index, rows[index][one.step], str(one)] for index, one in found],
        "reference_deviations": wanted_deviations,
        "said": said,
        "reference": wanted,
        "user": [{"frame": index, "text": event["user_text"]} for index, event in enumerate(events)
                 if event["user_text"]],
    }  # fmt: skip


def _reference_deviations(
    moves: list[tuple[int, int, int]], steps: int, count: int, ended: bool
) -> list[tuple[int, int, str]]:
    """[frame, step, words] of the deviations in the reference's states, from frame 0 to ``count`` (exclusive).

    Args:
        moves: [frame, step, state] in order; those before frame 0 are before the trace begins.
        ended: whether the last frame is that of the video.
    """
    states = [NOT_STARTED] * steps
    rule, found = Deviations(states), []
    for at in sorted({frame for frame, _, _ in moves if frame < count}):
        for _, step, state in (move for move in moves if move[0] == at):
            states[step] = state
        found += [(at, one) for one in rule.see(states) if at >= 0]
    found += [(count - 1, one) for one in rule.at_end()] if ended else []
    return [(frame, one.step, str(one)) for frame, one in found]


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


def _columns(trace: Trace, count: int, rows: list[list[int]]) -> dict[str, Any]:
    """The rest of the trace by column; rare values are lists of [index, ...], where the first event has index 0.

    ``probabilities`` are base64 of little-endian uint16 [frames, count, 3], ``speak`` and ``update`` of [frames], in
    units of 1 / ``PROBABILITY_UNITS``; those of a step that is not in the plan are 0. Moves name the step's row.
    """
    events, header = trace.events, trace.header
    parts = sorted({part for event in events for part in event["latency"]})
    moves = [
        [index, rows[index][move["step"]], move["before"], move["after"]]
        for index, event in enumerate(events)
        for move in event["transitions"]
    ]
    contexts = [
        [index, {key: context[key] for key in ("strategy", "tokens_before", "tokens_after", "summary")}]
        for index, event in enumerate(events)
        if (context := event["context"]) is not None
    ]
    probabilities = np.zeros((len(events), count, 3), np.float64)
    for index, event in enumerate(events):
        probabilities[index, rows[index]] = np.reshape(event["probabilities"], (-1, 3))
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
        "plan_changes": _told(trace),
        "other_reference": bool(trace.plan_changes() and header["reference"] and header["reference"]["states"]),
    }


def _told(trace: Trace) -> list[list[Any]]:
    """[index, words] of each change of the plan."""
    told, goal = [], trace.header["goal"]
    for index, change in trace.plan_changes():
        steps, kept = len(change["plan"]), sum(place is not None for place in change["kept"])
        words = f"The plan was changed before this frame: {steps} step{'s' * (steps > 1)}, {kept} of them kept."
        if change["goal"] != goal:
            goal = change["goal"]
            words += f" The goal is now: {goal}" if goal else " There is no goal any more."
        told.append([index, words])
    return told


def _packed(values: NDArray[np.float64], threshold: float | None = None) -> str:
    """Probabilities in whole units; rounding moves no probability across ``threshold``, so decisions stay the same."""
    scaled = np.clip(values, 0, 1) * PROBABILITY_UNITS
    units = np.rint(scaled)
    if threshold is not None:
        over = values >= threshold
        crossed = (units / PROBABILITY_UNITS >= threshold) != over
        units = np.where(crossed, np.where(over, np.ceil(scaled), np.floor(scaled)), units)
    return base64.b64encode(units.astype("<u2").tobytes()).decode("ascii")
