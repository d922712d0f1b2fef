"""The promises of a dataset's files: they are those of the manifest, and Parquet as a viewer wants it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from prospect_hf.checked_json import get_dict
from prospect_hf.content_hash import file_hash
from prospect_hf.dataset.card import CARD_FILE
from prospect_hf.dataset.frame_fingerprints import load_fingerprints
from prospect_hf.dataset.inspection.findings import Findings
from prospect_hf.dataset.layout import FRAMES_FILE, SAMPLE, SPLITS, Manifest, Shard, configurations, shard_path
from prospect_hf.dataset.report import REPORT_FILE, load_report
from prospect_hf.dataset.row_maker import FEATURES, FEATURES_WITH_IMAGES, SCHEMA, SCHEMA_WITH_IMAGES
from prospect_hf.errors import DataError, UsageError
from prospect_hf.hub.front_matter import read_card
from prospect_hf.sessions import SOURCES

IMAGE = "image"
GROUP_BYTES = 100_000_000
# Counts of a split and source that the report states too: key of the report -> key of the label balance.
REPORTED = {"rows": "rows", "sessions": "sessions", "videos": "videos", "beyond_turns": "turns_beyond_frames"}


def check_listed_files(folder: Path, manifest: Manifest, findings: Findings) -> None:
    """Compare the files with the manifest, and their names with the layout."""
    listed = (*manifest.shards, *manifest.sample)
    for shard in listed:
        path = folder / shard.path
        if not path.is_file():
            findings.add("files", shard.path, note="the file is missing")
        elif path.stat().st_size != shard.bytes:
            findings.add("files", shard.path, note=f"it has {path.stat().st_size} bytes, {shard.bytes} are stated")
        elif file_hash(path) != shard.sha256:
            findings.add("files", shard.path, note="its content is not what the manifest states")
    for name, sha256 in manifest.files.items():
        if not (folder / name).is_file():
            findings.add("files", name, note="the file is missing")
        elif file_hash(folder / name) != sha256:
            findings.add("files", name, note="its content is not what the manifest states")
    named = {shard.path for shard in listed}
    for path in sorted(folder.rglob("*.parquet")):
        name = path.relative_to(folder).as_posix()
        if name not in named:
            findings.add("files", name, note="the manifest does not list it, but datasets would load it")
    groups: dict[tuple[str, str], list[Shard]] = defaultdict(list)
    for shard in manifest.shards:
        groups[shard.source, shard.split].append(shard)
    for shard in manifest.sample:
        groups[SAMPLE, shard.split].append(shard)
    for (source, split), shards in groups.items():
        for number, shard in enumerate(shards):
            expected = shard_path(source, split, number, len(shards))
            if shard.path != expected or split not in SPLITS or source not in (*SOURCES, SAMPLE):
                findings.add("file_names", shard.path, note=f"{source}, {split} should have {expected}")


def check_card(folder: Path, manifest: Manifest, findings: Findings) -> None:
    """Compare the configurations in the card's front matter, which ``datasets`` loads, with those of the manifest."""
    try:
        configs = read_card(folder / CARD_FILE)[0].get("configs")
    except (OSError, DataError) as error:
        findings.add("card", CARD_FILE, note=" ".join(str(error).split()).rstrip("."))
        return
    wanted = {
        name: [{"split": split, "path": path} for split, path in paths.items()]
        for name, paths in configurations(manifest)
    }
    configs = configs if isinstance(configs, list) else []
    found = {str(one.get("config_name")): one.get("data_files") for one in configs if isinstance(one, dict)}
    for name in [name for name, files in wanted.items() if files != found.get(name)]:
        findings.add("card", CARD_FILE, note=f"configuration {name} has not the files of the manifest")


