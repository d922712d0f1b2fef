"""Counts and figures: the oracle scores 1, silence 0, sums of parts are the whole, nothing undefined is a number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_fixtures import make_session
from score_fixtures import HALF, scored_run, tally, words_apart

from processing_dst_smolvlm import FrameItem
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.baselines import Schedule, majority, majority_response, oracle, shifted, silent
from prospect_hf.evaluation.predictions import ForcedTexts, Prediction
from prospect_hf.evaluation.score import Embeddings, figures, score
from prospect_hf.metrics.catalogue import FIGURES, TOLERANCES_S
from prospect_hf.metrics.counts import Counts, plain, total
from prospect_hf.sessions import IGNORE

SESSIONS = [make_session(0, 14, 3), make_session(1, 22, 5), make_session(2, 1, 1), make_session(3, 9, 2, turn_rate=0.8)]
SCORED = [*SESSIONS, make_session(4, 12, 3, labelled=False)]


def counted(
    sessions: list[SessionRows], predictions: list[Prediction], embeddings: Embeddings | None = None
) -> list[Counts]:
    return scored_run(sessions, predictions, embeddings).counts


SHARES = [
    *(
        f"{name}_{kind}"
        for name in ("speaking", "dst_update")
        for kind in ("precision", "recall", "f1", "balanced_accuracy")
    ),
    *(
        f"{name}_{kind}_{seconds}s"
        for name in ("speaking", "dst_update", "transition", "table_transition")
        for kind in ("precision", "recall", "f1")
        for seconds in TOLERANCES_S
    ),
    *(
        f"{table}{name}"
        for table in ("", "table_")
        for name in ("joint_state_accuracy", "joint_state_accuracy_at_updates")
    ),
    *(f"{table}{name}" for table in ("", "table_") for name in ("step_accuracy", "state_macro_f1")),
    "response_exact_match",
    *(f"chunk_{name}" for name in ("macro_f1", "precision", "recall", "f1")),
]
MATCHING = [f"matching_{name}" for name in ("precision", "recall", "f1", "jaccard")]


def test_the_oracle_scores_one() -> None:
    predictions = [oracle(session) for session in SCORED]
    found = plain(figures(total(counted(SCORED, predictions, words_apart(SCORED)))))
    for name in [*SHARES, *MATCHING, "text_rouge_l", "text_similarity", "text_exact_match"]:
        assert found[name] == 1.0, name
    for name in ("response_bleu", "text_bleu1", "text_bleu4"):
        assert found[name] == 100.0
    assert found["text_cider_d"] == 10.0
    for name in ("missing_rate", "redundant_rate", "time_diff_s"):
        assert found[f"matching_{name}"] == 0.0
    for name in ("speaking", "dst_update", "transition"):
        assert found[f"{name}_delay_s"] == found[f"{name}_abs_delay_s"] == 0.0
    assert found["illegal_transitions_per_hour"] == found["rejected_per_hour"] == 0.0


def test_silence_scores_zero_where_that_is_defined() -> None:
    predictions = [silent(session) for session in SCORED]
    found = plain(figures(total(counted(SCORED, predictions, words_apart(SCORED)))))
    for name in ("speaking", "dst_update"):
        assert found[f"{name}_f1"] == found[f"{name}_recall"] == 0.0 and found[f"{name}_precision"] is None
    for name in ("speaking", "dst_update", "transition"):
        assert found[f"{name}_f1_1s"] == found[f"{name}_recall_5s"] == 0.0
        assert found[f"{name}_precision_2s"] is None and found[f"{name}_delay_s"] is None
    assert found["response_exact_match"] == found["response_bleu"] == 0.0
    assert found["chunk_f1"] == found["chunk_recall"] == 0.0 and found["chunk_precision"] is None
    assert found["chunk_macro_f1"] <= 0.5  # half the F1 of the chunks without speech
    assert found["matching_f1"] == found["matching_recall"] == found["matching_jaccard"] == 0.0
    assert found["matching_missing_rate"] == 1.0
    for name in (
        "matching_precision",
        "matching_redundant_rate",
        "matching_time_diff_s",
        "text_bleu4",
        "text_similarity",
        "text_exact_match",
        "names_right_part",
    ):
        assert found[name] is None, name
    # A table in which nothing ever starts is right until something does, and at no update.
    labelled = [session for session in SCORED if session.labelled]
    still = sum(int((session.states_after == 0).all(1).sum()) for session in labelled) / sum(map(len, labelled))
    assert found["joint_state_accuracy"] == found["table_joint_state_accuracy"] == pytest.approx(still)
    assert found["joint_state_accuracy_at_updates"] == 0.0


def test_where_speech_is_not_annotated_no_utterance_is_wrong() -> None:
    silent_one = replace(SCORED[0], speaking=np.full_like(SCORED[0].speaking, -100), items={})
    talkative = replace(oracle(silent_one), spoken={3: "Well done."})
    found = plain(figures(total(counted([silent_one], [talkative], words_apart([SCORED[0]])))))
    assert found["speaking_f1"] is None and not {"speaking_precision_1s", "matching_f1", "response_bleu"} & set(found)
    assert found["joint_state_accuracy"] == 1.0


def talk(said: dict[int, str], reference: dict[int, str], steps: list[str]) -> tuple[SessionRows, Prediction]:
    """A session of 60 frames with these utterances, and a prediction."""
    session = make_session(8, 60, len(steps), event_rate=0.0, turn_rate=0.0)
    session.steps = steps
    session.speaking[list(reference)] = 1
    session.items = {at: FrameItem(response=text) for at, text in reference.items()}
    made = silent(session)
    made.spoken = said
    return session, made


def test_a_matched_pair_may_name_the_wrong_part() -> None:
    """All three pairs are matched by their embeddings; one has the reference's words, two name its part."""
    steps = ["clip the cyan lid", "clip the blue lid"]
    reference = {5: "Clip the cyan lid.", 20: "Now clip the blue lid.", 40: "Clip the blue lid."}
    session, made = talk(
        {5: "Clip the cyan lid.", 21: "Clip the blue lid!", 40: "Clip the cyan lid."}, reference, steps
    )
    alike = dict.fromkeys([*reference.values(), *made.spoken.values()], np.ones(2, np.float32))
    (counts,) = counted([session], [made], alike)
    found = plain(figures(counts))
    assert found["matching_f1"] == 1.0 and found["matching_pairs"] == 3
    assert found["text_exact_match"] == pytest.approx(1 / 3) and found["names_right_part"] == pytest.approx(2 / 3)
    (right,) = counted([session], [oracle(session)], alike)
    assert plain(figures(right))["names_right_part"] == 1.0
    assert plain(figures(total([counts, right])))["names_right_part"] == pytest.approx(5 / 6)  # pooled, not averaged


