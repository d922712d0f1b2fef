"""The builder's file as a loading script of ``datasets`` 3, in a Python of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from prospect_hf.dataset.dst_frames import load_dst_frames
from prospect_hf.dataset.row_maker import SCHEMA
from prospect_hf.simulator.corpus import write_corpus
from prospect_hf.simulator.scene import SceneConfig

SCRIPT = """
import sys, datasets
assert datasets.__version__.startswith("3."), f"datasets is {datasets.__version__}"
script, root, folder = sys.argv[1:]
rows = datasets.load_dataset(script, "wtag", root=root, dst="files", trust_remote_code=True, cache_dir=folder)
for split in rows:
    rows[split].to_parquet(f"{folder}/{split}.parquet")
"""


def test_the_loading_script_of_datasets_3_gives_the_same_rows(repository: Path, tmp_path: Path) -> None:
    python = os.environ.get("DATASETS_3_PYTHON")
    if not python:
        pytest.skip("DATASETS_3_PYTHON is not set: the path of a Python that has datasets 3")
    root, folder = tmp_path / "corpus", tmp_path / "rows"
    write_corpus(root, ["wtag"], {"train": 2, "test": 1}, 0, SceneConfig(steps=(2, 3)), progress=False)
    folder.mkdir()
    subprocess.run(
        [python, "-c", SCRIPT, repository / "prospect_hf/dataset/dst_frames.py", root, folder],
        env={**os.environ, "PYTHONPATH": str(repository), "HF_HOME": str(tmp_path / "home")},
        check=True,
        timeout=300,
    )
    expected = load_dst_frames("wtag", root, cache_dir=tmp_path / "cache", dst="files")
    assert set(expected) == {"train", "test"}
    for split, rows in expected.items():
        found = pq.read_table(folder / f"{split}.parquet").cast(SCHEMA)
        assert found.to_pylist() == list(rows)
