"""From a session and what a model did on it to counts, and from sums of counts to figures.

Every figure that the package reports, after training or in an evaluation, is made here, from the same counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.predictions import ForcedTexts, Prediction
from prospect_hf.metrics.catalogue import MARKS, TOLERANCES_S
from prospect_hf.metrics.counts import Counts, Figures, Sums, plain, ratio, total
from prospect_hf.metrics.decisions import decision_counts, decision_figures
from prospect_hf.metrics.encoders import SentenceEncoder
from prospect_hf.metrics.events import event_counts, event_figures, match_events, match_transitions
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
from tracking_dst_smolvlm import LEGAL_MOVES

Embeddings = Mapping[str, NDArray[np.float32]]  # text -> [size]


def tally(
    session: SessionRows,
    prediction: Prediction,
    fps: float,
    thresholds: tuple[float, float],
    policy: str = "reopen",
    embeddings: Embeddings | None = None,
    frequencies: DocumentFrequencies | None = None,
) -> Counts:
    """The counts of one session.

    Args:
        session: the reference.
        prediction: what the model did on it.
        fps: frames a second.
        thresholds: of the speaking and of the DST-update decision.
        policy: which moves of a step are legal (``tracking_dst_smolvlm.LEGAL_MOVES``).
        embeddings: of every utterance on both sides, for stream matching and what rests on it.
        frequencies: of the n-grams in the source's references, with ``embeddings``.

    Raises:
        DataError: the prediction does not fit the session.
    """
    wanted = np.flatnonzero(session.speaking == 1).tolist()
    counts = {"hours": len(session) / fps / 3600}
    counts |= decision_counts(prediction.p_speak, session.speaking, thresholds[0], "speaking")
    counts |= decision_counts(prediction.p_update, session.dst_update, thresholds[1], "dst_update")
    if prediction.table is not None:
        said = sorted(prediction.spoken)
        counts |= _timed("speaking", said, wanted, fps)
        counts |= _spoken_within_a_second(session, prediction, fps)
    if session.labelled:
        counts |= state_counts(prediction.states, session.states_after, "", session.states_before[0])
        counts["illegal"] = float(illegal_transitions(prediction.states, LEGAL_MOVES[policy]))
        counts["labelled_hours"] = counts["hours"]
        counts |= _transition_counts(session, prediction.states, fps, "transition")
        if prediction.table is not None:
            counts |= state_counts(prediction.table, session.states_after, "table_", session.states_before[0])
            counts |= _transition_counts(session, prediction.table, fps, "table_transition")
            counts["rejected"] = float(prediction.rejected)
            updates = np.flatnonzero(session.dst_update == 1).tolist()
            counts |= _timed("dst_update", prediction.updates, updates, fps)
    if prediction.table is not None and embeddings is not None and frequencies is not None:
        match = match_session(session, prediction, fps, embeddings)
        counts |= match_counts(match, fps)
        pairs = match.matched[match.correct]
        ours_said = [text for _, text in sorted(prediction.spoken.items())]
        counts |= text_counts(
            [ours_said[predicted] for predicted in pairs[:, 0]],
            [session.item(wanted[reference]).response for reference in pairs[:, 1]],
            frequencies,
            match.cosines[match.correct],
        )
    if prediction.forced is not None:
        counts |= forced_counts(session, prediction.p_speak, prediction.forced, fps, thresholds[0])
    return counts


def _transition_counts(session: SessionRows, states: ArrayLike, fps: float, name: str) -> Counts:
    ours, theirs = transitions(states), transitions(session.states_after)
    within = {seconds: match_transitions(ours, theirs, int(seconds * fps)) for seconds in TOLERANCES_S}
    return event_counts(within, len(ours), len(theirs), fps, name)


def _timed(name: str, predicted: Sequence[int], reference: Sequence[int], fps: float) -> Counts:
    within = {seconds: match_events(predicted, reference, int(seconds * fps)) for seconds in TOLERANCES_S}
    return event_counts(within, len(predicted), len(reference), fps, name)


def _spoken_within_a_second(session: SessionRows, prediction: Prediction, fps: float) -> Counts:
    """Texts of utterances within a second of a reference utterance; a missed reference counts as silence."""
    wanted = np.flatnonzero(session.speaking == 1).tolist()
    found = {truth: guess for guess, truth in match_events(sorted(prediction.spoken), wanted, int(fps))}
    references = [session.item(frame).response.strip() for frame in wanted]
    predictions = [prediction.spoken[found[frame]].strip() if frame in found else "" for frame in wanted]
    equal = sum(guess == truth for guess, truth in zip(predictions, references, strict=True))
    counts = bleu_counts(predictions, references, "response")
    return counts | {"response_exact": float(equal), "response_texts": float(len(wanted))}


def match_session(session: SessionRows, prediction: Prediction, fps: float, embeddings: Embeddings) -> StreamMatch:
    """The stream matching of a session's utterances with its references', in its source's window."""
    wanted, said = np.flatnonzero(session.speaking == 1).tolist(), sorted(prediction.spoken)
    return match_stream(
        said,
        wanted,
        np.array([embeddings[prediction.spoken[frame]] for frame in said]),
        np.array([embeddings[session.item(frame).response] for frame in wanted]),
        len(session),
        window_frames(session.source, fps),
    )


