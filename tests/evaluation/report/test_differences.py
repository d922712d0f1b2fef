"""Paired differences: their sign, what is drawn together, what is left out, and what the table says about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_fixtures import STRATEGIES, make_results

from prospect_hf.errors import DataError, UsageError
from prospect_hf.evaluation.report.differences import (
    difference_table,
    paired_differences,
    run_pairs,
)
from prospect_hf.evaluation.report.results import read_results
from prospect_hf.jobs.report import run as report

Counts = dict[str, float]
FORCED = ("response_nll", "response_tokens", "response_tokens_right", "state_nll", "state_tokens", "state_tokens_right")
TIMED = ("forced_turns", "forced_diff_sum", "forced_silent", "fluency_sum")


def decisions(hits: int, extra: int, missed: int) -> Counts:
    """The counts of a session: a speaking decision, and no update at all."""
    kinds = ("yes_yes", "yes_no", "no_yes", "no_no")
    speaking = zip(kinds, (hits, extra, missed, 5), strict=True)
    return {f"speaking_{kind}": float(n) for kind, n in speaking} | {f"dst_update_{kind}": 0.0 for kind in kinds}


def some(count: int, hits: int, seed: int = 0) -> list[Counts]:
    """Sessions in which about so many of ten turns are hit."""
    rng = np.random.default_rng(seed)
    return [decisions(int(n), 1, 10 - int(n)) for n in np.clip(rng.integers(-1, 2, count) + hits, 0, 10)]


def run_of(counts: list[Counts], recordings: int | None = None, first: int = 0, **stamp: Any) -> dict[str, Any]:
    """A run of ``results.json`` with one session for each of ``counts``."""
    return {
        "name": "offline",
        "stamp": {"mode": "offline", "model": "m", "model_revision": "0f", "encoder": None, **stamp},
        "sessions": [
            {
                "id": f"s{first + number:03d}",
                "fingerprint": "f",
                "recording": f"r{(first + number) % (recordings or len(counts) + first):03d}",
                "counts": of_session,
            }
            for number, of_session in enumerate(counts)
        ],
    }


def test_the_interval_holds_the_difference() -> None:
    found = paired_differences(run_of(some(20, 3)), run_of(some(20, 7, 1)), 400)["figures"]["speaking_recall"]
    assert found["b"] - found["a"] == pytest.approx(found["difference"]) and found["difference"] > 0.3
    assert 0 < found["low"] < found["difference"] < found["high"]


def test_pairs_are_surer_than_their_sides() -> None:
    """What makes a session hard for both cancels out: B is one hit better on each, however A fares."""
    hits = [number % 10 for number in range(30)]
    a = run_of([decisions(n, 0, 10 - n) for n in hits])
    b = run_of([decisions(n + 1, 0, 9 - n) for n in hits])
    found = paired_differences(a, b, 400)["figures"]["speaking_recall"]
    assert (found["low"], found["high"]) == (pytest.approx(0.1), pytest.approx(0.1))


def test_sessions_of_one_recording_are_drawn_together() -> None:
    """Ten copies of each session tell no more than one, and two recordings tell nothing of others."""
    a, b = some(6, 3), some(6, 7, 1)
    alone = paired_differences(run_of(a), run_of(b), 400)["figures"]
    copies = paired_differences(run_of(a * 10, 6), run_of(b * 10, 6), 400)["figures"]
    for name, found in alone.items():
        assert copies[name] == pytest.approx(found), name
    assert alone["speaking_recall"]["low"] is not None
    two = paired_differences(run_of(a, 2), run_of(b, 2), 400)["figures"]["speaking_recall"]
    assert two["difference"] is not None and two["low"] is two["high"] is None


def test_sessions_that_one_side_lacks_are_left_out_and_named() -> None:
    both = some(4, 3)
    a, b = run_of([*both, *some(2, 9)]), run_of([*some(1, 9), *both[1:]], first=0)
    b["sessions"][0]["id"] = "t000"
    found = paired_differences(a, b, 50)
    assert found["sessions"] == 3 and found["left_out"] == ["s000", "s004", "s005", "t000"]
    assert found["figures"]["speaking_recall"]["difference"] == 0.0
    assert "3 sessions in both, 4 in only one of them and left out" in difference_table(a, b, found)


def test_figures_of_two_sentence_encoders_are_not_compared() -> None:
    names = ("matched", "correct", "missed", "redundant", "distance_sum")
    texts = {f"matching_{name}": 2.0 for name in names}
    pytest.importorskip("rouge_score")
    from prospect_hf.metrics.texts import document_frequencies, text_counts

    texts |= text_counts(["take it"], ["take it"], document_frequencies(["take it"]), np.ones(1))
    counts = [one | texts for one in some(4, 3)]
    same = paired_differences(run_of(counts, encoder="x @ 1"), run_of(counts, encoder="x @ 1"), 50)
    assert {"matching_f1", "text_bleu4"} <= same["figures"].keys()
    a, b = run_of(counts, encoder="x @ 1"), run_of(counts, encoder="x @ 2")
    other = paired_differences(a, b, 50)
    assert other["figures"].keys() == {name for name in same["figures"] if not name.startswith(("matching_", "text_"))}
    assert "A and B used different settings of encoder" in difference_table(a, b, other)
    assert "different settings" not in difference_table(a, a, same)
    b = run_of(counts, encoder="x @ 1", tokenization="others")
    other = paired_differences(a, b, 50)
    assert other["figures"].keys() == {name for name in same["figures"] if not name.startswith("text_")}
    assert "A and B used different settings of tokenization, so texts are left out" in difference_table(a, b, other)


def told(a: dict[str, Any], b: dict[str, Any]) -> dict[str, str]:
    """The rows of the table by their label."""
    lines = difference_table(a, b, paired_differences(a, b, 400)).splitlines()
    return {line[:50].split("  ")[0]: line for line in lines}


def test_a_star_says_which_way_is_better() -> None:
    a, b = run_of(some(20, 3)), run_of(some(20, 7, 1))
    label = "Decisions: Speaking, recall"
    assert told(a, b)[label].endswith("* better") and told(b, a)[label].rstrip().endswith("* worse")
    assert label not in told(a, a)
    # Less is better: a perplexity that falls.
    a, b = (
        run_of([one | forced | {"response_nll": nll} for one in some(9, 3)])
        for nll in (20.0, 10.0)
        for forced in [dict.fromkeys(TIMED, 1.0) | dict.fromkeys(FORCED, 10.0)]
    )
    label = "Language model: Perplexity of responses"
    assert told(a, b)[label].endswith("* better") and told(b, a)[label].endswith("* worse")


def test_what_one_side_lacks_is_a_dash_and_what_both_lack_no_row() -> None:
    silent = run_of([decisions(0, 0, 10)] * 4)
    rows = told(silent, run_of(some(4, 3)))
    assert rows["Decisions: Speaking, precision"].split()[3:] == ["–", "0.750", "–"]
    assert "Decisions: DST update, recall" not in rows


def test_equal_figures_are_one_line() -> None:
    a = run_of(some(20, 3))
    found = paired_differences(a, a, 50)
    text = difference_table(a, a, found)
    defined = sum(one["a"] is not None for one in found["figures"].values())
    assert text.splitlines()[-1] == f"All {defined} figures are equal in A and B." and "B - A" not in text
    b = run_of([one | {"speaking_no_no": 6.0} for one in some(20, 3)])  # changes the balanced accuracy alone
    text = difference_table(a, b, paired_differences(a, b, 50))
    assert f"{defined - 1} more figures are equal in A and B." in text and text.count("Decisions: ") == 1


def test_streams_are_compared_first_and_baselines_not_at_all() -> None:
    runs = make_results(2, 40)["runs"]
    pairs = run_pairs(runs, [run for run in runs if run["name"] != "stream, none"])
    names = [a["name"] for a, b in pairs]
    rest = ["offline", "control, window 8", "control, blind"]
    assert names == [*(f"stream, {name}" for name in STRATEGIES[1:]), *rest]
    assert all(a["name"] == b["name"] for a, b in pairs)
    assert [b["name"] for _, b in run_pairs(runs[:1], runs[1:2])] == ["stream, none"]


def results_in(path: Path, **stamp: Any) -> str:
    """A file of made-up results in which every stamp is changed; returns its name."""
    made = make_results(2, 40)
    for run in made["runs"]:
        run["stamp"] |= {
            key: value for key, value in stamp.items() if run["stamp"]["mode"] != "baseline" or key != "model"
        }
    path.write_text(json.dumps(made))
    return str(path)


def test_baselines_of_another_corpus_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    a = results_in(tmp_path / "a.json", model="one")
    b = results_in(tmp_path / "b.json", model="two")
    c = results_in(tmp_path / "c.json", model="three", data_fingerprint="another")
    page = tmp_path / "x.html"
    report(page, [a, b, c])
    text = page.read_text(encoding="utf-8")
    for name in ("baseline, silent", "c.json: baseline, silent", "a.json: offline", "b.json: offline"):
        assert f'"name":"{name}"' in text
    assert '"name":"b.json: baseline, silent"' not in text  # one and the same


def test_runs_of_one_result_keep_their_names(tmp_path: Path) -> None:
    a = results_in(tmp_path / "a.json", model="one")
    report(tmp_path / "x.html", [a])
    runs = [run["name"] for run in read_results(Path(a))["runs"]]
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert all(f'"name":"{name}"' in page for name in runs) and "a.json: " not in page
    (tmp_path / "other").mkdir()
    twin = results_in(tmp_path / "other" / "a.json", model="two")
    with pytest.raises(DataError, match="different names"):
        report(tmp_path / "y.html", [a, twin])
    with pytest.raises(UsageError, match=r"a\.json twice"):
        report(tmp_path / "y.html", [a, a])
    assert not (tmp_path / "y.html").exists()


def test_an_infinite_perplexity_has_no_difference() -> None:
    forced = dict.fromkeys(TIMED, 1.0) | dict.fromkeys(FORCED, 10.0)
    a, b = (run_of([one | forced | {"response_nll": nll} for one in some(9, 3)]) for nll in (10.0, 1e5))
    for ours, theirs in ((a, b), (b, b), (b, a)):
        found = paired_differences(ours, theirs, 200)["figures"]["perplexity"]
        assert found["difference"] is found["low"] is found["high"] is None
        assert "nan" not in difference_table(ours, theirs, paired_differences(ours, theirs, 200))
