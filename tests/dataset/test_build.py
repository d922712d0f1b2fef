"""The published layout: its rows, counts and files, and how a build goes on after it was stopped."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from prospect_hf.dataset.balance import balance_by_source
from prospect_hf.dataset.build import build_rows
from prospect_hf.dataset.dst_frames import DstFrames
from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.dataset.layout import Manifest, check_files, load_manifest
from prospect_hf.dataset.report import load_report
from prospect_hf.dataset.row_maker import FEATURES
from prospect_hf.simulator.corpus import write_corpus
from prospect_hf.simulator.scene import SceneConfig


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    scene = SceneConfig(steps=(2, 3))
    write_corpus(root, ["wtag", "ego4d"], {"train": 4, "val": 1, "test": 1}, 0, scene, progress=False)
    return root


def config(corpus: Path) -> DstFramesConfig:
    return DstFramesConfig(name="all", root=str(corpus), dst="files")


@pytest.fixture(scope="module")
def built(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("built") / "rows"
    return folder, build_rows(config(corpus), folder, shard_rows=200, sample=1)


def load(folder: Path, name: str, cache: Path) -> datasets.DatasetDict:
    return datasets.load_dataset(str(folder), name, cache_dir=str(cache))


def test_load_dataset_gives_the_rows_of_the_builder(built: tuple[Path, Manifest], corpus: Path, tmp_path: Path) -> None:
    folder, manifest = built
    builder = DstFrames(config_name="all", root=str(corpus), dst="files", cache_dir=str(tmp_path / "builder"))
    builder.download_and_prepare()
    expected = builder.as_dataset()
    rows = load(folder, "all", tmp_path)
    assert set(rows) == set(expected) == {"train", "validation", "test"}
    for split in rows:
        assert rows[split].features == FEATURES
        assert list(rows[split]) == list(expected[split])
        assert balance_by_source(expected[split]) == manifest.balance[split]
    assert load_report(folder / "report.json") == builder.report
    assert load_manifest(folder) == manifest
    check_files(folder, manifest)
