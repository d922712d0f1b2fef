"""Baselines without video: lower bounds that a model must beat, and the oracle as upper bound.

They use the training split, the plan and the frame number. ``majority`` and ``random_sentences`` also use the
reference's speaking times, ``random_times`` its sentences, and ``oracle`` the whole reference. A baseline that knows
one half of the answer shows which figures look at that half alone.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.corpus import Corpus
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.sessions import COMPLETED, IGNORE, IN_PROGRESS

logger = logging.getLogger(__name__)


def silent(session: SessionRows) -> Prediction:
    """Never speaks and never starts a step."""
    frames, steps = session.states_after.shape
    empty = np.zeros((frames, steps), np.int64)
    return Prediction(np.zeros(frames), np.zeros(frames), empty, empty.copy())


def majority(session: SessionRows, text: str) -> Prediction:
    """Says ``text`` at each speaking time of the reference; never starts a step."""
    prediction = silent(session)
    prediction.p_speak = (session.speaking == 1).astype(float)
    if text:
        prediction.spoken = dict.fromkeys(np.flatnonzero(session.speaking == 1).tolist(), text)
    return prediction


def random_sentences(session: SessionRows, sentences: Sequence[str], seed: int) -> Prediction:
    """Says any of ``sentences`` but the reference's own at each speaking time of the reference; never starts a step.

    Where there is no other sentence, it is silent.
    """
    drawn, said = _random(session, seed), {}
    for frame in np.flatnonzero(session.speaking == 1).tolist():
        others = [text for text in sentences if text != session.item(frame).response]
        if others:
            said[frame] = others[drawn.integers(len(others))]
    return _saying(session, said)


def random_times(session: SessionRows, seed: int) -> Prediction:
    """Says each sentence of the reference on a frame drawn from all but the user's; never starts a step."""
    texts = [session.item(frame).response for frame in np.flatnonzero(session.speaking == 1).tolist()]
    free = np.flatnonzero(session.speaking != IGNORE)
    times = _random(session, seed).choice(free, len(texts), replace=False)
    return _saying(session, dict(zip(times.tolist(), texts, strict=True)))


def every(session: SessionRows, seconds: float, text: str, fps: float) -> Prediction:
    """Says ``text`` each ``seconds``, except where the user speaks; never starts a step."""
    frames = np.arange(len(session))
    due = np.floor((frames + 1) / (seconds * fps)) > np.floor(frames / (seconds * fps))
    times = np.flatnonzero(due & (session.speaking != IGNORE)).tolist() if text else []
    return _saying(session, dict.fromkeys(times, text))


def _saying(session: SessionRows, said: Mapping[int, str]) -> Prediction:
    """Says these texts, by frame, and decides on nothing else."""
    prediction = silent(session)
    prediction.p_speak[list(said)] = 1.0
    prediction.spoken = dict(sorted(said.items()))
    return prediction


def _random(session: SessionRows, seed: int) -> np.random.Generator:
    """Random numbers of a session, whatever other sessions there are."""
    return np.random.default_rng([seed, crc32(session.session_id.encode())])


def oracle(session: SessionRows) -> Prediction:
    """Predicts the reference: the upper bound of every metric."""
    return Prediction(
        p_speak=(session.speaking == 1).astype(float),
        p_update=(session.dst_update == 1).astype(float),
        states=np.maximum(session.states_after, 0),
        table=np.maximum(session.states_after, 0),
        spoken={frame: session.item(frame).response for frame in np.flatnonzero(session.speaking == 1).tolist()},
        updates=np.flatnonzero(session.dst_update == 1).tolist(),
    )


