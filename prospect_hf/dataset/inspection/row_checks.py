"""The promises that rows keep inside their session, each a function over columns that gives the rows that break it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from prospect_hf.dataset.inspection.blocks import Block, Mask, States, lists
from prospect_hf.dataset.inspection.videos import inside
from prospect_hf.dataset.licenses import LICENSES
from prospect_hf.dataset.row_maker import SCHEMA, row_deviation
from prospect_hf.sessions import (
    COMPLETED,
    HIGHEST_FPS,
    IGNORE,
    IN_PROGRESS,
    LONGEST_S,
    MONOTONE,
    NOT_STARTED,
    REOPEN,
    SOURCES,
)
from tracking_dst_smolvlm import session_deviations

# The same in every row of a session, beside its plan.
CONSTANT = ("source", "video_uid", "recording", "user_type", "fps", "frames_file", "goal", "state_rule", "license")
# Timestamps are 32-bit numbers, rounded once as a quotient and once as their divisor fps.
TIME_TOLERANCE = 3e-7


def check_rows(
    block: Block, source: str | None, broken: Callable[[str, Block, Mask], None]
) -> tuple[Block | None, Block | None]:
    """Check the promises of a block's rows.

    Sessions with missing values are not looked at further, nor are the states of those whose plan changes or whose
    states are not as many as its steps, nor the deviations of those whose states break a promise.

    Args:
        block: whole sessions.
        source: of the file; None in the sample, which has all.
        broken: called with the name of each promise, the rows that were checked, and those that break it.

    Returns:
        The sessions without missing values; and of these, those whose states have the shape that they promise. None
        where there is none.
    """
    missing = nulls(block)
    broken("no_nulls", block, missing)
    complete = block.without_sessions_of(missing)
    if complete is None:
        return None, None
    broken("one_source", complete, other_source(complete, source))
    for promise, check in CHECKS.items():
        broken(promise, complete, check(complete))
    sound = complete.without_sessions_of(plan_shape(complete) | changed_plan(complete))
    if sound is None:
        return complete, None
    states = States.of(sound)
    faulty = np.zeros(sound.count, np.bool_)
    for promise, check_states in STATE_CHECKS.items():
        found = check_states(sound, states)
        broken(promise, sound, found)
        faulty |= found
    broken("deviations", sound, wrong_deviations(sound, states, faulty))
    return complete, sound


def nulls(block: Block) -> Mask:
    """A value is missing, in a list too."""
    found = np.zeros(block.count, np.bool_)
    for name in SCHEMA.names:
        column = block.array(name)
        if column.null_count:
            found |= column.is_null().to_numpy(zero_copy_only=False)
        if pa.types.is_list(column.type):
            parents = column.value_parent_indices()
            values = column.flatten()
            for part in (values, *(values.flatten() if pa.types.is_struct(values.type) else ())):
                if part.null_count:
                    found[parents.filter(part.is_null()).to_numpy()] = True
    return found


def other_source(block: Block, source: str | None) -> Mask:
    """The source is not that of the file, or no source at all."""
    indices, sources = block.codes("source")
    return np.array([name != source if source else name not in SOURCES for name in sources])[indices]


def other_license(block: Block) -> Mask:
    """The license is not that of the row's source."""
    of_source, sources = block.codes("source")
    of_license, licenses = block.codes("license")
    right = np.array([[LICENSES.get(str(source)) == name for name in licenses] for source in sources])
    return ~right[of_source, of_license]


def path_outside(block: Block) -> Mask:
    """The frame file would be read from another folder."""
    indices, names = block.codes("frames_file")
    return np.array([not inside(str(name)) for name in names])[indices]


def changed(block: Block) -> Mask:
    """The description of the session is another one than in the row above."""
    found = changed_plan(block)
    for name in CONSTANT:
        values = block.codes(name)[0] if pa.types.is_string(SCHEMA.field(name).type) else block.numbers(name)
        found[1:] |= values[1:] != values[:-1]
    return found & ~block.first