def test_pairs_of_different_content_do_not_count_for_their_texts() -> None:
    session, made = talk({5: "go"}, {5: "Clip the cyan lid."}, ["clip the cyan lid", "clip the blue lid"])
    apart = {"go": np.array([1, 0], np.float32), "Clip the cyan lid.": np.array([0, 1], np.float32)}
    (counts,) = counted([session], [made], apart)
    assert (counts["matching_matched"], counts["matching_correct"], counts["parts_named"]) == (1, 0, 0)
    found = plain(figures(counts))
    assert found["matching_f1"] == 0.0 and found["text_exact_match"] is found["names_right_part"] is None


@given(st.integers(0, 500))
def test_verdicts_and_partners_agree_with_the_counts(seed: int) -> None:
    session = make_session(seed, 40, 3, turn_rate=0.3)
    made = shifted(oracle(session), seed % 4)
    made.spoken = {frame: text for frame, text in made.spoken.items() if (frame + seed) % 3}
    scored = scored_run([session], [made], words_apart([session])).sessions[0]
    for ours, theirs in ((scored.said, scored.reference), (scored.reference, scored.said)):
        other = {one.frame: one for one in theirs}
        for one in ours:
            assert (one.partner is None) == (one.verdict in ("missed", "redundant")) == (one.cosine is None)
            if one.partner is not None:
                mate = other[one.partner]
                assert (mate.partner, mate.verdict, mate.cosine, mate.exact) == (
                    one.frame, one.verdict, one.cosine, one.exact,
                )  # fmt: skip
                assert one.exact == (one.text.strip() == mate.text.strip())
    verdicts = [one.verdict for one in scored.said]
    assert verdicts.count("matched") == scored.counts["matching_correct"]
    assert len(verdicts) - verdicts.count("redundant") == scored.counts["matching_matched"]
    assert [one.verdict for one in scored.reference].count("missed") == scored.counts["matching_missed"]
    assert len(scored.speaking_delays_s) == scored.counts["speaking_matched_5s"]


