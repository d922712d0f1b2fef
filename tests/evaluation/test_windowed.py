"""The control without memory: what is outside of the window changes nothing, and no label enters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from model_fixtures import NoiseReader, make_session, small_processor
from score_fixtures import tally
from stream_fixtures import talkative_model

from processing_dst_smolvlm import FrameItem
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.score import embed, figures
from prospect_hf.evaluation.windowed import FRAMES_AT_A_TIME, windowed
from prospect_hf.metrics.encoders import SentenceEncoder
from tracking_dst_smolvlm import LEGAL_MOVES, Tracking

SESSIONS = [make_session(0, 14, 3), make_session(1, 9, 5), make_session(2, 1, 1), make_session(4, 8, 3, labelled=False)]
LONG = make_session(6, FRAMES_AT_A_TIME + 5, 2)
# Speaks and updates on about half of the frames.
MEDIANS = (talkative_model().config.speaking_threshold, talkative_model().config.dst_update_threshold)


def judged(
    sessions: Sequence[SessionRows],
    window: int,
    reader: object | None = None,
    tracking: Tracking | None = None,
    thresholds: tuple[float, float] = MEDIANS,
) -> list[Prediction]:
    made = windowed(
        talkative_model(),
        small_processor(),
        reader or NoiseReader(),  # type: ignore[arg-type]
        sessions,
        window,
        tracking or Tracking(),
        thresholds,
    )
    return [prediction for _, prediction in sorted(made, key=lambda pair: pair[0])]


class OtherBefore(NoiseReader):
    """Other pictures at all positions before ``first``."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def read(self, session: SessionRows, begin: int, end: int) -> list[np.ndarray]:
        other = dataclasses.replace(session, video_uid="another video")
        return [super(OtherBefore, self).read(other if f < self.first else session, f, f + 1)[0]
                for f in range(begin, end)]  # fmt: skip


@pytest.mark.parametrize("window", [1, 3, 100])
def test_each_frame_is_judged_as_the_model_judges_a_stream_of_its_window(window: int) -> None:
    model, processor = talkative_model(), small_processor()
    some = [SESSIONS[1], SESSIONS[3]]
    for session, made in zip(some, judged(some, window), strict=True):
        for frame in range(len(session)):
            first = max(0, frame - window + 1)
            items = [FrameItem(user_text=session.item(at).user_text) for at in range(first, frame + 1)]
            states = [0] * len(session.steps) if session.labelled else None
            stream = processor.build(session.goal, session.steps, states, items)
            with torch.inference_mode():
                output = model(
                    input_ids=torch.tensor([stream.input_ids]),
                    frame_positions=torch.tensor([stream.frame_positions]),
                    step_positions=torch.tensor([stream.step_positions]),
                    use_cache=False,
                    **NoiseReader().inputs(session, first, frame + 1),
                )
            assert made.p_speak[frame] == pytest.approx(output.speaking_logits[0, -1].softmax(-1)[1].item(), abs=1e-5)
            assert made.p_update[frame] == pytest.approx(
                output.dst_update_logits[0, -1].softmax(-1)[1].item(), abs=1e-5
            )
            assert made.states[frame].tolist() == output.dst_state_logits[0, -1].argmax(-1).tolist()


def test_what_lies_before_the_window_changes_nothing() -> None:
    session = SESSIONS[0]
    (before,), (after,) = judged([session], 4), judged([session], 4, OtherBefore(6))
    assert np.allclose(before.p_speak[9:], after.p_speak[9:], atol=1e-6)
    assert np.array_equal(before.states[9:], after.states[9:])
    assert not np.allclose(before.p_speak[6:9], after.p_speak[6:9], atol=1e-6)


