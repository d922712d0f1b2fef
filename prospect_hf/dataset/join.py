"""Joins a published dataset with frames that the user extracted: the same rows, with the column ``image``.

Every video is checked before the first file is written. The rows stay as they are and in their order; files are cut
smaller, since pictures are large. A join that was stopped continues with the files that are missing.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from prospect_hf.content_hash import file_hash
from prospect_hf.dataset.build import (
    SHARD_ROWS_WITH_IMAGES,
    facts_hash,
    in_order,
    part_balance,
    picture_warning,
    written_shards,
)
from prospect_hf.dataset.build_state import BuildState, mark_finished, remove_unfinished
from prospect_hf.dataset.card import check_stated, write_card
from prospect_hf.dataset.frame_fingerprints import Video, load_fingerprints, videos_of
from prospect_hf.dataset.layout import (
    FRAMES_FILE,
    SAMPLE,
    Manifest,
    Shard,
    check_files,
    load_manifest,
    shard_path,
    write_manifest,
)
from prospect_hf.dataset.report import REPORT_FILE, by_split, load_report
from prospect_hf.dataset.row_maker import SCHEMA_WITH_IMAGES
from prospect_hf.dataset.shard_reader import shard_sessions
from prospect_hf.dataset.shards import WrittenShard, picture_tables, write_tables
from prospect_hf.dataset.with_frames import FrameFolder
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import sole_writer, write_json, write_text
from prospect_hf.frames.opened import open_frames
from prospect_hf.progress import Progress
from prospect_hf.sources.report import OnError

logger = logging.getLogger(__name__)


@dataclass
class FramesReport:
    """What was found out about the frames of a dataset's videos.

    Args:
        matches: how many are "same", "alike" or "counted", see ``check_frames``.
        skipped: (name of the video, reason) of those whose rows are left out.
        paths: where the frames of the others are.
    """

    matches: Counter[str] = field(default_factory=Counter)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    paths: dict[Video, Path] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Its JSON form, without folders of the machine."""
        counts = {match: self.matches[match] for match in ("same", "alike", "counted")}
        skipped = [name for name, _ in self.skipped]
        return {"videos": sum(counts.values()) + len(skipped), **counts, "skipped": skipped}


@dataclass(frozen=True)
class JoinedShard:
    """A file to be written.

    Args:
        path, source, split: as in ``Shard``.
        origin: the file of the dataset that has the rows.
        sessions: the first row of each session in it, and the row after its last one.
        videos: their ``video_uid``.
    """

    path: str
    source: str
    split: str
    origin: Path
    sessions: tuple[tuple[int, int], ...]
    videos: frozenset[str]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(end - begin for begin, end in self.sessions)


def join_frames(
    dataset: Path,
    frames: Path,
    output: Path,
    *,
    on_error: OnError = "raise",
    processes: int = 1,
    shard_rows: int = SHARD_ROWS_WITH_IMAGES,
    progress: bool = True,
) -> FramesReport:
    """Write ``output``: the rows of ``dataset`` with their frames.

    Args:
        dataset: a dataset in the published layout, without pictures.
        frames: the folder that has the frames of each source in ``{source}/frames``, or ``processed_data`` with them:
            a frame file, a folder of pictures or a video for each video, named as the rows say.
        output: the folder of the new dataset.
        on_error: with "skip", the rows of videos whose frames are missing or not the right ones are left out, counted
            and listed.
        processes: how many write files.
        shard_rows: a file is full when another session would give it more rows than this.
        progress: whether progress is shown.

    Raises:
        UsageError: a folder is missing or wrong, or no video has frames.
        DataError: the dataset is damaged; or frames are missing, or not the right ones, without "skip".
    """
    manifest = load_manifest(dataset)
    check_stated(dataset, manifest)
    if manifest.settings["images"]:
        raise UsageError(f"{dataset}: its rows have pictures already; join a dataset that was built with images=false.")
    if output.resolve() == dataset.resolve():
        raise UsageError(f"{output} is the dataset itself; give another folder for the one with pictures.")
    check_files(dataset, manifest)
    for source in sorted({shard.source for shard in manifest.shards}):
        logger.warning("%s", picture_warning(source))
    found = check_videos(dataset, manifest, frames, on_error, progress)
    with sole_writer(output):
        _write(dataset, manifest, found, output, shard_rows, processes, progress)
    return found


def check_videos(
    dataset: Path, manifest: Manifest, frames: Path, on_error: OnError = "raise", progress: bool = True
) -> FramesReport:
    """Check the frames of every video of a dataset; arguments and errors as of ``join_frames``."""
    has_marks = FRAMES_FILE in manifest.files
    if not has_marks:
        logger.warning(
            "%s was built without frames: it can only be checked that each video has enough of them, not that they are "
            "the right ones.",
            dataset,
        )
    folder = FrameFolder(frames, load_fingerprints(dataset / FRAMES_FILE) if has_marks else None)
    found = FramesReport()
    used = videos_of(dataset, manifest.shards)
    with Progress(len(used), "checking frames", "video", show=progress) as bar:
        for video, frames_used in used.items():
            try:
                path = folder.path(video)
                found.matches[folder.check(open_frames(path, video.fps), video, frames_used)] += 1
                found.paths[video] = path
            except DataError as error:
                if on_error == "raise":
                    raise
                found.skipped.append((video.name, str(error)))
            bar.update()
    if not found.paths:
        raise UsageError(f"{frames}: no video has its frames there. The first reason: {found.skipped[0][1]}")
    return found


