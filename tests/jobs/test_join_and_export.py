"""The join and export jobs: from a built dataset to rows with pictures and to LeRobot, and bad settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from film_fixtures import film, write_film
from proassist_fixtures import make_record, write_corpus

from prospect_hf.cli import main
from prospect_hf.dataset.build import build_rows
from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.dataset.layout import FRAMES_FILE, check_files, load_manifest


@pytest.fixture()
def built(tmp_path: Path) -> Path:
    """A dataset that was built while its frames were at hand."""
    write_corpus(tmp_path, [make_record("v1"), make_record("v2")])
    for seed, uid in enumerate(("v1", "v2")):
        write_film(tmp_path / f"processed_data/wtag/frames/{uid}.arrow", film(seed, 40))
    config = DstFramesConfig(name="all", root=str(tmp_path), sources=("wtag",), dst="files")
    build_rows(config, tmp_path / "rows", progress=False)
    return tmp_path


def test_a_build_with_frames_can_be_joined(built: Path, capsys: Any, tmp_path: Path) -> None:
    manifest = load_manifest(built / "rows")
    assert set(manifest.files) == {"report.json", FRAMES_FILE}
    assert "`frames.json` says how many frames" in (built / "rows/README.md").read_text()
    settings = [f"join.dataset={built / 'rows'}", f"join.frames={built}"]
    assert main(["join", *settings, "join.check_only=true"]) == 0
    assert "Of 2 videos, 2 have the very frames" in capsys.readouterr().out
    assert main(["join", *settings, f"join.output_dir={built / 'joined'}"]) == 0
    assert "Do not publish them." in capsys.readouterr().out
    joined = load_manifest(built / "joined")
    check_files(built / "joined", joined)
    assert joined.rows == manifest.rows and joined.balance == manifest.balance
    rows = datasets.load_dataset(str(built / "joined"), "sample", split="train", cache_dir=str(tmp_path / "cache"))
    assert rows[5]["image"].size == (96, 96)


def test_wrong_frames_are_told_with_exit_code_2_or_left_out(built: Path, capsys: Any, caplog: Any) -> None:
    write_film(built / "processed_data/wtag/frames/v2.arrow", film(7, 40))
    settings = [f"join.dataset={built / 'rows'}", f"join.frames={built}", f"join.output_dir={built / 'joined'}"]
    assert main(["join", *settings]) == 2
    told = capsys.readouterr().err
    assert "v2.arrow: not the frames of wtag/frames/v2.arrow: frame" in told and "Traceback" not in told
    assert main(["join", *settings, "join.on_error=skip"]) == 0
    assert "1 have none or not the right ones" in capsys.readouterr().out and "left out: " in caplog.text
    assert 0 < load_manifest(built / "joined").rows < load_manifest(built / "rows").rows


def test_an_export(built: Path, capsys: Any) -> None:
    out = built / "lerobot"
    assert main(["export", f"export.dataset={built / 'rows'}", f"export.output_dir={out}"]) == 0
    assert "Wrote 4 episodes with" in capsys.readouterr().out
    info = json.loads((out / "meta/info.json").read_text())
    assert info["total_frames"] == load_manifest(built / "rows").rows
    assert main(["export", f"export.dataset={built / 'rows'}", f"export.output_dir={built / 'rows'}"]) == 2
    assert "holds something else than an export" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["join"], "join.dataset is not set: join.dataset=FOLDER."),
        (["join", "join.dataset=a"], "join.frames is not set"),
        (["join", "join.dataset=a", "join.frames=b"], "join.output_dir is not set"),
        (["join", "join.dataset=a", "join.frames=b", "join.output_dir=c"], "no manifest.json"),
        (["join", "join.dataset=a", "join.frames=b", "join.output_dir=c", "join.on_error=x"], "on_error=x"),
        (["join", "join.dataset=a", "join.frames=b", "join.output_dir=c", "join.processes=0"], "processes=0"),
        (["export"], "export.dataset is not set"),
        (["export", "export.dataset=a"], "export.output_dir is not set"),
        (["export", "export.dataset=a", "export.output_dir=b"], "no manifest.json"),
        (["export", "export.dataset=a", "export.output_dir=b", "export.sources=[]"], "export.sources is empty"),
    ],
)
def test_bad_settings_are_one_sentence(words: list[str], message: str, capsys: Any, tmp_path: Path) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err
