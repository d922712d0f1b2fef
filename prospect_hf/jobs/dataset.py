"""Dataset: frame rows of a corpus as Parquet files with a card, ready to be loaded and published."""

from __future__ import annotations

from pathlib import Path

from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.inputs import ready_corpus, rows_config
from prospect_hf.dataset.arguments import DatasetArguments
from prospect_hf.dataset.build import build_rows
from prospect_hf.dataset.layout import Manifest
from prospect_hf.errors import UsageError
from prospect_hf.tables import table
from prospect_hf.terminal import say


def run(dataset: DatasetArguments, data: DataArguments) -> None:
    """Build what is missing, and print what the dataset holds and how it is loaded.

    Raises:
        UsageError: a setting or folder is wrong, or there is nothing to read.
        DataError: a record is invalid, or a picture is missing.
    """
    if len(data.forms) != 1:
        raise UsageError(f"data.forms={data.forms}: a dataset has the rows of one form, such as data.forms=[dialogs].")
    ready_corpus(data)
    manifest = build_rows(
        rows_config(data, data.forms[0]),
        Path(dataset.output_dir),
        processes=dataset.processes,
        images=dataset.images,
        shard_rows=dataset.shard_rows,
        sample=dataset.sample,
    )
    say(table(_counts(manifest)))
    split = next(iter(manifest.balance))
    say(f'\nLoad it with datasets.load_dataset("{dataset.output_dir}", "all", split="{split}").')


def _counts(manifest: Manifest) -> list[list[str]]:
    """A row for each source and split."""
    rows = [["source, split", "sessions", "rows", "speaks", "changes", "files", "MB"]]
    for split, of_split in manifest.balance.items():
        for source, balance in of_split.items():
            shards = manifest.of_split(split, source)
            counts = [balance[key] for key in ("sessions", "rows", "speaking_1", "dst_update_1")]
            size = sum(shard.bytes for shard in shards) / 1e6
            rows.append([f"{source}, {split}", *(f"{count:,}" for count in [*counts, len(shards)]), f"{size:.2f}"])
    return rows
