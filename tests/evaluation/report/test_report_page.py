"""The report of an evaluation: what it refuses, what it embeds, and how it behaves in a real browser."""

from __future__ import annotations

import base64
import copy
import csv
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import open_browser
from hypothesis import given, settings
from hypothesis import strategies as st
from report_fixtures import NASTY, SOURCES, make_results

from prospect_hf.errors import DataError
from prospect_hf.evaluation.report import page as page_module
from prospect_hf.evaluation.report.page import OVERVIEW, write_report
from prospect_hf.evaluation.report.schema import STAMP_KEYS, check_results
from prospect_hf.metrics.catalogue import FIGURES

SCRIPT = re.compile(r"<script([^>]*)>(.*?)</script>", re.S)
SMALL = make_results(2, 20)


def embedded(path: Path) -> dict[str, Any]:
    blocks = SCRIPT.findall(path.read_text(encoding="utf-8"))
    assert [attributes for attributes, _ in blocks] == [' id="report" type="application/json"', ""]
    return json.loads(blocks[0][1])


def test_the_page_holds_the_results_without_the_tallies(tmp_path: Path) -> None:
    results = make_results(7, 30)
    write_report(tmp_path / "r.html", results)
    shown = embedded(tmp_path / "r.html")["results"]
    for run, expected in zip(shown["runs"], results["runs"], strict=True):
        shown_sessions, sessions = run.pop("sessions"), expected.pop("sessions")
        for one, session in zip(shown_sessions, sessions, strict=True):
            assert one == {key: value for key, value in session.items() if key not in ("counts", "fingerprint")}
        assert run == expected
    assert {key: value for key, value in shown.items() if key != "runs"} == {
        key: value for key, value in results.items() if key != "runs"
    }
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.html"]