def changed_plan(block: Block) -> Mask:
    """The plan is another one than in the row above."""
    offsets, steps = lists(block.array("steps"))
    codes = steps.to_numpy()
    count = np.diff(offsets)
    found = np.zeros(block.count, np.bool_)
    found[1:] = (count[1:] != count[:-1]) & ~block.first[1:]
    alike = ~found & ~block.first
    cells = np.repeat(alike, count)
    row_of = np.repeat(np.arange(block.count), count)[cells]
    at = np.flatnonzero(cells)
    found[row_of[codes[at] != codes[at - count[row_of]]]] = True
    return found


def plan_shape(block: Block) -> Mask:
    """The row has no plan, or not one state before and after the frame for each step."""
    steps, before, after = (block.lengths(name) for name in ("steps", "states_before", "states_after"))
    return (steps == 0) | (before != steps) | (after != steps)


def repeated_frame(block: Block) -> Mask:
    """The session has an earlier row of the same frame."""
    frames, found = block.numbers("frame_index").astype(np.int64), np.zeros(block.count, np.bool_)
    if (_frame_steps(block) == 1).all():
        return found
    order = np.lexsort((frames, block.run))
    same = (frames[order][1:] == frames[order][:-1]) & (block.run[order][1:] == block.run[order][:-1])
    found[order[1:][same]] = True
    return found


def frame_gap(block: Block) -> Mask:
    """The frame does not follow the one above it; a repeated frame is another fault."""
    found = np.zeros(block.count, np.bool_)
    found[1:][~block.first[1:]] = _frame_steps(block) != 1
    return found & ~repeated_frame(block)


def _frame_steps(block: Block) -> np.ndarray:
    return np.diff(block.numbers("frame_index").astype(np.int64))[~block.first[1:]]


def wrong_time(block: Block) -> Mask:
    """The timestamp is not the end of the frame, or not after that of the row above."""
    times, fps = block.numbers("timestamp").astype(np.float64), block.numbers("fps").astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = (block.numbers("frame_index") + 1.0) / fps
        found = ~((fps > 0) & (fps <= HIGHEST_FPS) & (np.abs(times - ends) <= TIME_TOLERANCE * np.abs(ends)))
    found[1:] |= ~block.first[1:] & ~(times[1:] > times[:-1])
    return found


def outside_of_any_video(block: Block) -> Mask:
    """The frame is below 0 or beyond a day."""
    frames = block.numbers("frame_index")
    return (frames < 0) | (frames > LONGEST_S * HIGHEST_FPS)


def wrong_speaking(block: Block) -> Mask:
    """``speaking`` does not say who speaks, or both do; -100 on all frames of a session: speech is not annotated."""
    user, assistant = block.given("user_text"), block.given("response")
    speaking = block.numbers("speaking")
    labelled = np.logical_or.reduceat((speaking != IGNORE) | user | assistant, block.starts)
    silent = np.where(labelled[block.run], 0, IGNORE)
    return (speaking != np.where(assistant, 1, np.where(user, IGNORE, silent))) | (user & assistant)


def unknown_rule(block: Block) -> Mask:
    """The state rule is none."""
    indices, rules = block.codes("state_rule")
    return np.array([rule not in (REOPEN, MONOTONE) for rule in rules])[indices]


def no_state(block: Block, states: States) -> Mask:
    """A state is no state."""
    known = [NOT_STARTED, IN_PROGRESS, COMPLETED, IGNORE]
    return states.rows(~np.isin(states.before, known) | ~np.isin(states.after, known))


def partly_unlabelled(block: Block, states: States) -> Mask:
    """The row has labels and none at the same time, or not as the first row of its session."""
    labelled = ~states.rows((states.before == IGNORE) | (states.after == IGNORE)) & (states.update != IGNORE)
    none = ~states.rows((states.before != IGNORE) | (states.after != IGNORE))
    none &= (states.update == IGNORE) & (states.moves == 0)
    return ~(labelled | none) | (none != none[block.starts][block.run])


def begun_before(block: Block, states: States) -> Mask:
    """A step has started before the session's first frame."""
    return states.rows((states.before != NOT_STARTED) & (states.before != IGNORE)) & block.first


def broken_chain(block: Block, states: States) -> Mask:
    """The states before the frame are not those after the frame above."""
    cells = np.flatnonzero(~block.first[states.row_of])
    differs = np.zeros(len(states.row_of), np.bool_)
    # The rows of a session have equally many steps, so the same step of the row above is so many cells back.
    differs[cells] = states.before[cells] != states.after[cells - states.steps[states.row_of[cells]]]
    return states.rows(differs)


