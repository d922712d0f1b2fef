"""The KV cache of running streams: the one place that reaches inside a cache.

``StreamCache`` holds several streams of different lengths in tensors that are allocated once and written in place.
``cut`` removes a span from any cache and moves the later tokens up: keys carry their rotary position, so they are
rotated back by the span's length. Remote code of the Hub: it imports torch and transformers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, StaticLayer

# Tokens that a row has room for at first; a full row doubles.
FIRST_CAPACITY = 256


class StreamLayer(CacheLayerMixin):
    """One layer's keys and values, ``[rows, kv_heads, capacity, head_dim]``, written where ``begin`` says."""

    is_sliding = False

    def __init__(self, cache: StreamCache) -> None:
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate. Zeros and not ``empty``: a masked place still enters ``0 * value``, and 0 * NaN is NaN."""
        rows, capacity = len(self.cache.lengths), self.cache.capacity
        self.keys = key_states.new_zeros(rows, key_states.shape[1], capacity, key_states.shape[3])
        self.values = value_states.new_zeros(rows, value_states.shape[1], capacity, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append ``[rows, kv_heads, seq, head_dim]`` to each row; return all places up to the longest row's end."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.keys.shape[2] < self.cache.capacity:
            self.keys, self.values = (_grown(kept, self.cache.capacity) for kept in (self.keys, self.values))
        keys, values = self.keys[self.cache.rows], self.values[self.cache.rows]  # a slice: views, no copies
        place = self.cache.place
        if isinstance(place, slice):
            keys[:, :, place] = key_states
            values[:, :, place] = value_states
        else:
            row = torch.arange(len(place), device=place.device)[:, None]
            keys[row, :, place] = key_states.transpose(1, 2)
            values[row, :, place] = value_states.transpose(1, 2)
        return keys[:, :, : self.cache.end], values[:, :, : self.cache.end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The number of places that the pass attends to, and the first of them."""
        return self.cache.end, 0

    def get_seq_length(self) -> int:
        """Tokens of the longest row."""
        return max(self.cache.lengths)

    def get_max_length(self) -> int:
        """-1: no limit, since rows grow."""
        return -1


