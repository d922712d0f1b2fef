"""How far two sets of state labels of one video agree: counts that add up over videos, and figures from their sums.

One set is called ``a`` and the other ``b``. Where one of them is the truth, it is ``a``: errors are b minus a, and
precision is the share of b. A step with several visits starts with the first of them and ends with the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prospect_hf.errors import DataError
from prospect_hf.labels.spans import STATED_SPANS, Span, merge_spans, span_events
from prospect_hf.metrics.counts import Counts, plain, ratio, total
from prospect_hf.metrics.events import event_counts, event_figures, match_transitions
from prospect_hf.metrics.states import state_counts, state_figures, transitions
from prospect_hf.sessions import FPS, IN_PROGRESS, MOST_STATES, check_time
from prospect_hf.timeline import frame_at, state_table

# Seconds within which two transitions of a step to a state are the same one.
TOLERANCES_S = (2, 5, 10)


@dataclass(frozen=True)
class Agreement:
    """What two sets of labels have in common, of one video or summed over several.

    Args:
        counts: numbers that add up over videos, see :func:`compare_spans`.
        start_errors, end_errors: seconds, b minus a, of each step that both sets have: of its first start, and of its
            last end where both sets give one. They are kept, since a median is no ratio of sums.
    """

    counts: Counts
    start_errors: tuple[float, ...]
    end_errors: tuple[float, ...]


def compare_spans(
    a: Sequence[Span],
    b: Sequence[Span],
    *,
    steps: int,
    num_frames: int,
    fps: float = FPS,
    first_frame: int = 0,
    rule: str = STATED_SPANS,
    where: str = "labels",
) -> Agreement:
    """The agreement of two sets of spans of one video; each may be empty.

    Args:
        a, b: spans in any order. Those of one step are joined by ``rule`` ("reopen" or "monotone"), as labels are.
        steps: number of steps of the plan.
        num_frames, first_frame: the frames ``first_frame`` to ``num_frames - 1`` are compared.
        fps: frames per second.
        where: names the video in messages.

    Returns:
        The counts of :func:`prospect_hf.metrics.states.state_counts` with a as reference, those of
        :func:`prospect_hf.metrics.events.event_counts` of "transition" for ``TOLERANCES_S``, and

        - ``videos``: 1; ``right_share``: the share of frames on which all steps have the same state.
        - ``steps``: of the plan; ``steps_a``, ``steps_b``, ``steps_both``: of which a, b or both have a span;
          ``open_ends``: those of both where a or b gives no end.
        - ``iou``: the sum of the intersection over union, in time, of each step that a or b has.
        - ``pairs``: pairs of steps that both have; ``pairs_same_order``: those that start in the same order in both.
        - ``busy_a``, ``busy_b``: frames with a step in progress.

    Raises:
        DataError: a span is not of the plan, its times are none of the video, or the video has no frame.
    """
    if not 0 <= first_frame < num_frames:
        raise DataError(f"{where}: there is no frame from {first_frame} to {num_frames}; give the length of the video.")
    if (num_frames - first_frame) * steps > MOST_STATES:
        raise DataError(
            f"{where}: {num_frames - first_frame} frames and {steps} steps are more than any video has; check them."
        )
    ours, theirs = (
        _checked(spans, rule, steps, num_frames, fps, f"{where}, {name}") for name, spans in (("a", a), ("b", b))
    )
    tables = [state_table(span_events(spans), steps, fps, first_frame, num_frames) for spans in (ours, theirs)]
    states = state_counts(tables[1], tables[0])
    moved, moved_b = transitions(tables[0]), transitions(tables[1])
    within = {seconds: match_transitions(moved_b, moved, int(seconds * fps)) for seconds in TOLERANCES_S}
    of_a, of_b = _by_step(ours), _by_step(theirs)
    both = sorted(of_a.keys() & of_b.keys())
    ends = [(_last_end(of_a[step]), _last_end(of_b[step])) for step in both]
    end_errors = tuple(late - early for early, late in ends if early is not None and late is not None)
    starts = np.array([(of_a[step][0].start, of_b[step][0].start) for step in both]).reshape(-1, 2)
    counts = {
        **states,
        **event_counts(within, len(moved_b), len(moved), fps, "transition"),
        "videos": 1.0,
        "right_share": states["state_right"] / states["state_frames"],
        "steps": float(steps),
        "steps_a": float(len(of_a)),
        "steps_b": float(len(of_b)),
        "steps_both": float(len(both)),
        "open_ends": float(len(both) - len(end_errors)),
        "iou": sum(_iou(of_a[step], of_b[step], num_frames / fps) for step in both),
        "pairs": len(both) * (len(both) - 1) / 2,
        "pairs_same_order": _same_order(starts),
        **{
            f"busy_{name}": float(np.any(table == IN_PROGRESS, axis=1).sum())
            for name, table in zip("ab", tables, strict=True)
        },
    }
    return Agreement(counts, tuple((starts[:, 1] - starts[:, 0]).tolist()), end_errors)


def pooled(agreements: Iterable[Agreement]) -> Agreement:
    """The agreement of several videos, of one at least, as one."""
    each = list(agreements)
    return Agreement(
        total(one.counts for one in each),
        tuple(error for one in each for error in one.start_errors),
        tuple(error for one in each for error in one.end_errors),
    )


def agreement_figures(agreement: Agreement) -> dict[str, float | None]:
    """The figures of a video, or of several pooled ones; None where there is nothing to count.

    - ``joint_state_accuracy_mean``: share of frames on which all steps have the same state, as mean over videos;
      ``joint_state_accuracy_pooled``: the same share of all frames of all videos.
    - ``step_accuracy``: share of (frame, step) cells with the same state; ``state_macro_f1``: mean F1 of the states.
    - ``boundary_error_median_s``, ``_p90_s``: of the absolute errors of first starts and last ends, over steps that
      both sets have; ``start_error_...`` and ``end_error_...``: of the starts and of the ends alone. ``start_shift_s``
      and ``end_shift_s``: the median of b minus a.
    - ``step_iou``: mean intersection over union, in time, of the steps that a or b has.
    - ``transition_f1_2s``, ``_5s``, ``_10s``: of the state changes, each matched once with one of the same step to the
      same state within so many seconds; with ``transition_precision_...`` (share of b) and ``..._recall_...`` (of a).
    - ``order_agreement``: share of pairs of steps that start in the same order in both, by first starts.
    - ``steps_covered_a``, ``steps_covered_b``: share of the plan's steps that have a span; ``time_covered_a``,
      ``time_covered_b``: share of the frames with a step in progress.
    """
    counts = agreement.counts
    states, moves = state_figures(counts), event_figures(counts, TOLERANCES_S, "transition")
    starts, ends = np.array(agreement.start_errors), np.array(agreement.end_errors)
    either = counts["steps_a"] + counts["steps_b"] - counts["steps_both"]
    return plain(
        {
            "joint_state_accuracy_mean": ratio(counts["right_share"], counts["videos"]),
            "joint_state_accuracy_pooled": states["joint_state_accuracy"],
            "step_accuracy": states["step_accuracy"],
            "state_macro_f1": states["state_macro_f1"],
            **_error_figures("boundary", np.concatenate([starts, ends])),
            **_error_figures("start", starts),
            **_error_figures("end", ends),
            "start_shift_s": _quantile(starts, 0.5),
            "end_shift_s": _quantile(ends, 0.5),
            "step_iou": ratio(counts["iou"], either),
            **{
                f"transition_{kind}_{seconds}s": moves[f"transition_{kind}_{seconds}s"]
                for seconds in TOLERANCES_S
                for kind in ("precision", "recall", "f1")
            },
            "order_agreement": ratio(counts["pairs_same_order"], counts["pairs"]),
            **{f"steps_covered_{name}": ratio(counts[f"steps_{name}"], counts["steps"]) for name in "ab"},
            **{f"time_covered_{name}": ratio(counts[f"busy_{name}"], counts["state_frames"]) for name in "ab"},
        }
    )


def _checked(spans: Sequence[Span], rule: str, steps: int, num_frames: int, fps: float, where: str) -> tuple[Span, ...]:
    """The spans as ``rule`` joins them, once each is known to be one of the plan and of the video."""
    for span in spans:
        if not 0 <= span.step < steps:
            raise DataError(f"{where}: a span is of step S{span.step + 1}; the plan has the steps S1 to S{steps}.")
        at = f"{where}: S{span.step + 1}"
        check_time(span.start, f"{at}: its start")
        if span.end is not None:
            check_time(span.end, f"{at}: its end")
            if span.end <= span.start:
                raise DataError(f"{at}: its end {span.end} is not after its start {span.start}.")
        last = span.start if span.end is None else span.end
        if frame_at(last, fps) > num_frames:
            raise DataError(f"{at} is labelled at {last:g} s, but the video ends at {num_frames / fps:g} s.")
    return merge_spans(spans, rule)[0]


def _by_step(spans: Sequence[Span]) -> dict[int, list[Span]]:
    steps: dict[int, list[Span]] = {}
    for span in spans:  # by step and time, as they were joined
        steps.setdefault(span.step, []).append(span)
    return steps


def _last_end(spans: Sequence[Span]) -> float | None:
    return spans[-1].end


def _iou(a: Sequence[Span], b: Sequence[Span], end: float) -> float:
    """Intersection over union of the seconds of two sets of spans, each without overlaps; open spans last to ``end``.

    A step that both begin at the video's very end has no seconds at all; there they agree.
    """
    ours, theirs = (
        [(span.start, max(span.start, end) if span.end is None else span.end) for span in s] for s in (a, b)
    )
    shared = sum(max(0.0, min(x[1], y[1]) - max(x[0], y[0])) for x in ours for y in theirs)
    either = sum(stop - start for start, stop in ours) + sum(stop - start for start, stop in theirs) - shared
    return shared / either if either > 0 else 1.0


def _same_order(starts: NDArray[np.float64]) -> float:
    """How many pairs of steps have the same order in both columns of ``starts`` ``[steps, 2]``; ties are an order."""
    rows = (np.sign(starts[place + 1 :] - starts[place]) for place in range(len(starts)))
    return float(sum(np.sum(row[:, 0] == row[:, 1]) for row in rows))


def _error_figures(name: str, errors: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    size = np.abs(errors)
    return {f"{name}_error_median_s": _quantile(size, 0.5), f"{name}_error_p90_s": _quantile(size, 0.9)}


def _quantile(values: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    return np.asarray(np.quantile(values, share) if values.size else np.nan)
