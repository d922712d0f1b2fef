"""Exports a dataset to LeRobot's format, version 3.0, so that its tools open our labels as language annotations.

A session becomes an episode. What lasts goes to the column ``language_persistent``, which every frame of an episode
repeats: the plan once; a ``memory`` row (the state of every step) and a ``subtask`` row (the steps in progress) on each
frame on which a state changes. What happens on one frame goes to ``language_events``: words of the user
(``interjection``), words of the assistant (a call of the tool ``say``) and state changes (calls of ``update_step``).

lerobot 0.6.1 opens the result. There are no pictures and no actions in it; ``video_frame_index`` is the number of each
frame in its frame file, which the row of the episode in ``meta/episodes`` names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prospect_hf.dataset.card import CARD_FILE, check_stated, front_matter
from prospect_hf.dataset.layout import SPLITS, Manifest, check_files, load_manifest
from prospect_hf.dataset.lerobot_language import EVENTS, PERSISTENT, TOOLS, events_column, persistent_column
from prospect_hf.dataset.shard_reader import shard_sessions
from prospect_hf.errors import UsageError
from prospect_hf.files import replacing_folder, sole_writer, write_json, write_text
from prospect_hf.hub.front_matter import with_front_matter
from prospect_hf.progress import Progress

VERSION = "v3.0"
INFO_FILE = "meta/info.json"
ORIGIN_FILE = "meta/dst_frames.json"  # ours: what was exported, by which version
CHUNK_FILES, FILE_BYTES = 1000, 100 << 20
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
NUMBERS = {
    "timestamp": pa.float32(),
    "frame_index": pa.int64(),
    "episode_index": pa.int64(),
    "index": pa.int64(),
    "task_index": pa.int64(),
    "video_frame_index": pa.int64(),
}
SCHEMA = pa.schema([*NUMBERS.items(), ("language_persistent", PERSISTENT), ("language_events", EVENTS)])
# What a row of meta/episodes keeps of the session, besides LeRobot's own columns.
SESSION_COLUMNS = ("source", "video_uid", "session_id", "recording", "user_type", "frames_file", "license")
CARD = """
# DST frames for LeRobot