def test_no_label_enters() -> None:
    for session in SESSIONS[:2]:
        rng = np.random.default_rng(0)
        items = {at: FrameItem({0: 2}, item.user_text, "other words") for at, item in session.items.items()}
        other = dataclasses.replace(
            session,
            speaking=rng.permutation(session.speaking),
            dst_update=rng.permutation(session.dst_update),
            states_before=rng.integers(0, 3, session.states_before.shape),
            states_after=rng.integers(0, 3, session.states_after.shape),
            items=items,
        )
        (ours,), (theirs,) = judged([session], 3), judged([other], 3)
        for name in ("p_speak", "p_update", "states", "table"):
            assert np.array_equal(vars(ours)[name], vars(theirs)[name]), name
        assert ours.spoken == theirs.spoken


def test_drawn_pictures_are_those_of_the_labels() -> None:
    """``data.frames=rendered`` draws the states after each frame; the control sees the pictures that a stream sees."""

    class Drawn(NoiseReader):
        def read(self, session: SessionRows, begin: int, end: int) -> list[np.ndarray]:
            assert np.array_equal(session.states_after, SESSIONS[0].states_after)
            return super().read(session, begin, end)

    judged([SESSIONS[0]], 2, Drawn())


def test_sessions_longer_than_what_is_held_are_whole() -> None:
    (made,) = judged([LONG], 2)
    assert len(made) == len(LONG) == len(made.table)  # type: ignore[arg-type]
    assert (made.p_speak > 0).all()
    (alone,) = judged([dataclasses.replace(LONG)], 2, OtherBefore(FRAMES_AT_A_TIME - 1))
    assert np.allclose(made.p_speak[FRAMES_AT_A_TIME:], alone.p_speak[FRAMES_AT_A_TIME:], atol=1e-6)


@pytest.mark.parametrize("policy", ["monotone", "reopen"])
def test_the_table_follows_the_heads_by_the_rules_of_a_stream(policy: str) -> None:
    moved = 0
    for made in judged([*SESSIONS[:2], LONG], 1, tracking=Tracking(policy)):
        assert made.table is not None
        before = np.zeros_like(made.table[0])
        for frame, after in enumerate(made.table):
            changed = np.flatnonzero(before != after)
            assert (frame in made.updates) == bool(len(changed))
            if len(changed):
                assert made.p_update[frame] >= MEDIANS[1]
                assert all((before[step], after[step]) in LEGAL_MOVES[policy] for step in changed)
                assert np.array_equal(after[changed], made.states[frame][changed])
            moved += len(changed)
            before = after
    assert moved > 3
    (still,) = judged([SESSIONS[0]], 1, thresholds=(0.0, 2.0))
    assert still.table is not None and not still.table.any() and not still.updates


def test_it_decides_when_to_speak_but_not_while_the_user_does() -> None:
    session = make_session(1, 30, 3, turn_rate=0.8)
    heard = [frame for frame, item in session.items.items() if item.user_text]
    (made,) = judged([session], 1, thresholds=(0.0, 0.0))
    assert heard and sorted(made.spoken) == sorted(set(range(30)) - set(heard))
    assert made.wordless and set(made.spoken.values()) == {""}
    (silent,) = judged([session], 1, thresholds=(2.0, 0.0))
    assert silent.spoken == {} and silent.wordless


def test_what_it_would_say_is_not_counted_as_silence() -> None:
    """Timing counts; exact match, BLEU and stream matching are not there, and an empty text is not embedded."""
    session = make_session(1, 30, 3, turn_rate=0.8)
    (made,) = judged([session], 1)
    asked: set[str] = set()

    class Encoder:
        def __call__(self, texts: set[str], progress: bool = False) -> dict[str, np.ndarray]:
            asked.update(texts)
            return {text: np.ones(2, np.float32) for text in texts}

    encoder: SentenceEncoder = Encoder()  # type: ignore[assignment]
    embeddings = embed(encoder, [session], [[made]])
    found = figures(tally(session, made, 2.0, MEDIANS, "reopen", embeddings, {}))
    assert "" not in asked and asked
    assert {"speaking_f1_1s", "dst_update_f1_1s", "joint_state_accuracy", "table_joint_state_accuracy"} <= set(found)
    assert not any(name.startswith(("response_", "text_", "matching_", "names_")) for name in found)
