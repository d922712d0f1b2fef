"""Following a session alone: no reference enters, batches do not matter, and what streams is what would be trained."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from model_fixtures import NoiseReader, make_session, new_model, small_model, small_processor
from stream_fixtures import FIVE, inputs_of, talkative_model

from context_dst_smolvlm import Context
from modeling_dst_smolvlm import Decoding, DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import FrameItem
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.free_running import chunks, follow, follow_batch, without_labels
from prospect_hf.evaluation.predictions import Prediction
from streaming_dst_smolvlm import DSTStream, StreamBatch, Task
from tracking_dst_smolvlm import Tracking

SESSIONS = [make_session(0, 14, 3), make_session(1, 22, 5), make_session(2, 1, 1), make_session(3, 9, 2, turn_rate=0.8)]


def traces_of(
    sessions: Sequence[SessionRows],
    model: DSTSmolVLMForConditionalGeneration,
    tokens_per_frame: int = 1,
    batch_size: int = 32,
) -> list[Prediction]:
    processor = small_processor(tokens_per_frame)
    return follow(model, processor, NoiseReader(), sessions, batch_size, decoding=FIVE, progress=False)


def assert_same(a: Prediction, b: Prediction, tolerance: float = 1e-4) -> None:
    assert np.abs(a.p_speak - b.p_speak).max() <= tolerance and np.abs(a.p_update - b.p_update).max() <= tolerance
    assert np.array_equal(a.states, b.states) and np.array_equal(a.table, b.table)
    assert a.spoken == b.spoken and a.updates == b.updates


@pytest.mark.parametrize("tokens", [1, 4])
def test_a_batch_of_sessions_is_each_alone(tokens: int) -> None:
    model = talkative_model(tokens)
    together = traces_of(SESSIONS, model, tokens)
    assert sum(len(trace.spoken) for trace in together) >= 3 and sum(len(trace.updates) for trace in together) >= 3
    for session, trace in zip(SESSIONS, together, strict=True):
        assert trace.states.shape == (len(session), len(session.steps))
        assert_same(trace, traces_of([session], model, tokens)[0])
    for batch_size, order in ((2, [0, 1, 2, 3]), (32, [3, 1, 0, 2])):
        again = traces_of([SESSIONS[index] for index in order], model, tokens, batch_size)
        for index, trace in zip(order, again, strict=True):
            assert_same(together[index], trace)


def test_a_trace_is_what_the_stream_told() -> None:
    """Events as arrays: probabilities, head and table a frame, words and updates by frame; sessions overflow too."""
    model, context = talkative_model(), Context("summarize_with_dst", max_tokens=330)
    session = make_session(5, 60, 3)
    (trace,) = follow(
        model, small_processor(), NoiseReader(), [session], decoding=FIVE, progress=False, context=context
    )
    stream = DSTStream(
        model, small_processor(), session.steps, session.goal, context=context, decoding=Decoding(max_new_tokens=5)
    )
    events = [
        stream.step(picture, session.item(frame).user_text)
        for frame, picture in enumerate(NoiseReader().read(session, 0, len(session)))
    ]
    assert any(event.context for event in events)
    for frame, event in enumerate(events):
        assert trace.p_speak[frame] == pytest.approx(event.p_speak, abs=1e-5)
        assert trace.p_update[frame] == pytest.approx(event.p_update, abs=1e-5)
        assert trace.states[frame].tolist() == np.argmax(event.probabilities, -1).tolist()
        assert trace.table[frame].tolist() == list(event.states)
        assert trace.spoken.get(frame) == event.text and (frame in trace.updates) == bool(event.transitions)
    assert set(trace.spoken) <= set(range(60)) and trace.updates == sorted(set(trace.updates))
    assert trace.overflows == [frame for frame, event in enumerate(events) if event.context]
    assert trace.rejected == sum(event.rejected for event in events)


def test_every_decision_comes_from_the_thresholds() -> None:
    model = copy.deepcopy(talkative_model())
    for session, trace in zip(SESSIONS, traces_of(SESSIONS, model), strict=True):
        free = [frame for frame in range(len(session)) if not session.item(frame).user_text]
        asked = [f for f in free if trace.p_speak[f] >= model.config.speaking_threshold]
        assert set(trace.spoken) <= set(asked)  # white space alone is not said
        assert all(trace.p_update[frame] >= model.config.dst_update_threshold for frame in trace.updates)
        for frame in range(len(session)):
            before = trace.table[frame - 1] if frame else np.zeros(len(session.steps), int)
            moved = trace.table[frame] != before
            assert moved.any() == (frame in trace.updates)
            assert np.array_equal(trace.table[frame][moved], trace.states[frame][moved])
    model.config.speaking_threshold = model.config.dst_update_threshold = 1.1
    for trace in traces_of(SESSIONS, model):
        assert not trace.spoken and not trace.updates and not trace.table.any()


def test_no_reference_enters() -> None:
    """Responses, labels and states replaced by garbage change nothing; the user's words and the frames do."""
    model = copy.deepcopy(talkative_model())
    garbled = [
        dataclasses.replace(
            session,
            session_id=session.session_id,
            speaking=1 - np.abs(session.speaking) % 2,
            dst_update=1 - session.dst_update,
            states_before=2 - session.states_before,
            states_after=2 - session.states_after,
            items={frame: FrameItem({0: 2}, session.item(frame).user_text, "garbage") for frame in range(len(session))},
        )
        for session in SESSIONS
    ]
    traces = traces_of(SESSIONS, model)
    for ours, theirs in zip(traces, traces_of(garbled, model), strict=True):
        assert_same(ours, theirs, tolerance=0.0)
    session = SESSIONS[3]
    first = min(frame for frame, item in session.items.items() if item.user_text)
    other = dataclasses.replace(session, items={**session.items, first: FrameItem({}, "something else entirely", "")})
    heard = traces_of([other], model)[0]
    assert np.array_equal(heard.p_speak[: first + 1], traces_of([session], model)[0].p_speak[: first + 1])
    assert np.abs(heard.p_speak[first + 1 :] - traces[3].p_speak[first + 1 :]).max() > 1e-3
    unseen = dataclasses.replace(session, video_uid="another")
    assert np.abs(traces_of([unseen], model)[0].p_speak - traces[3].p_speak).max() > 1e-3