def forced_counts(
    session: SessionRows, p_speak: ArrayLike, forced: ForcedTexts, fps: float, threshold: float
) -> Counts:
    """Teacher-forced text and timing of one session, after VideoLLM-online (Chen et al., CVPR 2024).

    A turn's span is the frames after the turn before it, up to its own. Its time difference is the time from the first
    frame of the span on which the model would speak to its own frame; a turn that it lets pass counts with its whole
    span, and is counted as silent. Fluency is the share of a turn's decisions and tokens that come right in a row:
    the span's frames, then the tokens up to the first wrong one.

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
    """Every figure that the sums tell; NaN where undefined. A sum may be a scalar or ``[draws]``."""
    found = decision_figures(sums, "speaking") | decision_figures(sums, "dst_update")
    for name in ("speaking", "dst_update"):
        if f"{name}_predictions" in sums:
            found |= event_figures(sums, TOLERANCES_S, name)
    for name in ("", "table_"):
        if f"{name}state_frames" in sums:
            found |= state_figures(sums, name)
    if "illegal" in sums:
        found["illegal_transitions_per_hour"] = ratio(sums["illegal"], sums["labelled_hours"])
        found |= event_figures(sums, TOLERANCES_S, "transition")
    if "rejected" in sums:
        found["rejected_per_hour"] = ratio(sums["rejected"], sums["labelled_hours"])
        found |= event_figures(sums, TOLERANCES_S, "table_transition")
    if "response_texts" in sums:
        found["response_exact_match"] = ratio(sums["response_exact"], sums["response_texts"])
        found["response_bleu"] = bleu_figures(sums, "response")["response_bleu4"]
    if "matching_matched" in sums:
        found |= match_figures(sums) | text_figures(sums)
        found["matching_correct_pairs"] = np.asarray(sums["matching_correct"], np.float64)
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
    counts = [
        tally(session, prediction, fps, thresholds) for session, prediction in zip(sessions, predictions, strict=True)
    ]
    return plain(figures(total(counts)))


def embed(
    encoder: SentenceEncoder, sessions: Sequence[SessionRows], runs: Sequence[Sequence[Prediction]]
) -> Embeddings:
    """The embeddings of all utterances, said and to be said."""
    said = {text for made in runs for prediction in made for text in prediction.spoken.values()}
    wanted = {item.response for session in sessions for item in session.items.values() if item.response}
    return encoder(said | wanted, progress=True)


def source_frequencies(sessions: Sequence[SessionRows]) -> dict[str, DocumentFrequencies]:
    """How common n-grams are among the references of each source: its figures do not depend on other sources."""
    texts: dict[str, list[str]] = {session.source: [] for session in sessions}
    for session in sessions:
        texts[session.source].extend(i.response for i in session.items.values() if i.response)
    return {source: document_frequencies(of_source) for source, of_source in texts.items()}
