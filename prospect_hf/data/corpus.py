"""Loads the sessions of a run: builds the frame rows of each form on the first call, then reuses them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import get_optional_text, get_text
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.session_store import SessionStore, open_sessions
from prospect_hf.dataset.build import build_rows, settings
from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.dataset.layout import MANIFEST_FILE, Manifest, Shard, load_manifest
from prospect_hf.dataset.report import REPORT_FILE, load_report, report_lines
from prospect_hf.errors import UsageError
from prospect_hf.files import remove_stale, sole_writer
from prospect_hf.settings import parse
from prospect_hf.simulator.corpus import ensure_corpus
from prospect_hf.simulator.scene import SceneConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedRows:
    """The frame rows of one form, in the published layout.

    Args:
        form: "dialogs" or "prepared".
        folder: of the dataset.
        manifest: its manifest.
        sources: whose sessions are read, in this order.
        cache_dir: where sessions are kept in the form that is read by position.
        processes: worker processes that make that form.
    """

    form: str
    folder: Path
    manifest: Manifest
    sources: tuple[str, ...]
    cache_dir: Path
    processes: int = 1

    def shards(self, split: str) -> list[Shard]:
        """The shards of a split, in the order of the sessions."""
        return [shard for source in self.sources for shard in self.manifest.of_split(split, source)]


def prepare_rows(data: DataArguments) -> list[LoadedRows]:
    """The frame rows of each form; a simulated corpus is written first where it is missing or out of date.

    Raises:
        UsageError: a folder is missing, or two settings contradict each other.
        DataError: a record is invalid, or no usable record is left.
    """
    cache_dir = Path(data.cache_dir)
    remove_stale(cache_dir)
    if data.rows is not None:
        return [_given_rows(data, Path(data.rows))]
    root = Path(str(data.root))
    if data.name == "simulated":
        ranges = {name: tuple(value) if isinstance(value, list) else value for name, value in data.scene.items()}
        scene = parse(SceneConfig, ranges, "data.scene")
        ensure_corpus(root, data.sources, data.recordings, data.seed, scene)
    elif not (root / "processed_data").is_dir():
        raise UsageError(f"data.root={root} has no subfolder processed_data; set data.root to ProAssist's root folder.")
    loaded = []
    for form in data.forms:
        # Missing prepared rows are logged where another form was requested as well, and an error where they were not.
        if form == "prepared" and len(data.forms) > 1 and not any(root.glob("processed_data/*/prepared/*.jsonl")):
            logger.info("%s has no prepared rows; reading dialogs only.", root)
            continue
        config = rows_config(
            root,
            tuple(data.sources),
            form=form,
            dst=data.dst,
            dst_root="" if data.dst_root is None else str(Path(data.dst_root).resolve()),
            suffix=data.suffix,
            on_error=data.on_error,
        )
        folder, manifest = kept_rows(config, cache_dir, data.processes)
        loaded.append(LoadedRows(form, folder, manifest, tuple(data.sources), cache_dir, data.processes))
    return loaded


def rows_config(root: Path, sources: Sequence[str], **settings: Any) -> DstFramesConfig:
    """The configuration of the rows of a corpus under ``root``."""
    return DstFramesConfig(name="all", root=str(root.resolve()), sources=tuple(sources), **settings)


def kept_rows(config: DstFramesConfig, cache_dir: Path, processes: int = 1) -> tuple[Path, Manifest]:
    """The folder and the manifest of the rows of ``config``; rows that are missing under ``cache_dir`` are built.

    They are kept under a name that follows from the settings, the input files and the code. Another process that needs
    them waits. What was left out is logged, on every call.

    Raises:
        UsageError: a setting or folder is wrong, or there is nothing to read.
        DataError: a record is invalid.
    """
    facts = json.dumps([settings(config), config.fingerprint()], sort_keys=True)
    folder = cache_dir / "rows" / hashlib.sha256(facts.encode()).hexdigest()[:32]
    with sole_writer(cache_dir / "rows", wait=True):
        if not (folder / MANIFEST_FILE).is_file():
            build_rows(config, folder, processes=processes, sample=0)
    manifest = load_manifest(folder)
    for line in report_lines(load_report(folder / REPORT_FILE)):
        logger.info("%s: %s", config.form, line)
    return folder, manifest


def _given_rows(data: DataArguments, folder: Path) -> LoadedRows:
    """The rows of ``data.rows``, which must be what the other settings say."""
    manifest = load_manifest(folder)
    where = f"{folder / MANIFEST_FILE}: settings"
    form = get_text(manifest.settings, "form", where)
    built = {"data.forms": f"[{form}]", "data.dst": get_text(manifest.settings, "dst", where), "data.dst_root": "null"}
    said = {"data.forms": f"[{','.join(data.forms)}]", "data.dst": data.dst, "data.dst_root": data.dst_root or "null"}
    if form == "dialogs":
        built["data.suffix"], said["data.suffix"] = get_optional_text(manifest.settings, "suffix", where), data.suffix
    wrong = [name for name in built if said[name] != built[name]]
    if wrong:
        raise UsageError(
            f"data.rows={folder} was not built with {', '.join(f'{name}={said[name]}' for name in wrong)}: set "
            f"{' '.join(f'{name}={built[name]}' for name in wrong)}."
        )
    held = {shard.source for shard in manifest.shards}
    absent = [source for source in data.sources if source not in held]
    if absent:
        logger.info("%s has no rows of %s.", folder, ", ".join(absent))
    return LoadedRows(form, folder, manifest, tuple(data.sources), Path(data.cache_dir), data.processes)


def split_sessions(loaded: Sequence[LoadedRows], split: str) -> SessionStore:
    """The sessions of one split over all forms and sources, in order.

    Raises:
        DataError: rows are not what their manifest states.
    """
    stores = [
        open_sessions(part.folder, part.manifest, part.shards(split), part.cache_dir, part.processes) for part in loaded
    ]
    return SessionStore([file for store in stores for file in store.files])
