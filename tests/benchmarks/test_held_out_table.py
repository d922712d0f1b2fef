"""``benchmarks/held_out_sources.py``: a model for each source, goes on where it stopped, and a table of pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from job_fixtures import SETTINGS

from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import write_json

GIVEN = ["data.sources=[wtag,ego4d,holoassist]", "data.root=corpus"]


@pytest.fixture
def script(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import held_out_sources

    return held_out_sources


@pytest.fixture
def trained(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the script has given; each leaves results as a training does, in no time."""
    commands: list[list[str]] = []

    def train(command: Sequence[str]) -> int:
        commands.append(list(command))
        settings = dict(setting.split("=", 1) for setting in command[1:])
        held_out = settings["data.held_out_sources"].strip("[]")
        print(f"training without {held_out}")
        if settings.get("training.max_steps") == "13":
            return 2
        figures = {
            source: dict.fromkeys(script.FIGURES.values(), 0.5 if source == held_out else 0.9)
            for source in ("wtag", "ego4d", "holoassist")
        }
        folder = Path(settings["training.output_dir"])
        folder.mkdir(parents=True)
        write_json(folder / "results.json", {"results": {"free_run_by_source": figures}})
        return 0

    monkeypatch.setattr(script, "prospect", train)
    return commands


def test_each_source_is_held_out_once_and_rows_are_kept(
    script: ModuleType, trained: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([str(tmp_path), *GIVEN]) == 0
    assert [command[3] for command in trained] == [
        f"data.held_out_sources=[{source}]" for source in ("wtag", "ego4d", "holoassist")
    ]
    assert all(command[1:3] == GIVEN and "training.resume_from_checkpoint=true" in command for command in trained)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[0].split()[0] == "source" and lines[0].count("gap") == 3
    assert lines[2].split() == ["wtag", *["0.500", "0.900", "-0.400"] * 3]
    assert {path.name for path in (tmp_path / "rows").iterdir()} == {"wtag.json", "ego4d.json", "holoassist.json"}
    assert not list((tmp_path / "runs").iterdir()) and "without wtag" in (tmp_path / "logs" / "wtag.txt").read_text()
    # Again: nothing is trained. One row is lost: that one model.
    assert script.main([str(tmp_path), *GIVEN]) == 0 and len(trained) == 3
    (tmp_path / "rows" / "ego4d.json").unlink()
    assert script.main([str(tmp_path), *GIVEN]) == 0 and len(trained) == 4
    assert "data.held_out_sources=[ego4d]" in trained[-1]
    # Other settings are other models.
    assert script.main([str(tmp_path), *GIVEN, "training.seed=1"]) == 0 and len(trained) == 7


def test_a_training_that_failed_leaves_no_row_and_says_so(
    script: ModuleType, trained: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([str(tmp_path), *GIVEN, "training.max_steps=13"]) == 1
    shown = capsys.readouterr()
    assert len(trained) == 3 and shown.err.count("the training ended with code 2") == 3
    assert "training without wtag" in shown.err and not (tmp_path / "rows").exists()
    assert len(shown.out.splitlines()) <= 2  # the head of the table alone


def test_the_table_of_what_is_there_trains_nothing(
    script: ModuleType, trained: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.train_without(tmp_path, "wtag", GIVEN) and script.train_without(tmp_path, "ego4d", ["data.root=b"])
    assert script.main([str(tmp_path), *GIVEN, "--table"]) == 0
    shown = capsys.readouterr()
    assert len(trained) == 2 and "other settings: ego4d" in shown.err
    assert shown.out.splitlines()[2].split() == ["wtag", *["0.500", "–", "–"] * 3]


def test_a_table_of_no_rows_is_refused(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([str(tmp_path), "--table"]) == 2
    told = capsys.readouterr()
    assert "rows holds no row of these settings; run without --table first." in told.err and not told.out


def test_what_is_seen_is_the_mean_over_the_models_that_saw_it(script: ModuleType) -> None:
    names = list(script.FIGURES)

    def row(**figures: float | None) -> dict[str, dict[str, float | None]]:
        return {source: dict.fromkeys(names, value) for source, value in figures.items()}

    found = {"a": row(a=0.2, b=0.8, c=None), "b": row(a=0.6, b=0.5, c=None), "c": row(a=0.8, b=None, c=0.4)}
    first, second, third = (cells[:4] for cells in script.source_rows(found)[1:])
    assert first == ["a", "0.200", "0.700", "-0.500"]
    assert second == ["b", "0.500", "0.800", "-0.300"]  # an undefined figure is left out of the mean
    assert third == ["c", "0.400", "–", "–"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.held_out_sources=[wtag]"], "is set by this script"),
        (["training.output_dir=x"], "is set by this script"),
        (["++training.resume_from_checkpoint=x"], "is set by this script"),
        (["data.sources=[wtag]"], "has 1 source; to hold one out"),
        (["data.sources=[mars,wtag]"], "must be one of"),
        (["data.nothing=1"], "nothing"),
        (["training.max_steps=many"], "max_steps"),
    ],
)
def test_wrong_settings_end_before_anything_is_trained(
    script: ModuleType,
    trained: list[list[str]],
    tmp_path: Path,
    settings: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert script.main([str(tmp_path), *settings]) == 2
    assert message in capsys.readouterr().err and not trained
    with pytest.raises(UsageError):
        script.sources_of(settings)


@pytest.mark.parametrize(
    "content", ["[]", "{}", "{", '{"figures": 3}', '{"figures": {"wtag": 3}}', '{"figures": {"wtag": {"joint": "x"}}}']
)
def test_a_damaged_row_is_a_sentence(script: ModuleType, tmp_path: Path, content: str) -> None:
    script.row_path(tmp_path, "wtag").parent.mkdir()
    script.row_path(tmp_path, "wtag").write_text(content)
    with pytest.raises(DataError, match=r"wtag\.json"):
        script.read_row(tmp_path, "wtag")
    assert script.main([str(tmp_path), *GIVEN, "--table"]) == 2


@pytest.mark.slow
def test_two_models_are_trained_end_to_end(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"data.root={tmp_path / 'corpus'}", f"data.cache_dir={tmp_path / 'cache'}"]
    assert script.main([str(tmp_path / "out"), *SETTINGS, *places]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[0] == "wtag"
    row = json.loads((tmp_path / "out" / "rows" / "wtag.json").read_text())
    assert set(row["figures"]) == {"wtag", "ego4d"} and isinstance(row["figures"]["wtag"]["joint"], float)
