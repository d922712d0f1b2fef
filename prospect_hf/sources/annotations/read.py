"""Reads the sources' own annotation releases: ``{root}/{source}/`` with the files of the release as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.opened import find_frames, open_frames
from prospect_hf.sessions import FPS, check_name, frames_file, recording_id
from prospect_hf.sources.annotations import assembly101, ego4d, egoexolearn, epickitchens, holoassist, wtag
from prospect_hf.sources.annotations.video import VideoRecord, session
from prospect_hf.sources.report import OnError, SessionsReport, start_report

# A reader gives the videos of one source's folder; it raises UsageError where the folder has none of its files.
# One reader a line: "source": source.videos.
READERS: dict[str, Callable[[Path], Iterator[VideoRecord]]] = {
    "assembly101": assembly101.videos,
    "ego4d": ego4d.videos,
    "egoexolearn": egoexolearn.videos,
    "epickitchens": epickitchens.videos,
    "holoassist": holoassist.videos,
    "wtag": wtag.videos,
}


def read_annotations(root: Path, source: str, split: str, *, on_error: OnError = "raise") -> SessionsReport:
    """Read each annotated video of one source and split as a session.

    The split is the one that the release states for a video; where it states none, ``hashed_split`` of its recording.
    A split without a video gives an empty report. Frames that are stored in ``{root}/{source}/frames`` say how long a
    video is.

    Args:
        root: folder that holds a folder ``{source}`` with the files of the release.
        source: name of the source.
        split: train, validation or test.
        on_error: "raise" on the first bad video, or "skip" bad videos and list them.

    Raises:
        UsageError: the folder or its files are missing.
        DataError: a video is invalid, or each video of the split was skipped.
    """
    report = start_report(source, split, on_error)
    folder = root / source
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: no such folder; data.root is the folder that holds {source}/ with its annotations."
        )
    for record in READERS[source](folder):
        if (record.split or hashed_split(source, record.video_uid)) != split:
            continue
        try:
            video = record.parse()
            check_name(video.video_uid, f"{record.origin}: the id of the video")
            frames = find_frames(folder / frames_file(source, video.video_uid))
            session(video, source, report, stored_frames=None if frames is None else len(open_frames(frames, FPS)))
        except DataError as error:
            report.refuse(record.origin, error)
    return report.closed(str(folder)) if report.skipped else report


def hashed_split(source: str, video_uid: str) -> str:
    """The split of a video whose release states none: 80 % train, 10 % validation, 10 % test.

    It is a hash of the recording, so that its views and parts are in one split, on each machine and in each version.
    """
    digest = hashlib.sha256(f"{source}/{recording_id(source, video_uid)}".encode("utf-8", "surrogatepass")).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if share < 0.8 else "validation" if share < 0.9 else "test"
