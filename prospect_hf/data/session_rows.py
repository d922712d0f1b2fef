"""Groups frame rows by session, as label arrays and texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from processing_dst_smolvlm import FrameItem
from prospect_hf.dataset.row_maker import SCHEMA
from prospect_hf.errors import DataError
from prospect_hf.sessions import COMPLETED, IGNORE, IN_PROGRESS

# Columns with one value for a whole session, the columns of labels, and all that are read.
OF_SESSION = ("session_id", "source", "video_uid", "user_type", "goal", "frames_file")
_LABELS = ("speaking", "dst_update")
_STATES = ("states_before", "states_after")
COLUMNS = (*OF_SESSION, "steps", "frame_index", *_LABELS, *_STATES, "user_text", "response", "transitions")
# What happens on a frame, as columns of the rows; "position" counts from the session's first frame.
ITEM = pa.struct(
    [
        pa.field("position", pa.int32()),
        *(pa.field(name, SCHEMA.field(name).type) for name in ("user_text", "response", "transitions")),
    ]
)
STATE_AFTER = {"start": IN_PROGRESS, "complete": COMPLETED}
TRANSITIONS = {state: name for name, state in STATE_AFTER.items()}
# Rows that are converted at a time.
BATCH_ROWS = 32_768


@dataclass
class SessionRows:
    """The rows of one session, frames in order.

    Args:
        session_id, source, video_uid, user_type, goal, steps, frames_file: as in the rows.
        first_frame: absolute index of the first row's frame.
        speaking, dst_update: ``[frames]`` labels 0 and 1; -100 is ignored.
        states_before, states_after: ``[frames, steps]`` states before and after the frame's events, -100 in a session
            without DST labels. All label arrays are int8, and read-only where they lie in the memory of the rows.
        items: position in the session -> the frame's texts and state changes; frames without any have no entry.
    """

    session_id: str
    source: str
    video_uid: str
    user_type: str
    goal: str
    steps: list[str]
    frames_file: str
    first_frame: int
    speaking: np.ndarray
    dst_update: np.ndarray
    states_before: np.ndarray
    states_after: np.ndarray
    items: Mapping[int, FrameItem] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.speaking)

    @property
    def labelled(self) -> bool:
        """Whether the session has DST labels."""
        return bool((self.states_before[0] != IGNORE).all())

    @property
    def has_speech(self) -> bool:
        """Whether the session says when the assistant speaks: its speaking decision is labelled."""
        return bool((self.speaking != IGNORE).any())

    def states_at(self, frame: int) -> list[int] | None:
        """The state of each step before the events at position ``frame``; None in a session without DST labels."""
        return self.states_before[frame].tolist() if self.labelled else None

    def item(self, frame: int) -> FrameItem:
        """The texts and state changes at position ``frame``; empty where there are none."""
        return self.items.get(frame) or FrameItem()


def iter_sessions(rows: datasets.Dataset | datasets.IterableDataset) -> Iterator[SessionRows]:
    """The sessions of a split of ``dst_frames``, in the rows' order; a streaming dataset is read as it comes.

    Raises:
        DataError: as :func:`sessions_of`.
    """
    yield from sessions_of(rows.with_format("arrow").iter(batch_size=BATCH_ROWS))


def sessions_of(tables: Iterable[pa.Table]) -> Iterator[SessionRows]:
    """The sessions of frame rows that come in pieces, which need not end with a session.

    At most one piece and the beginning of the next session are held.

    Raises:
        DataError: there are no rows, a column is missing or has empty cells, or a session's rows are not one run of
            consecutive frames.
    """
    seen: set[str] = set()
    waiting: list[pa.Table] = []
    for table in tables:
        if table.num_rows:
            rows = pa.concat_tables([*waiting, _checked(table)]).combine_chunks()
            last = _bounds(rows)[-2]
            yield from _sessions(rows[:last], seen)
            waiting = [rows[last:]]
    if not waiting:
        raise DataError("The split has no frame rows to train or evaluate on; check data.sources and data.root.")
    yield from _sessions(waiting[0], seen)


def _checked(table: pa.Table) -> pa.Table:
    """The columns that are read, each as one array of its type, with values that occur in ``dst_frames``."""
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise _no_rows(f"have no column {', '.join(missing)}")
    table = table.select(COLUMNS)
    for place, name in enumerate(COLUMNS):
        column, wanted = table[name], SCHEMA.field(name).type
        if not pa.types.is_dictionary(column.type) and column.type != wanted:
            try:
                column = column.cast(wanted)
            except pa.ArrowException as error:
                raise _no_rows(f"have a column {name} of type {column.type} ({error})") from error
            table = table.set_column(place, name, column)
        values = pc.list_flatten(column) if pa.types.is_list(wanted) else column
        if column.null_count or values.null_count:
            raise _no_rows(f"have empty cells in column {name}")
        if name in (*_LABELS, *_STATES):
            numbers = values.to_numpy()
            if not (((numbers >= 0) & (numbers <= (2 if name in _STATES else 1))) | (numbers == IGNORE)).all():
                raise _no_rows(f"have a value in column {name} that is no label")
        if name == "transitions":
            kinds, steps = (pc.struct_field(values, part) for part in ("transition", "step"))
            if not pc.all(pc.is_in(kinds, pa.array(list(STATE_AFTER))), min_count=0).as_py():
                raise _no_rows(f"have a transition other than {' and '.join(STATE_AFTER)}")
            if not pc.all(pc.greater_equal(steps, 0), skip_nulls=False, min_count=0).as_py():
                raise _no_rows("have a transition without a step")
    return table


def _no_rows(fault: str) -> DataError:
    return DataError(f"The rows {fault}: they are no rows of dst_frames.")


def _bounds(rows: pa.Table) -> list[int]:
    """The first row of each session, and the number of rows."""
    if not rows.num_rows:
        return [0]
    ids = rows["session_id"].chunk(0)
    if pa.types.is_dictionary(ids.type):
        ids = ids.indices
    changes = np.flatnonzero(pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)) + 1
    return [0, *changes.tolist(), rows.num_rows]


def _sessions(rows: pa.Table, seen: set[str]) -> Iterator[SessionRows]:
    """The sessions of whole sessions' rows.

    Columns become arrays at once, and a session has views of them; only frames with a text or a change become objects.
    """
    bounds = _bounds(rows)
    if len(bounds) < 2:
        return
    firsts = rows.take(bounds[:-1])
    of_session = {name: firsts[name].to_pylist() for name in (*OF_SESSION, "steps")}
    frames = rows["frame_index"].to_numpy()
    labels = {name: rows[name].to_numpy() for name in _LABELS}
    states = {name: _Lists(rows[name]) for name in _STATES}
    items = _ItemRows(rows)
    for number, (begin, end) in enumerate(pairwise(bounds)):
        session_id, steps = of_session["session_id"][number], of_session["steps"][number]
        if session_id in seen:
            raise DataError(
                f"session {session_id}: its rows are not contiguous (do not shuffle), or two sessions have this id."
            )
        seen.add(session_id)
        if (np.diff(frames[begin:end]) != 1).any():
            raise DataError(
                f"session {session_id}: its rows are not consecutive frames; do not shuffle or filter rows."
            )
        if not steps:
            raise DataError(f"session {session_id}: its plan has no steps.")
        for name, lists in states.items():
            if not lists.all_have(len(steps), begin, end):
                raise DataError(f"session {session_id}: {name} has not one state for each of its {len(steps)} steps.")
        if items.highest_step(begin, end) >= len(steps):
            raise DataError(f"session {session_id}: a state change names a step beyond its {len(steps)}.")
        before, after = (states[name].of(begin, end).reshape(-1, len(steps)) for name in _STATES)
        yield SessionRows(
            **{name: values[number] for name, values in of_session.items()},
            first_frame=int(frames[begin]),
            speaking=labels["speaking"][begin:end],
            dst_update=labels["dst_update"][begin:end],
            states_before=before,
            states_after=after,
            items=items.of(begin, end),
        )


class _Lists:
    """A column of lists of small numbers, as one array and the place of each row in it."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        array = column.chunk(0)
        self.offsets = array.offsets.to_numpy()
        self.values = array.values.to_numpy()

    def of(self, begin: int, end: int) -> NDArray[np.int8]:
        """The values of rows ``begin`` to ``end`` (exclusive), side by side."""
        return self.values[self.offsets[begin] : self.offsets[end]]

    def all_have(self, length: int, begin: int, end: int) -> bool:
        """Whether each of these rows has ``length`` values."""
        return bool((np.diff(self.offsets[begin : end + 1]) == length).all())


