"""The timeline page: what it embeds, and how it behaves in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import open_browser
from PIL import Image
from trace_fixtures import HOSTILE, make_trace

from prospect_hf.errors import DataError
from prospect_hf.html import write_html
from prospect_hf.streaming.timeline_page import write_page
from prospect_hf.streaming.trace import Trace
from tracking_dst_smolvlm import Deviations

SCROLL = "document.querySelector('.st-scroll')"
SCRIPT = re.compile(r"<script([^>]*)>(.*?)</script>", re.S)


def embedded(path: Path) -> dict[str, Any]:
    blocks = SCRIPT.findall(path.read_text(encoding="utf-8"))
    assert [attributes for attributes, _ in blocks] == [' id="trace" type="application/json"', ""]
    return json.loads(blocks[0][1])


def values(encoded: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.frombuffer(base64.b64decode(encoded), "<u2") / 10_000


def test_the_page_holds_the_whole_trace(tmp_path: Path) -> None:
    trace = make_trace(60, 4)
    path = tmp_path / "p.html"
    write_page(path, trace)
    data = embedded(path)
    events = trace.events
    session = data["session"]
    assert session["frames"] == 60 and data["thumbnails"] == [] and session["steps"] == trace.header["plan"]
    for name, key in (("speak", "p_speak"), ("update", "p_update"), ("probabilities", "probabilities")):
        expected = np.array([event[key] for event in events]).ravel()
        np.testing.assert_allclose(values(data[name]), expected, atol=5.1e-5)
    said = [[one["frame"], one["text"]] for one in session["said"]]
    assert said == [[event["frame"], event["text"]] for event in events if event["text"] is not None]
    table, changes = [0] * 4, list(session["predicted_states"])
    for index, event in enumerate(events):
        while changes and changes[0][0] == index:
            _, step, state = changes.pop(0)
            table[step] = state
        assert table == event["states"]
    assert data["latency"]["vision"] == [round(1000 * event["latency"]["vision"], 2) for event in events]
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.html"]


def test_nothing_comes_from_elsewhere_and_only_its_own_script_runs(tmp_path: Path) -> None:
    path = tmp_path / "p.html"
    write_page(path, make_trace(10, 2), [(3, Image.new("RGB", (640, 480)))])
    page = path.read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    script = SCRIPT.findall(page)[1][1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None and "default-src 'none'" in policy[1] and f"script-src 'sha256-{digest}'" in policy[1]
    assert not re.search(
        r"https?://|//[a-z]|\burl\(|@import|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", page
    )
    assert embedded(path)["thumbnails"][0][0] == 3 and "__" not in script


def test_hostile_text_does_not_leave_the_data_block(tmp_path: Path) -> None:
    trace = make_trace(40, 3, text=HOSTILE + "\ud800")
    path = tmp_path / "p.html"
    write_page(path, trace)
    page = path.read_text(encoding="utf-8")
    assert page.isascii() or not {"\u2028", "\u2029"} & set(page)
    assert page.count("</script>") == 2 and "<img src=x" not in page
    assert embedded(path)["goal"] == trace.header["goal"]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.123456])
def test_rounding_takes_no_probability_across_its_threshold(tmp_path: Path, threshold: float) -> None:
    trace = make_trace(5, 1)
    trace.header["speaking_threshold"] = threshold
    for event, p in zip(trace.events, [threshold, threshold - 1e-7, threshold + 1e-7, 0.0, 1.0], strict=True):
        event["p_speak"] = p
    write_page(tmp_path / "p.html", trace)
    shown = values(embedded(tmp_path / "p.html")["speak"])
    assert (shown >= threshold).tolist() == [True, False, True, False, True]
    np.testing.assert_allclose(shown[:3], threshold, atol=1.1e-4)


def test_what_a_page_cannot_be_made_of(tmp_path: Path) -> None:
    trace = make_trace(4, 2)
    with pytest.raises(DataError, match="no events"):
        write_page(tmp_path / "p.html", Trace(trace.header, []))
    with pytest.raises(DataError, match="thumbnail of frame 4, but the trace has 0 to 3"):
        write_page(tmp_path / "p.html", trace, [(4, Image.new("RGB", (8, 8)))])
    assert list(tmp_path.iterdir()) == []


def test_a_long_session_stays_small(tmp_path: Path) -> None:
    """Six bytes a frame and step, base64: no more than the probabilities need."""
    path = tmp_path / "p.html"
    write_page(path, make_trace(600, 50))
    assert path.stat().st_size < 600 * 50 * 8 + 200_000


def chosen(page: Any) -> int:
    match = re.match(r"Frame (\d+),", page.inner_text("#when"))
    assert match is not None
    return int(match[1])


def comes_true(page: Any, expression: str) -> None:
    """playwright's own wait_for_function evaluates strings inside the page, which the page's policy forbids."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def test_the_page_in_a_browser(tmp_path: Path) -> None:
    trace = make_trace(120, 6)
    plain, hostile, bare, long = (tmp_path / f"{name}.html" for name in ("plain", "hostile", "bare", "long"))
    write_page(plain, trace, [(frame, Image.new("RGB", (64, 48), (200, 80, 40))) for frame in range(0, 120, 10)])
    write_page(hostile, make_trace(60, 3, text=HOSTILE), [(0, Image.new("RGB", (8, 8)))])
    write_page(bare, Trace({**make_trace(1, 0, reference=False).header}, make_trace(1, 0).events, truncated=True))
    write_page(long, make_trace(2000, 60))
    said = [event["frame"] for event in trace.events if event["text"] is not None]
    moved = [event["frame"] for event in trace.events if event["transitions"]]
    with open_browser() as new_page:
        page = new_page(viewport={"width": 1280, "height": 900})
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(plain.as_uri())
        assert chosen(page) == said[0] and "Spoke: p(speak)" in page.inner_text("#words")
        assert trace.events[said[0]]["text"] in page.inner_text("#words")
        for key, expected in (
            ("Home", 0), ("ArrowRight", 1), ("Shift+ArrowRight", 11), ("ArrowLeft", 10), ("Shift+ArrowLeft", 0),
            ("ArrowLeft", 0), ("End", 119), ("ArrowRight", 119), ("p", said[-1]), ("p", said[-2]), ("n", said[-1]),
            ("n", said[-1]), ("Home", 0), ("u", moved[0]), ("u", moved[1]),
        ):  # fmt: skip
            page.keyboard.press(key)
            assert chosen(page) == expected, key
        move = trace.events[moved[1]]["transitions"][0]
        words = ["not started", "in progress", "completed"]
        assert f"{words[move['before']]} → {words[move['after']]}" in page.inner_text("#words")
        row = page.locator("#table tbody tr").nth(move["step"])
        assert words[move["after"]] in row.inner_text() and "moved" in (row.get_attribute("class") or "")
        assert page.get_attribute(".st-lanes", "aria-valuenow") == str(moved[1])
        comes_true(page, "document.querySelector('.st-hidden').textContent.startsWith('Frame ')")

        # The first Tab stops are the buttons; focus shows. Zoom keeps the frame; a click selects what is under it.
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.dataset.action") == "previous"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        for _ in range(4):
            page.keyboard.press("+")
        assert page.evaluate("timeline.scale") > 10
        middle, gutter = page.evaluate("[timeline.middle(timeline.selected), timeline.gutter]")
        assert gutter < middle < page.evaluate("document.querySelector('.st-lanes').clientWidth")
        for _ in range(6):
            page.keyboard.press("-")
        box = page.locator(".st-lanes").bounding_box()
        steps = page.locator(".st-steps").bounding_box()
        page.mouse.move(box["x"] + page.evaluate("timeline.middle(60)"), steps["y"] + 10)
        tip = page.inner_text(".st-tip")
        assert tip.startswith("frame 60, 0:30") and "head: not started" in tip
        page.mouse.click(box["x"] + page.evaluate("timeline.middle(60)"), box["y"] + 10)
        assert chosen(page) == 60
        assert all(url.startswith(("file://", "data:")) for url in requests) and page.problems == []

        page = new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        page.goto(hostile.as_uri())
        page.wait_for_timeout(200)
        page.keyboard.press("c")
        assert "</script><img src=x onerror=alert(1)>" in page.inner_text("#goal")
        assert "<img src=x onerror=alert(1)>" in page.inner_text("#words")
        assert page.locator("img").count() == 1 and page.locator("script").count() == 2 and page.problems == []
        assert page.evaluate("document.documentElement.scrollWidth") == 390

        page = new_page(viewport={"width": 1280, "height": 900})
        page.goto(bare.as_uri())
        page.keyboard.press("n")
        assert chosen(page) == 0 and "cut short" in page.inner_text("header") and page.problems == []
        assert page.is_hidden("#picture") and page.locator("[data-action=context]").count() == 0

        page.goto(long.as_uri())
        first = page.evaluate("S.said[0]")  # a frame is narrower than a pixel: the pointer is never exactly on it
        box = page.locator(".st-lanes").bounding_box()
        page.mouse.move(box["x"] + page.evaluate(f"timeline.middle({first['frame']})") + 4, box["y"] + 24 + 13)
        assert page.evaluate("timeline.scale") < 0.5 and first["text"] in page.inner_text(".st-tip")
        for _ in range(40):
            page.keyboard.press("n")
        assert page.evaluate("document.querySelector('.st-steps').scrollTop") > 0
        assert page.evaluate("$('table').scrollTop") > 0
        assert page.evaluate(f"{SCROLL}.scrollWidth <= {SCROLL}.clientWidth + 1")
        for _ in range(8):
            page.keyboard.press("+")
        at = page.evaluate("timeline.left")
        page.evaluate(f"{SCROLL}.scrollLeft += 500")
        comes_true(page, f"Math.abs(timeline.left - {at} - 500 / timeline.scale) < 1")
        assert page.problems == []