def test_the_oracle_that_comes_late_decays() -> None:
    """Shifted by a frame it is right within a second and not on the frame; by eleven, within no tolerance."""
    session = make_session(8, 200, 3, event_rate=0.0, turn_rate=0.0)
    for place in (20, 80, 140):
        session.speaking[place] = 1
        session.items[place] = FrameItem(response="take the wheel")
    values = []
    for late in (0, 1, 2, 3, 4, 5, 10, 11):
        found = plain(figures(total(counted([session], [shifted(oracle(session), late)]))))
        values.append([found[f"speaking_f1_{seconds}s"] for seconds in TOLERANCES_S])
    assert values == [
        [1.0, 1.0, 1.0, 1.0],
        [0.0, 1.0, 1.0, 1.0],
        [0.0, 1.0, 1.0, 1.0],
        [0.0, 0.0, 1.0, 1.0],
        [0.0, 0.0, 1.0, 1.0],
        [0.0, 0.0, 0.0, 1.0],
        [0.0, 0.0, 0.0, 1.0],
        [0.0, 0.0, 0.0, 0.0],
    ]


def test_figures_of_many_draws_are_those_of_each() -> None:
    """A sum may be an array: every figure of each of its places is the one of that place alone."""
    counts = counted(SCORED, [shifted(oracle(session), 1) for session in SCORED], words_apart(SCORED))
    names = sorted({name for of_session in counts for name in of_session})
    drawn = figures({name: np.array([of_session.get(name, 0.0) for of_session in counts]) for name in names})
    for index, of_session in enumerate(counts):
        alone = plain(figures({name: of_session.get(name, 0.0) for name in names}))
        assert plain({name: values[index] for name, values in drawn.items()}) == pytest.approx(alone, nan_ok=True)


def test_every_figure_is_described_or_an_intermediate_tolerance() -> None:
    counts = counted(SCORED, [oracle(session) for session in SCORED], words_apart(SCORED))
    found = figures(total(counts))
    described = {name for name in found if name in FIGURES}
    others = {name for name in found if name not in FIGURES}
    assert all(name.split("_")[-1] in ("0s", "1s", "2s", "5s") or "delay" in name for name in others), others
    assert {"table_joint_state_accuracy", "matching_f1", "text_meteor", "rejected_per_hour"} <= described


def test_sessions_without_state_labels_count_for_speech_alone() -> None:
    session = SCORED[4]
    assert not session.labelled
    found = score([oracle(session)], [session], 2.0, HALF)
    assert found["speaking_f1_1s"] == 1.0 and found["response_exact_match"] == 1.0
    assert not any(name.startswith(("transition", "joint", "table")) for name in found)
    assert found["dst_update_f1"] is None


def test_no_session_to_count_is_undefined_and_no_crash() -> None:
    session = make_session(9, 6, 1, turn_rate=0.0, event_rate=0.0)
    found = score([silent(session)], [session], 2.0, HALF)
    assert found["speaking_f1"] is None and found["speaking_f1_1s"] is None and found["response_bleu"] is None
    assert found["transition_f1_1s"] is None and found["joint_state_accuracy"] == 1.0
    assert found["joint_state_accuracy_at_updates"] is None and found["state_macro_f1"] == 1.0


def test_thresholds_decide() -> None:
    session = make_session(3, 9, 2, turn_rate=0.8)
    made = oracle(session)
    made.p_speak = made.p_speak * 0.4
    assert tally(session, made, 2.0, (0.4, 0.5))["speaking_no_yes"] == 0
    assert tally(session, made, 2.0, (0.41, 0.5))["speaking_yes_yes"] == 0


