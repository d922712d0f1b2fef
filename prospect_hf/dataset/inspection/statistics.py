"""Counts of a source and split, and the tables that are made of them for the terminal and the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from prospect_hf.dataset.balance import balance_of
from prospect_hf.dataset.inspection.blocks import Block
from prospect_hf.dataset.inspection.sequences import TOKENS_PER_FRAME, StreamLength

Table = list[list[str]]
LABELS = ("speaking", "dst_update", "states_after")


@dataclass
class SourceCounts:
    """What the rows of one source, of one split or of all, add up to.

    Args:
        labels: column of ``LABELS`` -> value -> how often it occurs; states per step and frame.
        turns: of both speakers.
        gap_s, gaps: seconds between an utterance of the assistant and the one before it, summed, and how many.
    """

    rows: int = 0
    sessions: int = 0
    seconds: float = 0.0
    turns: int = 0
    gap_s: float = 0.0
    gaps: int = 0
    videos: set[str] = field(default_factory=set)
    recordings: set[str] = field(default_factory=set)
    labels: dict[str, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in LABELS})

    def count(self, block: Block) -> None:
        """Add the rows of a block without missing values."""
        self.rows += block.count
        self.sessions += len(block.starts)
        fps = block.numbers("fps").astype(np.float64)
        self.seconds += float(np.sum(1 / fps[fps > 0]))
        for name, kept in (("video_uid", self.videos), ("recording", self.recordings)):
            indices, texts = block.codes(name)
            kept.update(str(texts[index]) for index in np.unique(indices))
        for name in LABELS:
            values = block.numbers(name) if name != "states_after" else block.array(name).flatten().to_numpy()
            found, counts = np.unique(values, return_counts=True)
            self.labels[name].update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        assistant = np.flatnonzero(block.given("response"))
        self.turns += len(assistant) + int(block.given("user_text").sum())
        same = block.run[assistant[1:]] == block.run[assistant[:-1]]
        gaps = np.diff(block.numbers("timestamp").astype(np.float64)[assistant])[same]
        self.gap_s += float(gaps.sum())
        self.gaps += len(gaps)

    def merge(self, other: SourceCounts) -> None:
        """Add the counts of other rows of the source."""
        for name in ("rows", "sessions", "seconds", "turns", "gap_s", "gaps"):
            vars(self)[name] += vars(other)[name]
        self.videos |= other.videos
        self.recordings |= other.recordings
        for name in LABELS:
            self.labels[name].update(other.labels[name])

    def balance(self, turns_beyond: int) -> dict[str, int]:
        """With the keys of ``label_balance``."""
        return balance_of(self.labels, self.rows, self.sessions, len(self.videos), turns_beyond)


def percent(part: float, whole: float) -> str:
    """``12.3``, or a dash where there is nothing to take a share of."""
    return f"{100 * part / whole:.1f}" if whole else "-"


def source_table(counts: Mapping[tuple[str, str], SourceCounts]) -> Table:
    """A row a source and one for all; ``counts`` by (split, source)."""
    of_source: dict[str, SourceCounts] = {}
    for (_, source), of_split in counts.items():
        of_source.setdefault(source, SourceCounts()).merge(of_split)
    head = ["source", "videos", "recordings", "sessions", "rows", "hours", "speaking %", "update %", "not started %",
            "in progress %", "completed %", "turns", "gap s"]  # fmt: skip
    rows = [_source_row(source, of_source[source]) for source in sorted(of_source)]
    if len(of_source) > 1:
        everything = SourceCounts()
        for source, one in of_source.items():
            # A video of one source may have the name of another source's.
            named = {kind: {f"{source}/{name}" for name in vars(one)[kind]} for kind in ("videos", "recordings")}
            everything.merge(SourceCounts(**{**vars(one), **named}))
        rows.append(_source_row("all", everything))
    return [head, *rows]


def _source_row(name: str, counts: SourceCounts) -> list[str]:
    balance = counts.balance(0)
    spoken = balance["speaking_1"] + balance["speaking_0"]
    updates = balance["dst_update_1"] + balance["dst_update_0"]
    states = [balance[f"states_{state}"] for state in ("not_started", "in_progress", "completed")]
    return [
        name,
        f"{len(counts.videos):,}",
        f"{len(counts.recordings):,}",
        f"{counts.sessions:,}",
        f"{counts.rows:,}",
        f"{counts.seconds / 3600:.2f}",
        percent(balance["speaking_1"], spoken),
        percent(balance["dst_update_1"], updates),
        *(percent(state, sum(states)) for state in states),
        f"{counts.turns:,}",
        f"{counts.gap_s / counts.gaps:.1f}" if counts.gaps else "-",
    ]


# Columns of the label balance; rows, sessions and videos are in the table of the sources.
BALANCE = {
    "rows": "rows",
    "speaking_1": "speaks",
    "speaking_0": "silent",
    "speaking_ignored": "ignored",
    "dst_update_1": "updates",
    "dst_update_0": "none",
    "dst_update_ignored": "ignored",
    "states_not_started": "not started",
    "states_in_progress": "in progress",
    "states_completed": "completed",
    "states_ignored": "ignored",
    "turns_beyond_frames": "turns beyond",
}


def balance_table(balance: Mapping[tuple[str, str], Mapping[str, int]]) -> Table:
    """The label balance, a row a split and source: frames by ``speaking`` and ``dst_update``, cells by state."""
    rows = [[f"{split}, {source}", *(f"{of[key]:,}" for key in BALANCE)] for (split, source), of in balance.items()]
    return [["split", *BALANCE.values()], *rows]


def length_table(lengths: Mapping[str, Sequence[StreamLength]]) -> Table:
    """Tokens of whole sessions: a row a source, columns for each number of tokens a frame."""
    figures = {"min": 0, "median": 50, "p90": 90, "max": 100}
    rows = []
    for source in sorted(lengths):
        cells = [source]
        for each in TOKENS_PER_FRAME:
            tokens = [length.tokens(each) for length in lengths[source]]
            cells += [f"{round(float(np.percentile(tokens, share))):,}" for share in figures.values()]
        rows.append(cells)
    heads = [f"{each}: {name}" if not share else name for each in TOKENS_PER_FRAME for name, share in figures.items()]
    return [["source", *heads], *rows]