class StreamCache(Cache):
    """KV cache of ``rows`` streams; each grows, shrinks and restarts independently of the others.

    Call ``begin`` before a pass: it takes the rows to be fed and the number of tokens of each, and returns positions
    and mask. Call ``commit`` after the pass: the new tokens then belong to the rows.

    Args:
        rows: streams.
        layers: layers of the text model.
    """

    def __init__(self, rows: int, layers: int) -> None:
        self.lengths = [0] * rows
        self.capacity = FIRST_CAPACITY
        self.rows = slice(0, rows)
        self.place: slice | torch.Tensor = slice(0, 0)
        self.end = 0
        self._counts: Sequence[int] = ()
        super().__init__(layers=[StreamLayer(self) for _ in range(layers)])

    def begin(
        self, rows: slice, counts: Sequence[int], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Announce a pass that feeds ``counts`` tokens (padded on the right to the longest) to ``rows``.

        Returns:
            position ids ``[rows, seq]``, and the mask ``[rows, 1, seq, places]``, True on what a token may attend to,
            or None where each token may attend to all of its row.
        """
        lengths, seq = self.lengths[rows], max(counts)
        self.rows, self.end, self._counts = rows, max(lengths) + seq, counts
        while self.capacity < self.end:
            self.capacity *= 2
        if min(lengths) == max(lengths):
            self.place = slice(lengths[0], self.end)
            position_ids = torch.arange(lengths[0], self.end, device=device).expand(len(lengths), seq)
        else:
            position_ids = torch.tensor(lengths, device=device)[:, None] + torch.arange(seq, device=device)
            self.place = position_ids
        if seq == 1 and isinstance(self.place, slice):
            return position_ids, None
        return position_ids, torch.arange(self.end, device=device) <= position_ids[:, None, :, None]

    def commit(self) -> None:
        """End the pass: its tokens now belong to the rows; the places of its padding are free again."""
        for row, count in zip(range(*self.rows.indices(len(self.lengths))), self._counts, strict=True):
            self.lengths[row] += count

    def truncate(self, row: int, length: int) -> None:
        """Keep only the first ``length`` tokens of ``row``."""
        if not 0 <= length <= self.lengths[row]:
            raise ValueError(f"Row {row} holds {self.lengths[row]} tokens and cannot be truncated to {length}.")
        self.lengths[row] = length

    def read(self, row: int) -> dict[str, torch.Tensor]:
        """A copy of the tensors of ``row``: ``keys.N`` and ``values.N``, ``[kv_heads, length, head_dim]`` each."""
        held: dict[str, torch.Tensor] = {}
        for number, layer in enumerate(self.layers):
            if layer.is_initialized:
                held[f"keys.{number}"] = layer.keys[row, :, : self.lengths[row]].clone()
                held[f"values.{number}"] = layer.values[row, :, : self.lengths[row]].clone()
        return held

    def write(self, row: int, held: dict[str, torch.Tensor]) -> None:
        """Replace the content of ``row`` by tensors that ``read`` returned."""
        length = held["keys.0"].shape[1] if held else 0
        while self.capacity < length:
            self.capacity *= 2
        for number, layer in enumerate(self.layers if held else ()):
            keys, values = held[f"keys.{number}"], held[f"values.{number}"]
            if not layer.is_initialized:
                layer.lazy_initialization(keys[None], values[None])
            if layer.keys.shape[2] < self.capacity:
                layer.keys, layer.values = (_grown(kept, self.capacity) for kept in (layer.keys, layer.values))
            layer.keys[row, :, :length] = keys
            layer.values[row, :, :length] = values
        self.lengths[row] = length

    def nbytes(self) -> int:
        """Bytes that the cache takes, including free places."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers if layer.is_initialized)


def _grown(kept: torch.Tensor, capacity: int) -> torch.Tensor:
    """``kept`` with room for ``capacity`` tokens."""
    larger = kept.new_zeros(*kept.shape[:2], capacity, kept.shape[3])
    larger[:, :, : kept.shape[2]] = kept
    return larger


def cut(cache: Cache, begin: int, end: int, rotary: Any, row: int | None = None) -> None:
    """Remove the tokens ``begin`` to ``end`` (exclusive) from a cache; later tokens move up, their keys are rotated.

    Values have no position and move as they are. A key at position p is ``R(p) k``; at ``p - n`` it is
    ``R(-n) R(p) k``, so one rotation by ``n = end - begin`` is enough. In deeper layers the kept tokens still carry
    what they read from the removed ones: only the first layer equals a recomputation.

    Args:
        cache: a ``StreamCache``, or transformers' dynamic or static cache (all rows alike).
        begin, end: places; a place is a position.
        rotary: the text model's ``rotary_emb``.
        row: the stream of a ``StreamCache``; needed if it holds several.

    Raises:
        ValueError: the span is not in the cache, the layers are of another kind, or rotary frequencies change with
            the length, so that no fixed rotation moves a key.
    """
    if rotary.rope_type in ("dynamic", "longrope"):
        raise ValueError(
            f"Keys with {rotary.rope_type} rotary positions cannot be moved; use another context strategy."
        )
    if isinstance(cache, StreamCache):
        row = 0 if row is None and len(cache.lengths) == 1 else row
        if row is None:
            raise ValueError(f"The cache holds {len(cache.lengths)} streams: say which row is to be cut.")
        rows, length = slice(row, row + 1), cache.lengths[row]
    else:
        rows, length = slice(None), int(cache.get_seq_length())
    if not 0 <= begin <= end <= length:
        raise ValueError(f"The cache holds tokens 0 to {length - 1}; it has no span {begin} to {end - 1}.")
    removed = end - begin
    for layer in cache.layers:
        if not isinstance(layer, (StreamLayer, DynamicLayer, StaticLayer)):
            raise ValueError(f"A {type(layer).__name__} cannot be cut; use a StreamCache, DynamicCache or StaticCache.")
        layer.keys[rows, :, begin : length - removed] = rotate(layer.keys[rows, :, end:length], -removed, rotary)
        layer.values[rows, :, begin : length - removed] = layer.values[rows, :, end:length].clone()
        if isinstance(layer, (DynamicLayer, StaticLayer)):
            layer.crop(-removed)
    if isinstance(cache, StreamCache):
        cache.lengths[rows.start] -= removed


def rotate(keys: torch.Tensor, places: int, rotary: Any) -> torch.Tensor:
    """Move keys ``[..., seq, head_dim]`` by ``places`` positions, in float32 (the halves of a key turn together)."""
    angle = torch.cat([rotary.inv_freq.float() * places] * 2)
    first, second = keys.float().chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (keys.float() * angle.cos() + turned * angle.sin()).to(keys.dtype)


__all__ = ["StreamCache", "cut", "rotate"]
