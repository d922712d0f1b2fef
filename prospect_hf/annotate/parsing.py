"""What was read of the plans and annotations of a corpus, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prospect_hf.annotate.corpus import Unusable, Video
from prospect_hf.labels.annotation_lines import parsing_facts
from prospect_hf.labels.segments import reasons

_COUNTED = ("segments", "children", "speech", "remarks")


def annotation_table(videos: Iterable[Video | Unusable]) -> list[list[str]]:
    """A header and a row for each source: videos, steps of their plans, lines by kind, and those left out by reason."""
    counts: dict[str, Counter[str]] = {}
    left_out: dict[str, Counter[str]] = {}
    for video in videos:
        of_source = counts.setdefault(video.key.source, Counter())
        why = left_out.setdefault(video.key.source, Counter())
        if isinstance(video, Unusable):
            of_source["unusable"] += 1
            continue
        facts = parsing_facts(video.task.annotation)
        of_source.update({"videos": 1, "steps": len(video.task.steps)} | {name: facts[name] for name in _COUNTED})
        why.update(facts["left_out"])
    columns = ("videos", "unusable", "steps", *_COUNTED)
    rows = [["read", *columns, "left out"]]
    for source, of_source in counts.items():
        rows.append([source, *(f"{of_source[name]:,}" for name in columns), reasons(left_out[source]) or "-"])
    return rows