def _write(
    dataset: Path,
    manifest: Manifest,
    found: FramesReport,
    output: Path,
    shard_rows: int,
    processes: int,
    progress: bool,
) -> None:
    settings = manifest.settings | {"images": True, "shard_rows": shard_rows, "joined": True, "pyarrow": pa.__version__}
    stored = {video.name: _states(path) for video, path in found.paths.items()}
    fingerprint = facts_hash(
        manifest.fingerprint, settings, {name: sorted(size for size, _ in states) for name, states in stored.items()}
    )
    plan = list(_plan(dataset, manifest, found, shard_rows))
    state = BuildState(output, facts_hash(fingerprint, stored))
    write = partial(_finish, folder=state.folder, key=state.key, paths=found.paths)
    kept = sum(planned.rows for planned in plan if planned.path in state.finished)
    shards = []
    try:
        with Progress(sum(planned.rows for planned in plan), "joining rows", "row", initial=kept, show=progress) as bar:
            before = frozenset(state.finished)
            for written in written_shards(plan, state, write, processes):
                shards.append(written)
                bar.update(0 if written.shard.path in before else written.shard.rows)
    except BaseException:
        remove_unfinished(output)
        raise
    report = load_report(dataset / REPORT_FILE) | {"frames": found.summary()}
    write_json(output / REPORT_FILE, report)
    if FRAMES_FILE in manifest.files:
        write_text(output / FRAMES_FILE, (dataset / FRAMES_FILE).read_text(encoding="utf-8"))
    joined = replace(
        manifest,
        fingerprint=fingerprint,
        settings=settings,
        balance=_balance(manifest, plan, shards),
        shards=in_order(one for one in shards if one.shard.source != SAMPLE),
        sample=in_order(one for one in shards if one.shard.source == SAMPLE),
        files={name: file_hash(output / name) for name in manifest.files},
    )
    state.place((*joined.shards, *joined.sample))
    write_card(output, joined, report)
    write_manifest(output, joined)
    state.close()


def _states(path: Path) -> list[tuple[int, int]]:
    """Size and time of change of the files of stored frames."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [(stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, files)]


def _plan(dataset: Path, manifest: Manifest, found: FramesReport, shard_rows: int) -> Iterator[JoinedShard]:
    """Cut the rows of each source and split into files of up to ``shard_rows`` rows; a session is never cut."""
    cuts: dict[tuple[str, str], list[JoinedShard]] = {}
    for shard in (*manifest.shards, *manifest.sample):
        of_part = cuts.setdefault((shard.source, shard.split), [])
        origin = dataset / shard.path
        begin = 0
        for table in shard_sessions(origin, ["session_id", "video_uid", "source", "frames_file", "fps"]):
            end = begin + len(table)
            if _video(table) in found.paths:
                if not of_part or of_part[-1].origin != origin or of_part[-1].rows + len(table) > shard_rows:
                    of_part.append(JoinedShard("", shard.source, shard.split, origin, (), frozenset()))
                last = of_part[-1]
                of_part[-1] = replace(
                    last,
                    sessions=(*last.sessions, (begin, end)),
                    videos=last.videos | {table["video_uid"][0].as_py()},
                )
            begin = end
    for (source, split), of_part in cuts.items():
        for number, planned in enumerate(of_part):
            yield replace(planned, path=shard_path(source, split, number, len(of_part)))


def _video(table: pa.Table) -> Video:
    """The video of a session's rows."""
    return Video(*(table[name][0].as_py() for name in ("source", "frames_file", "fps")))


def _finish(planned: JoinedShard, folder: Path, key: str, paths: Mapping[Video, Path]) -> WrittenShard:
    """Write a file and its marker; also called in worker processes."""
    shard = Shard(planned.path, planned.source, planned.split, planned.rows, len(planned.sessions), 0, "")
    return mark_finished(write_tables(folder, shard, _tables(planned, paths), SCHEMA_WITH_IMAGES), folder, key)


def _tables(planned: JoinedShard, paths: Mapping[Video, Path]) -> Iterator[pa.Table]:
    wanted = set(planned.sessions)
    begin = 0
    for table in shard_sessions(planned.origin):
        end = begin + len(table)
        if (begin, end) in wanted:
            video = _video(table)
            yield from picture_tables(table, open_frames(paths[video], video.fps))
        begin = end
        if begin >= planned.sessions[-1][1]:
            return


def _balance(
    manifest: Manifest, plan: list[JoinedShard], shards: list[WrittenShard]
) -> dict[str, dict[str, dict[str, int]]]:
    """The label balance of what was written."""
    of_parts: dict[tuple[str, str], list[JoinedShard]] = {}
    for planned in plan:
        if planned.source != SAMPLE:
            of_parts.setdefault((planned.split, planned.source), []).append(planned)
    counts = {
        (split, source): {
            "rows": sum(one.rows for one in of_part),
            "sessions": sum(len(one.sessions) for one in of_part),
            "videos": len({video for one in of_part for video in one.videos}),
            "beyond_turns": manifest.balance[split][source]["turns_beyond_frames"],
        }
        for (split, source), of_part in of_parts.items()
    }
    return by_split({part: part_balance(found, shards, part) for part, found in counts.items()})