def small_trace() -> Trace:
    """Twenty frames, two steps; the assistant is late once, silent once, and speaks twice too often."""
    trace = make_trace(20, 2, reference=False)
    trace.header["reference"] = {
        "utterances": [{"frame": 4, "text": "Fetch the\nchassis."}, {"frame": 12, "text": "Screw it on."}],
        "states": [[4, 0, 1], [12, 1, 1], [13, 0, 2]],
    }
    texts = {5: "Fetch the chassis.", 6: "Good.", 17: "Well done."}
    for frame, event in enumerate(trace.events):
        event["text"], event["user_text"], event["context"] = texts.get(frame), "", None
        event["states"] = [0 if frame < 4 else 1 if frame < 14 else 2, 0 if frame < 12 else 1]
    return trace


def test_utterances_are_compared_with_the_reference(tmp_path: Path) -> None:
    write_page(tmp_path / "p.html", small_trace())
    session = embedded(tmp_path / "p.html")["session"]
    assert [(one["frame"], one["verdict"]) for one in session["said"]] == [
        (5, "exact"), (6, "redundant"), (17, "redundant")]  # fmt: skip
    assert [(one["frame"], one["verdict"]) for one in session["reference"]] == [(4, "exact"), (12, "missed")]
    assert session["said"][0]["pair"] == 0 and "pair" not in session["said"][1]
    write_page(tmp_path / "p.html", make_trace(20, 2, reference=False))
    session = embedded(tmp_path / "p.html")["session"]
    assert session["reference"] is session["reference_states"] is None
    assert not any("verdict" in one for one in session["said"])


