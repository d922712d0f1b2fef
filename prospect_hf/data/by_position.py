"""A sequence that lies in several pieces, whose entries are made when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TypeVar, overload

T = TypeVar("T")


class ByPosition(Sequence[T]):
    """Entries of consecutive pieces.

    Args:
        lengths: number of entries of each piece.
    """

    def __init__(self, lengths: Iterable[int]) -> None:
        self._ends = list(accumulate(lengths))

    @abstractmethod
    def _entry(self, piece: int, place: int) -> T:
        """Entry ``place`` of a piece, both counted from 0."""

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"entry {index} of {len(self)}")
        piece = bisect_right(self._ends, number)
        return self._entry(piece, number - (self._ends[piece - 1] if piece else 0))
