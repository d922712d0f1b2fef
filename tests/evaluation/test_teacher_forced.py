"""The teacher-forced evaluator: what the trainer evaluates, text by text; nothing of the future enters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_fixtures import NoiseReader, clip_dataset, collate, make_session, model_inputs, new_model, small_processor
from score_fixtures import tally
from stream_fixtures import talkative_model

from prospect_hf.data.packing import Clip
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.evaluation import teacher_forced as offline
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.score import figures
from prospect_hf.evaluation.teacher_forced import batches, read_clips, teacher_forced
from prospect_hf.metrics.counts import total

SESSIONS = [
    make_session(0, 14, 3),
    make_session(1, 22, 5),
    make_session(2, 1, 1),
    make_session(4, 12, 3, labelled=False),
]
LONG = 2048


def forced(sessions: Sequence[SessionRows], max_seq_len: int = LONG, model: object = None) -> list[Prediction]:
    made = dict(
        teacher_forced(model or talkative_model(), small_processor(), NoiseReader(), sessions, max_seq_len)  # type: ignore[arg-type]
    )
    return [made[index] for index in range(len(sessions))]


def test_it_reads_what_one_pass_over_the_stream_gives() -> None:
    """Probabilities, states, and each text's likelihood and right tokens, from the full logits of one clip."""
    model = talkative_model()
    for session, made in zip(SESSIONS, forced(SESSIONS), strict=True):
        clip = clip_dataset([session])[0]
        batch = collate([clip])
        with torch.inference_mode():
            output = model(**model_inputs(batch, "labels"), use_cache=False)
        speak = output.speaking_logits[0].softmax(-1)[:, 1].numpy()
        assert np.abs(made.p_speak - speak).max() < 1e-5
        assert np.array_equal(made.states, output.dst_state_logits[0].argmax(-1).numpy())
        assert made.table is None and not made.spoken and made.states.shape == session.states_after.shape
        texts = [
            (frame, kind)
            for frame, item in sorted(session.items.items())
            for kind, there in ((True, item.changes), (False, item.response))
            if there
        ]
        assert made.forced is not None
        assert list(zip(made.forced.frame.tolist(), made.forced.is_state.tolist(), strict=True)) == texts
        labels, logits = batch["labels"][0], output.logits[0]
        place, text = 0, -1
        nll, right, tokens, prefix = ([0.0] * len(texts), [0] * len(texts), [0] * len(texts), [0] * len(texts))
        for place in range(1, len(labels)):
            if labels[place] == -100:
                continue
            text += int(labels[place - 1] == -100)
            nll[text] -= float(logits[place - 1].log_softmax(-1)[labels[place]])
            hit = int(logits[place - 1].argmax()) == int(labels[place])
            prefix[text] += hit and prefix[text] == tokens[text]
            tokens[text] += 1
            right[text] += hit
        assert made.forced.tokens.tolist() == tokens and made.forced.right.tolist() == right
        assert made.forced.prefix.tolist() == prefix
        assert made.forced.nll == pytest.approx(nll, rel=1e-4)


def test_clips_cover_every_frame_once_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = forced(SESSIONS)
    monkeypatch.setattr(offline, "TOKENS_PER_BATCH", 1)
    for ours, theirs in zip(forced(SESSIONS), whole, strict=True):
        assert np.abs(ours.p_speak - theirs.p_speak).max() < 1e-5 and np.array_equal(ours.states, theirs.states)
        assert ours.forced is not None and theirs.forced is not None
        assert ours.forced.nll == pytest.approx(theirs.forced.nll, rel=1e-4)
    # Cut into clips, the texts are the same ones, though each clip opens anew.
    length = max(len(clip.stream(small_processor()).input_ids) for clip in clip_dataset(SESSIONS).clips)
    parts = forced(SESSIONS, length - 40)
    assert len(clip_dataset(SESSIONS, max_seq_len=length - 40)) > len(SESSIONS)
    for ours, theirs, session in zip(parts, whole, SESSIONS, strict=True):
        assert ours.forced is not None and theirs.forced is not None and len(ours) == len(session)
        assert ours.forced.frame.tolist() == theirs.forced.frame.tolist()
        assert ours.forced.tokens.tolist() == theirs.forced.tokens.tolist()


def test_batches_hold_every_clip_once_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "TOKENS_PER_BATCH", 100)
    lengths = np.random.default_rng(0).integers(1, 130, 60).tolist()
    made = list(batches(lengths))
    assert sorted(index for chosen in made for index in chosen) == list(range(60))
    for chosen in made:
        assert len(chosen) == 1 or max(lengths[index] for index in chosen) * len(chosen) <= 100
    assert list(batches([])) == []


def test_nothing_of_the_future_enters() -> None:
    """Frames, words and labels after a frame replaced: nothing up to it changes, texts on it included."""
    model, session, cut = talkative_model(), make_session(5, 40, 3), 24
    other = make_session(7, 40, 3, turn_rate=0.9)
    items = {at: item for at, item in session.items.items() if at <= cut}
    changed = dataclasses.replace(
        session,
        speaking=np.concatenate([session.speaking[: cut + 1], other.speaking[cut + 1 :]]),
        states_after=np.concatenate([session.states_after[: cut + 1], other.states_after[cut + 1 :]]),
        items=items | {at: item for at, item in other.items.items() if at > cut},
    )
    (before,), (after,) = forced([session], model=model), forced([changed], model=model)
    until = slice(0, cut + 1)
    assert np.abs(before.p_speak[until] - after.p_speak[until]).max() < 1e-6
    assert np.abs(before.p_update[until] - after.p_update[until]).max() < 1e-6
    assert np.array_equal(before.states[until], after.states[until])
    assert before.forced is not None and after.forced is not None
    heard = before.forced.frame <= cut
    assert heard.sum() > 5
    assert before.forced.nll[heard] == pytest.approx(after.forced.nll[after.forced.frame <= cut], rel=1e-5)
    assert np.abs(before.p_speak[cut + 1 :] - after.p_speak[cut + 1 :]).max() > 1e-4


