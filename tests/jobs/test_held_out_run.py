"""A model that never saw a source: what its results, its card and its evaluation say, and what is refused."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from job_fixtures import SETTINGS, evaluate, train

from prospect_hf.errors import DataError, UsageError
from prospect_hf.evaluation.arguments import EvaluateArguments
from prospect_hf.evaluation.corpus import data_of, load_corpus, recorded_held_out
from prospect_hf.evaluation.report.differences import difference_table, paired_differences
from prospect_hf.evaluation.report.overview import overview_table
from prospect_hf.evaluation.report.page import write_report
from prospect_hf.evaluation.report.results import SEEN, UNSEEN, read_results
from prospect_hf.evaluation.report.schema import check_results
from prospect_hf.hub.model_card import write_card
from prospect_hf.jobs.report import named_runs


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The settings of a run without wtag that saves a checkpoint on its way."""
    folder = tmp_path_factory.mktemp("held_out")
    places = [f"data.root={folder / 'corpus'}", f"data.cache_dir={folder / 'cache'}"]
    saves = ["training.save_strategy=steps", "training.save_steps=2", f"training.output_dir={folder / 'model'}"]
    return [*SETTINGS, *places, *saves]


@pytest.fixture(scope="module")
def model(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished model."""
    level = logging.getLogger().level
    assert train([*arguments, "data.held_out_sources=[wtag]"]) == 0
    logging.getLogger().setLevel(level)
    return Path(arguments[-1].partition("=")[2])


def test_results_card_and_page_tell_what_was_seen_from_what_was_not(model: Path) -> None:
    facts = json.loads((model / "results.json").read_text())
    results = facts["results"]
    assert facts["settings"]["data"]["held_out_sources"] == ["wtag"]
    assert results["free_run_held_out"]["sources"] == ["wtag"] and results["free_run_held_out"]["split"] == "test"
    assert results["free_run"]["sessions"] == results["free_run_held_out"]["sessions"] == 1
    by_source = results["free_run_by_source"]
    assert set(by_source) == {"wtag", "ego4d"}
    for name, value in by_source["ego4d"].items():
        assert results["free_run"][name] == value, name
    for name, value in by_source["wtag"].items():
        assert results["free_run_held_out"][name] == value, name
    assert {"table_joint_state_accuracy", "chunk_macro_f1", "speaking_calibration_error"} <= set(by_source["wtag"])
    assert "wtag dialogs test" in facts["balance"] and "wtag dialogs train" not in facts["balance"]
    assert results["calibration"]["sessions"] == 1  # ego4d's
    card = (model / "README.md").read_text()
    assert "**Held out: wtag.**" in card and "| figure | sources it learned from | held-out sources |" in card
    rows = [line for line in card.splitlines() if line.startswith("| Chunks of 8 s: Macro-F1")]
    assert len(rows) == 1 and rows[0].count("|") == 4
    page = (model / "train_report.html").read_text()
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    head, *figures = json.loads(data[1])["result"]
    assert head[-1] == "model, held-out sources (wtag)" and figures and all(len(row) == 4 for row in figures)


def test_a_card_of_a_model_that_saw_all_has_one_column(model: Path, tmp_path: Path) -> None:
    facts = json.loads((model / "results.json").read_text())
    del facts["settings"]["data"]["held_out_sources"]  # as an earlier version wrote it
    for name in ("free_run_held_out", "free_run_by_source"):
        del facts["results"][name]
    card = write_card(tmp_path, facts).read_text()
    assert "Held out" not in card and "| figure | model |" in card
    rows = [line for line in card.splitlines() if line.startswith("| Chunks of 8 s: Macro-F1")]
    assert len(rows) == 1 and rows[0].count("|") == 3
    unseen = json.loads((model / "results.json").read_text())
    del unseen["results"]["free_run"]
    card = write_card(tmp_path, unseen).read_text()
    assert "no test sessions of the sources that the model learned from" in card and "nothing was evaluated" not in card
    del unseen["results"]["free_run_held_out"]
    assert "nothing was evaluated" in write_card(tmp_path, unseen).read_text()


def test_an_evaluation_knows_it_and_shows_the_gap(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"evaluate.model={model}", f"evaluate.output_dir={tmp_path}", "evaluate.draws=0"]
    assert evaluate([*settings, "evaluate.modes=[stream]"]) == 0
    printed = capsys.readouterr().out
    assert "held out: wtag" in printed and "gap" in printed and UNSEEN in printed
    results = read_results(tmp_path)
    for run in results["runs"]:
        assert run["stamp"]["held_out_sources"] == ["wtag"]
        assert list(run["scores"]) == ["all", "wtag", "ego4d", SEEN, UNSEEN]
        assert run["scores"][SEEN] == run["scores"]["ego4d"] and run["scores"][UNSEEN] == run["scores"]["wtag"]
    stream = next(run for run in results["runs"] if run["stamp"]["mode"] == "stream")
    trained = json.loads((model / "results.json").read_text())["results"]["free_run_by_source"]["wtag"]
    assert stream["scores"][UNSEEN]["speaking_f1_1s"]["value"] == pytest.approx(trained["speaking_f1_1s"])
    other = json.loads(json.dumps(stream))
    other["stamp"]["held_out_sources"] = []
    text = difference_table(stream, other, paired_differences(stream, other, 100))
    assert text.count("trained without wtag") == 1
    # Baselines that learned from other sources are others.
    again = json.loads(json.dumps(results))
    for run in again["runs"]:
        run["stamp"]["held_out_sources"] = []
    assert len(named_runs({"a": results, "b": again})) == 2 * len(results["runs"])
    assert len(named_runs({"a": results, "b": results})) == len(results["runs"]) + 1


def test_without_a_gap_none_is_shown(model: Path, tmp_path: Path) -> None:
    """The held-out source alone: no scope but its own, and no training sentences of the source for the baselines."""
    data = data_of(model, {"sources": ["wtag"]})
    assert data.held_out_sources == ["wtag"] and data.learned_sources == []
    args = EvaluateArguments(model=str(model))
    from prospect_hf.checkpoints import load_trained

    processor = load_trained(model)[1]
    corpus = load_corpus(args, data, processor)
    assert [session.source for session in corpus.sessions] == ["wtag"] and len(corpus.train) == 0
    both = load_corpus(args, data_of(model, {}), processor)
    assert {session.source for session in both.train} == {"ego4d"} and len(both.sessions) == 2
    with pytest.raises(DataError, match=r"has no validation sessions in wtag \(wtag was held out\)"):
        load_corpus(EvaluateArguments(model=str(model), split="validation"), data, processor)


def test_an_evaluation_cannot_say_that_other_sources_were_held_out(model: Path, tmp_path: Path) -> None:
    assert recorded_held_out(model) == ["wtag"] and recorded_held_out(tmp_path) is None
    for given in ([], ["ego4d"], ["wtag", "ego4d"]):
        with pytest.raises(UsageError, match=r"is not what .*model was trained with, \[wtag\]: leave it out"):
            data_of(model, {"held_out_sources": given})
    elsewhere = {"name": "proassist", "root": str(tmp_path)}
    assert data_of(model, elsewhere).held_out_sources == ["wtag"]
    assert data_of(tmp_path, {**elsewhere, "held_out_sources": ["ego4d"]}).held_out_sources == ["ego4d"]
    # An earlier version held out none, and its results do not say so.
    facts = json.loads((model / "results.json").read_text())
    del facts["settings"]["data"]["held_out_sources"]
    (tmp_path / "results.json").write_text(json.dumps(facts))
    assert recorded_held_out(tmp_path) == []


@pytest.mark.parametrize("held_out", ["wtag", 3, {"wtag": 1}, ["mars"], [None], [["wtag"]]], ids=str)
def test_a_record_of_no_sources_is_refused(model: Path, tmp_path: Path, held_out: object) -> None:
    facts = json.loads((model / "results.json").read_text())
    facts["settings"]["data"]["held_out_sources"] = held_out
    (tmp_path / "results.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"held_out_sources is .* and no list of sources"):
        data_of(tmp_path, {"name": "proassist", "root": str(tmp_path)})


def test_a_run_does_not_go_on_with_other_held_out_sources(
    arguments: list[str], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for held_out in ("[]", "[ego4d]"):
        resume = [f"data.held_out_sources={held_out}", "training.resume_from_checkpoint=true"]
        assert train([*arguments, *resume]) == 2
        wanted = "[]" if held_out == "[]" else '["ego4d"]'
        assert f'data.held_out_sources is {wanted} and the interrupted run has ["wtag"]' in capsys.readouterr().err


def test_scopes_and_stamps_that_do_not_fit_are_sentences_or_shown_as_they_are(tmp_path: Path) -> None:
    from report_fixtures import make_results

    results = make_results(6, 20)
    run = results["runs"][1]
    run["scores"] |= {SEEN: run["scores"]["wtag"], UNSEEN: run["scores"]["ego4d"]}  # without sources in the stamp
    assert "held out: not recorded" in overview_table(results["runs"])
    write_report(tmp_path / "page.html", results)
    del run["scores"][SEEN]
    assert "held out" not in overview_table(results["runs"])
    for held_out in ("wtag", 3, [1]):
        run["stamp"]["held_out_sources"] = held_out
        with pytest.raises(DataError, match=r"held_out_sources is .* and no list of sources"):
            check_results(results, "results.json")
