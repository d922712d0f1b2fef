"""Deviations from the plan where people see them: live view, annotated video, and the sessions of a report."""

from __future__ import annotations

import io
from dataclasses import asdict, replace

import numpy as np
from model_fixtures import make_session
from PIL import Image
from rich.console import Console
from score_fixtures import scored_run
from trace_fixtures import make_trace

from prospect_hf.evaluation.baselines import oracle, silent
from prospect_hf.evaluation.report.sessions import view
from prospect_hf.streaming.live_view import LiveView
from prospect_hf.streaming.subtitles import Painter
from prospect_hf.streaming.trace import Trace
from streaming_dst_smolvlm import StreamEvent
from tracking_dst_smolvlm import Deviation, Deviations, Transition

SWAPPED = [[0, 0]] * 4 + [[0, 1]] * 4 + [[0, 2]] * 4


def swapped_trace() -> Trace:
    trace = make_trace(12, 2)
    rule = Deviations([0, 0])
    for event, table in zip(trace.events, SWAPPED, strict=True):
        event |= {"states": table, "transitions": [], "deviations": [asdict(one) for one in rule.see(table)]}
    return Trace(trace.header, trace.events, end=[])


def test_the_live_view_tells_each_once_and_those_of_the_end() -> None:
    for terminal in (False, True):
        console = Console(file=io.StringIO(), width=100, force_terminal=terminal)
        with LiveView(["Fill.", "Boil."], "Make tea", 0.5, 0.5, console) as shown:
            for event in swapped_trace().events:
                given = {**event, "deviations": tuple(Deviation(**one) for one in event["deviations"])}
                shown.show(
                    StreamEvent(**{**given, "transitions": tuple(Transition(**m) for m in event["transitions"])})
                )
            shown.end(6.0, (Deviation("unfinished", 0),))
        words = console.file.getvalue()  # type: ignore[attr-defined]
        for text in ("step 2 out of order: step 1 is not started", "step 1 skipped: step 2 is completed"):
            assert words.count(f"plan: {text}") == 1 or (terminal and text in words)
        assert "0:06.0" in words and "step 1 unfinished" in words


def test_the_video_names_the_deviation_beside_its_step_from_its_frame_on() -> None:
    """The pictures differ from those without deviations in the rows of the steps, from the frame that shows them on."""
    trace = swapped_trace()
    plain = Trace(trace.header, [{**event, "deviations": []} for event in trace.events])
    ours, theirs = (Painter(one, (720, 960), None) for one in (trace, plain))
    picture = Image.new("RGB", (64, 48), (80, 120, 40))
    differs = [
        np.argwhere((np.asarray(ours.draw(a, picture)) != np.asarray(theirs.draw(b, picture))).any(-1))
        for a, b in zip(trace.events, plain.events, strict=True)
    ]
    assert [bool(len(places)) for places in differs] == [False] * 4 + [True] * 8
    assert all(places[:, 0].min() > 500 and places[:, 1].min() > 400 for places in differs[4:])
    assert len(differs[-1]) > len(differs[4])  # of both steps
    left = Painter(replace(plain, end=[asdict(Deviation("unfinished", 0))]), (720, 960), None)
    drawn = [np.array_equal(left.draw(e, picture), theirs.draw(e, picture)) for e in plain.events]
    assert drawn == [True] * 11 + [False]


def test_a_report_shows_those_of_the_table_and_of_the_reference() -> None:
    session = make_session(8, 12, 2, event_rate=0.0, turn_rate=0.0)
    session.states_after[:], session.states_before[1:] = SWAPPED, SWAPPED[:-1]
    expected = [(4, 1, "step 2 out of order: step 1 is not started"), (8, 0, "step 1 skipped: step 2 is completed")]
    for made, predicted in ((oracle(session), expected), (silent(session), [])):
        shown = view(scored_run([session], [made]).sessions[0], 2.0, None)
        assert (shown["deviations"], shown["reference_deviations"]) == (predicted, expected)
    forced = oracle(session)
    forced.table = None
    assert view(scored_run([session], [forced]).sessions[0], 2.0, None)["deviations"] == []
    unlabelled = make_session(4, 12, 2, labelled=False)
    assert view(scored_run([unlabelled], [silent(unlabelled)]).sessions[0], 2.0, None)["reference_deviations"] is None