def test_the_reference_before_the_first_frame_holds_on_it(tmp_path: Path) -> None:
    """A stream that goes on after a stop has a trace that begins later."""
    trace = small_trace()
    write_page(tmp_path / "p.html", Trace(trace.header, trace.events[10:]))
    session = embedded(tmp_path / "p.html")["session"]
    assert session["first_frame"] == 10 and session["reference_states"] == [[0, 0, 1], [2, 1, 1], [3, 0, 2]]
    assert session["predicted_states"][0] == [0, 0, 1]
    assert [one["frame"] for one in session["reference"]] == [2]


def test_disagreements_the_list_and_links_in_a_browser(tmp_path: Path) -> None:
    path = tmp_path / "p.html"
    write_page(path, small_trace())
    with open_browser() as new_page:
        page = new_page(viewport={"width": 1280, "height": 900})
        page.goto(path.as_uri() + "#frame=3")
        assert chosen(page) == 3
        # The state of step 1 differs on frame 13; an utterance is missed on 12, others are redundant on 6 and 17.
        assert page.evaluate("timeline.disagreements") == [6, 12, 13, 17]
        for key, expected in (("d", 6), ("d", 12), ("d", 13)):
            page.keyboard.press(key)
            assert chosen(page) == expected, key
        caption = page.inner_text(".st-caption")
        assert "predicted: ◐ in progress; reference: ● completed" in caption and "step 2" not in caption
        for key, expected in (("d", 17), ("d", 17), ("Shift+D", 13), ("Shift+D", 12)):
            page.keyboard.press(key)
            assert chosen(page) == expected, key
        caption = page.inner_text(".st-caption")
        assert "missed Screw it on." in caption and "step 2" in caption and "No earlier" not in caption
        for _ in range(2):
            page.keyboard.press("Shift+D")
        assert chosen(page) == 6 and "No earlier disagreement." in page.inner_text(".st-caption")
        page.keyboard.press("End")
        page.keyboard.press("Shift+D")
        page.keyboard.press("Shift+D")
        assert chosen(page) == 13
        page.get_by_role("button", name="disagreement ›").click()
        assert chosen(page) == 17

        rows = page.locator(".st-list tbody tr")
        assert [row.split("\t")[0] for row in rows.all_inner_texts()] == ["0:02", "0:03", "0:06", "0:08.5"]
        assert "+0.5 s" in rows.first.inner_text()  # the pair is in one row
        page.get_by_role("button", name="same words +0.5 s Fetch the chassis.").click()
        assert chosen(page) == 5 and page.locator(".st-line[aria-current=true]").count() == 1
        for _ in range(2):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert chosen(page) == 12

        # A mark without room for its text: the text is shown beside the pointer, also a few pixels off the mark.
        box = page.locator(".st-lanes").bounding_box()
        assistant = box["y"] + 24 + 13
        page.mouse.move(box["x"] + page.evaluate("timeline.middle(5) - timeline.scale / 2") + 2, assistant)
        assert "assistant, same words: Fetch the chassis." in page.inner_text(".st-tip")
        page.mouse.move(box["x"] + page.evaluate("timeline.middle(17) - timeline.scale / 2") - 6, assistant)
        assert "assistant, redundant: Well done." in page.inner_text(".st-tip")

        differ = page.evaluate("SessionTimeline.wordDifferences('Now the red cup.', 'Then the blue cup!')")
        assert [[piece for piece, differs in words if differs] for words in differ] == [
            ["Now", "red", "."], ["Then", "blue", "!"]]  # fmt: skip

        page.get_by_role("button", name="copy a link to this frame").click()
        comes_true(page, "/link/.test(document.querySelector('.st-caption').textContent)")
        assert page.url.endswith("#frame=12")
        page.evaluate("location.hash = 'frame=8'")
        comes_true(page, "timeline.selected === 8")
        assert page.problems == []


