"""Which shards a build has to write: reads the sources and splits one after the other, and cuts them into shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.dataset.layout import SAMPLE, shard_path
from prospect_hf.dataset.read import read_all
from prospect_hf.dataset.report import summary, whole_report
from prospect_hf.dataset.shards import PlannedShard, rows_of
from prospect_hf.errors import UsageError
from prospect_hf.sessions import Session
from prospect_hf.sources.report import SessionsReport
from prospect_hf.sources.splits import SplitCheck


class Plan:
    """Reads one source and split after the other and yields their shards, then those of the sample.

    ``summaries`` holds what was read, by (split, source); ``work`` the kB of annotations that are to be read.
    """

    def __init__(self, config: DstFramesConfig, shard_rows: int, sample: int) -> None:
        self._config, self._shard_rows, self._sample = config, shard_rows, sample
        self._check = SplitCheck(config.split_leaks)
        self._files = config.input_files()
        self.summaries: dict[tuple[str, str], dict[str, Any]] = {}
        self.work = sum(map(_kilobytes, self._files.values()))

    @property
    def sources(self) -> list[str]:
        """The sources that have input files."""
        return sorted({source for _, source in self._files})

    def __iter__(self) -> Iterator[PlannedShard]:
        self._check = SplitCheck(self._config.split_leaks)
        samples: dict[str, list[Session]] = {}
        for report in read_all(self._config, self._check):
            part = report.split, report.source
            if report.sessions:
                self.summaries[part] = self._without_folders(summary(report))
                yield from plan_shards(report, self._shard_rows, _kilobytes(self._files[part]))
                samples.setdefault(report.split, []).extend(_first_recordings(report.sessions, self._sample))
        if not self.summaries:
            raise UsageError(f"{self._config.root}: no session of {', '.join(self._config.sources)}.")
        for split, sessions in samples.items():
            if sessions:
                yield PlannedShard(shard_path(SAMPLE, split, 0, 1), SAMPLE, split, tuple(sessions))

    def report(self) -> dict[str, Any]:
        """The report, as ``DstFrames`` has it."""
        return whole_report(self._config.sources, self.summaries, self._check)

    def _without_folders(self, found: dict[str, Any]) -> dict[str, Any]:
        """``found`` with paths relative to the corpus: the report is published."""
        folders = [f"{folder}/" for folder in (self._config.root, self._config.dst_root) if folder]
        for record in found["skipped"]:
            for key, text in record.items():
                for folder in folders:
                    text = text.replace(folder, "")
                record[key] = text
        return found


def plan_shards(report: SessionsReport, shard_rows: int, work: int = 0) -> list[PlannedShard]:
    """Cut the sessions of a source and split into shards of up to ``shard_rows`` rows; a session is never cut."""
    cuts: list[list[Session]] = []
    rows = 0
    for session in report.sessions:
        rows += rows_of(session)
        if not cuts or rows > shard_rows:
            cuts.append([])
            rows = rows_of(session)
        cuts[-1].append(session)
    total = sum(map(rows_of, report.sessions))
    return [
        PlannedShard(
            path=shard_path(report.source, report.split, number, len(cuts)),
            source=report.source,
            split=report.split,
            sessions=tuple(sessions),
            work=work * sum(map(rows_of, sessions)) // total,
        )
        for number, sessions in enumerate(cuts)
    ]


def _first_recordings(sessions: Sequence[Session], count: int) -> list[Session]:
    """The first session of each of the first ``count`` recordings."""
    chosen: dict[str, Session] = {}
    for session in sessions:
        if len(chosen) < count:
            chosen.setdefault(session.recording, session)
    return list(chosen.values())


def _kilobytes(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files) // 1000
