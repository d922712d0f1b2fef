"""How far a build has come: the finished shards and the proof that they belong to it.

They lie in the hidden folder ``.build`` of the dataset's folder, which no loader looks into, each with a marker beside
it. When all are finished they move to their place, and the folder is removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from prospect_hf.checked_json import as_dict, get_dict, get_index, load_json
from prospect_hf.content_hash import file_hash
from prospect_hf.dataset.card import CARD_FILE
from prospect_hf.dataset.layout import FRAMES_FILE, MANIFEST_FILE, SAMPLE, Shard, parse_shard
from prospect_hf.dataset.report import REPORT_FILE
from prospect_hf.dataset.shards import PlannedShard, WrittenShard, write_shard
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import PARTIAL, write_json, write_text

FOLDER, KEY_FILE, MARKER = ".build", "key", ".json"


class BuildState:
    """The unfinished build in ``output``.

    Args:
        output: the dataset's folder; this process holds its lock.
        key: hash of everything that determines the files. Shards of another key are removed.

    ``finished`` holds the shards that an earlier run of the same build wrote, by path.

    Raises:
        UsageError: ``output`` holds Parquet files that no build of this package wrote.
    """

    def __init__(self, output: Path, key: str) -> None:
        self.output, self.folder, self.key = output, output / FOLDER, key
        manifest = output / MANIFEST_FILE
        if not (self.folder / KEY_FILE).is_file() and not manifest.is_file():
            for path in self._placed():
                raise UsageError(f"{path} belongs to a dataset that this command did not write; give another folder.")
        # Before anything is removed: a run that is killed here leaves a folder that the next one knows.
        write_text(self.folder / KEY_FILE, key + "\n")
        for name in (MANIFEST_FILE, CARD_FILE, REPORT_FILE, FRAMES_FILE):  # the manifest first
            (output / name).unlink(missing_ok=True)
        self.finished = {written.shard.path: written for written in self._finished()}
        self._remove_others()

    def place(self, shards: Iterable[Shard]) -> None:
        """Move the finished shards to their place."""
        for shard in shards:
            if (self.folder / shard.path).is_file():
                (self.output / shard.path).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / shard.path).replace(self.output / shard.path)

    def close(self) -> None:
        """Remove what only an unfinished build needs."""
        remove_state(self.output)

    def _placed(self) -> Iterator[Path]:
        for pattern in ("data/*/*.parquet", f"{SAMPLE}/*.parquet"):
            yield from sorted(self.output.glob(pattern))

    def _finished(self) -> Iterator[WrittenShard]:
        """The shards whose marker is of this build and states the content of the file."""
        for path in sorted(self.folder.glob(f"*/**/*{MARKER}")):
            try:
                written = _written(path, self.key)
            except DataError:  # of another build, or damaged: the shard is written again
                continue
            for folder in (self.folder, self.output):
                file = folder / written.shard.path
                if file.is_file() and file_hash(file) == written.shard.sha256:
                    yield written
                    break

    def _remove_others(self) -> None:
        """Remove what no marker of this build names, and what killed processes were writing."""
        for path in [*self.folder.glob("*/**/*"), *self._placed()]:
            below = self.folder if path.is_relative_to(self.folder) else self.output
            name = path.relative_to(below).as_posix().removesuffix(MARKER)
            if path.is_file() and name not in self.finished:
                path.unlink()


def finish_shard(planned: PlannedShard, folder: Path, key: str, frames: dict[str, Path] | None) -> WrittenShard:
    """Write a shard to the folder of a build, and its marker; the arguments are those of ``write_shard``."""
    return mark_finished(write_shard(planned, folder, frames), folder, key)


def mark_finished(written: WrittenShard, folder: Path, key: str) -> WrittenShard:
    """Write the marker of a shard that lies in the folder of a build."""
    write_json(folder / (written.shard.path + MARKER), {"key": key, **asdict(written)})
    return written


def remove_state(output: Path) -> None:
    """Remove what only an unfinished build needs; a run that was killed behind its last step has left it."""
    if (output / FOLDER).exists():
        shutil.rmtree(output / FOLDER)


def remove_unfinished(folder: Path) -> None:
    """Remove what a build of this process was writing when it broke off; finished shards stay."""
    for path in (folder / FOLDER).rglob("*.partial"):
        if PARTIAL.search(path.name):
            path.unlink(missing_ok=True)


def _written(path: Path, key: str) -> WrittenShard:
    where = str(path)
    facts = as_dict(load_json(path), where)
    if facts.get("key") != key:
        raise DataError(f"{where}: it belongs to another build.")
    labels = get_dict(facts, "labels", where)
    return WrittenShard(
        shard=parse_shard(facts.get("shard"), f"{where}: shard"),
        labels={name: {int(value): count for value, count in counts.items()} for name, counts in labels.items()},
        work=get_index(facts, "work", where),
    )
