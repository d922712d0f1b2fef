"""Scores of decisions, events, states and texts, as plain functions over numpy arrays and lists.

Every function follows the same rules. A label of -100 is no label. The reference as prediction scores exactly 1 (BLEU:
100) wherever there is something to find, silence scores 0, and nothing divides by zero: a ratio without a denominator
is 0.0, and the counts beside it say so. Counts are pooled over sessions before any ratio is taken (micro average).
Tolerances and delays are in frames.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import sacrebleu
from numpy.typing import ArrayLike, NDArray

from prospect_hf.errors import DataError

IGNORE = -100
STATES = (0, 1, 2)


def binary_metrics(scores: ArrayLike, labels: ArrayLike, threshold: float = 0.5) -> dict[str, float]:
    """Precision, recall, F1, average precision and balanced accuracy of a yes/no decision.

    Average precision is the step-wise sum of precision over the gain in recall, at every distinct score (the definition
    of scikit-learn; no interpolation). Balanced accuracy is the mean recall of the classes that occur.

    Args:
        scores: any shape, the score or probability of "yes"; "yes" is decided where ``score >= threshold``.
        labels: the same shape, 1, 0 or -100.
        threshold: the decision's threshold.

    Returns:
        precision, recall, f1, average_precision, balanced_accuracy, positives (labels of 1), predicted (decisions).

    Raises:
        DataError: shapes differ, a label is none of 1, 0, -100, or a labelled score is NaN.
    """
    score, truth = _labelled_scores(scores, labels)
    decided = score >= threshold
    hits = int(np.sum(decided & truth))
    positives, predicted = int(truth.sum()), int(decided.sum())
    hit, found, _ = _running_counts(score, truth)
    precisions, gains = hit / found, np.diff(hit, prepend=0)
    recalls = [float(np.mean(decided[truth == kind] == kind)) for kind in (True, False) if np.any(truth == kind)]
    return _precision_recall(hits, predicted, positives) | {
        "average_precision": _ratio(float(np.sum(precisions * gains)), positives),
        "balanced_accuracy": _ratio(sum(recalls), len(recalls)),
        "positives": positives,
        "predicted": predicted,
    }


def best_threshold(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """The threshold with the highest F1, and that F1; the highest such threshold, or (0.5, 0.0) without a positive.

    It lies halfway between two scores, so that a rounding difference does not turn a decision.

    Raises:
        DataError: as in :func:`binary_metrics`.
    """
    score, truth = _labelled_scores(scores, labels)
    positives = int(truth.sum())
    if not positives:
        return 0.5, 0.0
    hit, found, thresholds = _running_counts(score, truth)
    f1 = 2 * hit / (found + positives)
    best = int(np.argmax(f1))
    threshold = float(thresholds[best])
    if best + 1 < len(thresholds):
        below = float(thresholds[best + 1])
        between = below + (threshold - below) / 2
        threshold = between if between > below else threshold
    return threshold, float(f1[best])


def match_events(
    predicted_frames: Sequence[int], reference_frames: Sequence[int], tolerance_frames: int
) -> list[tuple[int, int]]:
    """Match predicted events one to one with reference events at most ``tolerance_frames`` apart.

    As many pairs as possible, and among those matchings one with the smallest total distance, so that a spare
    prediction near a reference does not distort the delay of the right one. On a time line such a matching exists in
    which no two pairs cross, so it is found row by row like an edit distance: O(predicted * reference).

    Args:
        predicted_frames: frame indices, in any order; a frame may occur twice.
        reference_frames: the same.
        tolerance_frames: 0 or more.

    Returns:
        (predicted frame, reference frame) of each pair, in order of time.

    Raises:
        DataError: the tolerance is negative.
    """
    if tolerance_frames < 0:
        raise DataError(f"A tolerance of {tolerance_frames} frames matches nothing; give 0 or more.")
    predicted = np.sort(np.asarray(predicted_frames, dtype=np.int64))
    reference = np.sort(np.asarray(reference_frames, dtype=np.int64))
    # One pair more is worth more than any distance that it could add.
    pair_worth = (tolerance_frames + 1) * (min(len(predicted), len(reference)) + 1)
    worth = np.zeros((len(predicted) + 1, len(reference) + 1), dtype=np.int64)
    for row, frame in enumerate(predicted):
        distance = np.abs(reference - frame)
        gain = np.where(distance <= tolerance_frames, pair_worth - distance, -pair_worth)
        paired = np.maximum(worth[row, 1:], worth[row, :-1] + gain)
        worth[row + 1, 1:] = np.maximum.accumulate(paired)
    pairs: list[tuple[int, int]] = []
    row, column = len(predicted), len(reference)
    while row and column:
        if worth[row, column] == worth[row - 1, column]:
            row -= 1
        elif worth[row, column] == worth[row, column - 1]:
            column -= 1
        else:
            row, column = row - 1, column - 1
            pairs.append((int(predicted[row]), int(reference[column])))
    return pairs[::-1]


def event_scores(sessions: Sequence[tuple[Sequence[int], Sequence[int]]], tolerance_frames: int) -> dict[str, float]:
    """Precision, recall and F1 of events in time, matched one to one within a tolerance.

    Args:
        sessions: (predicted frames, reference frames) of each session.
        tolerance_frames: how far a prediction may lie from its reference.

    Returns:
        precision, recall, f1, matched, missed (references without a prediction), extra (predictions without a
        reference), references, predictions, mean_delay_frames (predicted - reference over matched pairs, so positive
        is late; 0.0 when nothing matched) and mean_abs_delay_frames. Without any reference f1 is 0.0: read it beside
        ``references``.

    Raises:
        DataError: the tolerance is negative.
    """
    delays: list[int] = []
    for predicted, reference in sessions:
        delays += [guess - truth for guess, truth in match_events(predicted, reference, tolerance_frames)]
    predictions = sum(len(predicted) for predicted, _ in sessions)
    references = sum(len(reference) for _, reference in sessions)
    matched = len(delays)
    return _precision_recall(matched, predictions, references) | {
        "matched": matched,
        "missed": references - matched,
        "extra": predictions - matched,
        "references": references,
        "predictions": predictions,
        "mean_delay_frames": _ratio(sum(delays), matched),
        "mean_abs_delay_frames": _ratio(sum(abs(delay) for delay in delays), matched),
    }


def transition_scores(
    sessions: Sequence[tuple[Sequence[tuple[int, int, Hashable]], Sequence[tuple[int, int, Hashable]]]],
    tolerance_frames: int,
) -> dict[str, float]:
    """The same figures as :func:`event_scores` for state transitions: only the same step and kind can match.

    Args:
        sessions: (predicted, reference) of each session, each a list of (frame, step, kind), where kind is "start" or
            "complete", or the new state.
        tolerance_frames: how far a transition may lie from its reference.

    Raises:
        DataError: the tolerance is negative.
    """
    lines: list[tuple[list[int], list[int]]] = []
    for predicted, reference in sessions:
        for key in {(step, kind) for _, step, kind in (*predicted, *reference)}:
            lines.append((_frames_of(key, predicted), _frames_of(key, reference)))
    return event_scores(lines, tolerance_frames)


def joint_state_accuracy(predicted: ArrayLike, reference: ArrayLike) -> float:
    """The share of frames on which every labelled step has the right state; 0.0 without a labelled frame.

    Args:
        predicted: ``[frames, steps]`` states 0, 1, 2.
        reference: the same shape, -100 where there is no label. A frame counts if any of its steps has one.

    Raises:
        DataError: shapes differ, or a label is no state.
    """
    guess, truth = _state_table(predicted, reference)
    right, counts = _frames_right(guess, truth)
    return _ratio(int(np.sum(right & counts)), int(np.sum(counts)))


def state_metrics(predicted: Sequence[ArrayLike], reference: Sequence[ArrayLike]) -> dict[str, float]:
    """How well the states of all steps are known, pooled over tables (clips or sessions) of any size.

    Args:
        predicted: one ``[frames, steps]`` table of states 0, 1, 2 each.
        reference: the same shapes, -100 where there is no label.

    Returns:
        joint_state_accuracy: frames with every labelled step right; joint_state_accuracy_at_updates: the same over the
        frames whose reference differs from the frame before it in the table; step_accuracy: labelled (frame, step)
        cells that are right; state_macro_f1: mean F1 of the states that occur in the labels or the predictions;
        state_frames and state_update_frames: the counts of frames behind the first two.

    Raises:
        DataError: another number of tables, shapes differ, or a label is no state.
    """
    if len(predicted) != len(reference):
        raise DataError(f"{len(predicted)} predicted state tables stand against {len(reference)} reference tables.")
    frames = right_frames = updates = right_updates = 0
    confusion = np.zeros((len(STATES), len(STATES)), dtype=np.int64)
    for guess_table, truth_table in zip(predicted, reference, strict=True):
        guess, truth = _state_table(guess_table, truth_table)
        right, counts = _frames_right(guess, truth)
        changed = counts.copy()
        changed[:1] = False
        changed[1:] &= np.any((truth[1:] != truth[:-1]) & (truth[1:] != IGNORE) & (truth[:-1] != IGNORE), axis=1)
        frames += int(counts.sum())
        right_frames += int(np.sum(right & counts))
        updates += int(changed.sum())
        right_updates += int(np.sum(right & changed))
        labelled = truth != IGNORE
        np.add.at(confusion, (truth[labelled], guess[labelled]), 1)
    hits, mass = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
    f1 = [2 * int(hits[state]) / int(mass[state]) for state in STATES if mass[state]]
    return {
        "joint_state_accuracy": _ratio(right_frames, frames),
        "joint_state_accuracy_at_updates": _ratio(right_updates, updates),
        "step_accuracy": _ratio(int(hits.sum()), int(confusion.sum())),
        "state_macro_f1": _ratio(sum(f1), len(f1)),
        "state_frames": frames,
        "state_update_frames": updates,
    }


def text_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Share of exactly equal texts (0 to 1) and corpus BLEU (0 to 100, sacrebleu), one reference each.

    BLEU stops at the longest n-gram that the corpus has, or short utterances ("Well done.") would score 0 against
    themselves. Surrounding white space does not count.

    Returns:
        exact_match, bleu, texts.

    Raises:
        DataError: another number of predictions than references.
    """
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} predicted texts stand against {len(references)} reference texts.")
    guesses, truths = [text.strip() for text in predictions], [text.strip() for text in references]
    equal = sum(guess == truth for guess, truth in zip(guesses, truths, strict=True))
    bleu = sacrebleu.corpus_bleu(guesses, [truths], use_effective_order=True).score if guesses else 0.0
    return {"exact_match": _ratio(equal, len(guesses)), "bleu": min(bleu, 100.0), "texts": len(guesses)}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _precision_recall(hits: int, predicted: int, wanted: int) -> dict[str, float]:
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, wanted),
        "f1": _ratio(2 * hits, predicted + wanted),
    }


