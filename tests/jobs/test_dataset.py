"""The dataset job: what it builds and prints, from each kind of corpus, and its exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

from prospect_hf.cli import main
from prospect_hf.data.arguments import DataArguments
from prospect_hf.dataset.arguments import DatasetArguments
from prospect_hf.dataset.layout import load_manifest
from prospect_hf.errors import UsageError
from prospect_hf.jobs import dataset
from prospect_hf.simulator.corpus import write_corpus
from prospect_hf.simulator.scene import SceneConfig
from prospect_hf.workers import worker_pool


@pytest.fixture()
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    write_corpus(root, ["wtag"], {"train": 2, "test": 1}, 0, SceneConfig(steps=(2, 3)), progress=False)
    return root


def test_what_is_printed_loads_the_dataset(
    corpus: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["dataset", "data=proassist", f"data.root={corpus}", "data.dst=files"]
    command += [f"dataset.output_dir={tmp_path / 'rows'}", "dataset.sample=1", "dataset.shard_rows=100"]
    assert main(command) == 0
    told = capsys.readouterr().out
    manifest = load_manifest(tmp_path / "rows")
    counts = manifest.balance["train"]["wtag"]
    assert re.search(rf"wtag, train +{counts['sessions']} +{counts['rows']} +{counts['speaking_1']} ", told)
    assert len(manifest.of_split("train")) == 2 and manifest.sample[0].sessions == 1
    line = told.strip().splitlines()[-1]
    call = line.removeprefix("Load it with ").removesuffix(".")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = eval(call, {"datasets": datasets})
    assert len(rows) == counts["rows"]
    assert main(command) == 0


def test_pictures_and_processes_are_as_asked(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    @contextmanager
    def recording(processes: int, *given: Any) -> Iterator[ProcessPoolExecutor]:
        asked.append(processes)
        with worker_pool(processes, *given) as pool:
            yield pool

    monkeypatch.setattr("prospect_hf.dataset.build.worker_pool", recording)
    command = ["dataset", "data=proassist", f"data.root={corpus}", "data.dst=files", "dataset.shard_rows=100"]
    command += [f"dataset.output_dir={tmp_path / 'rows'}", "dataset.images=true", "dataset.processes=2"]
    assert main(command) == 0
    shards = load_manifest(tmp_path / "rows").shards
    assert asked == [2] and len(shards) == 3
    assert all("image" in pq.read_schema(tmp_path / "rows" / shard.path).names for shard in shards)


def test_a_simulated_corpus_is_written_first(tmp_path: Path, capsys: Any) -> None:
    assert (
        main(
            [
                "dataset",
                f"data.root={tmp_path / 'corpus'}",
                "data.sources=[wtag]",
                "data.recordings={train: 1, val: 1, test: 1}",
                f"dataset.output_dir={tmp_path / 'rows'}",
            ]
        )
        == 0
    )
    assert set(load_manifest(tmp_path / "rows").balance) == {"train", "validation", "test"}


def test_annotation_releases_become_a_dataset(shared_data: Path, tmp_path: Path, capsys: Any) -> None:
    data = DataArguments(name="annotations", root=str(shared_data / "annotations"), sources=["holoassist"])
    dataset.run(DatasetArguments(output_dir=str(tmp_path / "rows")), data)
    manifest = load_manifest(tmp_path / "rows")
    assert manifest.settings["form"] == "annotations" and manifest.licenses == {"holoassist": "CDLA-Permissive-2.0"}
    assert sum(balance["holoassist"]["sessions"] for balance in manifest.balance.values()) == 41
    for name in ("README.md", "manifest.json", "report.json"):
        assert str(shared_data) not in (tmp_path / "rows" / name).read_text()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["data=proassist"], "data.root is not set: give the folder that holds processed_data"),
        (["data=annotations"], "data.root is not set: give the folder that holds {source}/ with its annotations"),
        (["data=annotations", "data.root=nowhere"], "nowhere: no such folder"),
        (["data=proassist", "data.root=nowhere"], "nowhere has no subfolder processed_data"),
        (["data.forms=[dialogs,prepared]"], "a dataset has the rows of one form"),
        (["data.forms=[annotations]"], "data.forms[0] must be one of dialogs, prepared, not 'annotations'"),
        (["dataset.processes=0"], "dataset.processes=0: give at least 1"),
        (["dataset.shard_rows=-5"], "dataset.shard_rows=-5: give at least 1"),
        (["dataset.output_dir="], "dataset.output_dir is empty"),
        (["dataset.image=true"], "image"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(settings: list[str], told: str, capsys: Any) -> None:
    assert main(["dataset", *settings]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and told in line


def test_a_stopped_build_says_how_to_go_on(
    corpus: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prospect_hf.dataset.build_state.write_shard", interrupted)
    command = ["dataset", "data=proassist", f"data.root={corpus}", "data.dst=files"]
    assert main([*command, f"dataset.output_dir={tmp_path / 'rows'}"]) == 1
    assert "the same command continues with the files that are missing" in capsys.readouterr().err
    assert not (tmp_path / "rows/manifest.json").exists()


def test_annotations_have_a_form_of_their_own() -> None:
    assert DataArguments(name="annotations", root="x", forms=["dialogs"]).forms == ["annotations"]
    with pytest.raises(UsageError, match=r"forms\[0\]"):
        DataArguments(root="x", forms=["annotations"])