def moved(rows: list[list[int]]) -> SessionRows:
    """A session of these states and no words."""
    states = np.array(rows)
    session = make_session(8, len(rows), states.shape[1], event_rate=0.0, turn_rate=0.0)
    session.states_after[:], session.states_before[1:] = states, states[:-1]
    session.dst_update[:] = (session.states_after != session.states_before).any(1)
    return session


def test_each_decision_has_its_own_threshold() -> None:
    session = moved([[0], [1], [2]])
    made = oracle(session)
    made.p_update = made.p_update * 0.5
    assert tally(session, made, 2.0, (0.9, 0.5))["dst_update_yes_yes"] == 2
    assert tally(session, made, 2.0, (0.1, 0.6))["dst_update_no_yes"] == 2


def test_transitions_are_those_of_the_table_and_within_seconds() -> None:
    """The head may flicker: what is tracked counts, and in a teacher-forced run, which tracks nothing, the head."""
    session = moved([[0]] * 4 + [[1]] * 6 + [[2]] * 15)
    made = oracle(session)
    made.states = np.zeros_like(made.states)
    made.states[::2] = 1
    found = plain(figures(tally(session, made, 2.0, HALF)))
    assert found["table_transition_f1_0s"] == found["table_joint_state_accuracy"] == 1.0
    assert (found["transition_f1_0s"] or 1) < 0.2
    assert (found["joint_state_accuracy"] or 1) < 0.5 and (found["illegal_transitions_per_hour"] or 0) > 0
    made.table, made.states = None, session.states_after
    assert plain(figures(tally(session, made, 2.0, HALF)))["transition_f1_0s"] == 1.0
    for late, within in ((2, 1), (3, 2), (4, 2), (5, 5), (10, 5)):
        found = plain(figures(tally(session, shifted(oracle(session), late), 2.0, HALF)))
        reached = [found[f"table_transition_f1_{seconds}s"] == 1.0 for seconds in TOLERANCES_S]
        assert reached == [seconds >= within for seconds in TOLERANCES_S], late
        assert found["table_transition_delay_s"] == found["transition_delay_s"] == late / 2.0


def test_the_policy_says_what_is_illegal_and_hours_are_the_labelled_ones() -> None:
    session = moved([[0], [2], [1], [1], [2], [0]])
    assert tally(session, oracle(session), 2.0, HALF, "reopen")["illegal"] == 1
    assert tally(session, oracle(session), 2.0, HALF, "monotone")["illegal"] == 2
    unlabelled = make_session(4, 60, 3, labelled=False)
    counts = [tally(one, oracle(one), 2.0, HALF) for one in (session, unlabelled)]
    hours = 6 / 2.0 / 3600
    assert counts[0]["hours"] == counts[0]["labelled_hours"] == hours
    assert plain(figures(total(counts)))["illegal_transitions_per_hour"] == pytest.approx(1 / hours)
    made = oracle(session)
    made.rejected = 3
    counts[0] = tally(session, made, 2.0, HALF)
    assert plain(figures(total(counts)))["rejected_per_hour"] == pytest.approx(3 / hours)


def test_a_change_on_the_first_frame_is_an_update() -> None:
    session = moved([[1], [1]])
    counts = tally(session, oracle(session), 2.0, HALF)
    assert counts["state_updates"] == counts["table_state_updates"] == 1


def test_utterances_may_come_in_any_order_and_wrong_ones_are_not_read() -> None:
    """Text figures are over matched pairs; an utterance of a later frame may come first in the prediction."""
    session = make_session(8, 60, 1, event_rate=0.0, turn_rate=0.0)
    session.speaking[[10, 30, 50]] = 1
    for at, text in ((10, "one"), (30, "two"), (50, "three")):
        session.items[at] = FrameItem(response=text)
    made = silent(session)
    made.spoken = {31: "two", 50: "one", 10: "one"}
    (counts,) = counted([session], [made], words_apart([session]))
    assert (counts["matching_matched"], counts["matching_correct"]) == (3, 2)
    assert counts["text_pairs"] == counts["text_rouge_l_sum"] == counts["text_similarity_sum"] == 2
    assert counts["matching_distance_sum"] == 0.5
    assert counts["response_exact"] == 2 and counts["response_texts"] == 3


