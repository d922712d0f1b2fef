"""Builds the published layout of ``dst_frames``: reads each source and split, and writes its sessions in shards.

The manifest is written last, so a folder without it is not finished. The same input gives the same bytes, whatever the
number of processes; a build that was stopped continues with the shards that are missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa

import prospect_hf
from prospect_hf.code_fingerprint import code_fingerprint
from prospect_hf.content_hash import file_hash
from prospect_hf.dataset.balance import balance_of
from prospect_hf.dataset.build_state import BuildState, finish_shard, remove_state, remove_unfinished
from prospect_hf.dataset.card import CARD_FILE, write_card
from prospect_hf.dataset.frame_fingerprints import write_fingerprints
from prospect_hf.dataset.input_files import LABEL_CODE, DstFramesConfig
from prospect_hf.dataset.layout import (
    FRAMES_FILE,
    SAMPLE,
    SPLITS,
    Manifest,
    Shard,
    check_files,
    load_manifest,
    write_manifest,
)
from prospect_hf.dataset.licenses import LICENSES
from prospect_hf.dataset.plan import Plan
from prospect_hf.dataset.report import REPORT_FILE, by_split, load_report, report_lines
from prospect_hf.dataset.shards import COUNTED, WrittenShard
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import sole_writer, write_json
from prospect_hf.progress import Progress
from prospect_hf.simulator.corpus import MARKER
from prospect_hf.workers import worker_pool

logger = logging.getLogger(__name__)

# Rows of a shard. With pictures, 10,000 rows have about 300 MB.
SHARD_ROWS, SHARD_ROWS_WITH_IMAGES = 500_000, 10_000
PACKAGE = Path(prospect_hf.__file__).parent
# Besides the label code, what determines the files.
BUILD_CODE = (
    "dataset/build.py",
    "dataset/plan.py",
    "dataset/layout.py",
    "dataset/shards.py",
    "dataset/balance.py",
    "dataset/frame_fingerprints.py",
    "frames/fingerprint.py",
)


class _HasPath(Protocol):
    @property
    def path(self) -> str: ...


Planned = TypeVar("Planned", bound=_HasPath)


def build_rows(
    config: DstFramesConfig,
    output: Path,
    *,
    processes: int = 1,
    images: bool = False,
    shard_rows: int | None = None,
    sample: int = 2,
    fingerprints: bool = True,
    progress: bool = True,
    wait: bool = False,
) -> Manifest:
    """Build the rows of ``config`` in ``output``, unless they are there, and return the manifest.

    Args:
        config: what is read, and how it becomes sessions.
        output: the dataset's folder.
        processes: how many write shards; the files are the same for any number.
        images: whether the rows have the pictures themselves (column ``image``).
        shard_rows: a shard is full when another session would give it more rows than this. By default 500,000, with
            pictures 10,000.
        sample: how many sessions of each source and split the configuration ``sample`` has; 0 leaves it out.
        fingerprints: whether ``frames.json`` is written where frames are at hand. A few frames of each video are read.
        progress: whether progress is shown.
        wait: for another process that writes to ``output``, instead of the error.

    Raises:
        UsageError: a setting or folder is wrong, there is nothing to read, or another run is writing to ``output``.
        DataError: a record is invalid, a recording is in two splits, or a picture is missing.
    """
    if shard_rows is None:
        shard_rows = SHARD_ROWS_WITH_IMAGES if images else SHARD_ROWS
    for name, value, least in (("processes", processes, 1), ("shard_rows", shard_rows, 1), ("sample", sample, 0)):
        if value < least:
            raise UsageError(f"{name}={value}: it must be at least {least}.")
    settings = rows_settings(config) | {
        "images": images,
        "shard_rows": shard_rows,
        "sample": sample,
        "fingerprints": fingerprints,
    }
    with sole_writer(output, wait=wait):
        manifest = _build(config, output, settings, processes, progress)
    for line in report_lines(load_report(output / REPORT_FILE)):
        logger.info("%s: %s", config.form, line)
    return manifest


def rows_settings(config: DstFramesConfig) -> dict[str, Any]:
    """The settings of ``config`` that say what the rows are, without folders of the machine."""
    names = {"dialogs": ("dst", "suffix"), "prepared": ("dst", "pattern"), "annotations": ()}[config.form]
    common = ("on_error", "split_leaks")
    aligner = config.aligner
    aligned = {} if aligner is None else {"aligner": aligner.version, "dst_encoder": aligner.encoder}
    return aligned | {
        "sources": sorted(config.sources),
        "simulated": (Path(config.root) / MARKER).is_file(),
        **{name: vars(config)[name] for name in ("form", *names, *common)},
    }


def _build(config: DstFramesConfig, output: Path, settings: dict[str, Any], processes: int, progress: bool) -> Manifest:
    plan = Plan(config, settings["shard_rows"], settings["sample"])
    inputs = config.fingerprint(settings["images"])
    fingerprint = facts_hash(inputs, settings, code_fingerprint(PACKAGE, BUILD_CODE))
    settings = settings | {"pyarrow": pa.__version__}  # another version may write other bytes
    finished = _finished(output, fingerprint, settings)
    if finished is not None:
        remove_state(output)
        logger.info("%s is finished already.", output)
        return finished
    frames = {source: config.frames_folder(source) for source in plan.sources} if settings["images"] else None
    for source in frames or ():
        logger.warning("images=true: %s", picture_warning(source))
    state = BuildState(output, facts_hash(fingerprint, settings))
    kept = frozenset(state.finished)
    start = sum(written.work for written in state.finished.values())
    shards = []
    write = partial(finish_shard, folder=state.folder, key=state.key, frames=frames)
    try:
        with Progress(plan.work, "building rows, kB", "kB", initial=start, show=progress) as bar:
            for written in written_shards(plan, state, write, processes):
                shards.append(written)
                if written.shard.path not in kept:
                    bar.update(written.work)
            bar.update(plan.work - bar.done)  # what rounding left out
    except BaseException:
        remove_unfinished(output)
        raise
    report = plan.report()
    if frames is not None:
        report["images"] = {source: picture_warning(source) for source in frames}
    write_json(output / REPORT_FILE, report)
    manifest = Manifest(
        tool_version=prospect_hf.__version__,
        label_version=code_fingerprint(PACKAGE, LABEL_CODE),
        fingerprint=fingerprint,
        settings=settings,
        licenses={source: LICENSES[source] for source in sorted({source for _, source in plan.summaries})},
        balance=by_split({part: part_balance(plan.summaries[part], shards, part) for part in plan.summaries}),
        shards=in_order(written for written in shards if written.shard.source != SAMPLE),
        sample=in_order(written for written in shards if written.shard.source == SAMPLE),
        files={REPORT_FILE: file_hash(output / REPORT_FILE)},
    )
    state.place((*manifest.shards, *manifest.sample))
    if settings["fingerprints"] and write_fingerprints(
        output, manifest.shards, config.frames_folder("").resolve(), processes
    ):
        manifest = replace(manifest, files={**manifest.files, FRAMES_FILE: file_hash(output / FRAMES_FILE)})
    write_card(output, manifest, report)
    write_manifest(output, manifest)
    state.close()
    return manifest


def _finished(output: Path, fingerprint: str, settings: dict[str, Any]) -> Manifest | None:
    """The manifest of a dataset that is finished, of these inputs and settings, and whole."""
    try:
        manifest = load_manifest(output)
        if (manifest.fingerprint, manifest.settings) != (fingerprint, settings):
            return None
        check_files(output, manifest)
        if not (output / CARD_FILE).is_file():
            raise DataError(f"{output / CARD_FILE}: the file is missing.")
    except UsageError:  # there is none
        return None
    except DataError as error:
        logger.warning("%s The rows are built again.", error)
        return None
    return manifest


def written_shards(
    plan: Iterable[Planned], state: BuildState, write: Callable[[Planned], WrittenShard], processes: int
) -> Iterator[WrittenShard]:
    """The shards of the plan: those that are finished already, and the others once they are written.

    Args:
        plan: what is to be written, each with its ``path``.
        state: of the build; its lock is held.
        write: writes one and marks it as finished. Other processes call it.
        processes: how many.

    Raises:
        DataError: what ``write`` raises, or a process was killed.
    """
    if processes == 1:
        for planned in plan:
            yield state.finished.get(planned.path) or write(planned)
        return
    try:
        with worker_pool(processes) as pool:
            waiting: deque[Future[WrittenShard]] = deque()
            for planned in plan:
                if planned.path in state.finished:
                    yield state.finished[planned.path]
                    continue
                waiting.append(pool.submit(write, planned))
                # The sessions of a shard stay in memory until it is written.
                while len(waiting) > 2 * processes:
                    yield waiting.popleft().result()
            for future in waiting:
                yield future.result()
    except BrokenProcessPool:
        raise DataError(
            f"{state.output}: a worker process was killed, perhaps for lack of memory; run again with fewer processes "
            "(finished files are kept)."
        ) from None


def in_order(shards: Iterable[WrittenShard]) -> tuple[Shard, ...]:
    """The manifest's entries of shards, by source and split."""
    of = sorted((one.shard for one in shards), key=lambda shard: (shard.source, SPLITS.index(shard.split), shard.path))
    return tuple(of)


def part_balance(found: dict[str, Any], shards: Iterable[WrittenShard], part: tuple[str, str]) -> dict[str, int]:
    """The label balance of one (split, source)."""
    labels: dict[str, Counter[int]] = {column: Counter() for column in COUNTED}
    for written in shards:
        if (written.shard.split, written.shard.source) == part:
            for column, counts in written.labels.items():
                labels[column].update(counts)
    return balance_of(labels, found["rows"], found["sessions"], found["videos"], found["beyond_turns"])


def picture_warning(source: str) -> str:
    """What the user of pictures must know."""
    return (
        f"the rows of {source} contain pictures of its videos, which are other people's; they may be kept on this "
        "machine, but not published. Labels and references are publishable: images=false."
    )


def facts_hash(*facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
