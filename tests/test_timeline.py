"""The label rules: each would fail if one of the known mistakes came back."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.errors import DataError
from prospect_hf.sessions import (
    COMPLETED,
    IGNORE,
    IN_PROGRESS,
    NOT_STARTED,
    SOURCES,
    DSTEvent,
    Session,
    Step,
    Turn,
    frames_file,
    recording_id,
)
from prospect_hf.timeline import build_timeline, event_frame, frame_at, turn_frames


def make_session(
    turns: tuple[Turn, ...] = (),
    events: tuple[DSTEvent, ...] | None = (),
    steps: int = 2,
    fps: float = 2.0,
    first_frame: int = 0,
    num_frames: int = 100,
) -> Session:
    return Session(
        session_id="x",
        source="wtag",
        video_uid="x",
        recording="x",
        user_type="talk_some",
        goal="Make it",
        steps=tuple(Step(f"S{k + 1}", f"do part {k}") for k in range(steps)),
        turns=turns,
        events=events,
        fps=fps,
        first_frame=first_frame,
        num_frames=num_frames,
        frames_file="frames/x.arrow",
        origin="here",
    )


def spans(*spans: tuple[int, float, float | None]) -> tuple[DSTEvent, ...]:
    events = [DSTEvent(start, step, "start") for step, start, _ in spans]
    return (*events, *(DSTEvent(end, step, "complete") for step, _, end in spans if end is not None))


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Sessions whose steps overlap, nest, re-open or never end, with crowded turns, that may start inside a video."""
    fps = draw(st.sampled_from([2.0, 1.0, 2.13, 10.0]))
    steps = draw(st.integers(1, 5))
    times = st.integers(0, 600).map(lambda tenth: tenth / 10)
    turns = [
        Turn(draw(st.sampled_from(["user", "assistant"])), time, "words")
        for time in draw(st.lists(times, max_size=25).map(sorted) | st.lists(times, max_size=25))
    ]
    events: list[DSTEvent] = []
    for step in range(steps):
        marks = sorted(draw(st.lists(times, max_size=4, unique=True)))
        events += [DSTEvent(mark, step, ("start", "complete")[i % 2]) for i, mark in enumerate(marks)]
    first = draw(st.integers(0, 40))
    return make_session(
        tuple(turns),
        tuple(events) if draw(st.booleans()) or events else None,
        steps,
        fps,
        first,
        first + draw(st.integers(1, 130)),
    )


@given(sessions())
def test_every_turn_has_a_frame_of_its_own_or_is_reported(session: Session) -> None:
    timeline = build_timeline(session)
    assert len(timeline.turns) + len(timeline.beyond) == len(session.turns)
    placed = [timeline.turns[frame] for frame in sorted(timeline.turns)]
    assert (*placed, *timeline.beyond) == session.turns
    for frame, turn in timeline.turns.items():
        assert session.first_frame <= frame < session.num_frames
        expected = 1 if turn.role == "assistant" else IGNORE
        assert timeline.speaking[frame - session.first_frame] == expected
    assert np.count_nonzero(timeline.speaking) == len(timeline.turns)


@given(sessions())
def test_a_turn_is_decided_on_a_frame_that_had_ended_unless_frames_were_taken(session: Session) -> None:
    timeline = build_timeline(session)
    for frame, turn in timeline.turns.items():
        early = (frame + 1) / session.fps <= turn.time + 1e-6
        assert early or frame == session.first_frame or frame - 1 in timeline.turns


@given(sessions(), st.data())
def test_states_follow_from_the_events_and_clips_replay_the_video(session: Session, data: st.DataObject) -> None:
    timeline = build_timeline(session)
    frames = session.num_frames - session.first_frame
    if session.events is None:
        assert (timeline.states_before == IGNORE).all() and (timeline.dst_update == IGNORE).all()
        return
    assert (timeline.states_before[1:] == timeline.states_after[:-1]).all()
    assert (timeline.states_before[0] == NOT_STARTED).all()
    assert sum(map(len, timeline.events.values())) == len(session.events)
    # Replay clip after clip, each from the state before its first frame and its own events alone.
    cuts = sorted({0, frames, *data.draw(st.lists(st.integers(0, frames), max_size=4))})
    for begin, end in itertools.pairwise(cuts):
        state = timeline.states_before[begin].copy()
        for row in range(begin, end):
            happening = timeline.events.get(session.first_frame + row, ())
            assert (timeline.states_before[row] == state).all()
            assert timeline.dst_update[row] == bool(happening)
            for event in happening:
                state[event.step] = IN_PROGRESS if event.transition == "start" else COMPLETED
            assert (timeline.states_after[row] == state).all()


