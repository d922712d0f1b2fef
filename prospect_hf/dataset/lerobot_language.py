"""LeRobot's language columns: what lasts (``language_persistent``) and what happens (``language_events``).

Names and types are those of ``lerobot.datasets.language`` of lerobot 0.6; it fixes the names of the styles.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prospect_hf.errors import DataError
from prospect_hf.sessions import COMPLETED, IGNORE, IN_PROGRESS

NOTHING = "No step is in progress."

_CALLS = pa.list_(pa.json_())
_SHARED = [("role", pa.string(), False), ("content", pa.string(), True), ("style", pa.string(), True)]
_LAST = [("camera", pa.string(), True), ("tool_calls", _CALLS, True)]
PERSISTENT_ROW = pa.struct([pa.field(*one) for one in [*_SHARED, ("timestamp", pa.float32(), False), *_LAST]])
EVENT_ROW = pa.struct([pa.field(*one) for one in [*_SHARED, *_LAST]])
PERSISTENT, EVENTS = pa.list_(PERSISTENT_ROW), pa.list_(EVENT_ROW)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "say",
            "description": "Speak a short utterance to the user.",
            "parameters": {
                "type": "object",
                "properties": {"text": {"type": "string", "description": "The words to speak."}},
                "required": ["text"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "update_step",
            "description": "Record that a step of the plan starts or is complete.",
            "parameters": {
                "type": "object",
                "properties": {
                    "step": {"type": "integer", "description": "Number of the step in the plan, from 1."},
                    "transition": {"type": "string", "enum": ["start", "complete"]},
                },
                "required": ["step", "transition"],
            },
        },
    },
]


def _line(text: str) -> str:
    return " ".join(text.split())


def plan_text(steps: Sequence[str]) -> str:
    """The plan as LeRobot has it: one numbered line a step."""
    return "\n".join(f"{number}. {_line(step)}" for number, step in enumerate(steps, start=1))


def memory_text(states: Sequence[int]) -> str:
    """The state of every step: ``Completed: 1, 2. In progress: 4.``; steps that are not named did not start."""
    parts = []
    for name, state in (("Completed", COMPLETED), ("In progress", IN_PROGRESS)):
        numbers = [str(number) for number, one in enumerate(states, start=1) if one == state]
        if numbers:
            parts.append(f"{name}: {', '.join(numbers)}.")
    return " ".join(parts) or "No step has started."


def memory_states(memory: str, steps: int) -> list[int]:
    """The state of every step that ``memory_text`` wrote. Raises ``DataError`` where it did not."""
    states = [0] * steps
    for part in memory.removesuffix(".").split(". "):
        name, _, numbers = part.partition(": ")
        if part != "No step has started":
            for number in numbers.split(", "):
                if not number.isdigit() or not 1 <= int(number) <= steps or name not in ("Completed", "In progress"):
                    raise DataError(f"'{memory}' is no memory of {steps} steps.")
                states[int(number) - 1] = COMPLETED if name == "Completed" else IN_PROGRESS
    return states


def persistent_column(table: pa.Table, times: NDArray[np.float32]) -> pa.Array:
    """``language_persistent``: the rows of the episode, the same on each of its frames."""
    steps = table["steps"][0].as_py()
    contents, styles, at = [plan_text(steps)], ["plan"], [0]
    after = table["states_after"].combine_chunks()
    if not steps or set(after.value_lengths().to_pylist()) != {len(steps)}:
        raise DataError(
            f"session {table['session_id'][0].as_py()}: rows without one state for each of the {len(steps)} steps of "
            "its plan; build the dataset again."
        )
    states = np.array(after.flatten()).reshape(len(table), len(steps))
    if states[0, 0] != IGNORE:
        changed = np.flatnonzero(np.r_[True, (states[1:] != states[:-1]).any(1)])
        for frame in changed.tolist():
            doing = [_line(step) for step, state in zip(steps, states[frame], strict=True) if state == IN_PROGRESS]
            contents += [memory_text(states[frame].tolist()), "; ".join(doing) or NOTHING]
            styles += ["memory", "subtask"]
            at += [frame, frame]
    count = len(contents)
    rows = pa.StructArray.from_arrays(
        [
            pa.array(["assistant"] * count),
            pa.array(contents),
            pa.array(styles),
            pa.array(times[at]),
            pa.nulls(count, pa.string()),
            pa.nulls(count, _CALLS),
        ],
        fields=list(PERSISTENT_ROW),
    )
    frames = len(table)
    offsets = pa.array(np.arange(frames + 1, dtype=np.int32) * count)
    everywhere = rows.take(pa.array(np.tile(np.arange(count), frames)))
    return pa.ListArray.from_arrays(offsets, everywhere, type=PERSISTENT)


def events_column(table: pa.Table) -> pa.Array:
    """``language_events``: on each frame, what happens there, ordered as LeRobot orders it."""
    rows: list[tuple[str, str | None, str | None, list[str] | None]] = []
    counts = []
    columns = (table[name].to_pylist() for name in ("transitions", "user_text", "response"))
    for transitions, user, response in zip(*columns, strict=True):
        before = len(rows)
        if transitions:
            calls = [_call("update_step", step=one["step"] + 1, transition=one["transition"]) for one in transitions]
            rows.append(("assistant", None, None, calls))
        if response:
            rows.append(("assistant", None, None, [_call("say", text=response)]))
        if user:
            rows.append(("user", user, "interjection", None))
        counts.append(len(rows) - before)
    calls_of = [row[3] for row in rows]
    starts = np.r_[0, np.cumsum([len(calls or ()) for calls in calls_of])] if rows else np.array([0])
    missing = [calls is None for calls in calls_of]
    offsets = pa.array(starts.astype(np.int32), mask=np.array([*missing, False])) if rows else pa.array([0], pa.int32())
    stored = pa.array([call for calls in calls_of for call in calls or ()], pa.string())
    events = pa.StructArray.from_arrays(
        [
            pa.array([row[0] for row in rows], pa.string()),
            pa.array([row[1] for row in rows], pa.string()),
            pa.array([row[2] for row in rows], pa.string()),
            pa.nulls(len(rows), pa.string()),
            pa.ListArray.from_arrays(offsets, pa.ExtensionArray.from_storage(pa.json_(), stored), type=_CALLS),
        ],
        fields=list(EVENT_ROW),
    )
    places = pa.array(np.r_[0, np.cumsum(counts)].astype(np.int32))
    return pa.ListArray.from_arrays(places, events, type=EVENTS)


def _call(name: str, **arguments: Any) -> str:
    return json.dumps({"type": "function", "function": {"name": name, "arguments": arguments}})