def test_texts_are_judged_within_a_second() -> None:
    session = make_session(8, 40, 2, event_rate=0.1, turn_rate=0.0)
    session.speaking[[4, 20]] = 1
    session.items |= {4: FrameItem(response="one two"), 20: FrameItem(response="three four")}
    late = silent(session)
    late.spoken = {6: " one two", 18: "three four"}
    assert score([late], [session], 2.0, HALF)["response_exact_match"] == 1.0
    late.spoken = {7: "one two", 18: "three"}
    found = score([late], [session], 2.0, HALF)
    assert found["response_exact_match"] == 0.0 and 0 < (found["response_bleu"] or 0) < 100
    assert found["speaking_recall_1s"] == 0.5


def test_labels_that_are_ignored_are_no_references() -> None:
    session = make_session(3, 9, 2, turn_rate=0.8)
    assert (session.speaking == IGNORE).any()
    counts = tally(session, oracle(session), 2.0, HALF)
    assert counts["speaking_references"] == int((session.speaking == 1).sum())
    decided = [counts[f"speaking_{kind}"] for kind in ("yes_yes", "yes_no", "no_yes", "no_no")]
    assert sum(decided) == int((session.speaking != IGNORE).sum())


# -- teacher-forced text and timing


def forced(frame: list[int], tokens: list[int], prefix: list[int]) -> ForcedTexts:
    return ForcedTexts(
        frame=np.array(frame),
        is_state=np.zeros(len(frame), bool),
        tokens=np.array(tokens),
        nll=np.array(tokens, float),
        right=np.array(prefix),
        prefix=np.array(prefix),
    )


def test_time_difference_and_fluency_by_hand() -> None:
    """Turns on frames 3, 7 and 12, a user's on 8; spans 0-3, 4-7 and 9-12."""
    session = make_session(8, 14, 1, event_rate=0.0, turn_rate=0.0)
    session.speaking[[3, 7, 12]], session.speaking[8] = 1, IGNORE
    texts = forced([3, 7, 12], [4, 4, 4], [4, 1, 0])
    p_speak = np.zeros(14)
    p_speak[[3, 5, 7, 8]] = 1.0  # on time; two frames early; on the user's frame, which decides nothing
    made = Prediction(p_speak, np.zeros(14), session.states_after, None, forced=texts)
    found = score([made], [session], 2.0, HALF)
    assert found["forced_time_diff_s"] == pytest.approx((0 + 1.0 + 2.0) / 3)
    assert found["forced_silent_rate"] == pytest.approx(1 / 3)
    # In a row: 4 frames and 4 tokens of 8; 1 frame of 8 (4); 3 frames of 8 (9, 10, 11).
    assert found["fluency"] == pytest.approx((8 / 8 + 1 / 8 + 3 / 8) / 3)
    assert found["perplexity"] == pytest.approx(np.e) and found["token_accuracy"] == pytest.approx(5 / 12)
    assert found["state_perplexity"] is None and found["state_token_accuracy"] is None
    perfect = Prediction((session.speaking == 1) * 1.0, np.zeros(14), session.states_after, None)
    perfect.forced = forced([3, 7, 12], [4, 4, 4], [4, 4, 4])
    found = score([perfect], [session], 2.0, HALF)
    assert found["fluency"] == 1.0 and found["forced_time_diff_s"] == found["forced_silent_rate"] == 0.0


