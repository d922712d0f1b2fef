"""How long the sessions are as token streams, laid out by the sequence builder that training uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prospect_hf.dataset.inspection.blocks import Block
from prospect_hf.sessions import COMPLETED, IN_PROGRESS, NOT_STARTED

if TYPE_CHECKING:
    from processing_dst_smolvlm import DSTSmolVLMProcessor

TOKENS_PER_FRAME = (1, 4, 9, 16)


@dataclass(frozen=True)
class StreamLength:
    """A session as one stream: its frames, and the tokens of everything but its frames."""

    frames: int
    texts: int

    def tokens(self, tokens_per_frame: int) -> int:
        """The length of the stream where a frame takes ``tokens_per_frame`` tokens."""
        return self.texts + tokens_per_frame * self.frames


def stream_lengths(block: Block, processor: DSTSmolVLMProcessor) -> Iterator[tuple[str, StreamLength]]:
    """The source and the length of each session of a block.

    A frame on which nothing happens is its picture alone, so only the others are laid out and the rest is counted.
    """
    # Imported here, as with torch and transformers it takes seconds, and most inspections count no tokens.
    from processing_dst_smolvlm import FrameItem

    happens = block.given("user_text") | block.given("response") | block.lengths("transitions").astype(np.bool_)
    rows = np.flatnonzero(happens)
    events = block.table.select(["transitions", "user_text", "response"]).take(rows).to_pylist()
    heads = block.table.select(["source", "goal", "states_before"]).take(block.starts).to_pylist()
    bounds = np.searchsorted(rows, np.append(block.starts, block.count))
    frames = np.diff(np.append(block.starts, block.count))
    for number, head in enumerate(heads):
        items = [
            FrameItem(
                {one["step"]: IN_PROGRESS if one["transition"] == "start" else COMPLETED for one in row["transitions"]},
                row["user_text"],
                row["response"],
            )
            for row in events[bounds[number] : bounds[number + 1]]
        ]
        labelled = all(state in (NOT_STARTED, IN_PROGRESS, COMPLETED) for state in head["states_before"])
        stream = processor.build(
            head["goal"], block.plan(int(block.starts[number])), head["states_before"] if labelled else None, items
        )
        texts = len(stream.input_ids) - processor.tokens_per_frame * len(items)
        yield head["source"], StreamLength(int(frames[number]), texts)