def test_nothing_of_the_future_enters() -> None:
    """Frames, words and labels after a frame replaced: nothing up to it changes, and what comes later does."""
    model, session = talkative_model(), make_session(5, 40, 3)
    cut = 24
    other = make_session(7, len(session), len(session.steps), turn_rate=0.9)
    items = {at: item for at, item in session.items.items() if at <= cut}
    changed = dataclasses.replace(
        session,
        speaking=np.concatenate([session.speaking[: cut + 1], other.speaking[cut + 1 :]]),
        states_after=np.concatenate([session.states_after[: cut + 1], other.states_after[cut + 1 :]]),
        items=items | {at: item for at, item in other.items.items() if at > cut},
    )

    class OtherFuture(NoiseReader):
        def read(self, session: SessionRows, begin: int, end: int) -> list[np.ndarray]:
            """The session's frames up to the cut, another video's after it."""
            theirs = super().read(dataclasses.replace(session, video_uid="another"), begin, end)
            ours = super().read(session, begin, end)
            return [ours[at - begin] if at <= cut else theirs[at - begin] for at in range(begin, end)]

    (before,) = traces_of([session], model)
    (after,) = follow(model, small_processor(), OtherFuture(), [changed], decoding=FIVE, progress=False)
    until = slice(0, cut + 1)
    assert np.array_equal(before.p_speak[until], after.p_speak[until])
    assert np.array_equal(before.p_update[until], after.p_update[until])
    assert np.array_equal(before.states[until], after.states[until])
    assert before.table is not None and after.table is not None
    assert np.array_equal(before.table[until], after.table[until])
    said = [{at: text for at, text in made.spoken.items() if at <= cut} for made in (before, after)]
    assert said[0] == said[1] and said[0]
    assert np.abs(before.p_speak[cut + 1 :] - after.p_speak[cut + 1 :]).max() > 1e-3