def test_state_texts_count_apart() -> None:
    session = make_session(8, 14, 1, event_rate=0.0, turn_rate=0.0)
    session.speaking[3] = 1
    texts = forced([2, 3], [4, 2], [1, 2])
    texts.is_state[0], texts.right[0] = True, 3
    made = Prediction((session.speaking == 1) * 1.0, np.zeros(14), session.states_after, None, forced=texts)
    found = score([made], [session], 2.0, HALF)
    assert found["token_accuracy"] == 1.0 and found["state_token_accuracy"] == 0.75 and found["fluency"] == 1.0
    texts.nll[0] = 8.0
    found = score([made], [session], 2.0, HALF)
    assert found["state_perplexity"] == pytest.approx(np.exp(2.0)) and found["perplexity"] == pytest.approx(np.e)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_time_difference_and_fluency_turn_by_turn(seed: int, threshold: float) -> None:
    session = make_session(seed, 30, 1, turn_rate=0.4)
    rng = np.random.default_rng(seed)
    turns = np.flatnonzero(session.speaking == 1)
    tokens = rng.integers(1, 6, len(turns))
    prefix = np.array([rng.integers(0, count + 1) for count in tokens], np.int64)
    p_speak = rng.random(30)
    texts = forced(turns.tolist(), tokens.tolist(), prefix.tolist())
    made = Prediction(p_speak, np.zeros(30), np.zeros((30, 1), int), None, forced=texts)
    counts = tally(session, made, 2.0, (threshold, 0.5))
    late = fluency = silence = 0.0
    first = number = 0
    for frame in range(30):
        if session.speaking[frame] == 0:
            continue
        if session.speaking[frame] == 1:
            span = range(first, frame + 1)
            hits = [at for at in span if p_speak[at] >= threshold]
            right = hits[0] - first if hits else len(span) - 1
            late += (frame - hits[0]) / 2.0 if hits else len(span) / 2.0
            silence += not hits
            if hits and hits[0] == frame:
                right = len(span) + prefix[number]
            fluency += right / (len(span) + tokens[number])
            number += 1
        first = frame + 1
    assert counts["forced_turns"] == len(turns) and counts["forced_silent"] == silence
    assert counts["forced_diff_sum"] == pytest.approx(late) and counts["fluency_sum"] == pytest.approx(fluency)


# -- baselines


def test_the_majority_response() -> None:
    session = make_session(9, 6, 1, turn_rate=0.0)
    session.items = {frame: FrameItem({}, "hello", text) for frame, text in enumerate(["a", "b", "b", ""])}
    session.speaking[:3] = 1
    assert majority_response([session]) == "b" and majority_response([make_session(9, 6, 1, turn_rate=0.0)]) == ""
    assert score([majority(session, "b")], [session], 2.0, HALF)["response_exact_match"] == pytest.approx(2 / 3)
    assert majority(session, "").spoken == {}


def test_the_schedule_knows_the_clock_and_the_plan_alone() -> None:
    train = [make_session(seed, 40, 3, event_rate=0.3) for seed in range(8)]
    schedule = Schedule(train)
    session = make_session(20, 60, 4)
    made = schedule(session)
    assert made.table is not None and made.table.shape == (60, 4)
    # In order, one after the other, never back; at any time one step at most is in progress.
    assert (np.diff(made.table, axis=0) >= 0).all() and ((made.table == 1).sum(1) <= 1).all()
    gaps = np.diff(sorted(made.spoken))
    assert len(made.spoken) > 2 and gaps.min() >= schedule.every
    other = make_session(21, 60, 4, event_rate=0.9)
    other.items = session.items
    again = schedule(other)
    assert np.array_equal(made.table, again.table) and made.spoken == again.spoken
    nothing = Schedule([make_session(3, 10, 2, labelled=False, turn_rate=0.0)])(session)
    assert not nothing.spoken and nothing.table is not None and not nothing.table.any()


def test_white_space_around_a_text_is_no_difference() -> None:
    session = make_session(8, 10, 1, event_rate=0.0, turn_rate=0.0)
    session.speaking[4] = 1
    session.items[4] = FrameItem(response=" one two\n")
    made = silent(session)
    made.spoken = {4: "one two"}
    assert score([made], [session], 2.0, HALF)["response_exact_match"] == 1.0


