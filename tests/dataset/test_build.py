"""The published layout: its rows, counts and files, and how a build goes on after it was stopped."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prospect_hf.checked_json import load_json
from prospect_hf.dataset import build, build_state
from prospect_hf.dataset.balance import balance_by_source
from prospect_hf.dataset.build import build_rows
from prospect_hf.dataset.dst_frames import DstFrames
from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.dataset.layout import Manifest, check_files, load_manifest
from prospect_hf.dataset.report import load_report
from prospect_hf.dataset.row_maker import FEATURES, SCHEMA
from prospect_hf.dataset.shards import GROUP_BYTES, row_groups
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import sole_writer
from prospect_hf.simulator.corpus import write_corpus
from prospect_hf.simulator.scene import SceneConfig
from prospect_hf.sources.proassist import read_sessions

RECORDINGS = {"train": 4, "val": 1, "test": 1}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root, ["wtag", "ego4d"], RECORDINGS, 0, SceneConfig(steps=(2, 3)), progress=False)
    return root


def config(corpus: Path, **settings: Any) -> DstFramesConfig:
    return DstFramesConfig(**{"name": "all", "root": str(corpus), "dst": "files", **settings})


def built_in(folder: Path, corpus: Path, **settings: Any) -> Manifest:
    return build_rows(config(corpus), folder, **{"shard_rows": 150, "sample": 1, "progress": False, **settings})


@pytest.fixture(scope="module")
def built(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("built") / "rows"
    return folder, built_in(folder, corpus)


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# Loading


def test_load_dataset_gives_the_rows_of_the_builder(built: tuple[Path, Manifest], corpus: Path, tmp_path: Path) -> None:
    folder, manifest = built
    builder = DstFrames(config_name="all", root=str(corpus), dst="files", cache_dir=str(tmp_path / "builder"))
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


def test_the_sample_has_a_session_of_each_source_and_split(built: tuple[Path, Manifest], corpus: Path) -> None:
    folder, manifest = built
    assert {shard.split: shard.sessions for shard in manifest.sample} == {"train": 2, "validation": 2, "test": 2}
    table = pq.read_table(folder / manifest.sample[0].path)
    firsts = [read_sessions(corpus, source, "train", dst="files").sessions[0] for source in ("ego4d", "wtag")]
    assert table.column("session_id").unique().to_pylist() == [session.session_id for session in firsts]
    assert len(table) == sum(session.num_frames for session in firsts)


# Files


def test_sessions_are_whole_and_in_order(built: tuple[Path, Manifest], corpus: Path) -> None:
    folder, manifest = built
    assert {shard.path.split("/")[1] for shard in manifest.shards} == {"ego4d", "wtag"}
    several = 0
    for source in ("ego4d", "wtag"):
        shards = manifest.of_split("train", source)
        several += len(shards) > 1
        tables = [pq.read_table(folder / shard.path) for shard in shards]
        sessions = read_sessions(corpus, source, "train", dst="files").sessions
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


def test_row_groups_are_cut_by_bytes_and_by_rows() -> None:
    def texts(rows: int, size: int) -> pa.Table:
        return pa.table({"text": ["x" * size] * rows})

    tables = [texts(3, GROUP_BYTES // 4), texts(1, 10), texts(9, GROUP_BYTES // 4), texts(150_000, 1)]
    groups = list(row_groups(tables))
    assert pa.concat_tables(groups).equals(pa.concat_tables(tables))
    assert max(group.nbytes for group in groups) < 1.1 * GROUP_BYTES < 100_000_000
    assert max(map(len, groups)) == 100_000


def test_equal_inputs_give_equal_bytes_in_any_number_of_processes(
    built: tuple[Path, Manifest], corpus: Path, tmp_path: Path
) -> None:
    folder, manifest = built
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "corpus"
    shutil.copytree(corpus, moved)
    assert built_in(tmp_path / "rows", moved, processes=2) == manifest
    assert hashes(tmp_path / "rows") == hashes(folder)


# Going on


class Stopped(Exception):
    """Takes the place of a power cut."""


def stop_after(monkeypatch: pytest.MonkeyPatch, shards: int) -> list[str]:
    """Stop a build when it has finished ``shards`` files; the list gets the paths that are written from now on."""
    written: list[str] = []
    write = build_state.write_shard

    def counted(planned: Any, *given: Any) -> Any:
        if len(written) == shards:
            raise Stopped
        done = write(planned, *given)
        written.append(planned.path)
        return done

    monkeypatch.setattr(build_state, "write_shard", counted)
    return written


def shown(folder: Path) -> set[str]:
    """The files that a loader sees."""
    return {name for name in hashes(folder) if not name.startswith(".")}


def test_a_stopped_build_shows_nothing_and_goes_on(
    built: tuple[Path, Manifest], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, manifest = built
    with monkeypatch.context() as patch:
        first = stop_after(patch, 3)
        with pytest.raises(Stopped):
            built_in(tmp_path / "rows", corpus)
    assert shown(tmp_path / "rows") == set()
    with pytest.raises(UsageError, match="no finished dataset"):
        load_manifest(tmp_path / "rows")
    with monkeypatch.context() as patch:
        second = stop_after(patch, 1000)
        assert built_in(tmp_path / "rows", corpus) == manifest
    assert len(first) == 3 and not set(first) & set(second)
    assert len(first) + len(second) == len(manifest.shards) + len(manifest.sample)
    assert hashes(tmp_path / "rows") == hashes(folder)


def test_a_killed_build_goes_on(built: tuple[Path, Manifest], corpus: Path, repository: Path, tmp_path: Path) -> None:
    folder, _ = built
    script = (
        "import os, pyarrow.parquet as pq, sys\nfrom pathlib import Path\n"
        "from prospect_hf.dataset.build import build_rows\n"
        "from prospect_hf.dataset.input_files import DstFramesConfig\n"
        "write, calls = pq.ParquetWriter.write_table, []\n"
        "def killed(self, *given, **named):\n    write(self, *given, **named)\n    calls.append(1)\n"
        "    if len(calls) == 3:\n        os.kill(os.getpid(), 9)\n"
        "pq.ParquetWriter.write_table = killed\n"
        f"config = DstFramesConfig(name='all', root={str(corpus)!r}, dst='files')\n"
        f"build_rows(config, Path({str(tmp_path / 'rows')!r}), shard_rows=150, sample=1)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, timeout=120)
    assert done.returncode == -9
    assert shown(tmp_path / "rows") == set()
    left = [name for name in hashes(tmp_path / "rows") if name.endswith((".parquet", ".partial"))]
    assert sum(name.endswith(".parquet") for name in left) == 2 and len(left) == 3
    built_in(tmp_path / "rows", corpus)
    assert hashes(tmp_path / "rows") == hashes(folder)


@pytest.mark.parametrize("step", ["place", "write_json", "write_fingerprints", "write_card", "write_manifest", "close"])
def test_a_build_that_stops_at_its_end_goes_on(
    step: str, built: tuple[Path, Manifest], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: Any) -> None:
        if step == "place":  # after the first file
            state, shards = given
            place(state, shards[:1])
        raise Stopped

    place = build_state.BuildState.place
    with monkeypatch.context() as patch:
        patch.setattr(build_state.BuildState if step in ("place", "close") else build, step, stopped)
        with pytest.raises(Stopped):
            built_in(tmp_path / "rows", corpus)
    if step == "close":
        assert load_manifest(tmp_path / "rows") == built[1]
    else:
        with pytest.raises(UsageError, match="no finished dataset"):
            load_manifest(tmp_path / "rows")
    with monkeypatch.context() as patch:
        written = stop_after(patch, 0)
        assert built_in(tmp_path / "rows", corpus) == built[1] and written == []
    assert hashes(tmp_path / "rows") == hashes(built[0])


@pytest.mark.parametrize("change", ["settings", "inputs", "code"])
def test_nothing_of_another_build_is_kept_or_shown(
    change: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, settings = tmp_path / "rows", {"shard_rows": 150}
    built_in(folder, corpus)
    before = shown(folder)
    if change == "settings":
        settings = {"shard_rows": 1000}
    elif change == "code":
        monkeypatch.setattr(build, "BUILD_CODE", (*build.BUILD_CODE, "errors.py"))
    else:
        root = tmp_path / "corpus"
        shutil.copytree(corpus, root)
        path = root / "processed_data/ego4d/generated_dialogs/train_filtered.json"
        path.write_text(path.read_text().replace("talk_some", "talk_more"))
        corpus = root
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stopped):
            built_in(folder, corpus, **settings)
    assert before and shown(folder) == set()
    with monkeypatch.context() as patch:
        written = stop_after(patch, 1000)
        manifest = built_in(folder, corpus, **settings)
    assert len(written) == len(manifest.shards) + len(manifest.sample) - 2
    check_files(folder, manifest)
    paths = {shard.path for shard in (*manifest.shards, *manifest.sample)}
    assert shown(folder) == paths | {"README.md", "manifest.json", "report.json", "frames.json"} == set(hashes(folder))
    fresh = tmp_path / "fresh"
    built_in(fresh, corpus, **settings)
    assert hashes(folder) == hashes(fresh)


def test_a_finished_dataset_is_built_once(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = built_in(tmp_path / "rows", corpus)
    before = hashes(tmp_path / "rows")
    written = stop_after(monkeypatch, 1000)
    assert built_in(tmp_path / "rows", corpus) == manifest and written == []
    for name, content in ((manifest.shards[1].path, None), ("report.json", b"{}"), ("README.md", None)):
        path = tmp_path / "rows" / name
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        assert built_in(tmp_path / "rows", corpus) == manifest
        assert hashes(tmp_path / "rows") == before


@pytest.mark.parametrize("damage", ["shard", "marker", "no marker", "other path"])
def test_a_shard_without_proof_is_written_again(
    damage: str, built: tuple[Path, Manifest], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        (first,) = [stop_after(patch, 1)]
        with pytest.raises(Stopped):
            built_in(tmp_path / "rows", corpus)
    shard = tmp_path / "rows" / ".build" / first[0]
    marker = shard.with_name(shard.name + ".json")
    if damage == "shard":
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif damage == "marker":
        marker.write_text(marker.read_text()[:-20])
    elif damage == "other path":
        marker.write_text(marker.read_text().replace(first[0], "../" + first[0]))
    else:
        marker.unlink()
    with monkeypatch.context() as patch:
        second = stop_after(patch, 1000)
        built_in(tmp_path / "rows", corpus)
    assert first[0] in second
    assert hashes(tmp_path / "rows") == hashes(built[0])


# A full disk


FULL_DISK = """
import subprocess, sys
from pathlib import Path
from prospect_hf.dataset.build import build_rows
from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.jobs.command import sentence
if __name__ == "__main__":
    corpus, small = sys.argv[1:]
    config = DstFramesConfig(name="all", root=corpus, dst="files")
    def build(processes):
        build_rows(config, Path(small) / "rows", shard_rows=150, sample=1, processes=processes, progress=False)
    try:
        build(2)
    except OSError as error:
        print(*sentence(error), sep="\\n")
    print(*[path for path in Path(small).rglob("*") if path.is_file()], sep="\\n")
    subprocess.run(["mount", "-o", "remount,size=10m", small], check=True)
    build(1)
