"""Damaged datasets: an inspection finds what is broken or says in one sentence why there is no dataset."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_fixtures import EGO4D, SAMPLE_FILE, WTAG, WTAG_TEST, make_sessions, restate, write_dataset
from fuzzing import Target, assert_no_fault, survey
from model_fixtures import small_processor
from mutations import ODD_TEXTS, damage_file, files_in, odd_value, write_files

from prospect_hf.dataset.inspection.findings import PROMISES
from prospect_hf.dataset.inspection.inspect import Inspection, inspect_dataset
from prospect_hf.dataset.inspection.page import text_report, write_figures, write_page
from prospect_hf.dataset.inspection.pictures import timeline_picture
from prospect_hf.dataset.row_maker import SCHEMA

SHARDS = (WTAG, WTAG_TEST, EGO4D, SAMPLE_FILE)


def good_files(folder: Path) -> dict[str, bytes]:
    write_dataset(folder, make_sessions())
    return files_in(folder)


def show(dataset: Path, output: Path) -> Inspection:
    """Inspect a dataset and make all that the command writes."""
    found = inspect_dataset(dataset, processor=PROCESSOR, progress=False)
    assert {one.promise for one in found.broken} <= set(PROMISES)
    text_report(found).encode()
    write_page(output / "page.html", found)
    write_figures(output / "figures.json", found)
    for session in found.shown:
        timeline_picture(session)
    return found


PROCESSOR = small_processor()


def odd_cell(kind: pa.DataType, rng: random.Random) -> Any:
    """A value of a column's type that its reader may not have thought of."""
    if rng.random() < 0.1:
        return None
    if pa.types.is_string(kind):
        return rng.choice([text for text in ODD_TEXTS if "\ud800" not in text])
    if pa.types.is_floating(kind):
        return rng.choice([0.0, -1.0, 1e30, -1e30, 1e-30, float("nan"), float("inf"), 29.97])
    if pa.types.is_integer(kind):
        bits = kind.bit_width - 1
        return rng.choice([0, 1, 2, 3, -1, -100, 2**bits - 1, -(2**bits)])
    if pa.types.is_struct(kind):
        return {field.name: odd_cell(field.type, rng) for field in kind}
    return [odd_cell(kind.value_type, rng) for _ in range(rng.choice([0, 1, 3, 3, 3, 40]))]


def odd_rows(good: dict[str, bytes]) -> Target:
    """Cells, columns of a session and whole rows are odd, and the manifest states what is there."""

    def target(rng: random.Random, folder: Path) -> None:
        dataset = folder / "dst_frames"
        write_files(dataset, good)
        path = dataset / rng.choice(SHARDS)
        rows = pq.read_table(path).to_pylist()
        for _ in range(rng.choice([1, 1, 2, 5])):
            field, at = rng.choice(list(SCHEMA)), rng.randrange(len(rows))
            value, many = odd_cell(field.type, rng), rng.random() < 0.4
            for row in [one for one in rows if one["session_id"] == rows[at]["session_id"]] if many else [rows[at]]:
                row[field.name] = value
        how = rng.random()
        if how < 0.1:
            rng.shuffle(rows)
        elif how < 0.15:
            rows = []
        elif how < 0.25:
            rows = rows[: rng.randrange(1, len(rows))]
        options = {"row_group_size": rng.choice([1, 7, 1000]), "use_dictionary": rng.random() < 0.8}
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, **options)
        restate(dataset)
        show(dataset, folder)

    return target


def damaged_files(good: dict[str, bytes]) -> Target:
    def target(rng: random.Random, folder: Path) -> None:
        dataset = folder / "dst_frames"
        write_files(dataset, good)
        for name in rng.sample(sorted(good), rng.choice([1, 1, 3])):
            damage_file(dataset / name, rng)
        if rng.random() < 0.2:
            path = dataset / "manifest.json"
            facts = json.loads(good["manifest.json"])
            facts["settings"] = {str(odd_value(rng)): odd_value(rng)}
            path.write_text(json.dumps(facts))
        show(dataset, folder)

    return target


TARGETS: dict[str, tuple[Callable[[dict[str, bytes]], Target], int]] = {
    "rows of a dataset": (odd_rows, 20),
    "files of a dataset": (damaged_files, 30),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_datasets(name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    make, inputs = TARGETS[name]
    assert_no_fault(survey(name, make(good_files(tmp_path_factory.mktemp("good") / "dst_frames")), inputs, tmp_path))
