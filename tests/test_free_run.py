"""Following a session alone: no reference enters, batches do not matter, and what streams is what would be trained."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from model_fixtures import NoiseReader, make_session, new_model, small_model, small_processor
from stream_fixtures import talkative_model

from context_dst_smolvlm import Context
from modeling_dst_smolvlm import Decoding, DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import FrameItem
from prospect_hf.data.rows import SessionRows
from prospect_hf.evaluation.free_run import (
    Trace,
    follow,
    majority_response,
    matched_texts,
    score,
    silent_traces,
    transitions,
)
from prospect_hf.sessions import IGNORE
from streaming_dst_smolvlm import DSTStream

SESSIONS = [make_session(0, 14, 3), make_session(1, 22, 5), make_session(2, 1, 1), make_session(3, 9, 2, turn_rate=0.8)]


def traces_of(
    sessions: Sequence[SessionRows],
    model: DSTSmolVLMForConditionalGeneration,
    tokens_per_frame: int = 1,
    batch_size: int = 32,
) -> list[Trace]:
    processor = small_processor(tokens_per_frame)
    return follow(model, processor, NoiseReader(), sessions, batch_size, max_new_tokens=5, progress=False)


def assert_same(a: Trace, b: Trace, tolerance: float = 1e-4) -> None:
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
        model, small_processor(), NoiseReader(), [session], max_new_tokens=5, progress=False, context=context
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


def test_the_models_mode_is_put_back() -> None:
    for training in (True, False):
        model = new_model().train(training)
        traces_of(SESSIONS[2:3], model)
        assert model.training == training


# -- scores -------------------------------------------------------------------------------------------------------

SCORED = [*SESSIONS, make_session(4, 12, 3, labelled=False)]


def oracle(session: SessionRows) -> Trace:
    """The trace of a follower that is always right."""
    return Trace(
        p_speak=(session.speaking == 1).astype(float),
        p_update=(session.dst_update == 1).astype(float),
        states=np.maximum(session.states_after, 0),
        table=np.maximum(session.states_after, 0),
        spoken={frame: session.item(frame).response for frame in np.flatnonzero(session.speaking == 1).tolist()},
        updates=np.flatnonzero(session.dst_update == 1).tolist(),
    )


SHARES = [
    *(
        f"{event}_{name}"
        for event in ("speaking", "dst_update", "transition")
        for name in ("precision", "recall", "f1")
    ),
    "joint_state_accuracy",
    "joint_state_accuracy_at_updates",
    "step_accuracy",
    "state_macro_f1",
    "table_joint_state_accuracy",
    "response_exact_match",
]


def test_the_oracle_scores_one() -> None:
    metrics = score([oracle(session) for session in SCORED], SCORED, fps=2.0)
    for name in SHARES:
        assert metrics[name] == 1.0, name
    assert metrics["response_bleu"] == 100.0
    for event in ("speaking", "dst_update", "transition"):
        assert metrics[f"{event}_references"] > 0 and metrics[f"{event}_mean_abs_delay_frames"] == 0.0
    labelled = [session for session in SCORED if session.labelled]
    assert metrics["state_frames"] == sum(map(len, labelled))
    assert metrics["transition_references"] == sum(len(transitions(session.states_after)) for session in labelled)
    assert metrics["speaking_references"] == sum(int((session.speaking == 1).sum()) for session in SCORED)


def test_silence_scores_zero() -> None:
    traces = silent_traces(SCORED)
    metrics = score(traces, SCORED, fps=2.0)
    for event in ("speaking", "dst_update", "transition"):
        assert metrics[f"{event}_f1"] == metrics[f"{event}_precision"] == metrics[f"{event}_recall"] == 0.0
    assert metrics["response_exact_match"] == 0.0 and metrics["response_bleu"] == 0.0
    # A table in which nothing ever starts is right until something does, and at no update.
    labelled = [session for session in SCORED if session.labelled]
    still = sum(int((session.states_after == 0).all(1).sum()) for session in labelled) / sum(map(len, labelled))
    assert metrics["joint_state_accuracy"] == metrics["table_joint_state_accuracy"] == pytest.approx(still)
    assert metrics["joint_state_accuracy_at_updates"] == 0.0
    assert all(np.isfinite(value) for value in metrics.values())


def test_a_tolerance_is_in_seconds() -> None:
    session = make_session(8, 40, 2, event_rate=0.1, turn_rate=0.0)
    session.speaking[[4, 20]] = 1
    session.items |= {4: FrameItem({}, "", "one two"), 20: FrameItem({}, "", "three four")}
    late = silent_traces([session])[0]
    late.spoken = {6: "one two", 18: "three four"}
    assert score([late], [session], fps=2.0)["speaking_f1"] == 1.0
    assert score([late], [session], fps=2.0)["response_exact_match"] == 1.0
    assert score([late], [session], fps=1.0)["speaking_f1"] == 0.0
    assert score([late], [session], fps=2.0, tolerance_s=0.5)["speaking_f1"] == 0.0
    assert score([late], [session], fps=2.0, tolerance_s=0.5)["response_exact_match"] == 0.0


def test_sessions_without_state_labels_count_for_speech_alone() -> None:
    session = SCORED[4]
    assert not session.labelled
    metrics = score([oracle(session)], [session], fps=2.0)
    assert metrics["speaking_f1"] == 1.0 and metrics["response_exact_match"] == 1.0
    assert not any(name.startswith(("dst_update", "transition", "joint", "table")) for name in metrics)


def test_transitions() -> None:
    table = np.array([[0, 1], [0, 1], [1, 2], [2, 1]])
    assert transitions(table) == [(0, 1, 1), (2, 0, 1), (2, 1, 2), (3, 0, 2), (3, 1, 1)]


def test_the_majority_response() -> None:
    session = make_session(9, 6, 1, turn_rate=0.0)
    session.items = {frame: FrameItem({}, "hello", text) for frame, text in enumerate(["a", "b", "b", ""])}
    session.speaking[:3] = 1
    assert majority_response([session]) == "b"
    assert majority_response([make_session(9, 6, 1, turn_rate=0.0)]) == ""
    trace = silent_traces([session])[0]
    trace.spoken = dict.fromkeys(range(3), "b")
    assert matched_texts([trace], [session], 2)["response_exact_match"] == pytest.approx(2 / 3)


def test_labels_that_are_ignored_are_no_references() -> None:
    session = make_session(3, 9, 2, turn_rate=0.8)
    assert (session.speaking == IGNORE).any()
    assert score([oracle(session)], [session], 2.0)["speaking_references"] == int((session.speaking == 1).sum())


def test_a_shared_model_is_left_as_it_was() -> None:
    model = small_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    traces_of(SESSIONS[2:3], model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