def check_report(folder: Path, manifest: Manifest, findings: Findings) -> None:
    """Compare the counts of what was read with those of the rows."""
    try:
        splits = load_report(folder / REPORT_FILE)["splits"]
    except (UsageError, DataError) as error:
        findings.add("report", REPORT_FILE, note=str(error).rstrip("."))
        return
    for split, of_split in manifest.balance.items():
        for source, balance in of_split.items():
            try:
                stated = get_dict(get_dict(splits, split, REPORT_FILE), source, f"{REPORT_FILE}: {split}")
            except DataError as error:
                findings.add("report", REPORT_FILE, note=str(error).rstrip("."))
                continue
            for key in [key for key, name in REPORTED.items() if stated.get(key) != balance.get(name)]:
                wanted = balance.get(REPORTED[key])
                note = f"{split}, {source}: {key} is {stated.get(key)}, the manifest states {wanted}"
                findings.add("report", REPORT_FILE, note=note)


def stated_frames(folder: Path, manifest: Manifest, findings: Findings) -> dict[str, int]:
    """The number of frames of each video in ``frames.json``, where the dataset has one."""
    if FRAMES_FILE not in manifest.files or not (folder / FRAMES_FILE).is_file():
        return {}
    try:
        return {name: video.frames for name, video in load_fingerprints(folder / FRAMES_FILE).items()}
    except (UsageError, DataError) as error:
        findings.add("files", FRAMES_FILE, note=str(error).rstrip("."))
        return {}


def check_parquet(path: Path, shard: Shard, findings: Findings) -> bool:
    """Check a file's schema and layout; whether its rows can be checked.

    Raises:
        pyarrow.ArrowException, OSError: it cannot be read.
    """
    with pq.ParquetFile(path) as file:
        schema, metadata = file.schema_arrow, file.metadata
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.total_byte_size >= GROUP_BYTES:
            note = f"row group {number} has {group.total_byte_size / 1e6:.0f} MB"
            findings.add("parquet_layout", shard.path, note=note)
        columns = [group.column(column) for column in range(group.num_columns)]
        bare = [column.path_in_schema for column in columns if group.num_rows and not column.has_offset_index]
        if bare:
            note = f"row group {number} has no page index for {len(bare)} columns, among them {bare[0]}"
            findings.add("parquet_layout", shard.path, note=note)
        for column in columns:
            if column.path_in_schema == f"{IMAGE}.bytes" and column.statistics and column.statistics.null_count:
                count = column.statistics.null_count
                findings.add("pictures", shard.path, count, note=f"{count} rows without one in row group {number}")
    if metadata.num_rows != shard.rows:
        note = f"it has {metadata.num_rows} rows, the manifest states {shard.rows}"
        findings.add("row_counts", shard.path, note=note)
    fault = schema_fault(schema)
    if fault:
        findings.add("schema", shard.path, note=fault)
    return not fault


def schema_fault(schema: pa.Schema) -> str:
    """What differs from the schema of ``dst_frames``, with or without a column of pictures; "" where nothing does."""
    pictures = IMAGE in schema.names
    wanted = {field.name: field.type for field in (SCHEMA_WITH_IMAGES if pictures else SCHEMA)}
    found = {field.name: field.type for field in schema}
    missing, unknown = [name for name in wanted if name not in found], [name for name in found if name not in wanted]
    if missing or unknown or len(schema.names) != len(found):
        return f"columns missing: {', '.join(missing) or 'none'}; unknown or twice: {', '.join(unknown) or 'none'}"
    for name, kind in wanted.items():
        if found[name] != kind:
            return f"column {name} is {found[name]}, not {kind}"
    if schema.names != list(wanted):
        return "the columns are in another order"
    try:
        declared = datasets.Features.from_arrow_schema(schema)
    except Exception as error:  # the library trips over whatever the file's own text about its types may hold
        return f"the types that the file declares for datasets cannot be read ({' '.join(str(error).split())})"
    if declared != (FEATURES_WITH_IMAGES if pictures else FEATURES):
        return "the types that the file declares for datasets are not those of its columns"
    return ""