def no_transition(block: Block, states: States) -> Mask:
    """A transition is of no step of the plan, or neither start nor complete."""
    found = np.zeros(block.count, np.bool_)
    found[states.move_row[~_known_moves(states)]] = True
    return found


def _known_moves(states: States) -> Mask:
    known = (states.move_step >= 0) & (states.move_step < states.steps[states.move_row])
    return known & (states.move_state != IGNORE)


def unexplained_states(block: Block, states: States) -> Mask:
    """The states after the frame are not those that its transitions lead to."""
    expected = states.before.copy()
    known = _known_moves(states)
    # Of several transitions of one step, the last one counts.
    expected[(states.offsets[states.move_row] + states.move_step)[known]] = states.move_state[known]
    return states.rows(expected != states.after)


def illegal_transition(block: Block, states: States) -> Mask:
    """A step starts that is in progress (or completed, with the rule monotone), or completes that is not; or a state
    goes back."""
    before, after, monotone = states.before, states.after, states.monotone[states.row_of]
    back = (after == NOT_STARTED) & ((before == IN_PROGRESS) | (before == COMPLETED))
    found = states.rows(back | (monotone & (before == COMPLETED) & (after == IN_PROGRESS)))
    known = np.flatnonzero(_known_moves(states))
    cells = (states.offsets[states.move_row] + states.move_step)[known]
    order = np.argsort(cells, kind="stable")  # the transitions of one step on one frame, in their order
    known, cells = known[order], cells[order]
    new, old = states.move_state[known], before[cells].astype(np.int64)
    again = np.flatnonzero(cells[1:] == cells[:-1]) + 1
    old[again] = new[again - 1]
    rows = states.move_row[known]
    starts = (old == NOT_STARTED) | ((old == COMPLETED) & ~states.monotone[rows])
    found[rows[~np.where(new == IN_PROGRESS, starts, old == IN_PROGRESS)]] = True
    return found


def wrong_update(block: Block, states: States) -> Mask:
    """``dst_update`` does not say whether there is a transition."""
    return (states.update != (states.moves > 0)) & (states.update != IGNORE)


def wrong_deviations(block: Block, states: States, faulty: Mask) -> Mask:
    """The deviations are not those that the states of the session show; sessions with ``faulty`` rows have none."""
    offsets, values = lists(block.array("deviations"))
    changed = states.rows(states.before != states.after)
    found = np.zeros(block.count, np.bool_)
    ends = [*block.starts[1:].tolist(), block.count]
    for begin, end in zip(block.starts.tolist(), ends, strict=True):
        if faulty[begin:end].any():
            continue
        expected: dict[int, list[dict[str, Any]]] = {}
        if states.update[begin] != IGNORE:
            rows = [*(begin + np.flatnonzero(changed[begin:end])).tolist(), end - 1]
            tables = [states.after[states.offsets[row] : states.offsets[row + 1]].tolist() for row in rows]
            for index, deviation in session_deviations(tables, int(states.steps[begin])):
                expected.setdefault(rows[index], []).append(row_deviation(deviation))
        given = begin + np.flatnonzero(np.diff(offsets[begin : end + 1]))
        for row in {*expected, *given.tolist()}:
            found[row] = values[offsets[row] : offsets[row + 1]].to_pylist() != expected.get(row, [])
    return found


CHECKS: dict[str, Callable[[Block], Mask]] = {
    "license": other_license,
    "frames_file": path_outside,
    "session_constant": changed,
    "plan_shape": plan_shape,
    "one_row_a_frame": repeated_frame,
    "consecutive_frames": frame_gap,
    "timestamps": wrong_time,
    "frames_in_video": outside_of_any_video,
    "speaking": wrong_speaking,
    "state_rule": unknown_rule,
}
STATE_CHECKS: dict[str, Callable[[Block, States], Mask]] = {
    "state_values": no_state,
    "unlabelled_sessions": partly_unlabelled,
    "first_states": begun_before,
    "state_chain": broken_chain,
    "transition_values": no_transition,
    "transitions_match_states": unexplained_states,
    "legal_transitions": illegal_transition,
    "dst_update": wrong_update,
}