def test_perplexity_is_that_of_the_trainer(tmp_path: object) -> None:
    """Both kinds of text pooled have the loss that the trainer's evaluation reports."""
    model = new_model()
    labelled = SESSIONS[:2]
    sums = total(tally(s, p, 2.0, (0.5, 0.5)) for s, p in zip(labelled, forced(labelled, model=model), strict=True))
    losses = []
    for session in labelled:
        batch = collate([clip_dataset([session])[0]])
        with torch.inference_mode():
            loss = model(**model_inputs(batch), use_cache=False).loss
        losses.append((float(loss), int((batch["labels"][:, 1:] != -100).sum())))
    tokens = sum(count for _, count in losses)
    assert sums["response_tokens"] + sums["state_tokens"] == tokens
    mean = sum(loss * count for loss, count in losses) / tokens
    assert (sums["response_nll"] + sums["state_nll"]) / tokens == pytest.approx(mean, rel=1e-5)
    assert float(figures(sums)["perplexity"]) == pytest.approx(np.exp(sums["response_nll"] / sums["response_tokens"]))


def test_rows_and_streams_that_do_not_fit_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    session = SESSIONS[0]
    dropped = next(frame for frame, item in session.items.items() if item.response)

    class Deaf(offline.ClipInputs):
        """Leaves a text out of the stream that the rows have."""

        def __call__(self, clip: Clip, epoch: int, index: int) -> dict[str, torch.Tensor]:
            """The inputs without one of the texts."""
            items = {at: item for at, item in session.items.items() if at != dropped}
            clip = dataclasses.replace(clip, session=dataclasses.replace(session, items=items))
            return super().__call__(clip, epoch, index)

    monkeypatch.setattr(offline, "ClipInputs", Deaf)
    with pytest.raises(DataError, match="do not match"):
        forced([session])


def test_both_decisions_are_read_from_their_own_heads() -> None:
    """Probabilities of "yes" of each clip, put together in the order of the frames."""
    sessions = [make_session(0, 40, 3), make_session(1, 22, 5)]
    length = max(len(clip.stream(small_processor()).input_ids) for clip in clip_dataset(sessions).clips)
    model = talkative_model()
    clips = clip_dataset(sessions, max_seq_len=length // 2)
    lengths = [clip.tokens for clip in clips.clips if clip.session is sessions[0]]
    assert lengths != sorted(lengths, reverse=True)  # batches go from the longest clip to the shortest
    wanted: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for clip, item in zip(clips.clips, (clips[index] for index in range(len(clips))), strict=True):
        with torch.inference_mode():
            output = model(**model_inputs(collate([item]), "labels"), use_cache=False)
        wanted.setdefault(clip.session.session_id, []).append(
            (
                output.speaking_logits[0].softmax(-1)[:, 1].numpy(),
                output.dst_update_logits[0].softmax(-1)[:, 1].numpy(),
                output.dst_state_logits[0].argmax(-1).numpy(),
            )
        )
    for session, made in zip(sessions, forced(sessions, length // 2, model), strict=True):
        p_speak, p_update, states = map(np.concatenate, zip(*wanted[session.session_id], strict=True))
        assert np.abs(made.p_speak - p_speak).max() < 1e-5
        assert np.abs(made.p_update - p_update).max() < 1e-5
        assert np.array_equal(made.states, states)


@given(st.integers(0, 1000))
def test_right_tokens_are_counted_text_by_text(seed: int) -> None:
    """Of a model that is often right, as the one of other tests is not."""
    session, rng = make_session(seed, 14, 3), np.random.default_rng(seed)
    clips = clip_dataset([session])
    batch = collate([clips[0]])
    labels = batch["labels"][0].tolist()
    wanted = torch.tensor([label for label in labels[1:] if label != -100], dtype=torch.long)
    hits = rng.random(len(wanted)) < 0.8
    answers = torch.where(torch.from_numpy(hits), wanted, (wanted + 1) % 340)
    output = SimpleNamespace(
        speaking_logits=torch.zeros(1, 14, 2),
        dst_update_logits=torch.zeros(1, 14, 2),
        dst_state_logits=torch.zeros(1, 14, 3, 3),
        logits=torch.nn.functional.one_hot(answers, 340).float(),
    )
    (found,) = read_clips(output, batch, clips.clips, state_feedback=True)
    texts: list[list[bool]] = []
    told = iter(hits.tolist())
    for before, label in pairwise(labels):
        if label != -100:
            if before == -100:
                texts.append([])
            texts[-1].append(next(told))
    forced = found["forced"]
    assert forced.tokens.tolist() == [len(text) for text in texts]
    assert forced.right.tolist() == [sum(text) for text in texts]
    assert forced.prefix.tolist() == [[*text, False].index(False) for text in texts]
