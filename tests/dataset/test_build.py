"""The published layout: its rows, counts and files, and what cannot be built."""

from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from built_fixtures import built_in, config, hashes, shown

from prospect_hf.checked_json import load_json
from prospect_hf.dataset.balance import balance_by_source
from prospect_hf.dataset.build import build_rows
from prospect_hf.dataset.dst_frames import DstFrames
from prospect_hf.dataset.layout import Manifest, Shard, check_files, load_manifest
from prospect_hf.dataset.report import load_report
from prospect_hf.dataset.row_maker import FEATURES, SCHEMA
from prospect_hf.dataset.shards import GROUP_BYTES, row_groups, write_tables
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import sole_writer
from prospect_hf.sources.proassist import read_sessions

# Loading


def test_load_dataset_gives_the_rows_of_the_builder(
    built: tuple[Path, Manifest], small_corpus: Path, tmp_path: Path
) -> None:
    folder, manifest = built
    builder = DstFrames(config_name="all", root=str(small_corpus), dst="files", cache_dir=str(tmp_path / "builder"))
    builder.download_and_prepare()
    expected = builder.as_dataset()
    rows = datasets.load_dataset(str(folder), "all", cache_dir=str(tmp_path))
    assert set(rows) == set(expected) == {"train", "validation", "test"}
    for split in rows:
        assert rows[split].features == FEATURES
        assert list(rows[split]) == list(expected[split])
        assert balance_by_source(expected[split]) == manifest.balance[split]
    assert load_report(folder / "report.json") == builder.report
    assert load_manifest(folder) == manifest
    check_files(folder, manifest)


def test_every_configuration_loads_streamed_and_in_part(built: tuple[Path, Manifest], tmp_path: Path) -> None:
    folder, manifest = built
    names = ["ego4d", "wtag", "all", "sample"]
    assert datasets.get_dataset_config_names(str(folder)) == names
    everything = datasets.load_dataset(str(folder), "all", cache_dir=str(tmp_path))
    for name in names:
        for split, rows in datasets.load_dataset(str(folder), name, cache_dir=str(tmp_path)).items():
            shards = manifest.sample if name == "sample" else manifest.of_split(split, None if name == "all" else name)
            assert len(rows) == sum(shard.rows for shard in shards if shard.split == split)
            streamed = datasets.load_dataset(str(folder), name, split=split, streaming=True)
            assert streamed.features == FEATURES and list(streamed) == list(rows)
            if name in ("ego4d", "wtag"):
                assert list(rows) == [row for row in everything[split] if row["source"] == name]
    some = datasets.load_dataset(
        str(folder), "wtag", split="test", columns=["frame_index", "speaking"], cache_dir=str(tmp_path)
    )
    assert some.column_names == ["frame_index", "speaking"]
    assert list(some) == [
        {"frame_index": row["frame_index"], "speaking": row["speaking"]}
        for row in everything["test"]
        if row["source"] == "wtag"
    ]


def test_the_sample_has_a_session_of_each_source_and_split(built: tuple[Path, Manifest], small_corpus: Path) -> None:
    folder, manifest = built
    assert {shard.split: shard.sessions for shard in manifest.sample} == {"train": 2, "validation": 2, "test": 2}
    table = pq.read_table(folder / manifest.sample[0].path)
    firsts = [read_sessions(small_corpus, source, "train", dst="files").sessions[0] for source in ("ego4d", "wtag")]
    assert table.column("session_id").unique().to_pylist() == [session.session_id for session in firsts]
    assert len(table) == sum(session.num_frames for session in firsts)


# Files


def test_sessions_are_whole_and_in_order(built: tuple[Path, Manifest], small_corpus: Path) -> None:
    folder, manifest = built
    assert {shard.path.split("/")[1] for shard in manifest.shards} == {"ego4d", "wtag"}
    several = 0
    for source in ("ego4d", "wtag"):
        shards = manifest.of_split("train", source)
        several += len(shards) > 1
        tables = [pq.read_table(folder / shard.path) for shard in shards]
        sessions = read_sessions(small_corpus, source, "train", dst="files").sessions
        found = [one for table in tables for one in table.column("session_id").unique().to_pylist()]
        assert found == [session.session_id for session in sessions]
        assert [len(table) for table in tables] == [shard.rows for shard in shards]
        assert all(shard.rows <= 150 or shard.sessions == 1 for shard in shards)
        for number, shard in enumerate(shards):
            assert shard.path == f"data/{source}/train-{number:05d}-of-{len(shards):05d}.parquet"
            assert shard.bytes == (folder / shard.path).stat().st_size
    assert several


def test_the_viewer_can_open_every_file(built: tuple[Path, Manifest]) -> None:
    folder, manifest = built
    for shard in (*manifest.shards, *manifest.sample):
        file = pq.ParquetFile(folder / shard.path)
        assert file.schema_arrow.equals(SCHEMA) and file.schema_arrow.metadata[b"huggingface"]
        assert b"min_chunk_size" in file.metadata.metadata[b"content_defined_chunking"]
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            assert group.total_byte_size < 100_000_000
            for index in range(group.num_columns):
                column = group.column(index)
                assert column.has_offset_index and column.has_column_index and column.is_stats_set


