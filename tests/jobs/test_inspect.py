"""The inspect job: exit codes, what is written, and messages of one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_fixtures import WTAG, change_rows, make_sessions, write_dataset
from model_fixtures import small_processor
from proassist_fixtures import write_store

from prospect_hf.cli import main
from prospect_hf.dataset.build import build_rows
from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.simulator.corpus import write_corpus
from prospect_hf.simulator.scene import SceneConfig


@pytest.fixture()
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "dst_frames", make_sessions())
    return tmp_path / "dst_frames"


def inspect(folder: Path, *settings: str) -> int:
    return main(["inspect", str(folder), f"inspect.output_dir={folder.parent / 'out'}", *settings])


def test_a_good_dataset_is_shown_and_the_exit_code_is_0(dataset: Path, tmp_path: Path, capsys: Any) -> None:
    small_processor().save_pretrained(tmp_path / "model")
    (tmp_path / "processed_data" / "wtag").mkdir(parents=True)
    write_store(tmp_path, "v-a", 40)
    settings = [f"inspect.tokenizer={tmp_path / 'model'}", f"inspect.frames={tmp_path / 'processed_data'}"]
    assert inspect(dataset, *settings) == 0
    told = capsys.readouterr().out
    assert "All " in told and "promises are kept." in told and "16: min" in told and "epickitchens" not in told
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    pictures = {f"sessions/{name}.png" for name in ("ego4d.timeline", "wtag.timeline", "wtag.frames")}
    assert written == {"inspection.html", "inspection.json", *pictures}
    figures = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert figures["broken"] == [] and figures["sources"][1][0] == "ego4d" and len(figures["lengths"][1]) == 17


def test_what_the_builder_writes_keeps_every_promise(tmp_path: Path, capsys: Any) -> None:
    scene = SceneConfig(steps=(2, 3))
    write_corpus(tmp_path / "corpus", ["wtag", "ego4d"], {"train": 2, "val": 1}, 0, scene, progress=False)
    config = DstFramesConfig(name="all", root=str(tmp_path / "corpus"), dst="files")
    with_frames = f"inspect.frames={tmp_path / 'corpus'}"
    for images, settings in ((False, [with_frames]), (True, [])):
        folder = tmp_path / f"rows-{images}"
        build_rows(config, folder, shard_rows=150, sample=1, images=images, progress=False)
        assert inspect(folder, *settings) == 0, capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out" / "sessions").iterdir()} == {
        f"{source}.{kind}.png" for source in ("wtag", "ego4d") for kind in ("timeline", "frames")
    }


def test_a_broken_promise_is_told_and_the_exit_code_is_1(dataset: Path, capsys: Any) -> None:
    change_rows(dataset, WTAG, lambda rows: rows[5].update(dst_update=0))
    assert inspect(dataset) == 1
    told = capsys.readouterr().out
    assert f"dst_update: {WTAG}, session a, frame 5: not kept: " in told
    assert (dataset.parent / "out" / "inspection.html").is_file()


def test_what_is_no_dataset_is_one_sentence_and_the_exit_code_is_2(dataset: Path, tmp_path: Path, capsys: Any) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    pq.write_table(pa.table({"a": [1]}), plain / "train.parquet")
    (tmp_path / "empty").mkdir()
    small_processor().save_pretrained(tmp_path / "model")
    for arguments, message in (
        ([plain], "no manifest.json, so it is no finished dataset"),
        ([tmp_path / "nowhere"], "no manifest.json"),
        ([dataset, "inspect.session=nobody"], "no session nobody that can be shown"),
        (
            [dataset, f"inspect.frames={tmp_path / 'nowhere'}"],
            "is no folder; give the one that holds the frames",
        ),
        ([dataset, f"inspect.tokenizer={tmp_path / 'nowhere'}"], "is no folder; give that of a model"),
        (
            [dataset, f"inspect.tokenizer={tmp_path / 'empty'}"],
            f"inspect.tokenizer={tmp_path / 'empty'} cannot be loaded",
        ),
        ([dataset, f"inspect.output_dir={dataset / 'out'}"], "lies in the dataset"),
        ([dataset, "inspect.datasets=x"], "did you mean inspect.dataset?"),
        ([dataset, plain], "give one DATASET, not "),
    ):
        assert main(["inspect", *map(str, arguments)]) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1, told
    assert (
        main(["inspect"]) == 2
        and "Give the dataset: prospect inspect FOLDER, or inspect.dataset=FOLDER." in capsys.readouterr().err
    )


def test_help_names_the_dataset(capsys: Any) -> None:
    assert main(["inspect", "--help"]) == 0
    assert "usage: prospect inspect DATASET [GROUP=NAME ...] [GROUP.KEY=VALUE ...]" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["an odd, 'named' $folder", "-dash", "[list]", "1e-5"])
def test_a_folder_of_any_name_is_inspected(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / name, make_sessions())
    assert main(["inspect", f"./{name}" if name.startswith("-") else name, "inspect.output_dir=out"]) == 0
