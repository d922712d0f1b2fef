"""The tracked state of a plan: a table step -> 0, 1, 2 that only legal moves change, and where it leaves the plan.

Proposals come from the state head or from the state text that the model writes; the same rules apply to both. What
deviates from the plan follows from the table alone, so labels, streams and predictions are judged by one rule.
Remote code of the Hub: plain Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
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
OUT_OF_ORDER, SKIPPED, REPEATED, UNFINISHED = "out_of_order", "skipped", "repeated", "unfinished"
DEVIATIONS = (OUT_OF_ORDER, SKIPPED, REPEATED, UNFINISHED)
FILTERS = ("none", "bayes")
# Chances a frame of the filter "bayes": a step starts once all earlier ones are completed; the same before, as a share;
# it is completed; it is completed without being seen in progress; it is in progress again.
START, AHEAD, COMPLETE, AT_ONCE, AGAIN = 0.03, 0.5, 0.05, 0.002, 0.0005
LEAST = 1e-6  # no answer of the head rules a state out for good
_CHANGE = re.compile(rf"([0-9]{{1,6}}) ({'|'.join(STATE_NAMES)})")


@dataclass(frozen=True)
class Transition:
    """Step ``step`` (0-based) went from state ``before`` to state ``after``."""

    step: int
    before: int
    after: int


@dataclass(frozen=True)
class Deviation:
    """Step ``step`` (0-based) departs from the plan.

    Args:
        kind: ``out_of_order`` (it starts while an earlier step is not started), ``skipped`` (it is not started when a
            later one is completed, or at the end of a session in which a later one has started), ``repeated`` (it was
            completed and is in progress again) or ``unfinished`` (it is in progress at the end).
        step: of the plan.
        other: out of order: the first earlier step that is not started. Skipped: the later step whose completion shows
            it, None where the end of the session does. None for the other kinds.
    """

    kind: str
    step: int
    other: int | None = None

    def __str__(self) -> str:
        """In words; steps count from 1."""
        name = f"step {self.step + 1}"
        if self.kind == OUT_OF_ORDER and self.other is not None:
            return f"{name} out of order: step {self.other + 1} is not started"
        if self.kind == SKIPPED and self.other is not None:
            return f"{name} skipped: step {self.other + 1} is completed"
        return f"{name} {self.kind}"


class Deviations:
    """Finds what deviates from the plan in successive tables; each occurrence is found once.

    Args:
        states: the states before the first table, ``[steps]``. What they show already is not found again.
    """

    def __init__(self, states: Sequence[int]) -> None:
        self.states = list(states)
        # Steps that are known to be skipped.
        self.skipped = {step for step, state in enumerate(states) if not state and COMPLETED in states[step + 1 :]}

    def see(self, states: Sequence[int]) -> tuple[Deviation, ...]:
        """What the next table, ``[steps]``, shows for the first time, in the order of the plan.

        A completed step that starts again is repeated and not out of order. Tables are judged as they are after their
        frame: of two steps that start on one frame, neither is out of order because of the other.
        """
        before, self.states = self.states, list(states)
        if before == self.states:
            return ()
        found = []
        moved = list(enumerate(zip(before, self.states, strict=True)))
        completed = [step for step, (old, new) in moved if old != COMPLETED == new]
        for step, (old, new) in moved:
            if new == NOT_STARTED:
                later = next((other for other in completed if other > step), None)
                if later is not None and step not in self.skipped:
                    self.skipped.add(step)
                    found.append(Deviation(SKIPPED, step, later))
            elif old == NOT_STARTED:
                self.skipped.discard(step)
                if NOT_STARTED in self.states[:step]:
                    found.append(Deviation(OUT_OF_ORDER, step, self.states.index(NOT_STARTED)))
            elif (old, new) == (COMPLETED, IN_PROGRESS):
                found.append(Deviation(REPEATED, step))
        return tuple(found)

    def at_end(self) -> tuple[Deviation, ...]:
        """What deviates if the session ends with the last table, in the order of the plan; nothing is changed.

        Steps after the last one that was started are not skipped: the session may have ended before their turn.
        """
        found = []
        for step, state in enumerate(self.states):
            if state == IN_PROGRESS:
                found.append(Deviation(UNFINISHED, step))
            elif state == NOT_STARTED and step not in self.skipped and any(self.states[step + 1 :]):
                found.append(Deviation(SKIPPED, step))
        return tuple(found)


def session_deviations(tables: Iterable[Sequence[int]], steps: int) -> list[tuple[int, Deviation]]:
    """(index of the table, deviation) of a whole session, by table; those of its end have the last index.

    Args:
        tables: ``[frames][steps]`` the states after each frame; before the first, nothing is started.
        steps: number of steps.
    """
    rule, last, found = Deviations([NOT_STARTED] * steps), 0, []
    for last, states in enumerate(tables):
        found += [(last, deviation) for deviation in rule.see(states)]
    return found + [(last, deviation) for deviation in rule.at_end()]


@dataclass(frozen=True)
class Tracking:
    """How proposals change the table.

    Args:
        policy: ``monotone`` (a step only goes forward) or ``reopen`` (a completed step may be in progress again).
        source: ``head`` (the state head's answer for every step) or ``text`` (the state text that the model writes).
        debounce: consecutive frames on which a proposal must be made before the table changes; 1: at once.
        hysteresis: by how much a new state's probability must exceed the tracked state's (head only), 0 to 1.
        filter: ``none``, or ``bayes`` (head only): the state of a step is the one that is likeliest given the head's
            answers on all frames so far and how steps follow each other (``bayes_filter``). It takes the place of
            ``debounce``, ``hysteresis`` and of the decision whether the state changed.

    Raises:
        ValueError: a value of another type or outside its range, or ``bayes`` with what it takes the place of.
    """

    policy: str = "reopen"
    source: str = "head"
    debounce: int = 1
    hysteresis: float = 0.0
    filter: str = "none"

    def __post_init__(self) -> None:
        if not isinstance(self.policy, str) or self.policy not in LEGAL_MOVES:
            raise ValueError(f"tracking policy must be one of {', '.join(LEGAL_MOVES)}, not {self.policy!r}.")
        if self.source not in ("head", "text"):
            raise ValueError(f"tracking source must be head or text, not {self.source!r}.")
        if type(self.debounce) is not int or self.debounce < 1:
            raise ValueError(f"tracking debounce is a whole number of frames, 1 or more, not {self.debounce!r}.")
        if type(self.hysteresis) not in (int, float) or not 0.0 <= self.hysteresis <= 1.0:
            raise ValueError(f"tracking hysteresis must lie in [0, 1], not {self.hysteresis!r}.")
        if not isinstance(self.filter, str) or self.filter not in FILTERS:
            raise ValueError(f"tracking filter must be one of {', '.join(FILTERS)}, not {self.filter!r}.")
        if self.filter == "bayes" and (self.source, self.debounce, self.hysteresis) != ("head", 1, 0):
            raise ValueError(
                "tracking filter bayes reads the state head and needs source head, debounce 1 and hysteresis 0, not "
                f"{self.source}, {self.debounce} and {self.hysteresis}."
            )


def bayes_filter(
    beliefs: Sequence[Sequence[float]], probabilities: Sequence[Sequence[float]], policy: str
) -> list[list[float]]:
    """One frame of a hidden Markov model for each step, whose starts depend on the steps before it.

    A belief is moved by the chances of a change and then weighted with the head's answer (the forward algorithm,
    Rabiner 1989). A step whose earlier steps are all believed completed starts with chance ``START``, another one with
    ``AHEAD`` of it: the plan is followed as a rule, and not always.

    Args:
        beliefs: ``[steps, 3]`` after the frame before.
        probabilities: ``[steps, 3]``, the head's answers.
        policy: ``monotone`` makes a completed step stay so.

    Returns:
        ``[steps, 3]`` after the frame.
    """
    found = []
    ready = 1.0  # that all earlier steps are completed
    again = AGAIN if policy == "reopen" else 0.0
    for (waiting, working, done), row in zip(beliefs, probabilities, strict=True):
        start = START * (ready + AHEAD * (1 - ready))
        moved = (
            waiting * (1 - start - AT_ONCE),
            waiting * start + working * (1 - COMPLETE) + done * again,
            waiting * AT_ONCE + working * COMPLETE + done * (1 - again),
        )
        weighted = [chance * max(answer, LEAST) for chance, answer in zip(moved, row, strict=True)]
        total = sum(weighted)
        found.append([chance / total for chance in weighted])
        ready *= done
    return found


class StateTable:
    """The tracked state of every step.

    Args:
        states: the states before the first frame, ``[steps]``.
        tracking: the rules.

    ``rejected`` counts illegal proposals so far, ``malformed`` counts state texts that could not be parsed;
    ``deviations`` is shown the table after each frame.
    """

    def __init__(self, states: Sequence[int], tracking: Tracking) -> None:
        if any(type(state) is not int or not NOT_STARTED <= state <= COMPLETED for state in states):
            raise ValueError(f"The states of a plan are 0, 1 or 2, not {list(states)}.")
        self.states = list(states)
        self.tracking = tracking
        self.rejected = self.malformed = 0
        self.deviations = Deviations(states)
        # [steps, 3], of the filter "bayes".
        self.beliefs = [[float(state == other) for other in range(len(STATE_NAMES))] for state in states]
        self._waiting: dict[int, tuple[int, int]] = {}  # step -> proposed state, frames it has stood

    def propose(self, proposals: Mapping[int, int], update: bool) -> tuple[Transition, ...]:
        """Take one frame's proposals and return the changes of the table, in the order of the plan.

        Args:
            proposals: step -> proposed state, for the steps whose proposed state is not the tracked one.
            update: whether the model decides that the state changed on this frame. If not, new proposals are ignored,
                but one that was made on the frame before goes on counting towards its ``debounce``. The filter
                ``bayes`` decides by itself.
        """
        update = update or self.tracking.filter == "bayes"
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
        """Proposals of the state head: ``probabilities`` ``[steps, 3]`` of one frame; call it once a frame."""
        if self.tracking.filter == "bayes":
            self.beliefs = bayes_filter(self.beliefs, probabilities, self.tracking.policy)
            probabilities = self.beliefs
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

    def replanned(self, kept: Sequence[int | None]) -> StateTable:
        """The table of a changed plan.

        Args:
            kept: ``[steps]``, for each step of the new plan its index in the old one, None where it is new. A kept step
                keeps its state, what is believed of it and the frames that a proposal has stood; a new one is not
                started. What the kept states show of deviations is not found again.
        """
        table = StateTable([NOT_STARTED if old is None else self.states[old] for old in kept], self.tracking)
        table.rejected, table.malformed = self.rejected, self.malformed
        table.beliefs = [
            row if old is None else self.beliefs[old] for old, row in zip(kept, table.beliefs, strict=True)
        ]
        table._waiting = {new: self._waiting[old] for new, old in enumerate(kept) if old in self._waiting}
        return table

    def save(self) -> dict[str, Any]:
        """The whole table as JSON values."""
        return {
            "states": list(self.states),
            "tracking": asdict(self.tracking),
            "rejected": self.rejected,
            "malformed": self.malformed,
            "waiting": [[step, *pair] for step, pair in self._waiting.items()],
            "skipped": sorted(self.deviations.skipped),
            "beliefs": self.beliefs,
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> StateTable:
        """The table that ``save`` wrote."""
        table = cls(saved["states"], Tracking(**saved["tracking"]))
        table.rejected, table.malformed = saved["rejected"], saved["malformed"]
        table._waiting = {step: (state, stood) for step, state, stood in saved["waiting"]}
        table.deviations.skipped = set(saved["skipped"])
        table.beliefs = saved["beliefs"]
        return table


__all__ = [
    "DEVIATIONS",
    "LEGAL_MOVES",
    "STATE_NAMES",
    "Deviation",
    "Deviations",
    "StateTable",
    "Tracking",
    "Transition",
    "bayes_filter",
    "session_deviations",
]
