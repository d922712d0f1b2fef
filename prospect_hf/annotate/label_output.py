"""The files that a labelling run leaves: labels as ``data.dst=files`` reads them, failures, tables.

In the output folder, ``{source}/{split}.jsonl`` holds the labels and ``failed/{source}/{split}.jsonl`` the videos
without labels; part 3 of 8 writes ``{split}-00003-of-00008.jsonl``. What the run needs for itself is in ``annotate/``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from prospect_hf.annotate.records import Failure, LabelRecord
from prospect_hf.files import replacing
from prospect_hf.sources.report import FILE_SPLITS
from prospect_hf.terminal import visible

COLUMNS = ("video_uid", "id", "name", "start_ts", "end_ts", "confidence")


@dataclass(frozen=True)
class LabelOutput:
    """Where a run, or part ``number`` (from 0) of ``count`` runs, writes."""

    folder: Path
    number: int = 0
    count: int = 1

    @property
    def part(self) -> str:
        """The part in file names, such as "00003-of-00008"; empty for the whole."""
        return "" if self.count == 1 else f"{self.number + 1:05}-of-{self.count:05}"

    @property
    def own(self) -> Path:
        """The folder of what this part needs for itself."""
        return self.folder / "annotate" / (self.part or "all")

    def path(self, source: str, split: str, ending: str = "jsonl") -> Path:
        """The file of labels of one source and split."""
        name = FILE_SPLITS[split] + (f"-{self.part}" if self.part else "")
        return self.folder / source / f"{name}.{ending}"

    def failed_path(self, source: str, split: str) -> Path:
        """The file of failures of one source and split."""
        return self.folder / "failed" / source / self.path(source, split).name

    def write(self, source: str, split: str, made: Iterable[LabelRecord | Failure], tsv: bool) -> None:
        """Write the files of one source and split in the order of ``made``, each whole or not at all.

        A file that would be empty is not written, and removed where an earlier run has left one.
        """
        labels, failures = self.path(source, split), self.failed_path(source, split)
        table = self.path(source, split, "tsv")
        opened: dict[Path, IO[str]] = {}
        with ExitStack() as files:

            def write(path: Path, line: str) -> None:
                if path not in opened:
                    temporary = files.enter_context(replacing(path))
                    opened[path] = files.enter_context(temporary.open("w", encoding="utf-8", newline="\n"))
                opened[path].write(line + "\n")

            for one in made:
                path = labels if isinstance(one, LabelRecord) else failures
                write(path, json.dumps(one.facts(), ensure_ascii=False))
                if tsv and isinstance(one, LabelRecord):
                    if table not in opened:
                        write(table, "\t".join(COLUMNS))
                    for row in rows(one):
                        write(table, "\t".join(row))
        for path in {labels, failures, table} - opened.keys():
            path.unlink(missing_ok=True)


def rows(record: LabelRecord) -> list[tuple[str, ...]]:
    """The spans of a record as cells; a text stays in its cell, whatever it holds. No end: never completed."""
    return [
        (
            visible(record.video_uid),
            f"S{span.step + 1}",
            visible(record.steps[span.step]),
            str(span.start),
            "" if span.end is None else str(span.end),
            str(confidence),
        )
        for span, confidence in zip(record.spans, record.confidences, strict=True)
    ]
