"""The overview that an evaluation prints."""

from __future__ import annotations

import pytest
from report_fixtures import make_results

from prospect_hf.evaluation.report.overview import overview_table
from prospect_hf.metrics.catalogue import FIGURES
from prospect_hf.tables import table


def cells(table: str, label: str) -> list[str]:
    """The row of a figure."""
    return next(line for line in table.splitlines() if line.startswith(label))[len(label) :].split("  ")


def test_the_overview_shows_figures_with_half_of_their_intervals() -> None:
    few = [run for run in make_results(2, 40)["runs"] if run["name"] in ("offline", "stream, none", "baseline, silent")]
    few[0]["scores"]["all"]["joint_state_accuracy"] = {"value": 0.5, "low": 0.4375, "high": 0.5625}
    few[1]["scores"]["all"]["joint_state_accuracy"] = {"value": 0.25, "low": None, "high": None}
    few[2]["scores"]["all"]["joint_state_accuracy"] = {"value": None, "low": None, "high": None}
    label = f"States: {FIGURES['joint_state_accuracy'].label}"
    found = [cell.strip() for cell in cells(overview_table(few), label) if cell.strip()]
    assert found == ["0.500 ±0.062", "0.250", "–"]
    # A figure of one run alone has its row, and nothing where the others have none.
    del few[0]["scores"]["all"]["joint_state_accuracy"], few[2]["scores"]["all"]["joint_state_accuracy"]
    assert [cell.strip() for cell in cells(overview_table(few), label) if cell.strip()] == ["0.250"]
    head = overview_table(few).splitlines()
    assert head[1] == "2 sessions of outputs/simulated (test), encoder: all-MiniLM-L6-v2 @ 9f3c"
    assert head[2].split() == ["offline", "none", "silent"]


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[31mred\x1b[0m", "\u202egpj.exe", "a\rb", "a\u2028b", "\x07", "\ud800", "a\tb"]
)
def test_a_cell_is_one_line_of_characters_that_can_be_printed(text: str) -> None:
    shown = table([["name", "x"], [text, "1"], ["Öl 𝒜", "2"]])
    assert len(shown.split("\n")) == 4 and shown.replace("\n", "").isprintable()
    assert "Öl 𝒜" in shown and len({len(line) for line in shown.split("\n")}) == 1


def test_of_many_runs_the_baselines_have_a_table_of_their_own() -> None:
    first, second = overview_table(make_results(2, 40)["runs"]).split("\n\n")
    assert first.splitlines()[2].split()[0] == "offline" and "silent" not in first
    assert second.splitlines()[0].split() == ["silent", "majority", "oracle"]
    assert "Chunks of 8 s: Macro-F1" in first and "Chunks of 8 s: Macro-F1" in second


@pytest.mark.parametrize(("count", "wide"), [(5, True), (6, False)])
def test_intervals_stand_beside_the_figures_of_few_runs(count: int, wide: bool) -> None:
    assert ("±" in overview_table(make_results(2, 40)["runs"][:count])) == wide