def test_state_texts_are_no_part_of_a_turn() -> None:
    """Before two of the responses a state text is written: fluency and timing stay, and its figures are its own."""
    session = make_session(8, 14, 1, event_rate=0.0, turn_rate=0.0)
    session.speaking[[3, 7, 12]] = 1
    p_speak = np.zeros(14)
    p_speak[[3, 5, 12]] = 1.0
    made = Prediction(p_speak, np.zeros(14), session.states_after, None)
    made.forced = forced([3, 7, 12], [4, 4, 4], [4, 1, 0])
    alone = score([made], [session], 2.0, HALF)
    made.forced = ForcedTexts(
        frame=np.array([3, 3, 7, 7, 12]),
        is_state=np.array([True, False, True, False, False]),
        tokens=np.array([9, 4, 7, 4, 4]),
        nll=np.array([18.0, 4.0, 14.0, 4.0, 4.0]),
        right=np.array([5, 4, 3, 1, 0]),
        prefix=np.array([2, 4, 1, 1, 0]),
    )
    found = score([made], [session], 2.0, HALF)
    assert found["state_perplexity"] == pytest.approx(np.e**2) and found["state_token_accuracy"] == 8 / 16
    for name in ("fluency", "forced_time_diff_s", "forced_silent_rate", "perplexity", "token_accuracy"):
        assert found[name] == alone[name], name
    made.forced.right[3] = 3  # right tokens after a wrong one count for the accuracy, not for fluency
    again = score([made], [session], 2.0, HALF)
    assert again["token_accuracy"] == 7 / 12 and again["fluency"] == found["fluency"]


def clock(frames: int, starts: list[int], ends: list[int], turns: list[int]) -> SessionRows:
    """A session whose steps start and end, and whose assistant says "now", on the given frames."""
    session = make_session(9, frames, len(starts), turn_rate=0.0, event_rate=0.0)
    for step, (start, end) in enumerate(zip(starts, ends, strict=True)):
        session.states_after[start:, step], session.states_after[end:, step] = 1, 2
    session.states_before[1:] = session.states_after[:-1]
    session.speaking[turns] = 1
    session.items = {frame: FrameItem(response="now") for frame in turns}
    return session


def test_the_schedule_is_the_average_of_the_training_sessions() -> None:
    """Turns every 8 frames; plans begin on frame 6 on average, and a step takes 8 frames."""
    # The second step of the second session is not reached.
    train = [clock(40, [8, 20], [20, 28], [3, 9, 15, 21, 27]), clock(24, [4, 24], [16, 24], [1, 2, 3])]
    schedule = Schedule(train)
    assert (schedule.every, schedule.text, schedule.start, schedule.step) == (8, "now", 6.0, 8.0)
    seen_late = clock(24, [10], [10], [])
    assert Schedule([seen_late]).start == 10.0 and Schedule([seen_late]).step == 0.0
    session = make_session(9, 40, 3, turn_rate=0.0, event_rate=0.0)
    session.items[15] = FrameItem(user_text="hello")
    made = schedule(session)
    assert made.spoken == dict.fromkeys([7, 23, 31, 39], "now")  # on frame 15 the user speaks
    assert np.flatnonzero(made.p_speak == 1).tolist() == [7, 23, 31, 39]
    assert made.updates == np.flatnonzero(made.p_update == 1).tolist() == [6, 14, 22, 30]
    assert made.table is not None and np.array_equal(made.table, made.states)
    assert made.table[[5, 6, 13, 14, 21, 22, 29, 30]].tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [1, 0, 0],
        [2, 1, 0],
        [2, 1, 0],
        [2, 2, 1],
        [2, 2, 1],
        [2, 2, 2],
    ]


@pytest.mark.parametrize("late", [0, 1, 13, 14, 20])
def test_what_is_shifted_past_the_end_is_gone(late: int) -> None:
    session = make_session(0, 14, 3, event_rate=1.0, turn_rate=1.0)
    made, moved = oracle(session), shifted(oracle(session), late)
    assert len(made.spoken) > 5 and len(moved) == 14 and moved.states.shape == moved.table.shape == (14, 3)
    kept = max(14 - late, 0)
    for name in ("p_speak", "p_update", "states", "table"):
        ours, theirs = vars(moved)[name], vars(made)[name]
        assert not ours[:late].any() and np.array_equal(ours[late:], theirs[:kept]), name
    assert moved.spoken == {frame + late: text for frame, text in made.spoken.items() if frame < kept}
    assert moved.updates == [frame + late for frame in made.updates if frame < kept]


def test_the_oracle_of_an_unlabelled_session_holds_states() -> None:
    made = oracle(make_session(4, 12, 3, labelled=False))
    assert not made.states.any() and made.table is not None and not made.table.any()