def test_several_timelines_on_one_page(tmp_path: Path) -> None:
    """As a report draws them: other data, words of its own, keys only where the focus is."""
    session = {
        "id": "one", "frames": 30, "fps": 2, "first_frame": 0, "steps": ["Fetch it"], "predicted_states": [[3, 0, 1]],
        "reference_states": None, "p_speak": [], "p_update": [], "user": [], "reference": [
            {"frame": 9, "text": "Now the blue cup", "verdict": "matched",
             "words": [["Now the ", False], ["blue", True], [" cup", False]]}],
        "said": [{"frame": 10, "text": "Now the red cup", "verdict": "matched", "pair": 0,
                  "words": [["Now the ", False], ["red", True], [" cup", False]]}],
    }  # fmt: skip
    template = """<!doctype html><meta http-equiv="Content-Security-Policy"
        content="default-src 'none'; style-src 'unsafe-inline'; script-src '__SCRIPT_HASH__'">
        <style>
/* include: palette.css */
/* include: session_timeline.css */
</style><div id="a"></div><details><summary>more</summary><div id="b"></div></details>
<script id="data" type="application/json">__PAGE_DATA__</script><script>
/* include: session_timeline.js */
const { sessions } = JSON.parse(document.getElementById("data").textContent);
const [a, b] = sessions.map((one, n) => SessionTimeline.draw(document.getElementById("ab"[n]), one,
  { verdicts: { matched: "alike" } }));
</script>"""
    write_html(tmp_path / "p.html", template, {"sessions": [session, {**session, "id": HOSTILE}]})
    with open_browser() as new_page:
        page = new_page(viewport={"width": 800, "height": 900})
        page.goto((tmp_path / "p.html").as_uri())
        marked = page.locator("#a .st-list mark").all_inner_texts()
        assert marked == ["blue", "red"] and "alike" in page.inner_text("#a .st-list")
        page.keyboard.press("End")
        assert page.evaluate("[a.selected, b.selected]") == [10, 10]
        page.get_by_text("more").click()
        page.locator("#b .st-lanes").focus()
        page.keyboard.press("End")
        assert page.evaluate("[a.selected, b.selected]") == [10, 29]
        comes_true(page, "b.scale > 10")  # drawn once it is seen
        assert page.locator(".st-bar >> text=disagreement").count() == 2
        assert page.problems == []


