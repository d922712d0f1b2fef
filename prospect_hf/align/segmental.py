"""A semi-Markov model of which step of the plan each of a video's segments belongs to.

The segments, in the order of time, are cut into runs, and each run belongs to one step or is off the plan. A path
through the model reaches the steps in plan order. It pays a price for each step that it passes over or never reaches,
for each run of a step that it has reached before, and for each run off the plan; a run has a score of its own. The
weight of a path is the exponential of its score, and its probability is that weight over the weights of all paths.

How far a path has come in the plan is all that its next run depends on, so the sums over all paths take segments times
longest run times steps operations (forward-backward for semi-Markov conditional random fields: Sarawagi and Cohen,
2004). Steps and segments are 0-based; a path is an array ``[segments]`` of steps, with ``OFF_PLAN`` for none.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OFF_PLAN = -1
Floats = NDArray[np.float64]
StepPath = NDArray[np.int64]


@dataclass(frozen=True)
class Prices:
    """What a path pays: for each step passed over, each run of a step reached before, and each run off the plan."""

    skip: float
    revisit: float
    off: float


@dataclass(frozen=True)
class Run:
    """The segments ``first`` to ``first + length - 1`` of one step, or of none (``OFF_PLAN``)."""

    first: int
    length: int
    step: int


class SegmentalModel:
    """The distribution over the paths of one video.

    Args:
        scores: ``[segments, longest, steps]``, the score of a run by its first segment, its length less 1, and its
            step. Entries beyond the last segment are not read. A stay that is longer than ``longest`` is several runs.
        off: ``[segments]``, the score of each segment where it is off the plan.
        prices: what a path pays.

    ``log_total`` is the logarithm of the summed weight of all paths.
    """

    def __init__(self, scores: Floats, off: Floats, prices: Prices) -> None:
        self.scores, self.prices = scores, prices
        self.segments, self.longest, self.steps = scores.shape
        reached = np.arange(self.steps + 1)
        ahead = reached[None, :] - reached[:, None]
        # From a frontier to a later one: the frontier of a path is the number of steps up to the last that it reached.
        self._advance = np.where(ahead > 0, -prices.skip * (ahead - 1.0), -np.inf)
        self._end = -prices.skip * (self.steps - reached)
        self._off = run_sums(off[:, None], self.longest)[:, :, 0] - prices.off
        # Sums over the runs that leave the frontier where it is: off plan, or of one of the steps below it.
        stay = np.concatenate([self._off[:, :, None], scores - prices.revisit], 2)
        self._stay = np.logaddexp.accumulate(stay, axis=2)
        self._forward()

    def _forward(self) -> None:
        """``_before[i, m]``: the sum over all ways through the segments before i that end at frontier m.

        ``_new[i, k]``: the sum over those that go on with the first run of step k.
        """
        self._before = np.full((self.segments + 1, self.steps + 1), -np.inf)
        self._new = np.full((self.segments + 1, self.steps), -np.inf)
        self._before[0, 0] = 0.0
        self._new[0] = self._advance[0, 1:]
        for end in range(1, self.segments + 1):
            first = np.arange(max(0, end - self.longest), end)
            length = end - first - 1
            ways = self._before[first] + self._stay[first, length]
            ways[:, 1:] = np.logaddexp(ways[:, 1:], self._new[first] + self.scores[first, length])
            self._before[end] = _log_sum(ways, 0)
            self._new[end] = _log_sum(self._before[end][:, None] + self._advance, 0)[1:]
        self.log_total = float(_log_sum(self._before[-1] + self._end, 0))

    def score(self, path: StepPath) -> float:
        """The score of one path, whose runs are as long as they can be (all at most ``longest``)."""
        total, reached = 0.0, 0
        for run in runs(path):
            if run.step == OFF_PLAN:
                total += self._off[run.first, run.length - 1]
                continue
            total += self.scores[run.first, run.length - 1, run.step]
            if run.step >= reached:
                total += self._advance[reached, run.step + 1]
                reached = run.step + 1
            else:
                total -= self.prices.revisit
        return float(total + self._end[reached])

    def sample(self, count: int, seed: int = 0) -> NDArray[np.int64]:
        """``count`` paths ``[count, segments]`` drawn from the distribution; the same for the same seed."""
        draws = np.random.Generator(np.random.PCG64(seed))
        paths = np.full((count, self.segments), OFF_PLAN)
        waiting: dict[int, dict[int, list[NDArray[np.int64]]]] = defaultdict(lambda: defaultdict(list))

        def send(samples: NDArray[np.int64], choices: NDArray[np.int64], end: int) -> None:
            for choice in np.unique(choices):
                waiting[end][int(choice)].append(samples[choices == choice])

        send(np.arange(count), _draw(self._before[-1] + self._end, count, draws), self.segments)
        for end in range(self.segments, 0, -1):
            for frontier, groups in sorted(waiting.pop(end, {}).items()):
                samples = np.concatenate(groups)
                first = np.arange(max(0, end - self.longest), end)
                length = end - first - 1
                # The columns: a step below the frontier again, off plan, and the last step below it for the first time.
                again = (
                    self._before[first, frontier, None] + self.scores[first, length, :frontier] - self.prices.revisit
                )
                off = self._before[first, frontier] + self._off[first, length]
                columns = [again, off[:, None]]
                if frontier:
                    columns.append((self._new[first, frontier - 1] + self.scores[first, length, frontier - 1])[:, None])
                ways = np.concatenate(columns, 1)
                chosen = _draw(ways.ravel(), len(samples), draws)
                for choice in np.unique(chosen):
                    mine = samples[chosen == choice]
                    row, column = divmod(int(choice), ways.shape[1])
                    start = int(first[row])
                    if column != frontier:
                        paths[mine, start:end] = column if column < frontier else frontier - 1
                    if start == 0:
                        continue
                    if column <= frontier:
                        waiting[start][frontier].append(mine)
                    else:
                        came = self._before[start] + self._advance[:, frontier]
                        send(mine, _draw(came, len(mine), draws), start)
        return paths

    def run_probabilities(self) -> tuple[Floats, float]:
        """The probability of each run ``[segments, longest, steps]``, and the expected number of revisits.

        The gradient of ``log_total`` follows from them: it is what parameters are fitted with.
        """
        after = np.full((self.segments + 1, self.steps + 1), -np.inf)
        after[-1] = self._end
        found = np.zeros_like(self.scores)
        revisits = 0.0
        for start in range(self.segments - 1, -1, -1):
            length = np.arange(min(self.longest, self.segments - start))
            rest = after[start + 1 + length]
            first = _log_sum(self.scores[start, length] + rest[:, 1:], 0)
            advance = self._advance[:, 1:] + first[None, :]
            after[start] = np.logaddexp(_log_sum(self._stay[start, length] + rest, 0), _log_sum(advance, 1))
            new = np.exp(self._new[start] - self.log_total + self.scores[start, length] + rest[:, 1:])
            both = self._before[start] - self.log_total + rest  # [lengths, frontiers]
            beyond = np.logaddexp.accumulate(both[:, :0:-1], axis=1)[:, ::-1]  # over the frontiers beyond each step
            again = np.exp(beyond + self.scores[start, length] - self.prices.revisit)
            found[start, length] = new + again
            revisits += float(again.sum())
        return found, revisits


def runs(path: StepPath) -> list[Run]:
    """The runs of a path, each as long as it can be."""
    starts = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist()]
    ends = [*starts[1:], len(path)]
    return [Run(first, end - first, int(path[first])) for first, end in zip(starts, ends, strict=True)]


def run_sums(values: Floats, longest: int) -> Floats:
    """The sums ``[segments, longest, any]`` of ``values [segments, any]`` over each run, cut at the last segment."""
    total = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, 0)])
    first = np.arange(len(values))[:, None]
    return np.asarray(total[np.minimum(first + 1 + np.arange(longest), len(values))] - total[first], np.float64)


def _log_sum(values: Floats, axis: int) -> Floats:
    """Logarithm of the summed exponentials; minus infinity where all are."""
    most = values.max(axis, keepdims=True)
    shift = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        total = np.log(np.exp(values - shift).sum(axis, keepdims=True)) + shift
    return np.asarray(total.squeeze(axis), np.float64)


def _draw(log_weights: Floats, count: int, draws: np.random.Generator) -> NDArray[np.int64]:
    """``count`` indices, drawn in proportion to the weights."""
    total = np.cumsum(np.exp(log_weights - log_weights.max()))
    found = np.searchsorted(total, draws.random(count) * total[-1], side="right")
    return np.minimum(found, len(total) - 1)
