"""The changes of a plan that are known beforehand: a JSON file of times and plans."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prospect_hf.checked_json import as_dict, get_list, get_number, get_optional_text, load_json
from prospect_hf.errors import DataError
from prospect_hf.timeline import frame_at

KEYS = ("time", "plan", "goal")


@dataclass(frozen=True)
class PlannedChange:
    """From ``time`` (seconds) on, the plan is ``plan``, and the goal ``goal``; None: the goal stays.

    The first frame under the new plan is the one that covers ``time``: it is decided at its end.
    """

    time: float
    plan: list[str]
    goal: str | None


def read_plan_changes(path: Path) -> list[PlannedChange]:
    """The changes in ``path``: a JSON list of ``{"time": SECONDS, "plan": [STEP, ...], "goal": TEXT}``, goal optional.

    Raises:
        UsageError: there is no such file.
        DataError: anything else is wrong; the message names the change and the key.
    """
    try:
        records = load_json(path)
    except OSError as error:
        raise DataError(f"{path}: the changes of the plan cannot be read ({error.strerror}).") from error
    if not isinstance(records, list) or not records:
        raise DataError(
            f'{path}: expected a list of changes, [{{"time": 30.0, "plan": ["first step", "second step"]}}].'
        )
    changes: list[PlannedChange] = []
    for number, value in enumerate(records, start=1):
        where = f"{path}: change {number}"
        record = as_dict(value, where)
        unknown = [key for key in record if key not in KEYS]
        if unknown:
            raise DataError(f"{where}: key {unknown[0]!r} is unknown; a change has {', '.join(KEYS)}.")
        time = get_number(record, "time", where)
        if changes and time <= changes[-1].time:
            raise DataError(f"{where}: time {time:g} does not come after {changes[-1].time:g}, that of the one before.")
        plan = get_list(record, "plan", where)
        for step, text in enumerate(plan, start=1):
            if not isinstance(text, str) or not text.strip():
                raise DataError(f"{where}: step {step} of 'plan' is {text!r}; expected text.")
        goal = get_optional_text(record, "goal", where) if record.get("goal") is not None else None
        changes.append(PlannedChange(time, plan, goal))
    return changes


def due(changes: deque[PlannedChange], frame: int, fps: float) -> list[PlannedChange]:
    """Take out of ``changes`` those that hold on ``frame``."""
    found = []
    while changes and frame_at(changes[0].time, fps) <= frame:
        found.append(changes.popleft())
    return found


def plan_after(changes: Iterable[PlannedChange], plan: list[str], goal: str) -> tuple[list[str], str]:
    """Plan and goal after some changes."""
    for change in changes:
        plan, goal = change.plan, goal if change.goal is None else change.goal
    return plan, goal
