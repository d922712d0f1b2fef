"""Cuts sessions into clips of at most ``max_seq_len`` tokens.

A clip is a run of consecutive frames of one session, written as one causal stream. It opens with the plan and the
states before its first frame. The clips of a session, in order, cover each of its frames once. Where they begin follows
from the number of tokens that each frame adds, so no stream is built to find it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem, Stream, state_text
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError

# Frames with texts whose lengths are found at a time: the tokenizer is fast where it gets many texts.
ITEMS_AT_A_TIME = 4096


@dataclass(frozen=True)
class Clip:
    """Frames ``begin`` to ``end`` (exclusive, positions in the session) as one stream of ``tokens`` tokens."""

    session: SessionRows
    begin: int
    end: int
    tokens: int

    def stream(
        self, processor: DSTSmolVLMProcessor, edit: Callable[[int, FrameItem], FrameItem] | None = None
    ) -> Stream:
        """Build the clip's stream; ``edit`` takes each frame (position in the session) and what happens on it."""
        items = [self.session.item(frame) for frame in range(self.begin, self.end)]
        if edit is not None:
            items = [edit(frame, item) for frame, item in enumerate(items, start=self.begin)]
        return processor.build(self.session.goal, self.session.steps, self.session.states_at(self.begin), items)


def pack(session: SessionRows, processor: DSTSmolVLMProcessor, max_seq_len: int) -> list[Clip]:
    """Cut a session greedily into the longest clips of at most ``max_seq_len`` tokens; every frame is in one clip.

    Raises:
        DataError: the plan and one frame with its texts exceed ``max_seq_len``.
    """
    (spans,) = pack_sessions([session], processor, max_seq_len)
    return [Clip(session, *span) for span in spans.tolist()]


def pack_sessions(
    sessions: Iterable[SessionRows], processor: DSTSmolVLMProcessor, max_seq_len: int
) -> Iterator[NDArray[np.int32]]:
    """As :func:`pack`, for many sessions: of each, ``[clips, 3]`` with begin, end and tokens of its clips."""
    some: list[SessionRows] = []
    items = 0
    for session in sessions:
        some.append(session)
        items += len(session.items)
        if items >= ITEMS_AT_A_TIME:
            yield from _pack_some(some, processor, max_seq_len)
            some, items = [], 0
    yield from _pack_some(some, processor, max_seq_len)


def _pack_some(
    sessions: Sequence[SessionRows], processor: DSTSmolVLMProcessor, max_seq_len: int
) -> Iterator[NDArray[np.int32]]:
    turns: dict[str, list[str]] = {"State": [], "User": [], "Assistant": []}
    places: dict[str, list[int]] = {role: [] for role in turns}  # frames, counted over all sessions
    starts = np.cumsum([0, *map(len, sessions)])
    for session, start in zip(sessions, starts.tolist(), strict=False):
        for frame, item in session.items.items():
            state = state_text(item.changes) if processor.state_feedback else ""
            texts = {"State": state, "User": item.user_text, "Assistant": item.response}
            for role, text in texts.items():
                if text:
                    turns[role].append(text)
                    places[role].append(start + frame)
    lengths = np.full(starts[-1], processor.tokens_per_frame, np.int64)
    for role, of_role in turns.items():
        lengths[places[role]] += np.array(processor.turn_lengths(role, of_role), np.int64)
    for session, start in zip(sessions, starts.tolist(), strict=False):
        yield _pack_one(session, lengths[start : start + len(session)], processor, max_seq_len)


def _pack_one(
    session: SessionRows, lengths: NDArray[np.int64], processor: DSTSmolVLMProcessor, max_seq_len: int
) -> NDArray[np.int32]:
    """The clips of a session whose frames take ``lengths`` tokens."""
    until = np.concatenate([[0], np.cumsum(lengths)])  # tokens of the frames before each frame
    spans = []
    begin = 0
    while begin < len(session):
        prompt = Stream()
        processor.add_prompt(prompt, session.goal, session.steps, session.states_at(begin))
        before = until[begin] - len(prompt.input_ids)
        end = int(np.searchsorted(until, max_seq_len + before, side="right")) - 1
        if end <= begin:
            raise DataError(
                f"session {session.session_id}, frame {session.first_frame + begin}: the plan, this frame and its "
                f"texts take {until[begin + 1] - before} tokens, over max_seq_len={max_seq_len}; raise max_seq_len."
            )
        spans.append((begin, end, until[end] - before))
        begin = end
    return np.array(spans, np.int32)
