"""Loads the sessions of a run: builds the frame rows of each form on the first call, then reuses them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import prospect_hf
from prospect_hf.checked_json import get_text
from prospect_hf.code_fingerprint import code_fingerprint
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.clip_stream import SessionStream
from prospect_hf.data.inputs import ready_corpus, rows_config
from prospect_hf.data.session_store import SessionStore, open_sessions
from prospect_hf.dataset.build import build_rows, rows_settings
from prospect_hf.dataset.input_files import LABEL_CODE, DstFramesConfig
from prospect_hf.dataset.layout import MANIFEST_FILE, Manifest, Shard, load_manifest
from prospect_hf.dataset.report import REPORT_FILE, load_report
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import remove_stale
from prospect_hf.metrics.encoders import short_name
from prospect_hf.sources.splits import check_forms

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedRows:
    """The frame rows of one form, in the published layout.

    Args:
        form: "dialogs", "prepared" or "annotations".
        folder: of the dataset.
        manifest: its manifest.
        sources: whose sessions are read, in this order.
        held_out: those of ``sources`` whose sessions are read of the test split alone.
        cache_dir: where sessions are kept in the form that is read by position.
        processes: worker processes that make that form.
    """

    form: str
    folder: Path
    manifest: Manifest
    sources: tuple[str, ...]
    held_out: tuple[str, ...]
    cache_dir: Path
    processes: int = 1

    def shards(self, split: str) -> list[Shard]:
        """The shards of a split, in the order of the sessions."""
        return [shard for source in self.sources_of(split) for shard in self.manifest.of_split(split, source)]

    def sources_of(self, split: str) -> tuple[str, ...]:
        """Whose sessions of a split are read."""
        return tuple(source for source in self.sources if split == "test" or source not in self.held_out)


def prepare_rows(data: DataArguments) -> list[LoadedRows]:
    """The frame rows of each form; a simulated corpus is written first where it is missing or out of date.

    Raises:
        UsageError: a folder is missing, or two settings contradict each other.
        DataError: a record is invalid, a recording is in two splits, or no usable record is left.
    """
    cache_dir = Path(data.cache_dir)
    remove_stale(cache_dir)
    if data.rows is not None:
        return [_given_rows(data, Path(data.rows))]
    root = ready_corpus(data)
    loaded = []
    for form in data.forms:
        # Missing prepared rows are logged where another form was requested as well, and an error where they were not.
        if form == "prepared" and len(data.forms) > 1 and not any(root.glob("processed_data/*/prepared/*.jsonl")):
            logger.info("%s has no prepared rows; reading dialogs only.", root)
            continue
        config = rows_config(data, form)
        folder = _rows_folder(config, cache_dir)
        manifest = build_rows(config, folder, processes=data.processes, sample=0, fingerprints=False, wait=True)
        loaded.append(_loaded(form, folder, manifest, data))
    check_forms({one.form: load_report(one.folder / REPORT_FILE)["recordings"] for one in loaded})
    return loaded


def _rows_folder(config: DstFramesConfig, cache_dir: Path) -> Path:
    """Where the rows of ``config`` are kept: its name follows from the settings, the input files and the code."""
    facts = json.dumps([rows_settings(config), config.fingerprint()], sort_keys=True)
    return cache_dir / "rows" / hashlib.sha256(facts.encode()).hexdigest()[:32]


def _given_rows(data: DataArguments, folder: Path) -> LoadedRows:
    """The rows of ``data.rows``, which must be what the other settings and this package's label rules say."""
    manifest = load_manifest(folder)
    ours = code_fingerprint(Path(prospect_hf.__file__).parent, LABEL_CODE)
    if manifest.label_version != ours:
        raise UsageError(
            f"data.rows={folder} was labelled by prospect-hf {manifest.tool_version} with other rules (label version "
            f"{manifest.label_version[:12]}, and {ours[:12]} here): build the rows again, or use that version."
        )
    form = get_text(manifest.settings, "form", f"{folder / MANIFEST_FILE}: settings")
    said = {"name": data.name, "forms": f"[{','.join(data.forms)}]", "dst_root": data.dst_root or "null"}
    said |= {"dst": data.dst, "suffix": data.suffix}
    built = {"dst_root": "null"}
    built |= {name: str(manifest.settings[name]) for name in ("dst", "suffix") if name in manifest.settings}
    if isinstance(encoder := manifest.settings.get("dst_encoder"), str):
        said |= {"dst_encoder": short_name(data.dst_encoder)}
        built |= {"dst_encoder": encoder.partition(" @ ")[0]}
    if (form == "annotations") == (data.name == "annotations"):
        if form not in data.forms:
            built |= {"forms": f"[{form}]"}
    else:
        built |= {"name": "annotations" if form == "annotations" else "proassist"}
    wrong = [name for name in said if name in built and said[name] != built[name]]
    if wrong:
        raise UsageError(
            f"data.rows={folder} was not built with {', '.join(f'data.{name}={said[name]}' for name in wrong)}: set "
            f"{' '.join(f'data.{name}={built[name]}' for name in wrong)}."
        )
    held = {shard.source for shard in manifest.shards}
    absent = [source for source in data.sources if source not in held]
    if absent:
        logger.info("%s has no rows of %s.", folder, ", ".join(absent))
    return _loaded(form, folder, manifest, data)


def _loaded(form: str, folder: Path, manifest: Manifest, data: DataArguments) -> LoadedRows:
    read, held_out = tuple(data.sources), tuple(data.held_out_sources)
    return LoadedRows(form, folder, manifest, read, held_out, Path(data.cache_dir), data.processes)


def streamed_sessions(loaded: Sequence[LoadedRows], split: str) -> SessionStream:
    """The sessions of one split over all sources, to be read as they come; sizes are compared, not contents.

    Raises:
        DataError: a file is missing, or has another size than the manifest states.
    """
    shards = [(part.folder / shard.path, shard) for part in loaded for shard in part.shards(split)]
    for path, shard in shards:
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise DataError(f"{path}: it is missing or not what {MANIFEST_FILE} states; build or download it again.")
    contents = " ".join(shard.sha256 for _, shard in shards)
    return SessionStream(tuple(path for path, _ in shards), hashlib.sha256(contents.encode()).hexdigest())


def split_sessions(loaded: Sequence[LoadedRows], split: str) -> SessionStore:
    """The sessions of one split over all forms and sources, in order.

    Raises:
        DataError: rows are not what their manifest states.
    """
    stores = [
        open_sessions(part.folder, part.manifest, part.shards(split), part.cache_dir, part.processes) for part in loaded
    ]
    return SessionStore([file for store in stores for file in store.files])