class Items(Mapping[int, FrameItem]):
    """The texts and state changes of a session's frames, made from their columns when they are first asked for.

    Args:
        table: of type ``ITEM``, by position.
    """

    def __init__(self, table: pa.StructArray) -> None:
        self.table = table

    @classmethod
    def of(cls, items: Mapping[int, FrameItem]) -> Items:
        """The columns of items that are there as objects."""
        if isinstance(items, Items):
            return items
        return cls(
            pa.array(
                [
                    {
                        "position": position,
                        "user_text": item.user_text,
                        "response": item.response,
                        "transitions": [
                            {"step": step, "transition": TRANSITIONS[state]} for step, state in item.changes.items()
                        ],
                    }
                    for position, item in sorted(items.items())
                ],
                ITEM,
            )
        )

    @cached_property
    def _made(self) -> dict[int, FrameItem]:
        transitions = self.table.field("transitions")
        steps = transitions.flatten().field("step").to_pylist()
        states = [STATE_AFTER[name] for name in transitions.flatten().field("transition").to_pylist()]
        bounds = (transitions.offsets.to_numpy() - transitions.offsets[0].as_py()).tolist()
        texts = (self.table.field(name).to_pylist() for name in ("position", "user_text", "response"))
        return {
            position: FrameItem(dict(zip(steps[begin:end], states[begin:end], strict=True)), user_text, response)
            for position, user_text, response, (begin, end) in zip(*texts, pairwise(bounds), strict=True)
        }

    def __getitem__(self, position: int) -> FrameItem:
        return self._made[position]

    def __iter__(self) -> Iterator[int]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> tuple[type[dict[int, FrameItem]], tuple[dict[int, FrameItem]]]:
        # A slice of an Arrow array would take all the memory that it is a slice of to another process.
        return dict, (self._made,)


