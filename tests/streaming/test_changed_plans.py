"""A plan that changed on the way, on the timeline page, in subtitles and in the painted video."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from browser import open_browser
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from trace_fixtures import HOSTILE, make_trace, with_plan_change

from events_dst_smolvlm import PlanChange, StreamEvent
from prospect_hf.streaming.subtitles import Painter, write_srt
from prospect_hf.streaming.timeline_page import step_rows, write_page
from prospect_hf.streaming.trace import Trace, TraceWriter, read_trace
from tracking_dst_smolvlm import Deviation

OLD = make_trace(40, 3).header["plan"]
NEW = ["Fit the roof", OLD[2], OLD[0], HOSTILE]


def changed_trace(reference: bool = False) -> Trace:
    """Before frame 20 the plan becomes NEW: two of three steps stay, in another order, and two are new."""
    return with_plan_change(make_trace(40, 3, reference=reference), 20, NEW, [None, 2, 0, None])


def embedded(path: Path) -> dict[str, Any]:
    found = re.search(r'<script id="trace" type="application/json">(.*?)</script>', path.read_text("utf-8"), re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_page_has_a_row_for_every_step_of_every_plan(tmp_path: Path) -> None:
    trace = changed_trace(reference=True)
    write_page(tmp_path / "p.html", trace)
    data = embedded(tmp_path / "p.html")
    session = data["session"]
    # In the order of the last plan; the step that was left out stays behind the one that it followed.
    assert session["steps"] == ["Fit the roof", OLD[2], OLD[0], OLD[1], HOSTILE]
    whole = [[0, 20, 3], [20, 40, 2]], [[0, 20, 1], [20, 40, 3]], [[0, 20, 2]]
    assert session["stretches"] == [[[20, 40, 1]], *whole, [[20, 40, 4]]]
    rows = {0: [2, 3, 1], 20: [0, 1, 2, 4]}
    table = dict.fromkeys(range(5), 0)
    for index, event in enumerate(trace.events):
        table |= {row: state for frame, row, state in session["predicted_states"] if frame == index}
        assert [table[row] for row in rows[0 if index < 20 else 20]] == event["states"]
    assert all(step in rows[0 if index < 20 else 20] for index, step, *_ in data["moves"])
    assert session["reference_states"] is None and session["reference"]  # its states are of another plan
    told = "The plan was changed before this frame: 4 steps, 2 of them kept. The goal is now: Another toy"
    assert data["plan_changes"] == [[20, told]] and data["other_reference"]
    write_page(tmp_path / "p.html", make_trace(40, 3))
    data = embedded(tmp_path / "p.html")
    assert data["session"]["stretches"] is None and data["session"]["reference_states"]
    assert data["plan_changes"] == [] and not data["other_reference"]


def test_a_plan_that_no_frame_had_has_no_rows() -> None:
    trace = with_plan_change(make_trace(6, 3, reference=False), 0, NEW, [None, 2, 0, None])
    assert step_rows(trace) == (["Fit the roof", OLD[2], OLD[0], HOSTILE], [[0, 1, 2, 3]] * 6)


@given(st.lists(st.lists(st.sampled_from([None, 0, 1, 2, 3]), min_size=1, max_size=5), max_size=5))
def test_rows_follow_steps_through_any_changes(wanted: list[list[int | None]]) -> None:
    trace, size = make_trace(12, 3, reference=False), 3
    names = [["0", "1", "2"]]
    trace.header["plan"] = names[0]
    for number, places in enumerate(wanted, start=1):
        kept = [old if old is None or (old < size and old not in places[:n]) else None for n, old in enumerate(places)]
        names.append([names[-1][old] if old is not None else f"{number}.{n}" for n, old in enumerate(kept)])
        trace, size = with_plan_change(trace, 2 * number, names[-1], kept), len(kept)
    texts, rows = step_rows(trace)
    for plan, row in zip(trace.plans(), rows, strict=True):
        assert [texts[place] for place in row] == plan  # a kept step has the name that it was given first
    assert len(set(texts)) == len(texts) and {place for row in rows for place in row} == set(range(len(texts)))
    assert rows[-1] == sorted(rows[-1])


def test_the_page_of_a_changed_plan_in_a_browser(tmp_path: Path) -> None:
    write_page(tmp_path / "p.html", changed_trace(), [(frame, Image.new("RGB", (64, 48))) for frame in (0, 20)])
    with open_browser() as new_page:
        page = new_page(viewport={"width": 1280, "height": 900})
        page.goto((tmp_path / "p.html").as_uri() + "#frame=19")
        shown = page.locator("#table tbody tr:not([hidden])")
        assert [row.inner_text().split("\t")[0] for row in shown.all()] == ["3", "1", "2"]
        assert "1 plan change" in page.inner_text("#facts")
        page.keyboard.press("c")
        assert page.inner_text("#when").startswith("Frame 20,")
        assert "4 steps, 2 of them kept. The goal is now: Another toy" in page.inner_text("#words")
        assert [row.inner_text().split("\t")[0] for row in shown.all()] == ["1", "2", "3", "4"]
        box = page.locator(".st-steps").bounding_box()
        for frame, text in ((5, "Fit the roof\nnot in the plan"), (30, "1. Fit the roof\npredicted: not started")):
            page.mouse.move(box["x"] + page.evaluate(f"timeline.middle({frame})"), box["y"] + 8)
            assert text in page.inner_text(".st-tip")
        assert page.locator("img[src=x]").count() == 0 and page.problems == []


def test_subtitles_and_video_of_a_changed_plan(tmp_path: Path) -> None:
    plain, changed = make_trace(40, 3, reference=False), changed_trace()
    write_srt(tmp_path / "plain.srt", plain)
    write_srt(tmp_path / "changed.srt", changed)
    assert (tmp_path / "changed.srt").read_text() == (tmp_path / "plain.srt").read_text()
    painters = [Painter(trace, (720, 960), None) for trace in (plain, changed)]
    grey = Image.new("RGB", (64, 48), (128, 128, 128))
    for frame, same in ((19, True), (20, False), (39, False)):
        pictures = [
            np.asarray(painter.draw(trace.events[frame], grey))
            for painter, trace in zip(painters, (plain, changed), strict=True)
        ]
        assert np.array_equal(*pictures) == same, frame
    # The panel after the change is that of a trace that has had the new plan all the time.
    other = Trace(changed.header | {"plan": NEW}, [event | {"plan_change": None} for event in changed.events[20:]])
    drawn = [np.asarray(Painter(trace, (720, 960), None).draw(trace.events[-1], grey)) for trace in (changed, other)]
    assert np.array_equal(drawn[0][600:], drawn[1][600:])


def test_a_deviation_stays_with_the_plan_that_it_is_of(tmp_path: Path) -> None:
    """Step 2 of the old plan is left out of the new one, whose step 2 is another; the end is of the last plan."""
    trace = changed_trace()
    clean = Trace(trace.header, [event | {"deviations": []} for event in trace.events], end=[])
    events = list(clean.events)
    for frame in (10, 25):
        events[frame] = events[frame] | {"deviations": [{"kind": "repeated", "step": 1, "other": None}]}
    strayed = Trace(trace.header, events, end=[{"kind": "unfinished", "step": 3, "other": None}])
    path = tmp_path / "t.jsonl"
    with TraceWriter(path, strayed.header) as writer:
        for event in strayed.events:
            fields = event | {"deviations": tuple(Deviation(**one) for one in event["deviations"])}
            change = event.get("plan_change")
            writer.write(StreamEvent(**(fields | {"plan_change": None if change is None else PlanChange(**change)})))
        assert strayed.end is not None
        writer.end([Deviation(**one) for one in strayed.end])
    write_page(tmp_path / "p.html", read_trace(path))
    told = embedded(tmp_path / "p.html")["session"]["deviations"]
    assert told == [[10, 3, "step 2 repeated"], [25, 1, "step 2 repeated"], [39, 4, "step 4 unfinished"]]
    grey = Image.new("RGB", (64, 48), (128, 128, 128))
    painters = [Painter(one, (720, 960), None) for one in (strayed, clean)]
    marked = [
        not np.array_equal(*(np.asarray(painter.draw(trace.events[frame], grey)) for painter in painters))
        for frame in range(40)
    ]
    assert marked == [False] * 10 + [True] * 10 + [False] * 5 + [True] * 15
