"""The tracked state of a plan: a table step -> 0, 1, 2 that only legal moves change.

Proposals come from the state head or from the state text that the model writes; the same rules apply to both.
Remote code of the Hub: plain Python.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

NOT_STARTED, IN_PROGRESS, COMPLETED = 0, 1, 2
STATE_NAMES = ("not started", "in progress", "completed")
# (before, after). A step may be completed before it is seen for the first time: 0 -> 2. Sources whose annotations
# undo or resume a step (assembly101's corrections, ego4d's continued steps) need "reopen".
LEGAL_MOVES = {
    "monotone": frozenset({(NOT_STARTED, IN_PROGRESS), (IN_PROGRESS, COMPLETED), (NOT_STARTED, COMPLETED)}),
    "reopen": frozenset(
        {(NOT_STARTED, IN_PROGRESS), (IN_PROGRESS, COMPLETED), (NOT_STARTED, COMPLETED), (COMPLETED, IN_PROGRESS)}
    ),
}
_CHANGE = re.compile(rf"([0-9]{{1,6}}) ({'|'.join(STATE_NAMES)})")


@dataclass(frozen=True)
class Transition:
    """Step ``step`` (0-based) went from state ``before`` to state ``after``."""

    step: int
    before: int
    after: int


@dataclass(frozen=True)
class Tracking:
    """How proposals change the table.

    Args:
        policy: ``monotone`` (a step only goes forward) or ``reopen`` (a completed step may be in progress again).
        source: ``head`` (the state head's answer for every step) or ``text`` (the state text that the model writes).
        debounce: consecutive frames on which a proposal must be made before the table changes; 1: at once.
        hysteresis: by how much a new state's probability must exceed the tracked state's (head only), 0 to 1.

    Raises:
        ValueError: a value of another type or outside its range.
    """

    policy: str = "reopen"
    source: str = "head"
    debounce: int = 1
    hysteresis: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.policy, str) or self.policy not in LEGAL_MOVES:
            raise ValueError(f"tracking policy must be one of {', '.join(LEGAL_MOVES)}, not {self.policy!r}.")
        if self.source not in ("head", "text"):
            raise ValueError(f"tracking source must be head or text, not {self.source!r}.")
        if type(self.debounce) is not int or self.debounce < 1:
            raise ValueError(f"tracking debounce is a whole number of frames, 1 or more, not {self.debounce!r}.")
        if type(self.hysteresis) not in (int, float) or not 0.0 <= self.hysteresis <= 1.0:
            raise ValueError(f"tracking hysteresis must lie in [0, 1], not {self.hysteresis!r}.")


class StateTable:
    """The tracked state of every step.

    Args:
        states: the states before the first frame, ``[steps]``.
        tracking: the rules.

    ``rejected`` counts illegal proposals so far, ``malformed`` counts state texts that could not be parsed.
    """

    def __init__(self, states: Sequence[int], tracking: Tracking) -> None:
        if any(type(state) is not int or not NOT_STARTED <= state <= COMPLETED for state in states):
            raise ValueError(f"The states of a plan are 0, 1 or 2, not {list(states)}.")
        self.states = list(states)
        self.tracking = tracking
        self.rejected = self.malformed = 0
        self._waiting: dict[int, tuple[int, int]] = {}  # step -> proposed state, frames it has stood

    def propose(self, proposals: Mapping[int, int], update: bool) -> tuple[Transition, ...]:
        """Take one frame's proposals and return the changes of the table, in the order of the plan.

        Args:
            proposals: step -> proposed state, for the steps whose proposed state is not the tracked one.
            update: whether the model decides that the state changed on this frame. If not, new proposals are ignored,
                but one that was made on the frame before goes on counting towards its ``debounce``.
        """
        waiting: dict[int, tuple[int, int]] = {}
        moves = []
        for step, after in sorted(proposals.items()):
            before = self.states[step]
            proposed, stood = self._waiting.get(step, (after, 0))
            if proposed != after:
                stood = 0
            if not (update or stood):
                continue
            if (before, after) not in LEGAL_MOVES[self.tracking.policy]:
                self.rejected += 1
            elif stood + 1 >= self.tracking.debounce:
                moves.append(Transition(step, before, after))
                self.states[step] = after
            else:
                waiting[step] = (after, stood + 1)
        self._waiting = waiting
        return tuple(moves)

    def read_head(self, probabilities: Sequence[Sequence[float]]) -> dict[int, int]:
        """Proposals of the state head: ``probabilities`` ``[steps, 3]`` of one frame."""
        proposals = {}
        for step, (now, row) in enumerate(zip(self.states, probabilities, strict=True)):
            best = max(range(len(row)), key=row.__getitem__)
            if best != now and row[best] - row[now] >= self.tracking.hysteresis:
                proposals[step] = best
        return proposals

    def read_text(self, text: str) -> dict[int, int]:
        """Proposals of a state text, ``2 completed, 3 in progress``; none if it cannot be parsed.

        A text that names a step which is not in the plan, or one step twice, is malformed as a whole.
        """
        proposals: dict[int, int] = {}
        for part in text.split(","):
            found = _CHANGE.fullmatch(part.strip())
            step = int(found.group(1)) - 1 if found else -1
            if found is None or not 0 <= step < len(self.states) or step in proposals:
                self.malformed += 1
                return {}
            proposals[step] = STATE_NAMES.index(found.group(2))
        return {step: state for step, state in proposals.items() if state != self.states[step]}

    def save(self) -> dict[str, Any]:
        """The whole table as JSON values."""
        return {
            "states": list(self.states),
            "tracking": asdict(self.tracking),
            "rejected": self.rejected,
            "malformed": self.malformed,
            "waiting": [[step, *pair] for step, pair in self._waiting.items()],
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> StateTable:
        """The table that ``save`` wrote."""
        table = cls(saved["states"], Tracking(**saved["tracking"]))
        table.rejected, table.malformed = saved["rejected"], saved["malformed"]
        table._waiting = {step: (state, stood) for step, state, stood in saved["waiting"]}
        return table


__all__ = ["LEGAL_MOVES", "STATE_NAMES", "StateTable", "Tracking", "Transition"]