class _ItemRows:
    """The rows with a text or a state change, as items."""

    def __init__(self, rows: pa.Table) -> None:
        user, response = rows["user_text"], rows["response"]
        transitions = rows["transitions"].chunk(0)
        has_text = pc.or_(pc.not_equal(user, ""), pc.not_equal(response, "")).to_numpy()
        self.rows = np.flatnonzero(has_text | (np.diff(transitions.offsets.to_numpy()) > 0))
        chosen = pa.array(self.rows)
        texts = [column.chunk(0) for column in (user, response)]
        self.columns = [column.take(chosen) for column in (*texts, transitions)]

        changes = self.columns[2]
        self._steps = changes.flatten().field("step").to_numpy()
        self._first_change = changes.offsets.to_numpy() - changes.offsets[0].as_py()

    def highest_step(self, begin: int, end: int) -> int:
        """The highest step of a change in rows ``begin`` to ``end`` (exclusive); -1 where there is none."""
        low, high = self._first_change[np.searchsorted(self.rows, [begin, end])]
        return int(self._steps[low:high].max(initial=-1))

    def of(self, begin: int, end: int) -> Items:
        """Those of rows ``begin`` to ``end`` (exclusive), by position after ``begin``."""
        low, high = np.searchsorted(self.rows, [begin, end]).tolist()
        positions = pa.array((self.rows[low:high] - begin).astype(np.int32))
        columns = [column[low:high] for column in self.columns]
        return Items(pa.StructArray.from_arrays([positions, *columns], fields=list(ITEM)))
