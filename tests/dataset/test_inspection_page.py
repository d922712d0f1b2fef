"""The report of an inspection: its page in a real browser, and its pictures, for sessions of any size and text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser import open_browser
from dataset_fixtures import WTAG, change_rows, make_session, make_sessions, write_dataset
from PIL import Image
from proassist_fixtures import write_store
from trace_fixtures import HOSTILE

from prospect_hf.dataset.inspection import pictures, views
from prospect_hf.dataset.inspection.findings import PROMISES
from prospect_hf.dataset.inspection.inspect import Inspection, inspect_dataset
from prospect_hf.dataset.inspection.page import MOST_BROKEN, text_report, write_figures, write_page
from prospect_hf.dataset.inspection.pictures import STATES, WIDTH, frame_strip, timeline_picture
from prospect_hf.sessions import DSTEvent, Session, Step, Turn

DATA = re.compile(r'<script id="data" type="application/json">(.*?)</script>', re.S)


def long_session(steps: int, seconds: int, turns: int, text: str) -> Session:
    """Each step takes its part of the session, one after the other."""
    each = seconds / steps
    events = [
        DSTEvent(each * (number + share) + 1, number, transition)
        for number in range(steps)
        for share, transition in ((0.1, "start"), (0.9, "complete"))
    ]
    return make_session(
        "long",
        goal=f"{text} {'all of it, ' * 200}",
        steps=tuple(Step(f"S{n + 1}", f"{text} step {n + 1} {'and more ' * 30}") for n in range(steps)),
        turns=tuple(Turn("assistant", seconds * n / turns, f"{text} {n}") for n in range(turns)),
        events=tuple(events),
        num_frames=2 * seconds + 4,
    )


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    """200 steps, whose texts are hostile; one row is damaged."""
    folder = tmp_path_factory.mktemp("long") / "dst <b>frames"
    write_dataset(folder, {("wtag", "train"): [[long_session(200, 200, 60, HOSTILE)]]})
    change_rows(folder, WTAG.replace("00002", "00001"), lambda rows: rows[30].update(speaking=7))
    return inspect_dataset(folder, progress=False)


def embedded(page: Path) -> dict[str, Any]:
    (text,) = DATA.findall(page.read_text(encoding="utf-8"))
    data: dict[str, Any] = json.loads(text)
    return data


def test_the_page_shows_what_was_found(long: Inspection, tmp_path: Path) -> None:
    page = tmp_path / "inspection.html"
    write_page(page, long)
    with open_browser() as new_page:
        for width, scheme in ((1400, "light"), (390, "dark")):
            tab = new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            tab.goto(page.as_uri())
            tab.wait_for_function("document.querySelector('.timeline canvas').width > 0")
            assert tab.problems == [] and tab.title() == "Data set dst <b>frames"
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert tab.inner_text("#verdict") == f"2 of {len(PROMISES)} promises are broken"
            rows = [row.split("\t") for row in tab.inner_text("#brokenBox tbody").splitlines()]
            assert [row[0].strip() for row in rows] == ["speaking", "sample"]
            # A screen reader says which source and which figure a number belongs to.
            assert tab.locator("#sources thead th[scope=col]").count() == tab.locator("#sources thead th").count() > 1
            assert tab.locator("#sources tbody th[scope=row]").count() == tab.locator("#sources tbody tr").count()
            assert "session long, frame 30" in rows[0][1]
            assert tab.locator("#kept tr").count() == len(PROMISES) - 2
            assert "1,000" not in tab.inner_text("#lengths") and "inspect.tokenizer" in tab.inner_text("#lengths")
            # The timeline's own list of steps scrolls: the page stays short.
            assert tab.evaluate("document.querySelector('.st-steps').clientHeight") < 400
            tab.locator(".st-lanes").first.focus()
            tab.keyboard.press("u")
            assert "in progress" in tab.inner_text(".st-caption")
            tab.locator(".st-steps").first.hover()
            assert "label: " in tab.inner_text(".st-tip")


def test_texts_are_bounded_and_never_markup(long: Inspection, tmp_path: Path) -> None:
    page = tmp_path / "inspection.html"
    write_page(page, long)
    text = page.read_text(encoding="utf-8")
    assert text.count("</script>") == 2 and "<img" not in text.partition("<body>")[2].replace("<img>", "")
    assert not re.search(r"https?://|\burl\(|@import|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
    (session,) = embedded(page)["sessions"]
    view = session["view"]
    assert (
        max(map(len, [session["goal"], *view["steps"], *(one["text"] for one in view["said"])]))
        <= views.MOST_CHARACTERS
    )


def test_a_session_of_any_size_is_shown_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST_STEPS", 40)
    monkeypatch.setattr(views, "MOST_UTTERANCES", 100)
    monkeypatch.setattr(pictures, "MOST_ROWS", 30)
    write_dataset(tmp_path / "d", {("wtag", "train"): [[long_session(45, 100, 130, "x")]]})
    found = inspect_dataset(tmp_path / "d", progress=False)
    (shown,) = found.shown
    assert shown.left_out == "30 more utterances, 5 more steps" and shown.turns == (130, 0)
    said = [one["frame"] for one in shown.view["said"]]
    assert len(said) == 100 and said == sorted(set(said)) and said[0] == 0 and said[-1] > 190
    assert len(shown.view["steps"]) == 40
    assert {step for _, step, _ in shown.view["predicted_states"]} == set(range(40))
    assert timeline_picture(shown).height < 96 + 24 * 3 + 30 * 24 + 60


def test_no_session_makes_the_page_large() -> None:
    """Utterances and steps with the longest texts, and as many of them as a page can have."""
    assert (views.MOST_UTTERANCES + views.MOST_STEPS + views.MOST_MISTAKES) * views.MOST_CHARACTERS < 6_000_000


def test_many_broken_promises_are_shown_in_part(long: Inspection, tmp_path: Path) -> None:
    (one,) = [one for one in long.broken if one.promise == "speaking"]
    many = Inspection(**{**vars(long), "broken": [one] * (MOST_BROKEN + 30)})
    write_page(tmp_path / "page.html", many)
    data = embedded(tmp_path / "page.html")
    assert len(data["broken"]) == MOST_BROKEN and data["more_broken"] == 30
    assert "and 30 more, in inspection.json" in text_report(many)
    write_figures(tmp_path / "figures.json", many)
    assert len(json.loads((tmp_path / "figures.json").read_text())["broken"]) == MOST_BROKEN + 30


def colours(picture: Image.Image, y: int) -> list[str]:
    """The colours of states on a line of a picture, in order."""
    found: list[str] = []
    for x in range(WIDTH):
        colour = "#{:02x}{:02x}{:02x}".format(*picture.getpixel((x, y)))
        if colour in STATES.values() and colour != (found or [""])[-1]:
            found.append(colour)
    return found


def test_the_picture_shows_the_states_over_time(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d", make_sessions())
    (shown,) = inspect_dataset(tmp_path / "d", session="a", progress=False).shown
    picture = timeline_picture(shown)
    top = 96 + 24 * 4  # ruler, assistant, user, mistakes
    waiting, busy, done = STATES.values()
    assert picture.width == WIDTH
    assert colours(picture, top + 12) == [waiting, busy, done, busy, done]
    assert colours(picture, top + 24 + 12) == [waiting, busy, done]
    assert colours(picture, top + 48 + 12) == [waiting]
    (unlabelled,) = inspect_dataset(tmp_path / "d", session="c", progress=False).shown
    assert colours(timeline_picture(unlabelled), top + 12) == []


def test_the_strip_shows_frames_of_the_video(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d", make_sessions())
    (tmp_path / "processed_data" / "wtag").mkdir(parents=True)
    write_store(tmp_path, "v-a", 40)
    found = inspect_dataset(tmp_path / "d", session="a", frames=tmp_path / "processed_data", progress=False)
    strip = frame_strip(found.shown[0])
    grey = [strip.getpixel((8 + 248 * column + 120, 8 + 18 + 100)) for column in range(6)]
    assert all(max(abs(part - 9) for part in pixel) < 4 for pixel in grey)
