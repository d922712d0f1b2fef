"""The page of a comparison in a real browser: both timelines of a video, worst and best first, search, hostile text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser import open_browser
from trace_fixtures import HOSTILE

from prospect_hf.annotate.comparison import page
from prospect_hf.annotate.comparison.compare import Comparison, compare_sets
from prospect_hf.annotate.comparison.label_sets import read_label_set

DATA = re.compile(r'<script id="data" type="application/json">(.*?)</script>', re.S)
VIDEOS = 130


def record(number: int, shift: float, steps: int, text: str, name: str) -> dict[str, Any]:
    return {
        "video_uid": f"{name}{number:03}",
        "inferred_goal": f"{text} of machine {number}",
        "inferred_knowledge": "\n".join(f"{n + 1}. {text} {n + 1}" for n in range(steps)),
        "parsed_video_anns": {
            "dataset": "wtag" if number % 2 else "ego4d-goalstep",
            "all_step_descriptions": f"[1.0s-8.0s] {text}\n - [2.0s] {text} more\n[9.0s-12.0s] look",
            "duration": 40.0 + steps * 10,
        },
        "dst": [
            {"type": "step", "id": f"S{n + 1}", "start_ts": 10.0 * n + 5 + shift, "end_ts": 10.0 * n + 13 + shift}
            for n in range(steps)
        ],
    }


def compared(folder: Path, text: str, videos: int, steps: int = 3, uid: str = "v") -> Comparison:
    """Video n of B is n / 10 seconds late; the last one has no labels."""
    for name, shifts in (("a", [0.0] * videos), ("b", [n / 10 for n in range(videos)])):
        records = [record(number, shift, steps, text, uid) for number, shift in enumerate(shifts)]
        records.append(record(videos, 0.0, steps, text, uid) | ({"dst": []} if name == "b" else {}))
        (folder / f"{name}.json").write_text(json.dumps(records), encoding="utf-8")
    return compare_sets(read_label_set(str(folder / "a.json")), read_label_set(str(folder / "b.json")), None, "reopen")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compared(tmp_path_factory.mktemp("many"), "Turn the wheel", VIDEOS)


def test_videos_worst_and_best_first_with_both_timelines(many: Comparison, tmp_path: Path) -> None:
    page.write_page(tmp_path / "page.html", many, 3, 2, ["v060"])
    with open_browser() as new_page:
        tab = new_page(viewport={"width": 1200, "height": 900})
        tab.goto((tmp_path / "page.html").as_uri())
        assert tab.locator("details.video").count() == 100 and tab.inner_text("#found") == f"{VIDEOS} videos"
        assert "6 of 130 videos have their timelines here" in tab.inner_text("#viewsNote")
        assert "1 cannot be compared" in tab.inner_text("#left") and "'dst' is an empty list" in tab.inner_text("#left")
        first = tab.locator("details.video").first
        assert first.locator("small").inner_text() == f"v{VIDEOS - 1}"
        first.locator("summary").click()
        tab.wait_for_function("document.querySelector('.timeline canvas').width > 0")
        # The first frame on which they differ is shown, with both states.
        assert "in progress" not in first.locator(".st-caption").inner_text().split("A: ")[0]
        assert ": B: ○ not started; A: ◐ in progress" in first.locator(".st-caption").inner_text()
        assert "above: A, below: B" in first.inner_text()
        assert "Turn the wheel more [2 s]" in first.locator(".st-list").inner_text()
        tab.locator("#more").click()
        assert tab.locator("details.video").count() == VIDEOS and tab.locator("#more").is_hidden()
        tab.select_option("#order", "best first")
        assert tab.locator("details.video small").first.inner_text() == "v000"
        tab.fill("#search", "MACHINE V06")
        assert tab.inner_text("#found") == "10 videos"  # v060 to v069
        tab.select_option("#source", "wtag")
        assert tab.inner_text("#found") == "5 videos"
        tab.fill("#search", "v060")
        assert tab.inner_text("#found") == "0 videos"
        tab.select_option("#source", "all sources")
        assert tab.inner_text("#found") == "1 video" and "no timeline" not in tab.inner_text("#videos")
        tab.fill("#search", "v061")
        tab.locator("details.video summary").click()
        tab.wait_for_selector("text=compare_dst.videos=[v061] brings it")
        tab.fill("#search", "")
        tab.check("#shown")
        assert tab.inner_text("#found") == "6 videos" and tab.problems == []


def test_hostile_texts_stay_texts_at_any_width(tmp_path: Path) -> None:
    image = "<img src=x onerror=alert(1)>"
    (tmp_path / image).mkdir()
    found = compared(tmp_path / image, HOSTILE.replace("\n", " "), 2, uid=image)
    page.write_page(tmp_path / "page.html", found, 5, 5, [])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2 and "<img" not in text.partition("<body>")[2]
    assert not re.search(r"https?://|\burl\(|@import|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
    with open_browser() as new_page:
        for width, scheme in ((1400, "light"), (390, "dark")):
            tab = new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            tab.goto((tmp_path / "page.html").as_uri())
            tab.locator("details.video summary").first.click()
            tab.wait_for_function("document.querySelector('.timeline canvas').width > 0")
            assert "<img" in tab.inner_text(".video .goal") or "<script" in tab.inner_text(".video .goal")
            assert tab.locator("img").count() == 0 and tab.problems == []
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def embedded(path: Path) -> dict[str, Any]:
    (text,) = DATA.findall(path.read_text(encoding="utf-8"))
    data: dict[str, Any] = json.loads(text)
    return data


def test_a_page_of_many_videos_is_bounded(many: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page.write_page(tmp_path / "page.html", many, 60, 60, [])
    size = (tmp_path / "page.html").stat().st_size
    assert len(embedded(tmp_path / "page.html")["views"]) == 120 and size < 400_000
    monkeypatch.setattr(page, "VIEW_CHARACTERS", 20_000)
    page.write_page(tmp_path / "small.html", many, 60, 60, ["v005"])
    views = embedded(tmp_path / "small.html")["views"]
    assert 2 < len(views) < 60 and views[str(VIDEOS - 1 - 5)]["id"] == "v005" and "0" in views
    page.write_page(tmp_path / "none.html", many, 0, 0, [])
    assert embedded(tmp_path / "none.html")["views"] == {}


def test_a_video_of_any_size_is_shown_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_STEPS", 4)
    monkeypatch.setattr(page, "MOST_LINES", 1)
    found = compared(tmp_path, "x" * 3_000, 1, steps=9)
    page.write_page(tmp_path / "page.html", found, 1, 1, [])
    (view,) = embedded(tmp_path / "page.html")["views"].values()
    assert view["left_out"] == "5 more steps, 1 more annotation lines"
    assert len(view["steps"]) == 4 and len(view["said"]) == len(view["user"]) == 1
    assert {step for _, step, _ in view["predicted_states"]} == {0, 1, 2, 3}
    assert max(map(len, [*view["steps"], view["said"][0]["text"]])) == page.MOST_CHARACTERS


def test_long_lists_of_videos_left_out_are_cut(many: Comparison, tmp_path: Path) -> None:
    (one,) = many.left
    long = Comparison(**{**vars(many), "left": [one] * (page.MOST_LEFT + 30)})
    page.write_page(tmp_path / "page.html", long, 1, 1, [])
    data = embedded(tmp_path / "page.html")
    assert len(data["left"]) == page.MOST_LEFT and data["kinds"] == [["cannot be compared", page.MOST_LEFT + 30]]
    assert f"and {page.MOST_LEFT + 20} more, in agreement.json" in page.text_report(long)
