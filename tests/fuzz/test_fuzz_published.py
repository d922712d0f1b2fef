"""Published datasets of others: joined with frames and exported, or refused in one sentence."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from film_fixtures import film, write_film
from fuzzing import Target, assert_no_fault, survey
from mutations import damage_file, damaged_json, files_in, odd_value, write_files
from published_fixtures import publish, small_session
from test_fuzz_inspection import odd_cell

from prospect_hf.content_hash import file_hash
from prospect_hf.dataset.frame_fingerprints import write_fingerprints
from prospect_hf.dataset.join import join_frames
from prospect_hf.dataset.layout import FRAMES_FILE, load_manifest, write_manifest
from prospect_hf.dataset.lerobot import export_lerobot
from prospect_hf.dataset.row_maker import SCHEMA


def good_files(folder: Path) -> dict[str, bytes]:
    """A dataset of two videos in ``rows``, and their frames."""
    sessions = {("wtag", "train"): [small_session(uid="v1")], ("ego4d", "test"): [small_session("ego4d", "v2")]}
    manifest, _ = publish(folder / "rows", sessions)
    write_film(folder / "wtag/frames/v1.arrow", film(0))
    write_film(folder / "ego4d/frames/v2.arrow", film(1))
    write_fingerprints(folder / "rows", manifest.shards, folder)
    restate(folder / "rows")
    return files_in(folder)


def restate(rows: Path) -> None:
    """State the files that are there in the manifest."""
    manifest = load_manifest(rows)
    shards = tuple(replace(shard, sha256=file_hash(rows / shard.path)) for shard in manifest.shards)
    write_manifest(
        rows,
        replace(
            manifest,
            shards=shards,
            files={
                FRAMES_FILE: file_hash(rows / FRAMES_FILE),
                **{name: file_hash(rows / name) for name in manifest.files},
            },
        ),
    )


def use(folder: Path, rng: random.Random) -> None:
    if rng.random() < 0.5:
        export_lerobot(folder / "rows", folder / "export", progress=False)
    else:
        on_error: Any = rng.choice(["raise", "skip"])
        join_frames(folder / "rows", folder, folder / "joined", on_error=on_error, progress=False)


def odd_rows(good: dict[str, bytes]) -> Target:
    """Cells and columns are odd, and the manifest states what is there."""

    def target(rng: random.Random, folder: Path) -> None:
        write_files(folder, good)
        path = rng.choice(sorted((folder / "rows").rglob("*.parquet")))
        rows = pq.read_table(path).to_pylist()
        field, value = rng.choice(list(SCHEMA)), None
        for row in rows if rng.random() < 0.5 else [rng.choice(rows)]:
            value = odd_cell(field.type, rng) if value is None or rng.random() < 0.2 else value
            row[field.name] = value
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=rng.choice([1, 7, 1000]))
        restate(folder / "rows")
        use(folder, rng)

    return target


def odd_fingerprints(good: dict[str, bytes]) -> Target:
    def target(rng: random.Random, folder: Path) -> None:
        write_files(folder, good)
        path = folder / "rows" / FRAMES_FILE
        path.write_bytes(damaged_json(json.loads(path.read_bytes()), rng))
        restate(folder / "rows")
        join_frames(folder / "rows", folder, folder / "joined", progress=False)

    return target


def damaged_files(good: dict[str, bytes]) -> Target:
    """Any file of the dataset and of the frames is damaged; or the manifest has odd settings."""

    def target(rng: random.Random, folder: Path) -> None:
        write_files(folder, good)
        damage_file(folder / rng.choice(sorted(good)), rng)
        if rng.random() < 0.2:
            path = folder / "rows/manifest.json"
            facts = json.loads(good["rows/manifest.json"])
            facts["settings"] |= {rng.choice(["images", "form", "dst", "simulated"]): odd_value(rng)}
            path.write_text(json.dumps(facts))
        use(folder, rng)

    return target


TARGETS: dict[str, tuple[Callable[[dict[str, bytes]], Target], int]] = {
    "rows to join and export": (odd_rows, 25),
    "fingerprints of frames": (odd_fingerprints, 25),
    "files to join and export": (damaged_files, 25),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_datasets_of_others(name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    make, inputs = TARGETS[name]
    assert_no_fault(survey(name, make(good_files(tmp_path_factory.mktemp("good"))), inputs, tmp_path))