def test_a_new_version_of_a_file_shares_its_bytes_with_the_old_one(tmp_path: Path) -> None:
    """A row more at the beginning moves all others; pages that end by their content stay the same behind it."""
    letters = np.random.default_rng(0).integers(97, 123, (30_000, 100), np.uint8)
    texts = [bytes(row).decode() for row in letters]
    files = []
    for number, rows in enumerate((texts, ["one more", *texts])):
        shard = Shard(f"{number}.parquet", "wtag", "train", len(rows), 1, 0, "")
        zeros = np.zeros(len(rows), np.int8)
        states = pa.array([[0]] * len(rows), pa.list_(pa.int8()))
        table = pa.table({"speaking": zeros, "dst_update": zeros, "states_after": states, "text": rows})
        write_tables(tmp_path, shard, [table], table.schema)
        files.append((tmp_path / shard.path).read_bytes())
    places = range(len(files[0]) // 2, len(files[0]) - 100_000, 50_000)
    shared = [files[0][place : place + 200] in files[1] for place in places]
    assert len(shared) > 10 and sum(shared) > 0.9 * len(shared)


def test_row_groups_are_cut_by_bytes_and_by_rows() -> None:
    def texts(rows: int, size: int) -> pa.Table:
        return pa.table({"text": ["x" * size] * rows})

    tables = [texts(3, GROUP_BYTES // 4), texts(1, 10), texts(9, GROUP_BYTES // 4), texts(150_000, 1)]
    groups = list(row_groups(tables))
    assert pa.concat_tables(groups).equals(pa.concat_tables(tables))
    assert max(group.nbytes for group in groups) < 1.1 * GROUP_BYTES < 100_000_000
    assert max(map(len, groups)) == 100_000


def test_equal_inputs_give_equal_bytes_in_any_number_of_processes(
    built: tuple[Path, Manifest], small_corpus: Path, tmp_path: Path
) -> None:
    folder, manifest = built
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "corpus"
    shutil.copytree(small_corpus, moved)
    assert built_in(tmp_path / "rows", moved, processes=2) == manifest
    assert hashes(tmp_path / "rows") == hashes(folder)


# What cannot be built


def test_other_files_are_not_overwritten(small_corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "rows/data/wtag/train-00000-of-00001.parquet"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"train-00000-of-00001\.parquet belongs to a dataset"):
        built_in(tmp_path / "rows", small_corpus)
    assert other.read_bytes() == b"mine"
    assert set(hashes(tmp_path / "rows")) == {other.relative_to(tmp_path / "rows").as_posix()}


def test_two_builds_in_one_folder_are_refused(small_corpus: Path, tmp_path: Path) -> None:
    with sole_writer(tmp_path / "rows"), pytest.raises(UsageError, match="another run is writing"):
        built_in(tmp_path / "rows", small_corpus)


def test_a_manifest_leads_to_no_file_outside_of_its_folder(built: tuple[Path, Manifest], tmp_path: Path) -> None:
    text = (built[0] / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(text.replace("data/wtag/test", "../wtag/test"))
    with pytest.raises(DataError, match=r"shards\[\d+\]\.path is '\.\.'"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"processes": 0}, "processes=0"), ({"shard_rows": 0}, "shard_rows=0"), ({"sample": -1}, "sample=-1")],
)
def test_bad_settings_are_named(settings: dict[str, int], told: str, small_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told):
        built_in(tmp_path / "rows", small_corpus, **settings)
    assert not (tmp_path / "rows").exists()


@pytest.fixture()
def own_corpus(small_corpus: Path, tmp_path: Path) -> Path:
    """A copy of the corpus, to be changed."""
    return Path(shutil.copytree(small_corpus, tmp_path / "corpus"))


def test_a_bad_record_ends_the_build_and_shows_nothing(own_corpus: Path, tmp_path: Path) -> None:
    path = own_corpus / "processed_data/wtag/generated_dialogs/test_filtered.json"
    path.write_text(path.read_text().replace('"inferred_goal"', '"goal"'))
    with pytest.raises(DataError, match=r"test_filtered\.json: record 0.*inferred_goal"):
        built_in(tmp_path / "rows", own_corpus)
    assert shown(tmp_path / "rows") == set()


def test_a_recording_in_two_splits_ends_the_build(own_corpus: Path, tmp_path: Path) -> None:
    dialogs = own_corpus / "processed_data/wtag/generated_dialogs"
    (dialogs / "test_filtered.json").write_bytes((dialogs / "val_filtered.json").read_bytes())
    with pytest.raises(DataError, match=r"is in split validation, but .* has it in split test"):
        built_in(tmp_path / "rows", own_corpus)
    assert shown(tmp_path / "rows") == set()


def test_what_is_published_names_no_folder_of_the_machine(own_corpus: Path, tmp_path: Path) -> None:
    path = own_corpus / "processed_data/wtag/generated_dialogs/train_filtered.json"
    path.write_text(path.read_text().replace('"inferred_goal"', '"goal"', 1))
    build_rows(config(own_corpus, on_error="skip"), tmp_path / "rows", sample=0)
    report = load_report(tmp_path / "rows/report.json")["splits"]["train"]["wtag"]
    assert [record["origin"] for record in report["skipped"]] == [
        "processed_data/wtag/generated_dialogs/train_filtered.json: record 0"
    ]
    for name in ("README.md", "manifest.json", "report.json"):
        assert str(tmp_path) not in (tmp_path / "rows" / name).read_text()
    assert load_json(tmp_path / "rows/manifest.json")["sample"] == []
