"""Builds the published layout of ``dst_frames``: reads each source and split, and writes its sessions in shards.

The manifest is written last, so a folder without it is not finished. The same input gives the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prospect_hf
from prospect_hf.code_fingerprint import code_fingerprint
from prospect_hf.dataset.balance import balance_of
from prospect_hf.dataset.input_files import LABEL_CODE, DstFramesConfig
from prospect_hf.dataset.layout import SAMPLE, SPLITS, Manifest, configurations, shard_path, write_manifest
from prospect_hf.dataset.licenses import LICENSES
from prospect_hf.dataset.read import read_split
from prospect_hf.dataset.report import REPORT_FILE, summary
from prospect_hf.dataset.shards import COUNTED, PlannedShard, WrittenShard, rows_of, write_shard
from prospect_hf.errors import UsageError
from prospect_hf.files import sole_writer, write_json, write_text
from prospect_hf.hub.front_matter import with_front_matter
from prospect_hf.sessions import Session
from prospect_hf.sources.report import SessionsReport, SplitCheck

# Rows of a shard. With pictures, 10,000 rows have about 300 MB.
SHARD_ROWS, SHARD_ROWS_WITH_IMAGES = 500_000, 10_000


@dataclass
class _Part:
    """What is known of one source and split once its sessions are read and forgotten."""

    summary: dict[str, Any]
    shards: list[WrittenShard]

    def balance(self) -> dict[str, int]:
        labels: dict[str, Counter[int]] = {column: Counter() for column in COUNTED}
        for written in self.shards:
            for column, counts in written.labels.items():
                labels[column].update(counts)
        facts = self.summary
        return balance_of(labels, facts["rows"], facts["sessions"], facts["videos"], facts["beyond_turns"])


def build_rows(
    config: DstFramesConfig,
    output: Path,
    *,
    processes: int = 1,
    images: bool = False,
    shard_rows: int | None = None,
    sample: int = 2,
    progress: bool = True,
) -> Manifest:
    """Build the rows of ``config`` in ``output`` and return the manifest that was written last.

    Args:
        config: what is read, and how it becomes sessions.
        output: the dataset's folder.
        processes: how many write shards; the files are the same for any number.
        images: whether the rows have the pictures themselves (column ``image``).
        shard_rows: a shard is full when another session would give it more rows than this.
        sample: how many sessions of each source and split the configuration ``sample`` has; 0 leaves it out.
        progress: whether progress is shown.

    Raises:
        UsageError: a setting or folder is wrong, there is nothing to read, or another run is writing to ``output``.
        DataError: a record is invalid, or a recording is in two splits.
    """
    if shard_rows is None:
        shard_rows = SHARD_ROWS_WITH_IMAGES if images else SHARD_ROWS
    for name, value, least in (("processes", processes, 1), ("shard_rows", shard_rows, 1), ("sample", sample, 0)):
        if value < least:
            raise UsageError(f"{name}={value}: it must be at least {least}.")
    with sole_writer(output):
        return _build(config, output, shard_rows, sample)


def _build(config: DstFramesConfig, output: Path, shard_rows: int, sample: int) -> Manifest:
    files = config.input_files()
    fingerprint = config.fingerprint()
    parts: dict[tuple[str, str], _Part] = {}
    samples: dict[str, list[Session]] = {}
    check = SplitCheck()
    for split, source in files:
        report = read_split(config, source, split)
        check.add(report)
        shards = [write_shard(planned, output) for planned in plan_shards(report, shard_rows)]
        parts[source, split] = _Part(summary(report), shards)
        samples.setdefault(split, []).extend(_sample(report.sessions, sample))
    sample_shards = [
        write_shard(PlannedShard(shard_path(SAMPLE, split, 0, 1), SAMPLE, split, tuple(sessions)), output).shard
        for split, sessions in samples.items()
        if sessions
    ]
    write_json(output / REPORT_FILE, _report(config, parts))
    ordered = [parts[key] for key in sorted(parts, key=lambda key: (key[0], SPLITS.index(key[1])))]
    manifest = Manifest(
        tool_version=prospect_hf.__version__,
        label_version=code_fingerprint(Path(prospect_hf.__file__).parent, LABEL_CODE),
        fingerprint=fingerprint,
        settings=settings(config),
        licenses={source: LICENSES[source] for source in sorted({source for source, _ in parts})},
        balance=_by_split({key: part.balance() for key, part in parts.items()}),
        shards=tuple(written.shard for part in ordered for written in part.shards),
        sample=tuple(sample_shards),
    )
    _write_card(output, manifest)
    write_manifest(output, manifest)
    return manifest


def _write_card(output: Path, manifest: Manifest) -> None:
    """Write ``README.md``, whose YAML block says which files each configuration has."""
    configs = [
        {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in paths.items()]}
        for name, paths in configurations(manifest)
    ]
    write_text(output / "README.md", with_front_matter({"configs": configs}, ""))


def settings(config: DstFramesConfig) -> dict[str, Any]:
    """The settings of ``config`` that say what the rows are, without folders of the machine."""
    names = ("sources", "form", "dst", "suffix", "pattern", "on_error")
    found = {field.name: vars(config)[field.name] for field in dataclasses.fields(config) if field.name in names}
    return {**found, "sources": sorted(config.sources)}


def plan_shards(report: SessionsReport, shard_rows: int) -> list[PlannedShard]:
    """Cut the sessions of a source and split into shards of up to ``shard_rows`` rows; a session is never cut."""
    cuts = list(_cut(report.sessions, shard_rows))
    return [
        PlannedShard(shard_path(report.source, report.split, number, len(cuts)), report.source, report.split, sessions)
        for number, sessions in enumerate(cuts)
    ]


def _cut(sessions: Sequence[Session], shard_rows: int) -> Iterator[tuple[Session, ...]]:
    waiting: list[Session] = []
    rows = 0
    for session in sessions:
        if waiting and rows + rows_of(session) > shard_rows:
            yield tuple(waiting)
            waiting, rows = [], 0
        waiting.append(session)
        rows += rows_of(session)
    yield tuple(waiting)


def _sample(sessions: Sequence[Session], count: int) -> list[Session]:
    """The first ``count`` sessions of different recordings, in order."""
    chosen: dict[str, Session] = {}
    for session in sessions:
        if len(chosen) < count:
            chosen.setdefault(session.recording, session)
    return list(chosen.values())


def _report(config: DstFramesConfig, parts: dict[tuple[str, str], _Part]) -> dict[str, Any]:
    """The report as ``DstFrames`` writes it."""
    read = {source for source, _ in parts}
    return {
        "absent": [source for source in config.sources if source not in read],
        "splits": _by_split({key: part.summary for key, part in parts.items()}),
    }


def _by_split(facts: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """{(source, split): x} as {split: {source: x}}."""
    return {
        split: {source: of for (source, of_split), of in facts.items() if of_split == split}
        for split in SPLITS
        if any(of_split == split for _, of_split in facts)
    }