"""


def test_a_full_disk_is_one_sentence_and_the_build_goes_on(
    built: tuple[Path, Manifest], corpus: Path, repository: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    (tmp_path / "full_disk.py").write_text(FULL_DISK)
    apart = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=100k tmpfs {small}"
    if shutil.which("unshare") is None or subprocess.run([*apart, mount], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small file system")
    build_twice = f"{sys.executable} {tmp_path}/full_disk.py {corpus} {small}"
    done = subprocess.run(
        [*apart, f"{mount} && {build_twice} && cp -r {small}/rows {tmp_path}"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    assert done.returncode == 0, done.stderr
    told, code, *left = done.stdout.splitlines()
    assert "no space is left on the disk" in told and ".parquet" in told and code == "1"
    below = [path.removeprefix(f"{small}/") for path in left]
    assert any(path.startswith("rows/.build/data/") for path in below)
    assert all(path.startswith("rows/.build/") or path == ".rows.lock" for path in below)
    assert not any(path.endswith(".partial") for path in below)
    assert hashes(tmp_path / "rows") == hashes(built[0])


# What cannot be built


def test_other_files_are_not_overwritten(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "rows/data/wtag/train-00000-of-00001.parquet"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"train-00000-of-00001\.parquet belongs to a dataset"):
        built_in(tmp_path / "rows", corpus)
    assert other.read_bytes() == b"mine"
    assert set(hashes(tmp_path / "rows")) == {other.relative_to(tmp_path / "rows").as_posix()}


def test_two_builds_in_one_folder_are_refused(corpus: Path, tmp_path: Path) -> None:
    with sole_writer(tmp_path / "rows"), pytest.raises(UsageError, match="another run is writing"):
        built_in(tmp_path / "rows", corpus)


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"processes": 0}, "processes=0"), ({"shard_rows": 0}, "shard_rows=0"), ({"sample": -1}, "sample=-1")],
)
def test_bad_settings_are_named(settings: dict[str, int], told: str, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told):
        built_in(tmp_path / "rows", corpus, **settings)
    assert not (tmp_path / "rows").exists()


def test_a_bad_record_ends_the_build_and_shows_nothing(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(corpus, root)
    path = root / "processed_data/wtag/generated_dialogs/test_filtered.json"
    path.write_text(path.read_text().replace('"inferred_goal"', '"goal"'))
    with pytest.raises(DataError, match=r"test_filtered\.json: record 0.*inferred_goal"):
        built_in(tmp_path / "rows", root)
    assert shown(tmp_path / "rows") == set()


def test_a_recording_in_two_splits_ends_the_build(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(corpus, root)
    dialogs = root / "processed_data/wtag/generated_dialogs"
    (dialogs / "test_filtered.json").write_bytes((dialogs / "val_filtered.json").read_bytes())
    with pytest.raises(DataError, match=r"is in split validation, but .* has it in split test"):
        built_in(tmp_path / "rows", root)
    assert shown(tmp_path / "rows") == set()


def test_what_is_published_names_no_folder_of_the_machine(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(corpus, root)
    path = root / "processed_data/wtag/generated_dialogs/train_filtered.json"
    path.write_text(path.read_text().replace('"inferred_goal"', '"goal"', 1))
    build_rows(config(root, on_error="skip"), tmp_path / "rows", sample=0)
    report = load_report(tmp_path / "rows/report.json")["splits"]["train"]["wtag"]
    assert [record["origin"] for record in report["skipped"]] == [
        "processed_data/wtag/generated_dialogs/train_filtered.json: record 0"
    ]
    for name in ("README.md", "manifest.json", "report.json"):
        assert str(tmp_path) not in (tmp_path / "rows" / name).read_text()
    assert load_json(tmp_path / "rows/manifest.json")["sample"] == []