State labels and dialogues of egocentric videos in [LeRobot](https://github.com/huggingface/lerobot)'s format v3.0:
{episodes} episodes (one a session), {frames} frames, no pictures and no actions. `language_persistent` has the plan,
and on each change of a state a `memory` row (which steps are completed and in progress) and a `subtask` row (the steps
in progress). `language_events` has the words of the user (`interjection`) and calls of the tools `say` and
`update_step`.

`meta/episodes` names the source, the video and the licence of each episode; `video_frame_index` is the number of a
frame in its video. The format has no place for the summaries of {progress} turns and the remarks on mistakes at
{mistakes} frames: they are left out.
"""


@dataclass
class Exported:
    """What was written: episodes, frames, and how many of the rows' texts LeRobot's format has no place for.

    Args:
        episodes, frames: how many.
        progress, mistakes: frames that have such a text.
    """

    episodes: int = 0
    frames: int = 0
    progress: int = 0
    mistakes: int = 0


def export_lerobot(
    dataset: Path, output: Path, *, sources: Sequence[str] | None = None, progress: bool = True
) -> Exported:
    """Write ``output``, whole or not at all: a LeRobot dataset of the sessions of ``dataset``.

    Args:
        dataset: a dataset in the published layout.
        output: the folder of the export. One that was exported before is replaced.
        sources: those to export; all where not given.
        progress: whether progress is shown.

    Raises:
        UsageError: a folder or source is wrong, or the sessions have several frame rates.
        DataError: the dataset is damaged.
    """
    manifest = load_manifest(dataset)
    check_stated(dataset, manifest)
    there = {shard.source for shard in manifest.shards}
    unknown = set(sources or ()) - there
    if unknown:
        raise UsageError(f"{dataset}: no source {', '.join(sorted(unknown))}; it has {', '.join(sorted(there))}.")
    if output.exists() and not (output / ORIGIN_FILE).is_file() and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(f"{output} holds something else than an export of this command; give a new folder.")
    check_files(dataset, manifest)
    with sole_writer(output), replacing_folder(output) as folder:
        return _Export(dataset, manifest, sources or sorted(there), folder).run(progress)


@dataclass
class _Export:
    """One export into ``folder``."""

    dataset: Path
    manifest: Manifest
    sources: Sequence[str]
    folder: Path
    done: Exported = field(default_factory=Exported)
    tasks: dict[str, int] = field(default_factory=dict)
    episodes: list[dict[str, Any]] = field(default_factory=list)
    fps: float = 0.0
    files: int = 0

    def run(self, progress: bool) -> Exported:
        shards = [shard for split in SPLITS for shard in self.manifest.of_split(split) if shard.source in self.sources]
        splits: dict[str, str] = {}
        figures = _Figures()
        with Progress(sum(shard.sessions for shard in shards), "exporting", "session", show=progress) as bar:
            for split in SPLITS:
                first = len(self.episodes)
                paths = [self.dataset / shard.path for shard in shards if shard.split == split]
                tables = (table for path in paths for table in shard_sessions(path))
                for episode in self._write_files(tables):
                    figures.add(episode)
                    bar.update()
                if len(self.episodes) > first:
                    splits[split] = f"{first}:{len(self.episodes)}"
        self._write_meta(splits, figures)
        return self.done

    def _write_files(self, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Write the episodes of a split, one row group each, and yield them; a file has up to ``FILE_BYTES``."""
        writer = sink = None
        try:
            for table in tables:
                if writer is None or sink is None or sink.tell() > FILE_BYTES:
                    if writer is not None and sink is not None:
                        writer.close()
                        sink.close()
                    path = self.folder / DATA_PATH.format(**self._place(self.files))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    sink = pa.OSFile(str(path), "wb")
                    writer = pq.ParquetWriter(sink, SCHEMA, compression="zstd")
                    self.files += 1
                episode = self._episode(table)
                writer.write_table(episode, row_group_size=len(episode))
                yield episode
        finally:
            if writer is not None and sink is not None:
                writer.close()
                sink.close()

    @staticmethod
    def _place(file: int) -> dict[str, int]:
        return {"chunk_index": file // CHUNK_FILES, "file_index": file % CHUNK_FILES}

    def _episode(self, table: pa.Table) -> pa.Table:
        """The frames of a session, and its entry in ``meta/episodes``."""
        first = {name: table[name][0].as_py() for name in (*SESSION_COLUMNS, "fps", "goal", "frame_index")}
        self._check_rate(first["fps"], first["session_id"])
        number, frames, start = len(self.episodes), len(table), self.done.frames
        task = self.tasks.setdefault(first["goal"], len(self.tasks))
        place = self._place(self.files - 1)
        self.episodes.append(
            {
                "episode_index": number,
                "tasks": [first["goal"]],
                "length": frames,
                "data/chunk_index": place["chunk_index"],
                "data/file_index": place["file_index"],
                "dataset_from_index": start,
                "dataset_to_index": start + frames,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **{name: first[name] for name in SESSION_COLUMNS},
            }
        )
        self.done.episodes += 1
        self.done.frames += frames
        self.done.progress += _texts(table, "progress")
        self.done.mistakes += _texts(table, "mistake")
        index = np.arange(frames)
        times = (index / first["fps"]).astype(np.float32)
        columns: dict[str, Any] = {
            "timestamp": times,
            "frame_index": index,
            "episode_index": np.full(frames, number),
            "index": start + index,
            "task_index": np.full(frames, task),
            "video_frame_index": table["frame_index"].to_numpy(),
        }
        arrays = [pa.array(columns[name], kind) for name, kind in NUMBERS.items()]
        return pa.table([*arrays, persistent_column(table, times), events_column(table)], schema=SCHEMA)

    def _check_rate(self, fps: float, session_id: str) -> None:
        self.fps = self.fps or fps
        if fps != self.fps:
            raise UsageError(
                f"session {session_id} has {fps:g} frames a second and those before it {self.fps:g}, but an export has "
                "one rate; export the sources one by one."
            )
        if fps != int(fps):
            raise UsageError(
                f"session {session_id} has {fps:g} frames a second; LeRobot's format takes whole numbers only."
            )

    def _write_meta(self, splits: Mapping[str, str], figures: _Figures) -> None:
        episodes = self.folder / EPISODES_PATH
        episodes.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self.episodes), episodes)
        tasks = pd.DataFrame({"task_index": list(self.tasks.values())}, index=pd.Index(self.tasks, name="task"))
        tasks.to_parquet(self.folder / "meta/tasks.parquet")
        write_json(self.folder / "meta/stats.json", figures.stats())
        features = {name: {"dtype": str(kind), "shape": [1], "names": None} for name, kind in _feature_types()}
        info = {
            "codebase_version": VERSION,
            "robot_type": None,
            "total_episodes": self.done.episodes,
            "total_frames": self.done.frames,
            "total_tasks": len(self.tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": FILE_BYTES >> 20,
            "video_files_size_in_mb": 200,
            "fps": int(self.fps),
            "splits": splits,
            "data_path": DATA_PATH,
            "video_path": None,
            "features": features,
            "tools": TOOLS,
        }
        write_json(self.folder / INFO_FILE, info)
        origin = {"tool_version": self.manifest.tool_version, "fingerprint": self.manifest.fingerprint}
        write_json(self.folder / ORIGIN_FILE, origin | {"sources": list(self.sources), **asdict(self.done)})
        self._write_card()

    def _write_card(self) -> None:
        exported = tuple(shard for shard in self.manifest.shards if shard.source in self.sources)
        of_dataset = front_matter(replace(self.manifest, shards=exported, sample=()))
        kept = ("license", "license_name", "language")
        head: dict[str, Any] = {name: of_dataset[name] for name in kept if name in of_dataset}
        head |= {"tags": ["LeRobot", *of_dataset["tags"]]}
        head |= {"configs": [{"config_name": "default", "data_files": "data/*/*.parquet"}]}
        write_text(self.folder / CARD_FILE, with_front_matter(head, CARD.format(**asdict(self.done))))


def _feature_types() -> Iterator[tuple[str, str]]:
    for one in SCHEMA:
        yield one.name, {"float": "float32"}.get(str(one.type), str(one.type)) if one.name in NUMBERS else "language"


def _texts(table: pa.Table, column: str) -> int:
    """The number of frames with a text in ``column``."""
    return len(table) - table[column].to_pylist().count("")


class _Figures:
    """Minimum, maximum, mean and standard deviation of the numbers of all frames, as ``meta/stats.json`` has them."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: dict[str, NDArray[np.float64]] = {name: np.zeros(2) for name in NUMBERS}
        self._least, self._most = dict.fromkeys(NUMBERS, np.inf), dict.fromkeys(NUMBERS, -np.inf)

    def add(self, episode: pa.Table) -> None:
        """Count the frames of an episode."""
        self._count += len(episode)
        for name in NUMBERS:
            values = episode[name].to_numpy().astype(np.float64)
            self._sums[name] += values.sum(), (values**2).sum()
            self._least[name] = min(self._least[name], float(values.min()))
            self._most[name] = max(self._most[name], float(values.max()))

    def stats(self) -> dict[str, dict[str, list[float]]]:
        """The figures of each column."""
        found = {}
        for name, (total, squares) in self._sums.items():
            mean = total / self._count
            found[name] = {
                "min": [self._least[name]],
                "max": [self._most[name]],
                "mean": [mean],
                "std": [max(squares / self._count - mean**2, 0.0) ** 0.5],
                "count": [self._count],
            }
        return found