def test_what_the_assistant_may_know_holds_no_label() -> None:
    for session in [*SESSIONS, make_session(4, 12, 3, labelled=False)]:
        known = without_labels(session)
        assert known.labelled == session.labelled and known.steps == session.steps
        assert not known.speaking.any() and not known.dst_update.any()
        assert len(np.unique(known.states_before)) == len(np.unique(known.states_after)) == 1
        for frame in range(len(session)):
            assert known.item(frame) == FrameItem(user_text=session.item(frame).user_text)


def test_drawn_words_follow_from_the_session_and_not_from_its_batch() -> None:
    drawing = Decoding(max_new_tokens=5, temperature=1.5)
    processor, reader = small_processor(), NoiseReader()
    sessions = [make_session(5, 40, 3), make_session(6, 40, 3), make_session(7, 30, 2)]
    together = follow(talkative_model(), processor, reader, sessions, decoding=drawing, progress=False)
    assert sum(len(made.spoken) for made in together) > 10
    for session, made in zip(sessions, together, strict=True):
        (alone,) = follow(talkative_model(), processor, reader, [session], decoding=drawing, progress=False)
        assert alone.spoken == made.spoken
    again = dataclasses.replace(sessions[0], session_id="wtag.v5.talk_more_0")
    (other,) = follow(talkative_model(), processor, reader, [again], decoding=drawing, progress=False)
    assert other.spoken != together[0].spoken


def test_the_models_mode_is_put_back() -> None:
    for training in (True, False):
        model = new_model().train(training)
        traces_of(SESSIONS[2:3], model)
        assert model.training == training


def test_a_shared_model_is_left_as_it_was() -> None:
    model = small_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    traces_of(SESSIONS[2:3], model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_session_longer_than_a_pass_of_the_vision_tower_is_followed_frame_by_frame() -> None:
    model, session = talkative_model(), make_session(6, 140, 2, event_rate=0.05, turn_rate=0.05)
    (trace,) = traces_of([session], model)
    stream = DSTStream(model, small_processor(), session.steps, session.goal, decoding=FIVE)
    pictures = NoiseReader().read(session, 0, len(session))
    events = [stream.step(picture, session.item(frame).user_text) for frame, picture in enumerate(pictures)]
    assert trace.p_speak == pytest.approx([event.p_speak for event in events], abs=1e-4)


def test_an_unlabelled_session_is_followed_without_states_in_its_prompt() -> None:
    """As it is trained: a model that never saw states is not told them."""
    model, session = talkative_model(), make_session(4, 12, 3, labelled=False)
    (trace,) = traces_of([session], model)
    for told in (False, True):
        task = Task(session.steps, session.goal, say_states=told)
        events = StreamBatch(model, small_processor(), [task], decoding=FIVE).run([inputs_of(session)])
        p_speak = np.array([event.p_speak for _, event in events])
        assert (np.abs(trace.p_speak - p_speak).max() < 1e-5) == (not told)


def test_the_tracking_that_is_asked_for_is_used() -> None:
    model, session = talkative_model(), make_session(5, 40, 3)

    def moves(tracking: Tracking | None) -> int:
        followed = follow_batch(model, small_processor(), NoiseReader(), [session], Context(), tracking, FIVE)
        ((_, trace),) = followed
        return len(trace.updates)

    assert moves(None) == moves(Tracking()) > 0
    assert moves(Tracking(hysteresis=1.0)) == 0


def test_sessions_of_like_length_run_together() -> None:
    sessions = [make_session(seed, frames, 1) for seed, frames in enumerate((9, 30, 8, 31, 10))]
    assert chunks(sessions, 2) == [[2, 0], [4, 1], [3]]
