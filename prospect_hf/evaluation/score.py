"""Scores: a session and the prediction on it give counts, and sums of counts give figures.

Every figure that the package reports, after training or in an evaluation, is made here, from the same counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.predictions import ForcedTexts, Prediction
from prospect_hf.evaluation.scored_run import ScoredSession, Utterance, Verdict
from prospect_hf.metrics.calibration import calibration_figures
from prospect_hf.metrics.catalogue import MARKS, TOLERANCES_S
from prospect_hf.metrics.chunks import chunk_counts, chunk_figures
from prospect_hf.metrics.counts import Counts, Figures, Sums, plain, ratio, total
from prospect_hf.metrics.decisions import decision_counts, decision_figures
from prospect_hf.metrics.deviations import deviation_counts, deviation_figures
from prospect_hf.metrics.encoders import SentenceEncoder
from prospect_hf.metrics.events import event_counts, event_figures, match_events, match_transitions
from prospect_hf.metrics.named_parts import named_part_counts, named_part_figures
from prospect_hf.metrics.states import illegal_transitions, state_counts, state_figures, transitions
from prospect_hf.metrics.stream_matching import StreamMatch, match_counts, match_figures, match_stream, window_frames
from prospect_hf.metrics.texts import (
    DocumentFrequencies,
    bleu_counts,
    bleu_figures,
    document_frequencies,
    text_counts,
    text_figures,
)
from prospect_hf.words import same_text
from tracking_dst_smolvlm import LEGAL_MOVES

Embeddings = Mapping[str, NDArray[np.float32]]  # text -> [size]
Delays = tuple[float, ...]  # seconds


def score_session(
    session: SessionRows,
    prediction: Prediction,
    fps: float,
    thresholds: tuple[float, float],
    policy: str = "reopen",
    embeddings: Embeddings | None = None,
    frequencies: DocumentFrequencies | None = None,
) -> ScoredSession:
    """Compare the prediction on one session with its reference: counts, delays, and who was matched with whom.

    Args:
        session: the reference.
        prediction: what the model did on it.
        fps: frames a second.
        thresholds: of the speaking and of the DST-update decision.
        policy: which moves of a step are legal (``tracking_dst_smolvlm.LEGAL_MOVES``).
        embeddings: of every utterance on both sides; needed for stream matching and the texts of matched pairs.
        frequencies: of the n-grams in the source's references; needed with ``embeddings``.

    Raises:
        DataError: the prediction does not fit the session.
    """
    wanted = np.flatnonzero(session.speaking == 1).tolist()
    counts = {"hours": len(session) / fps / 3600}
    counts |= decision_counts(prediction.p_speak, session.speaking, thresholds[0], "speaking")
    counts |= decision_counts(prediction.p_update, session.dst_update, thresholds[1], "dst_update")
    said = tuple(Utterance(frame, text) for frame, text in sorted(prediction.spoken.items()))
    reference = tuple(Utterance(frame, session.item(frame).response) for frame in wanted)
    speaking_delays: Delays = ()
    transition_delays: Delays = ()
    if prediction.table is not None and session.has_speech:
        spoken_counts, speaking_delays = _timed("speaking", [one.frame for one in said], wanted, fps)
        counts |= spoken_counts
        counts |= chunk_counts(np.isin(np.arange(len(session)), list(prediction.spoken)), session.speaking, fps)
    writes = prediction.table is not None and session.has_speech and not prediction.wordless
    if writes:
        counts |= _spoken_within_a_second(session, prediction, fps)
    if session.labelled:
        counts |= state_counts(prediction.states, session.states_after, "", session.states_before[0])
        counts["illegal"] = float(illegal_transitions(prediction.states, LEGAL_MOVES[policy]))
        counts["labelled_hours"] = counts["hours"]
        moved, transition_delays = _transition_counts(session, prediction.states, fps, "transition")
        counts |= moved
        if prediction.table is not None:
            counts |= state_counts(prediction.table, session.states_after, "table_", session.states_before[0])
            moved, transition_delays = _transition_counts(session, prediction.table, fps, "table_transition")
            updates = np.flatnonzero(session.dst_update == 1).tolist()
            counts |= moved | _timed("dst_update", prediction.updates, updates, fps)[0]
            counts["rejected"] = float(prediction.rejected)
            counts |= deviation_counts(prediction.table, session.states_after, fps)
    if writes and embeddings is not None and frequencies is not None:
        match = match_stream(
            [one.frame for one in said],
            wanted,
            np.array([embeddings[one.text] for one in said]),
            np.array([embeddings[one.text] for one in reference]),
            len(session),
            window_frames(session.source, fps),
        )
        said, reference = _with_verdicts(said, reference, match)
        counts |= match_counts(match, fps) | _matched_text_counts(said, reference, session.steps, frequencies)
    if prediction.forced is not None:
        counts |= forced_counts(session, prediction.p_speak, prediction.forced, fps, thresholds[0])
    return ScoredSession(session, prediction, counts, said, reference, transition_delays, speaking_delays)


def _transition_counts(session: SessionRows, states: ArrayLike, fps: float, name: str) -> tuple[Counts, Delays]:
    ours, theirs = transitions(states), transitions(session.states_after)
    within = {seconds: match_transitions(ours, theirs, int(seconds * fps)) for seconds in TOLERANCES_S}
    return event_counts(within, len(ours), len(theirs), fps, name), _delays(within, fps)


def _timed(name: str, predicted: Sequence[int], reference: Sequence[int], fps: float) -> tuple[Counts, Delays]:
    within = {seconds: match_events(predicted, reference, int(seconds * fps)) for seconds in TOLERANCES_S}
    return event_counts(within, len(predicted), len(reference), fps, name), _delays(within, fps)


def _delays(within: Mapping[int, Sequence[tuple[int, int]]], fps: float) -> Delays:
    return tuple((predicted - reference) / fps for predicted, reference in within[max(TOLERANCES_S)])


def _spoken_within_a_second(session: SessionRows, prediction: Prediction, fps: float) -> Counts:
    """Texts of utterances within a second of a reference utterance; a missed reference counts as silence."""
    wanted = np.flatnonzero(session.speaking == 1).tolist()
    found = {truth: guess for guess, truth in match_events(sorted(prediction.spoken), wanted, int(fps))}
    references = [session.item(frame).response.strip() for frame in wanted]
    predictions = [prediction.spoken[found[frame]].strip() if frame in found else "" for frame in wanted]
    equal = sum(same_text(guess, truth) for guess, truth in zip(predictions, references, strict=True))
    counts = bleu_counts(predictions, references, "response")
    return counts | {"response_exact": float(equal), "response_texts": float(len(wanted))}


def _with_verdicts(
    said: Sequence[Utterance], reference: Sequence[Utterance], match: StreamMatch
) -> tuple[tuple[Utterance, ...], tuple[Utterance, ...]]:
    """The utterances of both sides with what the matching says about them."""
    ours: list[Utterance] = [replace(one, verdict="redundant") for one in said]
    theirs: list[Utterance] = [replace(one, verdict="missed") for one in reference]
    for (guess, truth), cosine, same in zip(match.matched.tolist(), match.cosines, match.correct, strict=True):
        verdict: Verdict = "matched" if same else "different"
        exact = same_text(said[guess].text, reference[truth].text)
        pair = partial(replace, verdict=verdict, cosine=float(cosine), exact=exact)
        ours[guess] = pair(said[guess], partner=reference[truth].frame)
        theirs[truth] = pair(reference[truth], partner=said[guess].frame)
    return tuple(ours), tuple(theirs)


def _matched_text_counts(
    said: Sequence[Utterance], reference: Sequence[Utterance], steps: Sequence[str], frequencies: DocumentFrequencies
) -> Counts:
    """The counts of the texts of matched pairs."""
    texts = {one.frame: one.text for one in reference}
    matched = [one for one in said if one.verdict == "matched"]
    predictions = [one.text for one in matched]
    references = [texts[one.partner] for one in matched if one.partner is not None]
    cosines = np.array([one.cosine for one in matched], np.float64)
    counts = text_counts(predictions, references, frequencies, cosines)
    counts["text_exact"] = float(sum(one.exact for one in matched))
    return counts | named_part_counts(zip(predictions, references, strict=True), steps)


def forced_counts(
    session: SessionRows, p_speak: ArrayLike, forced: ForcedTexts, fps: float, threshold: float
) -> Counts:
    """Teacher-forced text and timing of one session, after VideoLLM-online (Chen et al., CVPR 2024).

    The span of a turn starts after the previous turn and ends on the turn's own frame. The time difference of a turn is
    the time from the first frame of its span on which the model would speak to the turn's frame. Where the model would
    not speak in the whole span, the turn counts as silent and the whole span is its time difference. Fluency is the
    share of a turn's decisions and tokens before the first wrong one: first the frames of the span, then the tokens.

    Args:
        p_speak: ``[frames]``.
        forced: the session's texts.
        fps: frames a second.
        threshold: of the speaking decision.
    """
    counts: Counts = {}
    for kind, chosen in (("response", ~forced.is_state), ("state", forced.is_state)):
        counts |= {
            f"{kind}_nll": float(forced.nll[chosen].sum()),
            f"{kind}_tokens": float(forced.tokens[chosen].sum()),
            f"{kind}_tokens_right": float(forced.right[chosen].sum()),
        }
    turns = np.flatnonzero(session.speaking != 0)  # users' turns end a span too
    own = session.speaking[turns] == 1
    first = np.concatenate([[0], turns[:-1] + 1])[own] if len(turns) else np.zeros(0, np.int64)
    frame = turns[own]
    would = np.append(np.flatnonzero(np.asarray(p_speak) >= threshold), len(session))
    trigger = would[np.searchsorted(would, first)]
    silent = trigger > frame
    span = frame - first + 1
    early = np.where(silent, span, frame - trigger)
    response = ~forced.is_state
    tokens, prefix = forced.tokens[response], forced.prefix[response]
    in_a_row = np.where(silent, span - 1, np.where(early == 0, span + prefix, span - 1 - early))
    return counts | {
        "forced_turns": float(len(frame)),
        "forced_diff_sum": float(early.sum() / fps),
        "forced_silent": float(silent.sum()),
        "fluency_sum": float((in_a_row / (span + tokens)).sum()),
    }


def figures(sums: Sums) -> Figures:
    """Every figure that follows from the sums; NaN where undefined. A sum may be a scalar or ``[draws]``."""
    found = decision_figures(sums, "speaking") | decision_figures(sums, "dst_update")
    for name in ("speaking", "dst_update"):
        if f"{name}_predictions" in sums:
            found |= event_figures(sums, TOLERANCES_S, name)
        if f"{name}_calibration_frames" in sums:
            found |= calibration_figures(sums, name)
    if "chunk_yes_yes" in sums:
        found |= chunk_figures(sums)
    for name in ("", "table_"):
        if f"{name}state_frames" in sums:
            found |= state_figures(sums, name)
    if "illegal" in sums:
        found["illegal_transitions_per_hour"] = ratio(sums["illegal"], sums["labelled_hours"])
        found |= event_figures(sums, TOLERANCES_S, "transition")
    if "rejected" in sums:
        found["rejected_per_hour"] = ratio(sums["rejected"], sums["labelled_hours"])
        found |= event_figures(sums, TOLERANCES_S, "table_transition")
    if "deviation_predictions" in sums:
        found |= deviation_figures(sums)
    if "response_texts" in sums:
        found["response_exact_match"] = ratio(sums["response_exact"], sums["response_texts"])
        found["response_bleu"] = bleu_figures(sums, "response")["response_bleu4"]
    if "matching_matched" in sums:
        found |= match_figures(sums) | text_figures(sums)
        found["matching_pairs"] = np.asarray(sums["matching_correct"], np.float64)
    if "text_exact" in sums:
        found["text_exact_match"] = ratio(sums["text_exact"], sums["text_pairs"])
    if "parts_named" in sums:
        found |= named_part_figures(sums)
    if "forced_turns" in sums:
        found |= _forced_figures(sums)
    if "judge_sessions" in sums:
        found |= {f"judge_{mark}": ratio(sums[f"judge_{mark}_sum"], sums["judge_sessions"]) for mark in MARKS}
    return found


def _forced_figures(sums: Sums) -> Figures:
    with np.errstate(over="ignore"):  # a perplexity past the largest float is infinite
        return {
            "perplexity": np.exp(ratio(sums["response_nll"], sums["response_tokens"])),
            "token_accuracy": ratio(sums["response_tokens_right"], sums["response_tokens"]),
            "state_perplexity": np.exp(ratio(sums["state_nll"], sums["state_tokens"])),
            "state_token_accuracy": ratio(sums["state_tokens_right"], sums["state_tokens"]),
            "forced_time_diff_s": ratio(sums["forced_diff_sum"], sums["forced_turns"]),
            "forced_silent_rate": ratio(sums["forced_silent"], sums["forced_turns"]),
            "fluency": ratio(sums["fluency_sum"], sums["forced_turns"]),
        }


def score(
    predictions: Sequence[Prediction], sessions: Sequence[SessionRows], fps: float, thresholds: tuple[float, float]
) -> dict[str, Any]:
    """Figures of ``predictions`` pooled over ``sessions``, None where undefined, without a sentence encoder.

    Sessions without DST labels count for speaking and texts only.
    """
    pairs = zip(sessions, predictions, strict=True)
    return plain(figures(total(score_session(session, made, fps, thresholds).counts for session, made in pairs)))


def embed(
    encoder: SentenceEncoder, sessions: Sequence[SessionRows], runs: Sequence[Sequence[Prediction]]
) -> Embeddings:
    """The embeddings of all utterances, of the predictions and of the references."""
    made = [prediction for of_run in runs for prediction in of_run if not prediction.wordless]
    said = {text for prediction in made for text in prediction.spoken.values()}
    wanted = {item.response for session in sessions for item in session.items.values() if item.response}
    return encoder(said | wanted, progress=True)


def source_frequencies(sessions: Sequence[SessionRows]) -> dict[str, DocumentFrequencies]:
    """The n-gram frequencies in the references of each source, so that its figures do not depend on other sources."""
    texts: dict[str, list[str]] = {session.source: [] for session in sessions}
    for session in sessions:
        texts[session.source].extend(i.response for i in session.items.values() if i.response)
    return {source: document_frequencies(of_source) for source, of_source in texts.items()}