@given(sessions())
def test_the_state_before_a_frame_comes_from_strictly_earlier_events(session: Session) -> None:
    """Pitfall 7: the state that a clip opens with must not know what happens in the clip."""
    timeline = build_timeline(session)
    for row in range(0, session.num_frames - session.first_frame, 7):
        for step in range(len(session.steps)):
            past = [
                event
                for event in session.events or ()
                if event.step == step
                and event_frame(event.time, session.fps, session.first_frame, session.num_frames)
                < session.first_frame + row
            ]
            last = max(past, key=lambda event: event.time, default=None)
            expected = (
                IGNORE
                if session.events is None
                else NOT_STARTED
                if last is None
                else {"start": IN_PROGRESS, "complete": COMPLETED}[last.transition]
            )
            assert timeline.states_before[row, step] == expected


@given(sessions(), st.randoms())
def test_the_order_of_the_events_given_changes_nothing(session: Session, random: object) -> None:
    if session.events is None:
        return
    shuffled = list(session.events)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, two = build_timeline(session), build_timeline(dataclasses.replace(session, events=tuple(shuffled)))
    assert one.events == two.events
    assert (one.states_after == two.states_after).all() and (one.dst_update == two.dst_update).all()


@given(sessions())
def test_a_state_goes_back_only_where_a_step_is_opened_again(session: Session) -> None:
    timeline = build_timeline(session)
    if session.events is None:
        return
    falls = np.argwhere(timeline.states_after < timeline.states_before)
    for row, step in falls:
        assert (timeline.states_before[row, step], timeline.states_after[row, step]) == (COMPLETED, IN_PROGRESS)
        happening = timeline.events[session.first_frame + int(row)]
        assert any(event.step == step and event.transition == "start" for event in happening)


def test_each_event_is_on_its_own_frame_and_not_on_the_one_before() -> None:
    """Pitfall 1: an event written to the previous event's frame comes early by the whole step."""
    timeline = build_timeline(make_session(events=spans((0, 5.0, 20.0), (1, 20.0, 40.2))))
    assert {frame: [(e.step, e.transition) for e in of] for frame, of in timeline.events.items()} == {
        9: [(0, "start")],
        39: [(0, "complete"), (1, "start")],
        79: [(1, "complete")],
    }
    assert timeline.states_after[38].tolist() == [IN_PROGRESS, NOT_STARTED]
    assert timeline.states_before[39].tolist() == [IN_PROGRESS, NOT_STARTED]
    assert timeline.states_after[39].tolist() == [COMPLETED, IN_PROGRESS]
    assert timeline.dst_update.sum() == 3


def test_crowded_turns_keep_their_ones() -> None:
    """Pitfall 2: of several turns at one time, a later 0 must not overwrite a 1; events are OR-ed, too."""
    turns = tuple(Turn(role, 10.0, "words") for role in ("assistant", "user", "assistant", "assistant"))
    timeline = build_timeline(make_session(turns, spans((0, 10.0, 10.4), (1, 10.0, None))))
    assert timeline.speaking[18:25].tolist() == [0, 1, IGNORE, 1, 1, 0, 0]
    assert timeline.dst_update[18:21].tolist() == [0, 1, 0]
    assert timeline.states_after[19].tolist() == [COMPLETED, IN_PROGRESS]


def test_labels_before_the_first_frame_are_decided_on_it() -> None:
    session = make_session((Turn("user", 0.0, "hi"),), spans((0, 1.0, None)), first_frame=10)
    timeline = build_timeline(session)
    assert list(timeline.turns) == [10] and list(timeline.events) == [10]


def test_a_turn_past_the_last_frame_is_reported_and_not_moved() -> None:
    turns = (Turn("user", 50.0, "done?"), Turn("assistant", 50.0, "yes"), Turn("user", 99.0, "thanks"))
    timeline = build_timeline(make_session(turns))
    assert timeline.turns == {99: turns[0]} and timeline.beyond == turns[1:]


def test_without_annotated_speech_no_frame_is_a_silence() -> None:
    session = dataclasses.replace(make_session(events=spans((0, 5, 10))), speech=False)
    assert set(build_timeline(session).speaking) == {-100} and set(build_timeline(session).dst_update) == {0, 1}
    with pytest.raises(DataError, match="it has 1 turns, but speech is said not to be annotated"):
        dataclasses.replace(make_session((Turn("user", 5.0, "done?"),)), speech=False)


def test_a_completed_step_can_be_opened_again() -> None:
    timeline = build_timeline(make_session(events=spans((0, 5, 10), (0, 20, 30))))
    assert timeline.states_after[[8, 9, 18, 19, 38, 39, 58, 59], 0].tolist() == [0, 1, 1, 2, 2, 1, 1, 2]


