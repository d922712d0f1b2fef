"""Sources that are held out: training and validation never read them, test does; from a folder, rows or a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from proassist_fixtures import record_of, write_corpus

from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.corpus import prepare_rows
from prospect_hf.dataset.layout import MANIFEST_FILE
from prospect_hf.errors import DataError, UsageError
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.memory.arguments import PlanArguments
from prospect_hf.training.memory.planned import planned_corpus
from prospect_hf.training.resume import run_record
from prospect_hf.training.setting_checks import check_settings
from prospect_hf.training.splits import Splits, load_splits

FORMS = ("folder", "rows", "stream")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of three sources, holoassist without test sessions; its rows are built under ``cache``."""
    folder = tmp_path_factory.mktemp("held") / "corpus"
    for source in ("wtag", "ego4d", "holoassist"):
        for split in ("train", "val", "test"):
            if (source, split) != ("holoassist", "test"):
                records = [record_of(source, f"{source}-{split}-{number}") for number in range(2)]
                write_corpus(folder, records, split, source)
    prepare_rows(arguments(folder))
    return folder


def arguments(root: Path, form: str = "folder", **given: Any) -> DataArguments:
    settings: dict[str, Any] = {"name": "proassist", "root": str(root), "dst": "words", "frames": "blank"}
    settings["cache_dir"] = str(root.parent / "cache")
    if form != "folder":
        (manifest,) = (root.parent / "cache" / "rows").glob(f"*/{MANIFEST_FILE}")
        settings["rows"] = str(manifest.parent)
    return DataArguments(**{**settings, "streaming": form == "stream", **given})


def read(splits: Splits) -> dict[str, set[str]]:
    """The sources of the sessions of each split."""
    parts = {"train": splits.learned, "validation": splits.validation, "test": splits.test}
    return {name: {session.source for session in part} for name, part in parts.items()}


@pytest.mark.parametrize("form", FORMS)
def test_training_and_validation_read_the_others_and_test_reads_all(root: Path, form: str) -> None:
    splits = load_splits(arguments(root, form, held_out_sources=["wtag"]))
    learned = {"ego4d", "holoassist"}
    assert read(splits) == {"train": learned, "validation": learned, "test": {"ego4d", "wtag"}}
    assert splits.held_out_sources == ("wtag",) and len(splits.test) == 4
    # Class weights and the table at the start count what is learned from.
    assert {name for name in splits.balance if name.startswith("wtag")} == {"wtag dialogs test"}
    everything = load_splits(arguments(root, form)).balance
    for split in ("train", "validation"):
        less = everything[f"wtag dialogs {split}"]["rows"]
        assert splits.balance[f"all dialogs {split}"]["rows"] == everything[f"all dialogs {split}"]["rows"] - less
    assert splits.balance["all dialogs test"] == everything["all dialogs test"]


@pytest.mark.parametrize("form", FORMS)
def test_nothing_held_out_is_everything_read(root: Path, form: str) -> None:
    every = {"wtag", "ego4d", "holoassist"}
    splits = load_splits(arguments(root, form))
    assert read(splits) == {"train": every, "validation": every, "test": {"wtag", "ego4d"}}
    assert splits.held_out_sources == ()


def test_the_rows_of_a_corpus_are_built_once_for_all_models(root: Path) -> None:
    for source in ("wtag", "ego4d"):
        load_splits(arguments(root, held_out_sources=[source]))
    assert len(list((root.parent / "cache" / "rows").glob(f"*/{MANIFEST_FILE}"))) == 1


def test_a_plan_counts_the_training_rows_that_are_left(root: Path) -> None:
    whole, part = (
        planned_corpus(arguments(root, "rows", held_out_sources=held), PlanArguments()) for held in ([], ["wtag"])
    )
    assert 0 < part.frames < whole.frames
    named = [planned_corpus(DataArguments(root="x", held_out_sources=held), PlanArguments()) for held in ([], ["wtag"])]
    assert named[1].frames < named[0].frames


def test_a_run_of_other_held_out_sources_is_another_run(root: Path) -> None:
    records = []
    for held in ([], ["wtag"], ["ego4d"]):
        data = arguments(root, held_out_sources=held)
        args = DSTTrainingArguments(output_dir=str(root.parent / "out"), use_cpu=True)
        records.append(run_record(ModelArguments(), data, args, load_splits(data)))
    assert [one["settings"]["data.held_out_sources"] for one in records] == [[], ["wtag"], ["ego4d"]]
    for part in ("training", "validation"):
        assert len({one["sessions"][part] for one in records}) == 3


@pytest.mark.parametrize("form", FORMS)
def test_a_source_without_test_sessions_cannot_be_held_out(root: Path, form: str) -> None:
    for source in ("holoassist", "assembly101"):  # one has other sessions, the other is not there at all
        with pytest.raises(DataError, match=rf"has no test sessions of {source}, which data\.held_out_sources"):
            load_splits(arguments(root, form, held_out_sources=[source]))


@pytest.mark.parametrize("form", FORMS)
def test_all_that_a_corpus_has_cannot_be_held_out(root: Path, form: str) -> None:
    held: dict[str, Any] = {"sources": ["wtag", "ego4d", "assembly101"], "held_out_sources": ["wtag", "ego4d"]}
    with pytest.raises(DataError, match=r"no training rows in assembly101 but in the held-out wtag, ego4d"):
        load_splits(arguments(root, form, cache_dir=str(root.parent / "other"), **held))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"held_out_sources": ["wtagg"]}, r"data\.held_out_sources\[0\] must be one of .*wtag.*, not 'wtagg'"),
        ({"held_out_sources": ["wtag", ""]}, r"data\.held_out_sources\[1\] must be one of"),
        ({"held_out_sources": ["wtag", "wtag"]}, "has a source twice: wtag, wtag"),
        ({"held_out_sources": ["ego4d"], "sources": ["wtag"]}, r"names ego4d, which data\.sources does not read"),
        ({"held_out_sources": ["wtag"], "sources": ["wtag"]}, "so that nothing is left to train on"),
    ],
)
def test_what_cannot_be_held_out_is_a_sentence(root: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        data = arguments(root, **given)
        check_settings(ModelArguments(), data, DSTTrainingArguments(output_dir=str(root.parent / "out"), use_cpu=True))