def test_a_template_cannot_include_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"other\.js"):
        write_html(tmp_path / "p.html", "<script>\n/* include: other.js */\n</script>__PAGE_DATA__", {})
    assert list(tmp_path.iterdir()) == []


def test_deviations_from_the_plan_are_marked_with_those_of_the_reference(tmp_path: Path) -> None:
    """Predicted: step 2 before step 1. Reference: both in order, step 2 never completed, and the trace begins later."""
    trace = make_trace(20, 2)
    states = [[0, 0]] * 6 + [[0, 1]] * 4 + [[0, 2]] * 4 + [[1, 2]] * 6
    rule = Deviations([0, 0])
    for event, table in zip(trace.events, states, strict=True):
        event |= {"states": table, "transitions": [], "deviations": [asdict(one) for one in rule.see(table)]}
    trace.header["reference"] = {"utterances": [], "states": [[2, 0, 1], [9, 0, 2], [12, 1, 1]]}
    ended = Trace(trace.header, trace.events[3:], end=[asdict(one) for one in rule.at_end()])
    write_page(tmp_path / "p.html", ended)
    session = embedded(tmp_path / "p.html")["session"]
    assert session["deviations"] == [
        [3, 1, "step 2 out of order: step 1 is not started"],
        [7, 0, "step 1 skipped: step 2 is completed"],
        [16, 0, "step 1 unfinished"],
    ]
    assert session["reference_deviations"] == [[16, 1, "step 2 unfinished"]]
    write_page(tmp_path / "stopped.html", Trace(trace.header, trace.events[3:]))
    assert embedded(tmp_path / "stopped.html")["session"]["reference_deviations"] == []
    with open_browser() as new_page:
        page = new_page(viewport={"width": 1280, "height": 900})
        page.goto((tmp_path / "p.html").as_uri())
        page.keyboard.press("Home")
        for expected in (6, 10, 19):
            page.keyboard.press("v")
            assert chosen(page) == expected
        caption = page.inner_text(".st-caption")
        assert "step 1 unfinished" in caption and "step 2 unfinished" in caption
        assert "deviation from the plan (hollow: reference)" in page.inner_text(".st-legend") and page.problems == []