def shifted(prediction: Prediction, frames: int) -> Prediction:
    """``prediction`` delayed by ``frames``; what would come after the last frame is dropped."""
    count = len(prediction)

    def later(values: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.concatenate([np.zeros_like(values[:frames]), values[: max(count - frames, 0)]])[:count]

    return Prediction(
        p_speak=later(prediction.p_speak),
        p_update=later(prediction.p_update),
        states=later(prediction.states),
        table=None if prediction.table is None else later(prediction.table),
        spoken={frame + frames: text for frame, text in prediction.spoken.items() if frame + frames < count},
        updates=[frame + frames for frame in prediction.updates if frame + frames < count],
    )


class Schedule:
    """Predicts by the frame number alone, with the averages of the training split.

    It says the most frequent response at a fixed interval, the mean interval between responses in training. It carries
    out the plan in order, each step with the mean duration of a step in training.

    Args:
        train: sessions of the training split.
    """

    def __init__(self, train: Sequence[SessionRows]) -> None:
        turns = sum(int((session.speaking == 1).sum()) for session in train)
        self.text = majority_response(train)
        self.every = max(round(sum(map(len, train)) / turns), 1) if turns else 0
        labelled = [session for session in train if session.labelled]
        starts = [_first(session, IN_PROGRESS) for session in labelled]
        ends = [_first(session, COMPLETED) for session in labelled]
        begun = [np.nanmin(frames) for frames in starts if not np.isnan(frames).all()]
        self.start = float(np.mean(begun)) if begun else np.nan
        spans = [
            (np.nanmax(end) - np.nanmin(start)) / len(start)
            for start, end in zip(starts, ends, strict=True)
            if not (np.isnan(end).all() or np.isnan(start).all())
        ]
        self.step = float(np.mean(spans)) if spans else np.nan

    def __call__(self, session: SessionRows) -> Prediction:
        """The prediction for a session; uses its number of steps and frames and the times of the user's turns."""
        prediction = silent(session)
        frames, steps = session.states_after.shape
        if self.every and self.text:
            times = [frame for frame in range(self.every - 1, frames, self.every) if not session.item(frame).user_text]
            prediction.spoken = dict.fromkeys(times, self.text)
            prediction.p_speak[times] = 1.0
        if not np.isnan(self.step):
            done = (np.arange(frames) - self.start) / max(self.step, 1.0)
            number = np.arange(steps)
            table = (done[:, None] >= number).astype(np.int64) + (done[:, None] >= number + 1)
            moved = np.any(np.diff(table, axis=0, prepend=0) != 0, axis=1)
            prediction.states, prediction.table = table, table.copy()
            prediction.updates = np.flatnonzero(moved).tolist()
            prediction.p_update[moved] = 1.0
        return prediction


def _first(session: SessionRows, state: int) -> NDArray[np.float64]:
    """``[steps]``: the first frame on which each step has reached ``state``; NaN where it never does."""
    reached = session.states_after >= state
    return np.where(reached.any(0), reached.argmax(0), np.nan)


def responses(sessions: Iterable[SessionRows]) -> Counter[str]:
    """How often each response occurs in ``sessions``."""
    return Counter(item.response for session in sessions for item in session.items.values() if item.response)


def majority_response(sessions: Iterable[SessionRows]) -> str:
    """The most frequent response of ``sessions``; "" where there is none."""
    counts = responses(sessions)
    return counts.most_common(1)[0][0] if counts else ""


def baseline_predictions(corpus: Corpus, fps: float, seed: int, every_s: float) -> dict[str, list[Prediction]]:
    """The predictions of each baseline, by name; without a training split, the baselines that need it are left out.

    Args:
        corpus: the data.
        fps: frames a second.
        seed: of the random baselines.
        every_s: seconds from one utterance to the next of the baseline that speaks by the clock.
    """
    made = {
        "baseline, silent": [silent(session) for session in corpus.sessions],
        "baseline, oracle": [oracle(session) for session in corpus.sessions],
        "baseline, random times": [random_times(session, seed) for session in corpus.sessions],
    }
    if corpus.train:
        counts = responses(corpus.train)
        sentences, schedule = sorted(counts), Schedule(corpus.train)
        text = counts.most_common(1)[0][0] if counts else ""
        made["baseline, majority at the right times"] = [majority(s, text) for s in corpus.sessions]
        made["baseline, random sentences"] = [random_sentences(session, sentences, seed) for session in corpus.sessions]
        made["baseline, schedule"] = [schedule(session) for session in corpus.sessions]
        made[f"baseline, every {every_s:g} s"] = [every(session, every_s, text, fps) for session in corpus.sessions]
    else:
        logger.info("There is no training split: the baselines that use its sentences and averages are left out.")
    return made
