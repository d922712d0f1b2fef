"""A small corpus and the dataset that is built from it; tests compare their own builds with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from built_fixtures import built_in

from prospect_hf.dataset.layout import Manifest
from prospect_hf.simulator.corpus import write_corpus
from prospect_hf.simulator.scene import SceneConfig

RECORDINGS = {"train": 4, "val": 1, "test": 1}


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources, four recordings of each for training."""
    root = tmp_path_factory.mktemp("small_corpus")
    write_corpus(root, ["wtag", "ego4d"], RECORDINGS, 0, SceneConfig(steps=(2, 3)), progress=False)
    return root


@pytest.fixture(scope="session")
def built(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The dataset of ``small_corpus`` and its manifest; tests must not write there."""
    folder = tmp_path_factory.mktemp("built") / "rows"
    return folder, built_in(folder, small_corpus)
