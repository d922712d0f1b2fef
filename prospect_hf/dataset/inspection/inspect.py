"""Goes through a dataset once, file by file: checks its promises, counts its labels, keeps the sessions to show."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from prospect_hf.dataset.inspection.blocks import Block, Mask, read_blocks
from prospect_hf.dataset.inspection.file_checks import (
    check_card,
    check_listed_files,
    check_parquet,
    check_report,
    stated_frames,
)
from prospect_hf.dataset.inspection.findings import Broken, Findings
from prospect_hf.dataset.inspection.row_checks import check_rows
from prospect_hf.dataset.inspection.sequences import StreamLength, stream_lengths
from prospect_hf.dataset.inspection.statistics import SourceCounts
from prospect_hf.dataset.inspection.videos import Videos
from prospect_hf.dataset.inspection.views import ShownSession, shown_session
from prospect_hf.dataset.layout import MANIFEST_FILE, Manifest, Shard, load_manifest
from prospect_hf.dataset.licenses import LICENSES
from prospect_hf.errors import UsageError
from prospect_hf.progress import Progress
from prospect_hf.sessions import IGNORE

if TYPE_CHECKING:
    from processing_dst_smolvlm import DSTSmolVLMProcessor

Place = tuple[str, str]  # split, source


@dataclass
class Inspection:
    """What a dataset holds, and which promises it breaks.

    Args:
        folder: of the dataset.
        manifest: what it states about itself.
        broken: see ``findings.PROMISES``.
        counts: (split, source) -> what its rows add up to.
        lengths: source -> its sessions as token streams; empty where no tokenizer was given.
        shown: the sessions to show.
        videos_missing: videos whose frames are not at hand.
    """

    folder: Path
    manifest: Manifest
    broken: list[Broken]
    counts: dict[Place, SourceCounts]
    lengths: dict[str, list[StreamLength]]
    shown: list[ShownSession]
    videos_missing: int = 0


def inspect_dataset(
    folder: Path,
    *,
    frames: Path | None = None,
    processor: DSTSmolVLMProcessor | None = None,
    session: str | None = None,
    progress: bool = True,
) -> Inspection:
    """Check a dataset in the published layout and count what is in it; memory does not grow with its rows.

    Args:
        folder: of the dataset.
        frames: the folder that has the frames of each source in ``{source}/frames``, or ``processed_data`` with
            them: every session must lie inside of its video then, as in that of ``frames.json`` where there is one.
        processor: lays out the sessions' streams, for their lengths.
        session: id of the session to show; None shows the first one of each source that has state labels, or the first.
        progress: whether progress is shown.

    Raises:
        UsageError: the folder is no finished dataset, or has no such session.
        DataError: the manifest is damaged.
    """
    manifest = load_manifest(folder)
    findings = Findings()
    videos = Videos(frames, stated_frames(folder, manifest, findings))
    walk = _Walk(folder, manifest, videos, processor, session, findings)
    check_listed_files(folder, manifest, walk.findings)
    check_card(folder, manifest, walk.findings)
    check_report(folder, manifest, walk.findings)
    total = manifest.rows + sum(shard.rows for shard in manifest.sample)
    with Progress(total, "rows", "row", show=progress) as shown:
        for shard in manifest.sample:
            walk.read(shard, shown, in_sample=True)
        for shard in manifest.shards:
            walk.read(shard, shown, in_sample=False)
    walk.finish()
    if session is not None and not walk.shown:
        raise UsageError(
            f"{folder}: no session {session} that can be shown; inspect.session is a session_id of its rows."
        )
    return Inspection(
        folder=folder,
        manifest=manifest,
        broken=walk.findings.broken,
        counts=walk.counts,
        lengths=walk.lengths,
        shown=[walk.shown[source] for source in sorted(walk.shown)],
        videos_missing=len(walk.videos.missing),
    )


@dataclass
class _Walk:
    """What is known so far, while the files are read one after the other."""

    folder: Path
    manifest: Manifest
    videos: Videos
    processor: DSTSmolVLMProcessor | None
    wanted: str | None
    findings: Findings
    counts: dict[Place, SourceCounts] = field(default_factory=dict)
    uncounted: set[Place] = field(default_factory=set)  # of which not all rows could be counted
    lengths: dict[str, list[StreamLength]] = field(default_factory=dict)
    shown: dict[str, ShownSession] = field(default_factory=dict)
    seen: dict[str, Place] = field(default_factory=dict)  # session id -> where
    recordings: dict[tuple[str, str], str] = field(default_factory=dict)  # (source, recording) -> split
    sample: dict[str, tuple[Shard, Block]] = field(default_factory=dict)  # not met yet among the rows

    def read(self, shard: Shard, progress: Progress, *, in_sample: bool) -> None:
        """Check one file and count its rows."""
        place = (shard.split, shard.source)
        sessions = 0
        if not in_sample:
            self.counts.setdefault(place, SourceCounts())
        try:
            if not check_parquet(self.folder / shard.path, shard, self.findings):
                self.uncounted.add(place)
                return
            for block in read_blocks(self.folder / shard.path):
                self._read_block(block, shard, in_sample)
                sessions += len(block.starts)
                progress.update(block.count)
        except FileNotFoundError:  # a broken promise of its own
            self.uncounted.add(place)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            self.findings.add("readable", shard.path, note=" ".join(str(error).split()).rstrip("."))
            self.uncounted.add(place)
        else:
            if sessions != shard.sessions:
                note = f"it has {sessions} sessions, the manifest states {shard.sessions}"
                self.findings.add("row_counts", shard.path, note=note)

    def _read_block(self, block: Block, shard: Shard, in_sample: bool) -> None:
        def broken(promise: str, checked: Block, rows: Mask) -> None:
            if rows.any():
                row = int(rows.argmax())
                self.findings.add(promise, shard.path, int(rows.sum()), checked.session(row), checked.frame(row))

        complete, sound = check_rows(block, None if in_sample else shard.source, broken)
        if in_sample:
            if complete is not None:
                self._keep_sample(complete, shard)
            return
        place = (shard.split, shard.source)
        if complete is None or complete.count < block.count:
            self.uncounted.add(place)
        if complete is None:
            return
        self.counts[place].count(complete)
        self._check_runs(complete, shard)
        for row, frame, note in self.videos.outside(complete):
            self.findings.add("frames_in_video", shard.path, 1, complete.session(row), frame, note)
        if sound is None:
            return
        self._show(sound, shard)
        if self.processor is not None:
            for source, length in stream_lengths(sound, self.processor):
                self.lengths.setdefault(source, []).append(length)

    def _check_runs(self, block: Block, shard: Shard) -> None:
        """Session ids, recordings and the sample, a session at a time."""
        sources, recordings = block.codes("source"), block.codes("recording")
        for begin, end in pairwise([*block.starts.tolist(), block.count]):
            session = block.session(begin)
            if session in self.seen:
                split, source = self.seen[session]
                note = f"rows with this id were there before, in {split} of {source}"
                self.findings.add("one_run_a_session", shard.path, 1, session, block.frame(begin), note)
            self.seen.setdefault(session, (shard.split, shard.source))
            key = str(sources[1][sources[0][begin]]), str(recordings[1][recordings[0][begin]])
            split = self.recordings.setdefault(key, shard.split)
            if split != shard.split:
                note = f"recording {key[1]} is in {split} too"
                self.findings.add("recording_in_one_split", shard.path, 1, session, block.frame(begin), note)
            if session in self.sample:
                of_sample, rows = self.sample.pop(session)
                if of_sample.split != shard.split:
                    note = f"the session is in the sample's {of_sample.split}, but in {shard.split} of the dataset"
                    self.findings.add("sample", of_sample.path, 1, session, note=note)
                elif not rows.same_rows(block.part(begin, end)):
                    self.findings.add(
                        "sample", of_sample.path, 1, session, note="its rows are not those of the dataset"
                    )

    def _keep_sample(self, block: Block, shard: Shard) -> None:
        for begin, end in pairwise([*block.starts.tolist(), block.count]):
            session = block.session(begin)
            if session in self.sample:
                note = "rows of the sample with this id were there before"
                self.findings.add("one_run_a_session", shard.path, 1, session, block.frame(begin), note)
            self.sample[session] = shard, block.part(begin, end)

    def _show(self, block: Block, shard: Shard) -> None:
        """Keep the sessions to show."""
        for number, begin in enumerate(block.starts.tolist()):
            session = block.session(begin)
            if self.wanted is not None:
                if session == self.wanted and not self.shown:
                    self.shown[shard.source] = shown_session(block, number, shard, self.folder, self.videos)
                continue
            known = self.shown.get(shard.source)
            if known is None or (not known.labelled and block.numbers("dst_update")[begin] != IGNORE):
                self.shown[shard.source] = shown_session(block, number, shard, self.folder, self.videos)

    def finish(self) -> None:
        """The promises that only the whole dataset keeps."""
        for session, (shard, _) in self.sample.items():
            self.findings.add("sample", shard.path, 1, session, note="the dataset has no such session")
        for source, name in self.manifest.licenses.items():
            if name != LICENSES.get(source):
                note = f"the license of {source} is {LICENSES.get(source)}, the manifest states {name}"
                self.findings.add("license", MANIFEST_FILE, note=note)
        stated = {
            (split, source): of for split, of_split in self.manifest.balance.items() for source, of in of_split.items()
        }
        for place in {**stated, **self.counts}:
            if place in self.uncounted:
                continue
            counted = self.counts.get(place, SourceCounts()).balance(0)
            of_manifest = stated.get(place, {})
            for key in [
                key for key in counted if key != "turns_beyond_frames" and counted[key] != of_manifest.get(key)
            ]:
                note = f"{', '.join(place)}: {key} is {counted[key]}, the manifest states {of_manifest.get(key)}"
                self.findings.add("label_balance", MANIFEST_FILE, note=note)