@given(st.integers(0, 100_000), st.sampled_from([1, 2, 4, 5, 10, 20, 25, 30, 50, 100]))
def test_the_end_of_a_frame_is_never_floored_below_itself(frame: int, fps: int) -> None:
    """0.29 * 100 is 28.999...96 in binary: the time of a whole frame must give that frame."""
    assert frame_at(frame / fps, fps) == frame
    assert frame_at(sum([1 / fps] * (frame % 300)), fps) == frame % 300


def test_tenths_of_a_second_at_two_frames_a_second_floor_exactly() -> None:
    for tenth in range(100_000):
        assert frame_at(tenth / 10, 2.0) == tenth // 5 == math.floor(tenth / 10 * 2)


def test_turn_frames_queue_behind_each_other() -> None:
    assert turn_frames([7.8, 7.9, 10.5, 10.5, 10.5, 20.9], 2, 11) == [14, 15, 20, 21, 22, 40]
    assert turn_frames([0.0, 0.0], 2, 0) == [0, 1]


nan, inf = math.nan, math.inf


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "youtube"}, ["source", "youtube", "wtag"]),
        ({"steps": ()}, ["steps"]),
        ({"fps": 0.0}, ["fps"]),
        ({"fps": nan}, ["fps"]),
        ({"num_frames": 0}, ["no frame"]),
        ({"first_frame": 100}, ["no frame", "100"]),
        ({"first_frame": -1}, ["no frame"]),
        ({"turns": (Turn("system", 1, "x"),)}, ["turns[0].role", "system"]),
        ({"turns": (Turn("user", nan, "x"),)}, ["turns[0].time", "nan"]),
        ({"turns": (Turn("user", inf, "x"),)}, ["turns[0].time", "inf"]),
        ({"turns": (Turn("user", -0.5, "x"),)}, ["turns[0].time", "negative"]),
        ({"turns": (Turn("user", 1e308, "x"),)}, ["turns[0].time", "no video is so long"]),
        ({"events": (DSTEvent(1.7e9, 0, "start"),)}, ["events[0].time", "1970"]),
        ({"fps": inf}, ["fps"]),
        ({"fps": 1e9}, ["fps", "120"]),
        ({"num_frames": 10**12}, ["num_frames", "more than a day"]),
        ({"session_id": "x" * 201}, ["session_id", "201 bytes"]),
        ({"turns": (Turn("user", 5, " "),)}, ["turns[0].content", "empty"]),
        ({"events": (DSTEvent(1, 2, "start"),)}, ["events[0].step", "2"]),
        ({"events": (DSTEvent(1, -1, "start"),)}, ["events[0].step", "-1"]),
        ({"events": (DSTEvent(nan, 0, "start"),)}, ["events[0].time"]),
        ({"events": (DSTEvent(1, 0, "begin"),)}, ["events[0].transition", "begin"]),
        ({"events": spans((0, 10.0, 9.0))}, ["S1", "not in progress", "9.0"]),
        ({"events": spans((1, 10.0, 10.0))}, ["S2", "not in progress"]),
        ({"events": spans((0, 1.0, 5.0), (0, 4.0, 8.0))}, ["S1", "overlap"]),
    ],
)
def test_a_session_that_contradicts_itself_is_refused(change: dict[str, object], words: list[str]) -> None:
    with pytest.raises(DataError) as error:
        dataclasses.replace(make_session(), **change)  # type: ignore[arg-type]
    for word in ["here", *words]:
        assert word in str(error.value)


def test_names_of_frame_files_and_recordings() -> None:
    uid = "assembly_nusar-2021_action_both_1_user_id_2__HMC_123_mono10bit"
    assert frames_file("assembly101", uid) == "frames/nusar-2021_action_both_1_user_id_2__HMC_123_mono10bit.arrow"
    for other in (uid.replace("assembly_", "disassembly_"), uid.replace("HMC_123_mono10bit", "C10095_rgb")):
        assert recording_id("assembly101", other) == "nusar-2021_action_both_1_user_id_2"
    assert frames_file("ego4d", "grp-ab-c") == "frames/ab-c.arrow"
    assert recording_id("ego4d", "grp-ab-c") == recording_id("ego4d", "ab-c") == "ab-c"
    assert frames_file("epickitchens", "P01_01") == "frames/P01_01.arrow"
    for source in SOURCES:
        assert recording_id(source, "a1__view0") == recording_id(source, "a1__view12") == "a1"
        assert frames_file(source, "a1__view0") != frames_file(source, "a1__view1")


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "..", "", "/etc/x"])
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    """Files are named after sessions and videos: a corpus must not decide where they are written."""
    session = make_session()
    for key in ("session_id", "video_uid"):
        with pytest.raises(DataError, match=key):
            dataclasses.replace(session, **{key: name})
    assert dataclasses.replace(session, video_uid="grp-1.b..c__view0").video_uid == "grp-1.b..c__view0"
