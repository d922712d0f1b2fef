"""Reads a file of rows as blocks of whole sessions, so that memory stays flat, and their columns as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prospect_hf.dataset.row_maker import SCHEMA
from prospect_hf.sessions import COMPLETED, IGNORE, IN_PROGRESS, MONOTONE

# A block is filled up to so many rows, and (step, frame) cells, and then to the end of its last session.
BATCH_ROWS, BATCH_CELLS = 1 << 16, 1 << 20
TEXTS = [field.name for field in SCHEMA if pa.types.is_string(field.type)]
Mask = NDArray[np.bool_]
Whole = NDArray[np.int64]


def read_blocks(path: Path) -> Iterator[Block]:
    """The rows of a file in blocks of whole sessions; a run of rows with one session id is never cut.

    Raises:
        pyarrow.ArrowException, OSError: the file cannot be read.
    """
    # A column of texts holds few different ones: it stays a dictionary and its indices.
    with pq.ParquetFile(path, read_dictionary=TEXTS) as file:
        plans = Plans()
        pending: list[pa.Table] = []
        last = None
        batches = file.iter_batches(_batch_rows(file.metadata), columns=SCHEMA.names, use_threads=False)
        for batch in batches:
            if not batch.num_rows:
                continue
            batch.validate(full=True)
            block = Block(plans.coded(pa.Table.from_batches([batch])), plans)
            cut = int(block.starts[-1])
            if pending and block.session(0) != last:
                yield _joined(pending, plans)
                pending = []
            if cut:
                yield _joined([*pending, block.table.slice(0, cut)], plans)
                pending = []
            pending.append(block.table.slice(cut))
            last = block.session(block.count - 1)
        if pending:
            yield _joined(pending, plans)


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """How many rows are read at once: fewer where plans are long, since each row repeats its plan."""
    steps = next(n for n in range(metadata.num_columns) if metadata.schema.column(n).path.startswith("steps."))
    cells = sum(metadata.row_group(n).column(steps).num_values for n in range(metadata.num_row_groups))
    return max(1, min(BATCH_ROWS, BATCH_CELLS * metadata.num_rows // max(cells, 1)))


def _joined(tables: list[pa.Table], plans: Plans) -> Block:
    return Block(pa.concat_tables(tables).unify_dictionaries().combine_chunks(), plans)


class Plans:
    """The different step texts of a file, numbered, so that a plan is a list of numbers."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.codes: dict[str, int] = {}

    def coded(self, table: pa.Table) -> pa.Table:
        """``table`` with numbers in place of the texts of ``steps``."""
        column = table["steps"].chunk(0)
        encoded = column.values.dictionary_encode()
        for text in encoded.dictionary.to_pylist():
            if text not in self.codes:
                self.codes[text] = len(self.texts)
                self.texts.append(text)
        codes = pa.array([self.codes[text] for text in encoded.dictionary.to_pylist()], pa.int32())
        missing = column.is_null() if column.null_count else None
        plans = pa.ListArray.from_arrays(pa.array(column.offsets.to_numpy()), codes.take(encoded.indices), mask=missing)
        return table.set_column(table.column_names.index("steps"), "steps", plans)


