"""``frames.json`` of a dataset: what identifies the frames of each video, since the rows only name them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import as_dict, get_dict, get_index, get_list, get_text, load_json
from prospect_hf.dataset.layout import FRAMES_FILE, Shard
from prospect_hf.dataset.shard_reader import shard_sessions
from prospect_hf.errors import DataError
from prospect_hf.files import write_json
from prospect_hf.frames.fingerprint import Fingerprint, Mark, fingerprint
from prospect_hf.frames.opened import locate_frames, open_frames
from prospect_hf.workers import worker_pool

FORMAT = "dst_frames frames 1"


@dataclass(frozen=True, order=True)
class Video:
    """A video of a dataset: its source, its frame file relative to the source's folder, its frames per second."""

    source: str
    frames_file: str
    fps: float

    @property
    def name(self) -> str:
        """Its name in ``frames.json`` and in messages."""
        return f"{self.source}/{self.frames_file}"


def videos_of(folder: Path, shards: Iterable[Shard]) -> dict[Video, int]:
    """Each video of the rows, and how many of its frames, from the first on, the rows go through.

    Raises:
        DataError: a shard cannot be read.
    """
    used: dict[Video, int] = defaultdict(int)
    columns = ["session_id", "source", "frames_file", "fps", "frame_index"]
    for shard in shards:
        for table in shard_sessions(folder / shard.path, columns):
            source, frames_file, fps = (table[name][0].as_py() for name in ("source", "frames_file", "fps"))
            video = Video(source, frames_file, fps)
            used[video] = max(used[video], table["frame_index"][-1].as_py() + 1)
    return dict(sorted(used.items()))


def write_fingerprints(folder: Path, shards: Iterable[Shard], frames: Path, processes: int = 1) -> bool:
    """Write ``frames.json`` of a dataset whose videos' frames are at hand; without any of them, write nothing.

    Args:
        folder: the dataset's folder, with its shards.
        shards: of all sources.
        frames: the folder that has a folder ``{source}/frames`` for each source.
        processes: how many read frames.

    Returns:
        whether there is a ``frames.json`` now.

    Raises:
        DataError: a frame that is looked at cannot be decoded, or a video has fewer frames than rows.
    """
    used = videos_of(folder, shards)
    found = {video: locate_frames(frames, video.source, video.frames_file, video.name) for video in used}
    wanted = [(video, path, used[video]) for video, path in found.items() if path is not None]
    (folder / FRAMES_FILE).unlink(missing_ok=True)
    if not wanted:
        return False
    if processes == 1:
        prints = [_fingerprint(one) for one in wanted]
    else:
        with worker_pool(processes) as pool:
            prints = list(pool.map(_fingerprint, wanted, chunksize=8))
    videos = {
        video.name: {"frames": one.frames, "used": one.used, "marks": [astuple(mark) for mark in one.marks]}
        for (video, _, _), one in zip(wanted, prints, strict=True)
    }
    write_json(folder / FRAMES_FILE, {"format": FORMAT, "videos": videos}, indent=None)
    return True


def _fingerprint(wanted: tuple[Video, Path, int]) -> Fingerprint:
    video, path, used = wanted
    return fingerprint(open_frames(path, video.fps), used)


def load_fingerprints(path: Path) -> dict[str, Fingerprint]:
    """The fingerprints in a ``frames.json``, by the name of the video.

    Raises:
        UsageError: there is no such file.
        DataError: it is damaged or of another format.
    """
    where = str(path)
    facts = as_dict(load_json(path), where)
    if (form := get_text(facts, "format", where)) != FORMAT:
        raise DataError(f"{where}: format is '{form}', but this version reads '{FORMAT}'; build the dataset again.")
    videos = get_dict(facts, "videos", where)
    return {name: _read_video(as_dict(value, f"{where}: {name}"), f"{where}: {name}") for name, value in videos.items()}


def _read_video(value: dict[str, Any], where: str) -> Fingerprint:
    marks = [
        _read_mark(mark, f"{where}: marks[{number}]") for number, mark in enumerate(get_list(value, "marks", where))
    ]
    frames, used = get_index(value, "frames", where), get_index(value, "used", where)
    if not max(mark.index for mark in marks) < used <= frames:
        raise DataError(f"{where}: marks, used and frames contradict each other; build the dataset again.")
    return Fingerprint(frames, used, tuple(marks))


def _read_mark(value: Any, where: str) -> Mark:
    if not isinstance(value, list) or len(value) != 4:
        raise DataError(f"{where} must be a list of index, hash, look and colour.")
    names = dict(zip(("index", "sha256", "look", "colour"), value, strict=True))
    mark = Mark(
        get_index(names, "index", where), *(get_text(names, name, where) for name in ("sha256", "look", "colour"))
    )
    for text, digits in ((mark.look, 32), (mark.colour, 6)):
        if len(text) != digits or not set(text) <= set("0123456789abcdef"):
            raise DataError(f"{where}: '{text}' must be {digits} hex digits; build the dataset again.")
    return mark
