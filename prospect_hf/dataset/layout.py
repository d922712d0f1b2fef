"""The published layout of ``dst_frames``: which file lies where, and the manifest that says what is in them.

::

    FOLDER/
      README.md                                     the card; its YAML block lists the configurations
      manifest.json                                 written last: without it, the dataset is not finished
      report.json                                   what was read, repaired and left out
      frames.json                                   what identifies the frames of each video, where they were at hand
      data/{source}/{split}-00000-of-00003.parquet  the rows, sessions in order, never cut between two files
      sample/{split}-00000-of-00001.parquet         a few sessions of each source

There is no code in the folder, so ``datasets.load_dataset`` reads it from the disk and from the Hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import as_dict, get_dict, get_index, get_text, load_json
from prospect_hf.content_hash import file_hash
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import write_json
from prospect_hf.sessions import SOURCES, check_name

MANIFEST_FILE = "manifest.json"
FRAMES_FILE = "frames.json"
FORMAT = "dst_frames 3"
SPLITS = ("train", "validation", "test")
SAMPLE = "sample"


@dataclass(frozen=True)
class Shard:
    """One Parquet file of rows: whole sessions of one source and split, in order.

    Args:
        path: relative to the dataset's folder.
        rows, sessions, bytes: how many it has.
        sha256: of the file.
    """

    path: str
    source: str
    split: str
    rows: int
    sessions: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a finished dataset holds.

    Args:
        tool_version: version of this package.
        label_version: hash of the code that determines the labels (``input_files.LABEL_CODE``).
        fingerprint: hash of everything that determines the rows: input files, settings and label code.
        settings: what the dataset was built from, without folders of the machine: ``form``, ``dst``, ``images``, ...
        licenses: source -> SPDX identifier.
        balance: split -> source -> label counts, with the keys of ``label_balance``.
        shards: of the sources, by source and split, in order.
        sample: of the configuration ``sample``.
        files: SHA-256 of each other file whose content is fixed: ``report.json``, and ``frames.json`` where there is
            one. The card is not among them, since people edit it.
    """

    tool_version: str
    label_version: str
    fingerprint: str
    settings: dict[str, Any]
    licenses: dict[str, str]
    balance: dict[str, dict[str, dict[str, int]]]
    shards: tuple[Shard, ...]
    sample: tuple[Shard, ...] = field(default=())
    files: dict[str, str] = field(default_factory=dict)

    def of_split(self, split: str, source: str | None = None) -> tuple[Shard, ...]:
        """The shards of a split, of one source or of all, in order."""
        return tuple(shard for shard in self.shards if shard.split == split and source in (None, shard.source))

    @property
    def rows(self) -> int:
        """The number of rows, without those of the sample."""
        return sum(shard.rows for shard in self.shards)


def shard_path(source: str, split: str, number: int, count: int) -> str:
    """The path of shard ``number`` of ``count``, relative to the dataset's folder; ``source`` may be ``sample``."""
    folder = SAMPLE if source == SAMPLE else f"data/{source}"
    return f"{folder}/{split}-{number:05d}-of-{count:05d}.parquet"


def configurations(manifest: Manifest) -> Iterator[tuple[str, dict[str, str]]]:
    """Each configuration with the file pattern of each of its splits: one a source, ``all``, ``sample``."""
    for source in (source for source in SOURCES if any(shard.source == source for shard in manifest.shards)):
        splits = [split for split in SPLITS if manifest.of_split(split, source)]
        yield source, {split: f"data/{source}/{split}-*.parquet" for split in splits}
    yield "all", {split: f"data/*/{split}-*.parquet" for split in SPLITS if manifest.of_split(split)}
    if manifest.sample:
        yield SAMPLE, {shard.split: f"{SAMPLE}/{shard.split}-*.parquet" for shard in manifest.sample}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, which declares the dataset finished."""
    write_json(folder / MANIFEST_FILE, {"format": FORMAT, **asdict(manifest)})


def load_manifest(folder: Path) -> Manifest:
    """Load and check ``manifest.json``.

    Raises:
        UsageError: there is none, so ``folder`` is no finished dataset.
        DataError: it is damaged, of another format, or names a file outside of the folder.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise UsageError(f"{folder}: no {MANIFEST_FILE}, so it is no finished dataset; build it with build_dataset.py.")
    where = str(path)
    facts = as_dict(load_json(path), where)
    if (found := get_text(facts, "format", where)) != FORMAT:
        raise DataError(f"{where}: format is '{found}', but this version reads '{FORMAT}'; build the dataset again.")
    return Manifest(
        tool_version=get_text(facts, "tool_version", where),
        label_version=get_text(facts, "label_version", where),
        fingerprint=get_text(facts, "fingerprint", where),
        settings=get_dict(facts, "settings", where),
        licenses=_licenses(facts, where),
        balance=_balance(facts, where),
        shards=_shards(facts, "shards", where),
        sample=_shards(facts, "sample", where),
        files=_files(facts, where),
    )


def _licenses(facts: dict[str, Any], where: str) -> dict[str, str]:
    licenses = get_dict(facts, "licenses", where)
    return {source: get_text(licenses, source, f"{where}: licenses") for source in licenses}


def _balance(facts: dict[str, Any], where: str) -> dict[str, dict[str, dict[str, int]]]:
    balance: dict[str, dict[str, dict[str, int]]] = {}
    for split in get_dict(facts, "balance", where):
        of_split = as_dict(facts["balance"][split], f"{where}: balance.{split}")
        for source, of_source in of_split.items():
            at = f"{where}: balance.{split}.{source}"
            counts = as_dict(of_source, at)
            balance.setdefault(split, {})[source] = {key: get_index(counts, key, at) for key in counts}
    return balance


def _shards(facts: Mapping[str, Any], key: str, where: str) -> tuple[Shard, ...]:
    values = facts.get(key)
    if not isinstance(values, list):
        raise DataError(f"{where}: '{key}' must be a list of files.")
    return tuple(parse_shard(value, f"{where}: {key}[{number}]") for number, value in enumerate(values))


def parse_shard(value: Any, where: str) -> Shard:
    """A shard from its JSON form. Raises ``DataError`` where it is none, or its path leaves the dataset's folder."""
    entry = as_dict(value, where)
    name = get_text(entry, "path", where)
    for part in name.split("/"):
        check_name(part, f"{where}.path")
    return Shard(
        path=name,
        source=get_text(entry, "source", where),
        split=get_text(entry, "split", where),
        rows=get_index(entry, "rows", where),
        sessions=get_index(entry, "sessions", where),
        bytes=get_index(entry, "bytes", where),
        sha256=get_text(entry, "sha256", where),
    )


def _files(facts: dict[str, Any], where: str) -> dict[str, str]:
    files = get_dict(facts, "files", where)
    for name in files:
        check_name(name, f"{where}: files")
    return {name: get_text(files, name, f"{where}: files") for name in files}


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare each file with the manifest, its content included.

    Raises:
        DataError: a file is missing or has another content.
    """
    hashes = {shard.path: shard.sha256 for shard in (*manifest.shards, *manifest.sample)} | manifest.files
    for name, sha256 in hashes.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path}: the file is missing, but {MANIFEST_FILE} lists it; build or download it again.")
        if file_hash(path) != sha256:
            raise DataError(f"{path}: its content is not what {MANIFEST_FILE} states; build or download it again.")