def _labelled_scores(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    score, label = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if score.shape != label.shape:
        raise DataError(f"Scores {score.shape} and labels {label.shape} differ in shape.")
    if not np.isin(label, (0, 1, IGNORE)).all():
        raise DataError(f"Labels hold {np.unique(label).tolist()}; a decision is 1, 0 or {IGNORE}.")
    labelled = label != IGNORE
    if np.isnan(score[labelled]).any():
        raise DataError(f"{int(np.isnan(score[labelled]).sum())} scores are NaN; the model's logits are broken.")
    return score[labelled], label[labelled] == 1


def _running_counts(
    score: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For each distinct score from the highest down: hits and decisions if it were the threshold, and itself."""
    order = np.argsort(-score, kind="stable")
    score, truth = score[order], truth[order]
    last = np.flatnonzero(np.append(score[1:] != score[:-1], np.ones(min(len(score), 1), dtype=bool)))
    return np.cumsum(truth, dtype=np.int64)[last], last.astype(np.int64) + 1, score[last]


def _frames_of(key: tuple[int, Hashable], transitions: Sequence[tuple[int, int, Hashable]]) -> list[int]:
    return [frame for frame, step, kind in transitions if (step, kind) == key]


def _state_table(predicted: ArrayLike, reference: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    guess, truth = np.asarray(predicted, dtype=np.int64), np.asarray(reference, dtype=np.int64)
    if guess.ndim != 2 or guess.shape != truth.shape:
        raise DataError(f"State tables {guess.shape} and {truth.shape} are not two equal [frames, steps].")
    if not np.isin(truth, (*STATES, IGNORE)).all():
        raise DataError(f"State labels hold {np.unique(truth).tolist()}; a state is 0, 1, 2 or {IGNORE}.")
    if not np.isin(guess[truth != IGNORE], STATES).all():
        raise DataError(f"Predicted states hold {np.unique(guess).tolist()}; a state is 0, 1 or 2.")
    return guess, truth


def _frames_right(guess: NDArray[np.int64], truth: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """``[frames]``: is every labelled step right; does the frame have a label."""
    labelled = truth != IGNORE
    right: NDArray[np.bool_] = np.all((guess == truth) | ~labelled, axis=1)
    counts: NDArray[np.bool_] = np.any(labelled, axis=1)
    return right, counts