@settings(max_examples=25, deadline=None)
@given(
    text=st.one_of(st.text(), st.just(NASTY), st.just("\ud800 </SCRIPT >"), st.just("__PAGE_DATA__ __SCRIPT_HASH__"))
)
def test_no_text_leaves_the_data_block(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("page") / "r.html"
    run = copy.deepcopy(SMALL["runs"][0])
    run["name"] = run["stamp"]["data"] = run["views"][0]["goal"] = run["ranked_by"] = text
    write_report(path, SMALL | {"runs": [run]})
    page = path.read_text(encoding="utf-8")
    assert page.lower().count("</script") == 2 and "<img" not in page and not {"\u2028", "\u2029"} & set(page)
    run = embedded(path)["results"]["runs"][0]
    assert [run["name"], run["stamp"]["data"], run["views"][0]["goal"], run["ranked_by"]] == [text] * 4


def test_nothing_comes_from_elsewhere_and_only_its_own_script_runs(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", SMALL)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    script = SCRIPT.findall(page)[1][1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None and "default-src 'none'" in policy[1] and f"script-src 'sha256-{digest}'" in policy[1]
    template = page.replace('"http://www.w3.org/2000/svg"', "")  # the name of a namespace, not an address
    assert not re.search(
        r"https?://|//[a-z]|\burl\(|@import|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", template
    )


def test_the_overview_names_figures_and_groups_lie_together() -> None:
    assert {key for key, _, _ in OVERVIEW} <= set(FIGURES)
    groups = [group for _, _, group in OVERVIEW]
    assert groups == sorted(groups, key=groups.index)


def test_timelines_past_the_limit_are_left_out_from_the_best_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page has every session's figures and the timelines of the worst; ``results.json`` is not changed."""
    results = make_results(12, 120)
    length = len(json.dumps(results["runs"][1]["views"], separators=(",", ":")))
    monkeypatch.setattr(page_module, "VIEW_CHARACTERS", length // 2 * len(results["runs"]))
    write_report(tmp_path / "r.html", results)
    shown = embedded(tmp_path / "r.html")["results"]["runs"][1]
    kept = len(shown["views"])
    assert 3 < kept < 9 and shown["views"] == results["runs"][1]["views"][:kept] and len(shown["sessions"]) == 12
    monkeypatch.setattr(page_module, "VIEW_CHARACTERS", 0)
    write_report(tmp_path / "r.html", results)
    assert all(len(run["views"]) == 1 for run in embedded(tmp_path / "r.html")["results"]["runs"])


def no_revision(results: dict[str, Any]) -> None:
    results["runs"][1]["stamp"]["model_revision"] = None


def wrong_frame(results: dict[str, Any]) -> None:
    results["runs"][1]["views"][0]["said"] = [{"frame": 20, "text": "Late.", "verdict": None}]


CHANGES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda r: r.update(kind="other"), r" holds no results of an evaluation; give a results\.json"),
    (lambda r: r.update(version=1), r"version 1, but version 2 is needed: run scripts/evaluate.py again"),
    (lambda r: r.pop("kind"), r" holds no results of an evaluation"),
    (lambda r: r.pop("written"), r"the key 'written' is missing"),
    (lambda r: r.update(runs=[]), r"runs is empty"),
    (lambda r: r["runs"][3].pop("name"), r"run 3: the key 'name' is missing"),
    (lambda r: r["runs"][1].update(name="offline"), r"run 'offline': two runs have this name"),
    (lambda r: r["runs"][1]["sessions"][0].update(id=[1]), r"sessions: the id of a session is \[1\] and no text"),
    (lambda r: r["runs"][1]["views"][0].update(id=1), r"views: the id of a session is 1 and no text"),
    (lambda r: r["runs"][1].pop("stamp"), r"run 'stream, none': the key 'stamp' is missing"),
    (lambda r: r["runs"][1].update(stamp=None), r"run 'stream, none', stamp: NoneType instead of an object"),
    (lambda r: r["runs"][1]["stamp"].update(mode="online"), "mode 'online' is none of offline, stream, control,"),
    (lambda r: r["runs"][1]["stamp"].update(fps=0), r"fps 0 is not above 0"),
    (no_revision, r"run 'stream, none', stamp: model_revision is null"),
    (lambda r: r["runs"][1]["scores"]["wtag"].update(glory={}), r"scores.wtag: 'glory' is not in FIGURES"),
    (lambda r: r["runs"][1]["scores"]["wtag"]["matching_f1"].pop("low"), r"'low' is missing"),
    (lambda r: r["runs"][1]["scores"]["all"]["matching_f1"].update(value=float("nan")),
     r"run 'stream, none': scores.all.matching_f1.value is nan; an undefined value must be null"),
    (lambda r: r["runs"][0]["delays_s"]["transition"].append(float("-inf")), r"delays_s.transition\[400\] is -inf"),
    (lambda r: r["runs"][1].pop("views"), r"run 'stream, none': the key 'views' is missing"),
    (wrong_frame, r"views, session '.*': said has frame 20, but its frames are 0 to 19"),
    (lambda r: r["runs"][1]["views"][0]["reference"][0].update(verdict="correct"), r"has the verdict 'correct'"),
    (lambda r: r["runs"][1]["views"][0]["p_update"].pop(), r"p_update has 19 values for 20 frames"),
    (lambda r: r["runs"][1]["views"][0]["predicted_states"].append([3, 6, 1]), r"\[3, 6, 1\]"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    results = copy.deepcopy(SMALL)
    check_results(results, "results.json")
    change(results)
    with pytest.raises(DataError, match=r"^results\.json.*" + message) as caught:
        check_results(results, "results.json")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError):
        write_report(tmp_path / "r.html", results)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", STAMP_KEYS)
def test_a_stamp_lacks_nothing(key: str) -> None:
    results = copy.deepcopy(SMALL)
    del results["runs"][2]["stamp"][key]
    with pytest.raises(DataError, match=f"results.json, run 'stream, drop_all', stamp: the key '{key}' is missing"):
        check_results(results, "results.json")


def test_the_page_in_a_browser(tmp_path: Path) -> None:
    results = make_results(12, 120)
    plain, nasty, bare = (tmp_path / f"{name}.html" for name in ("plain", "nasty", "bare"))
    write_report(plain, results)
    write_report(nasty, make_results(3, 40, text=NASTY))
    results = copy.deepcopy(results)
    least = results["runs"][8]  # a baseline that decided nothing, alone
    least |= {"curves": {}, "confusion": {}, "delays_s": {}, "views": least["views"][:1], "sessions": least["sessions"]}
    nothing: dict[str, Any] = {name: [] for name in ("p_speak", "p_update", "user", "reference", "said")}
    least["views"][0] |= nothing | {"score": None}
    least["stamp"] |= {"frames": "store", "dst": "files"}
    write_report(bare, results | {"runs": [least]})
    with open_browser() as new_page:
        page = new_page(viewport={"width": 1280, "height": 900})
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(plain.as_uri())
        for run in embedded(plain)["results"]["runs"]:
            assert page.locator("#overview tbody th", has_text=re.compile(f"^{re.escape(run['name'])}$")).count() == 1
        assert [text.strip() for text in page.locator(".warning b").all_inner_texts()] == [
            "Drawn pictures, not video.", "Aligned labels, not annotated ones.",
            "Other data, other scale: Llama-3.1-8B + SigLIP on the full corpus, percent.",
        ]  # fmt: skip

        # Scope: the numbers are that source's; the best stream is bold, a baseline never is; null is a dash.
        column = [key for key, _, _ in OVERVIEW].index("table_transition_f1_1s")

        def cells() -> list[Any]:
            rows = page.locator("#overview tbody tr:has(td.n)")
            return [rows.nth(n).locator("td").nth(column) for n in range(rows.count())]

        for scope in ("all", "wtag"):
            page.select_option("#scope", scope)
            ranked = sorted(
                results["runs"],
                key=lambda run: ["stream", "offline", "control", "baseline"].index(run["stamp"]["mode"]),
            )
            scores = [run["scores"][scope]["table_transition_f1_1s"] for run in ranked]
            shown = [f"{score['value']:.3f}" for score in scores]
            assert [cell.inner_text().split("\n")[0] for cell in cells()] == shown
            assert cells()[0].locator("small").inner_text() == f"{scores[0]['low']:.3f}–{scores[0]['high']:.3f}"
            bold = [cell.locator("b").count() for cell in cells()]
            # A teacher-forced run is another task: it never wins over a stream.
            assert bold == [int(text == max(shown[:5])) for text in shown[:5]] + [0, 0, 0, 0, 0, 0]
        page.select_option("#scope", "ego4d")
        assert cells()[0].inner_text() == "–"
        assert cells()[0].get_attribute("title") == "undefined: nothing to count"

        # The page opens on the first stream; the charts' legends have the figures of the table.
        run = next(run for run in results["runs"] if run["stamp"]["mode"] == "stream")
        assert page.input_value("#run") == run["name"]
        value = {
            name: f"{score['value']:.3f}" for name, score in run["scores"]["all"].items() if score["value"] is not None
        }
        legends = page.locator("#detail .columns .legend").all_inner_texts()
        for key in ("speaking", "dst_update"):
            assert f"precision {value[key + '_precision']}, recall {value[key + '_recall']}" in legends[0]
            assert f"F1 {value[key + '_f1']}" in legends[1] and f"best F1 {value[key + '_best_f1']}" in legends[1]
            error = value[key + "_calibration_error"]
            assert f"expected calibration error {error}" in legends[2]
        assert page.locator("#detail .columns svg path.ideal").count() == 2  # in the chart and in its legend
        titles = page.locator("#detail .columns svg circle.dot title").all_text_contents()
        assert titles[:1] == ["100 frames: mean probability 0.067, 2.3 % yes"] and len(titles) == 30
        dots = page.locator("#detail .columns svg circle.speak")
        x, y = float(dots.nth(1).get_attribute("cx")), float(dots.nth(1).get_attribute("cy"))
        score = run["scores"]["all"]["speaking_f1"]["value"]
        assert (x, y) == (pytest.approx(34 + 0.41 * 316), pytest.approx(10 + (1 - score) * 250))

        # One figure by source: a row for each, with its interval.
        page.select_option("#forestFigure", "matching_f1")
        rows = page.locator(".forest tbody tr:has(th)")
        assert rows.count() == 1 + len(SOURCES)
        score = run["scores"]["wtag"]["matching_f1"]
        row = rows.nth(1 + SOURCES.index("wtag"))
        assert (
            f"{score['value']:.3f}" in row.inner_text()
            and f"{score['low']:.3f}–{score['high']:.3f}" in row.inner_text()
        )
        assert row.locator(".whisker").count() == row.locator(".value").count() == 1

        # Another run: stamp, figures and sessions are that run's; the figure stays.
        page.select_option("#run", "stream, drop_middle")
        assert page.input_value("#forestFigure") == "matching_f1"
        assert "strategy drop_middle, max_tokens 288, keep 1, 2" in page.inner_text("#detail")
        assert "Not computed in this run: Language model." in page.inner_text("#detail")
        run = next(run for run in results["runs"] if run["name"] == "stream, drop_middle")
        assert "All 12 sessions can be opened." in page.inner_text("#detail")
        shown = page.locator("details.session summary .id").all_inner_texts()
        assert shown == [view["id"] for view in run["views"]]
        page.locator("#detail select").nth(1).select_option("best first")
        assert page.locator("details.session summary .id").all_inner_texts() == shown[::-1]
        page.locator("#detail select").nth(2).select_option("wtag")
        assert set(page.locator("details.session summary .soft:nth-child(2)").all_inner_texts()) == {"wtag"}
        page.select_option("#run", "stream, drop_middle")

        # A control that writes no texts has no figures of texts, rather than zeros.
        assert "A window control judges each frame" in page.inner_text("#overviewNote")
        row = page.locator("#overview tbody tr", has=page.locator("th", has_text="control, window 8"))
        texts = [n for n, (_, _, group) in enumerate(OVERVIEW) if group.startswith(("Texts", "Stream matching"))]
        assert texts and {row.locator("td").nth(n).inner_text() for n in texts} == {"·"}
        page.select_option("#run", "control, window 8")
        assert "Not computed in this run: Stream matching, Texts within 1 s" in page.inner_text("#detail")
        page.locator("details.session summary").last.click()
        page.wait_for_selector(".session-timeline .st-list")
        assert "(no text)" in page.inner_text(".st-list")
        page.select_option("#run", "stream, drop_middle")

        # Both tables as CSV.
        with page.expect_download() as download:
            page.click("#figuresCsv")
        table = list(csv.DictReader(Path(download.value.path()).read_text(encoding="utf-8").splitlines()))
        assert download.value.suggested_filename == "figures-stream-drop_middle.csv"
        cell = next(one for one in table if (one["sources"], one["figure"]) == ("wtag", "matching_f1"))
        assert {name: float(cell[name]) for name in ("value", "low", "high")} == run["scores"]["wtag"]["matching_f1"]
        with page.expect_download() as download:
            page.click("#sessionsCsv")
        table = list(csv.DictReader(Path(download.value.path()).read_text(encoding="utf-8").splitlines()))
        assert [(one["session"], float(one["score"])) for one in table] == [
            (session["id"], session["score"]) for session in run["sessions"]
        ]

        # A timeline opens by keyboard; pairs stand side by side, with the words that differ marked.
        view = run["views"][0]
        page.locator("details.session summary").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector(".session-timeline .st-line")
        page.locator(".session-timeline .st-lanes").focus()
        page.keyboard.press("End")
        assert f"Frame {view['first_frame'] + 119}" in page.inner_text(".st-caption")
        words = page.inner_text(".st-list")
        assert all(one["text"] in words for one in view["said"] + view["reference"] + view["user"])
        pair = next(one for one in view["said"] if one["verdict"] == "matched" and not one["exact"])
        row = page.locator(".st-list tr", has_text=pair["text"])
        assert row.locator("mark").all_inner_texts() == ["Now", ":", "Please"] and "matched" in row.inner_text()
        exact = [one for one in view["said"] if one["verdict"] == "matched" and one["exact"]]
        assert page.locator(".st-list td:last-child", has_text="exact match").count() == len(exact)
        assert all(url.startswith(("file://", "blob:")) for url in requests) and page.problems == []

        for width in (390, 1280):
            page = new_page(viewport={"width": width, "height": 800}, color_scheme="dark")
            page.goto(nasty.as_uri())
            page.locator("details.session summary").first.click()
            page.wait_for_selector(".session-timeline .st-line")
            assert "</script><img src=x onerror=alert(1)>" in page.inner_text("#title")
            assert page.locator("img").count() == 0 and page.locator("script").count() == 2 and page.problems == []
            assert page.evaluate("document.documentElement.scrollWidth") == width

        page = new_page(viewport={"width": 1280, "height": 900})
        page.goto(bare.as_uri())
        page.locator("details.session summary").first.click()
        page.wait_for_selector(".session-timeline .st-none")
        assert "Nobody says anything." in page.inner_text("#detail")
        assert "control" not in page.inner_text("#overviewNote")
        assert "1 of 12 sessions can be opened" in page.inner_text("#detail")
        assert "No reliability curve: this run has no bins." in page.inner_text("#detail")
        assert page.locator(".warning").count() == 1 and page.problems == []  # the one beside published figures


@pytest.mark.parametrize(
    "change",
    [
        lambda results: results["runs"][0].update(sessions=3),
        lambda results: results.update(runs=5),
        lambda results: results["runs"][0].update(scores=[1]),
        lambda results: results["runs"][0].update(name=["a"]),
        lambda results: results["runs"][0]["stamp"].update(fps="x"),
        lambda results: results["runs"][0]["sessions"][0].pop("counts"),
        lambda results: results["runs"][0]["sessions"][0]["counts"].update(n="1"),
        lambda results: results["runs"][0]["scores"]["all"]["speaking_f1"].update(value="0.9"),
        lambda results: results["runs"][1]["views"][0]["said"][0].pop("frame"),
    ],
)
def test_another_type_is_refused_and_no_traceback(change: Callable[[dict[str, Any]], object]) -> None:
    results = make_results()
    check_results(results, "r.json")
    change(results)
    with pytest.raises(DataError, match=r"r\.json"):
        check_results(results, "r.json")