class Block:
    """Rows of whole sessions, with the columns of ``SCHEMA``; texts are dictionary arrays, steps are numbers."""

    def __init__(self, table: pa.Table, plans: Plans) -> None:
        self.table = table
        self.plans = plans
        self.count = table.num_rows

    def part(self, begin: int, end: int) -> Block:
        """The rows ``begin`` to ``end`` (exclusive)."""
        return Block(self.table.slice(begin, end - begin).combine_chunks(), self.plans)

    def same_rows(self, other: Block) -> bool:
        """Whether the rows of two blocks, which may be of two files, are equal."""
        if self.count != other.count:
            return False
        for name in SCHEMA.names:
            if name == "steps":
                (here, codes), (there, others) = lists(self.array(name)), lists(other.array(name))
                known = np.array([other.plans.codes.get(text, -1) for text in self.plans.texts], np.int64)
                equal = np.array_equal(here, there) and np.array_equal(known[codes.to_numpy()], others.to_numpy())
            elif name in TEXTS:
                (indices, texts), (others, known_texts) = self.codes(name), other.codes(name)
                place = {text: number for number, text in enumerate(known_texts)}
                equal = np.array_equal(np.array([place.get(text, -1) for text in texts], np.int64)[indices], others)
            else:
                equal = self.array(name).equals(other.array(name))
            if not equal:
                return False
        return True

    def plan(self, row: int) -> list[str]:
        """The steps of a row without missing values."""
        return [self.plans.texts[code] for code in self.table["steps"][row].as_py()]

    def array(self, name: str) -> Any:
        """A column as one Arrow array."""
        column = self.table[name]
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

    def numbers(self, name: str) -> NDArray[Any]:
        """A column of numbers without missing values."""
        return self.array(name).to_numpy(zero_copy_only=False)

    def codes(self, name: str) -> tuple[Whole, list[str | None]]:
        """A column of texts as indices ``[rows]`` and the texts; a missing text has index -1."""
        column = self.array(name)
        indices = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        return indices, column.dictionary.to_pylist()

    def given(self, name: str) -> Mask:
        """``[rows]`` where a text is not empty."""
        indices, texts = self.codes(name)
        return np.array([*(text != "" for text in texts), True])[indices]

    def lengths(self, name: str) -> Whole:
        """``[rows]`` the number of values in each list of a column without missing lists."""
        return np.diff(self.array(name).offsets.to_numpy().astype(np.int64))

    @cached_property
    def starts(self) -> Whole:
        """``[sessions]`` the first row of each session, of each run of one session id."""
        ids = self.codes("session_id")[0]
        return np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))

    @cached_property
    def first(self) -> Mask:
        """``[rows]`` the first row of a session."""
        first = np.zeros(self.count, np.bool_)
        first[self.starts] = True
        return first

    @cached_property
    def run(self) -> Whole:
        """``[rows]`` the number of each row's session in this block."""
        return np.cumsum(self.first) - 1

    def session(self, row: int) -> str:
        """The session id of a row."""
        return str(self.table["session_id"][row].as_py())

    def frame(self, row: int) -> int | None:
        """The frame of a row, None where it is missing."""
        frame: int | None = self.table["frame_index"][row].as_py()
        return frame

    def without_sessions_of(self, rows: Mask) -> Block | None:
        """The sessions that have none of ``rows``; None where nothing is left."""
        if not rows.any():
            return self
        kept = ~np.isin(self.run, self.run[rows])
        return Block(self.table.filter(pa.array(kept)).combine_chunks(), self.plans) if kept.any() else None


def lists(column: Any) -> tuple[Whole, Any]:
    """The offsets ``[rows + 1]`` of an Arrow list array, from 0, and its values."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], column.flatten()


@dataclass(frozen=True)
class States:
    """The state labels of a block whose plans have the shape that they promise: a cell is a step on a frame.

    Args:
        steps: ``[rows]`` number of steps.
        offsets: ``[rows + 1]`` the first cell of each row.
        row_of: ``[cells]`` the row of each cell.
        before, after: int8 ``[cells]``.
        update: int8 ``[rows]``.
        moves: ``[rows]`` number of transitions.
        move_row, move_step, move_state: ``[moves]`` row, step and new state of each transition, in order; a transition
            that is neither start nor complete has state -100.
        monotone: ``[rows]`` where the state rule is monotone.
    """

    steps: Whole
    offsets: Whole
    row_of: Whole
    before: NDArray[np.int8]
    after: NDArray[np.int8]
    update: NDArray[np.int8]
    moves: Whole
    move_row: Whole
    move_step: Whole
    move_state: Whole
    monotone: Mask

    @classmethod
    def of(cls, block: Block) -> States:
        """The state labels of a block."""
        offsets, before = lists(block.array("states_before"))
        after = lists(block.array("states_after"))[1]
        move_offsets, moves = lists(block.array("transitions"))
        names = moves.field("transition")
        state = np.where(pc.equal(names, "start").to_numpy(zero_copy_only=False), IN_PROGRESS, IGNORE)
        state[pc.equal(names, "complete").to_numpy(zero_copy_only=False)] = COMPLETED
        indices, rules = block.codes("state_rule")
        steps, counts, rows = np.diff(offsets), np.diff(move_offsets), np.arange(block.count)
        return cls(
            steps=steps,
            offsets=offsets,
            row_of=np.repeat(rows, steps),
            before=before.to_numpy(),
            after=after.to_numpy(),
            update=block.numbers("dst_update"),
            moves=counts,
            move_row=np.repeat(rows, counts),
            move_step=moves.field("step").to_numpy().astype(np.int64),
            move_state=state,
            monotone=np.array([rule == MONOTONE for rule in rules])[indices],
        )

    def rows(self, cells: Mask) -> Mask:
        """``[rows]`` those with one of ``cells``."""
        found = np.zeros(len(self.steps), np.bool_)
        found[self.row_of[cells]] = True
        return found
