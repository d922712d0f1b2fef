"""Damage to the files of a dataset, and the promise that each breaks."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from dataset_fixtures import (
    WTAG,
    replace_table,
    restate,
)
from PIL import Image

from prospect_hf.content_hash import file_hash
from prospect_hf.dataset.layout import load_manifest, write_manifest
from prospect_hf.dataset.row_maker import FEATURES, SCHEMA


def table_of(dataset: Path) -> pa.Table:
    return pq.read_table(dataset / WTAG)


def edit_manifest(dataset: Path, **fields: Any) -> None:
    write_manifest(dataset, dataclasses.replace(load_manifest(dataset), **fields))


def edit_shard(dataset: Path, **fields: Any) -> None:
    shards = load_manifest(dataset).shards
    number = next(n for n, shard in enumerate(shards) if shard.path == WTAG)
    changed = dataclasses.replace(shards[number], **fields)
    edit_manifest(dataset, shards=(*shards[:number], changed, *shards[number + 1 :]))


def flip_a_byte(dataset: Path) -> None:
    content = bytearray((dataset / WTAG).read_bytes())
    content[-20] ^= 1  # in the footer's text: the rows stay readable or not, the content is another one
    (dataset / WTAG).write_bytes(content)


def garbage(dataset: Path) -> None:
    (dataset / WTAG).write_bytes(b"no Parquet at all")
    restate(dataset)


def pages_without_content(dataset: Path) -> None:
    content = bytearray((dataset / WTAG).read_bytes())
    content[4:200] = bytes(196)
    (dataset / WTAG).write_bytes(content)
    edit_shard(dataset, sha256=file_hash(dataset / WTAG))


def with_pictures(table: pa.Table) -> pa.Table:
    pictures = pa.array([{"bytes": jpeg((n, 9, 9)), "path": None} for n in range(len(table))], datasets.Image().pa_type)
    return table.append_column("image", pictures)


def jpeg(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def declared(table: pa.Table) -> pa.Table:
    features = datasets.Features({**FEATURES, "image": datasets.Image()})
    return table.replace_schema_metadata(features.arrow_schema.metadata)


def a_row_without_a_picture(dataset: Path) -> None:
    table = declared(with_pictures(table_of(dataset)))
    pictures = [*table["image"].to_pylist()[:-1], None]
    column = table.column_names.index("image")
    changed = table.set_column(column, "image", pa.array(pictures, table["image"].type))
    replace_table(dataset, WTAG, changed.replace_schema_metadata(table.schema.metadata))


def pictures_that_are_not_declared(dataset: Path) -> None:
    replace_table(dataset, WTAG, with_pictures(table_of(dataset)).replace_schema_metadata(None))


def unreadable_features(dataset: Path) -> None:
    replace_table(dataset, WTAG, table_of(dataset).replace_schema_metadata({"huggingface": '{"info": {"features": 7'}))


def other_balance(dataset: Path) -> None:
    balance = load_manifest(dataset).balance
    balance["train"]["wtag"]["states_completed"] += 1
    edit_manifest(dataset, balance=balance)


def unknown_place(dataset: Path) -> None:
    balance = load_manifest(dataset).balance
    balance["test"]["ego4d"] = dict(balance["test"]["wtag"])
    report = json.loads((dataset / "report.json").read_text())
    report["splits"]["test"]["ego4d"] = report["splits"]["test"]["wtag"]
    (dataset / "report.json").write_text(json.dumps(report))
    edit_manifest(dataset, balance=balance)


def rename(dataset: Path) -> None:
    name = WTAG.replace("of-00002", "of-00003")
    (dataset / WTAG).rename(dataset / name)
    edit_shard(dataset, path=name)


def unnamed_configuration(dataset: Path) -> None:
    card = dataset / "README.md"
    card.write_text(card.read_text().replace("data/wtag/train-*", "data/wtag/tra*"))


FILE_DAMAGE: list[tuple[str, Callable[[Path], Any], set[str]]] = [
    ("files", lambda d: (d / WTAG).unlink(), set()),
    ("files", lambda d: edit_shard(d, sha256="0" * 64), set()),
    ("files", lambda d: edit_shard(d, bytes=7), set()),
    ("files", flip_a_byte, {"readable"}),
    ("files", lambda d: shutil.copy(d / WTAG, d / "data/wtag/train-00009-of-00009.parquet"), set()),
    ("files", lambda d: (d / WTAG).write_bytes(b""), {"readable"}),
    ("file_names", rename, set()),
    ("file_names", lambda d: edit_shard(d, split="dev"), {"label_balance", "recording_in_one_split", "card"}),
    ("card", lambda d: (d / "README.md").unlink(), set()),
    ("card", lambda d: (d / "README.md").write_text("# No front matter\n"), set()),
    ("card", lambda d: (d / "README.md").write_text("---\nconfigs: 7\n---\n"), set()),
    ("card", unnamed_configuration, set()),
    ("report", lambda d: (d / "report.json").unlink(), set()),
    ("report", lambda d: (d / "report.json").write_text("[]"), set()),
    ("report", lambda d: (d / "report.json").write_text('{"splits": {"train": 5}}'), set()),
    ("readable", garbage, set()),
    ("readable", pages_without_content, set()),
    ("schema", lambda d: replace_table(d, WTAG, table_of(d).drop_columns(["mistake"])), set()),
    ("schema", lambda d: replace_table(d, WTAG, table_of(d).append_column("x", pa.nulls(80))), set()),
    ("schema", lambda d: replace_table(d, WTAG, table_of(d).select(SCHEMA.names[::-1])), set()),
    ("schema", lambda d: replace_table(d, WTAG, table_of(d).set_column(12, "speaking", pa.array([0] * 80))), set()),
    ("schema", unreadable_features, set()),
    ("schema", pictures_that_are_not_declared, set()),
    ("parquet_layout", lambda d: replace_table(d, WTAG, table_of(d), write_page_index=False), set()),
    ("pictures", a_row_without_a_picture, set()),
    ("row_counts", lambda d: edit_shard(d, rows=81), set()),
    ("row_counts", lambda d: edit_shard(d, sessions=3), set()),
    ("label_balance", other_balance, set()),
    ("label_balance", unknown_place, set()),
    ("license", lambda d: edit_manifest(d, licenses={"wtag": "Apache-2.0", "ego4d": "MIT"}), set()),
]  # fmt: skip
