"""Scoring of a session: time of the counts with arrays against the same counts with a loop over frames.

    python benchmarks/scoring.py

The session has a plan of 20 steps, and utterances and state changes as frequent as in the corpus (7.5 % and 2 % of the
frames). Median of 5, both methods alternating; both must give equal counts. The last columns time all of
``score_session``: decisions, events within 0, 1, 2 and 5 s, states of head and tracked table, transitions, texts within
a second, stream matching (with given embeddings) and all text metrics.

Exit codes: 0 done, 1 the methods differ.
"""

from __future__ import annotations

import argparse
import platform
import sys

import numpy as np
from timing import median_seconds

from processing_dst_smolvlm import FrameItem
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.baselines import oracle, shifted
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.score import score_session
from prospect_hf.metrics.decisions import decision_counts
from prospect_hf.metrics.states import state_counts
from prospect_hf.metrics.texts import document_frequencies

SIZES = (1_000, 8_000, 72_000)
STEPS, REPEATS, WIDTH = 20, 5, 384


def session(frames: int) -> SessionRows:
    """A random session: steps start and complete at random; responses are drawn from 40 sentences."""
    rng = np.random.default_rng(0)
    states = np.zeros((frames, STEPS), np.int64)
    for _ in range(frames // 50):
        at, step = rng.integers(frames), rng.integers(STEPS)
        states[at:, step] = 2 if states[at, step] == 1 else 1
    before = np.vstack([np.zeros_like(states[:1]), states[:-1]])
    speaking = (rng.random(frames) < 0.075).astype(np.int64)
    sentences = [f"now attach part {number} to the board" for number in range(40)]
    items = {at: FrameItem(response=sentences[rng.integers(40)]) for at in np.flatnonzero(speaking).tolist()}
    update = (states != before).any(1).astype(np.int64)
    plan = [f"attach part {number}" for number in range(STEPS)]
    return SessionRows(
        "wtag.v.talk_some_0", "wtag", "v", "talk_some", "goal", plan, "f", 0, speaking, update, before, states, items
    )


def by_arrays(one: SessionRows, made: Prediction) -> dict[str, float]:
    """The counts of decisions and states, with the package's functions."""
    return decision_counts(made.p_speak, one.speaking, 0.5, "speaking") | state_counts(
        made.states, one.states_after, "", one.states_before[0]
    )


def by_frames(one: SessionRows, made: Prediction) -> dict[str, float]:
    """The same counts, with a loop over frames and steps."""
    counts = {f"speaking_{kind}": 0.0 for kind in ("yes_yes", "yes_no", "no_yes", "no_no")}
    counts |= dict.fromkeys(("state_frames", "state_right", "state_updates", "state_right_at_updates"), 0.0)
    counts |= {f"state_{truth}{guess}": 0.0 for truth in range(3) for guess in range(3)}
    before = one.states_before[0]
    for frame in range(len(one)):
        decided = "yes" if made.p_speak[frame] >= 0.5 else "no"
        counts[f"speaking_{decided}_{'yes' if one.speaking[frame] == 1 else 'no'}"] += 1
        right, changed = True, False
        for step in range(STEPS):
            truth, guess = int(one.states_after[frame, step]), int(made.states[frame, step])
            counts[f"state_{truth}{guess}"] += 1
            right = right and truth == guess
            changed = changed or truth != before[step]
        counts["state_frames"] += 1
        counts["state_right"] += right
        counts["state_updates"] += changed
        counts["state_right_at_updates"] += right and changed
        before = one.states_after[frame]
    return counts


def main() -> int:
    """Print the table."""
    print(f"Python {platform.python_version()}, numpy {np.__version__}\n")
    print("| frames | loop over frames | arrays | ratio | whole of score_session | frames per second |")
    print("|---|---|---|---|---|---|")
    for frames in SIZES:
        one = session(frames)
        made = shifted(oracle(one), 1)
        if by_arrays(one, made) != by_frames(one, made):
            print(f"error: the two methods give different counts at {frames} frames.", file=sys.stderr)
            return 1
        texts = sorted({item.response for item in one.items.values()})
        vectors = np.random.default_rng(1).normal(size=(len(texts), WIDTH)).astype(np.float32)
        embeddings = dict(zip(texts, vectors, strict=True))
        frequencies = document_frequencies(texts)
        slow, fast, whole = median_seconds(
            REPEATS,
            lambda one=one, made=made: by_frames(one, made),
            lambda one=one, made=made: by_arrays(one, made),
            lambda one=one, made=made, embeddings=embeddings, frequencies=frequencies: score_session(
                one, made, 2.0, (0.5, 0.5), "reopen", embeddings, frequencies
            ),
        )
        cells = [f"{frames:,}", f"{slow:.3f} s", f"{1000 * fast:.2f} ms", f"{slow / fast:.0f} x", f"{whole:.3f} s"]
        print("|", " | ".join([*cells, f"{frames / whole:,.0f}"]), "|", flush=True)
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sys.exit(main())
