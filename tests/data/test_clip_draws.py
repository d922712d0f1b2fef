"""What training draws of a clip: which negative frames count, and which state texts are wrong."""

from __future__ import annotations

import dataclasses
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_fixtures import NoiseReader, make_session, small_processor
from stored_fixtures import published
from torch.utils.data import DataLoader

from processing_dst_smolvlm import state_text
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.clip_index import clips_of
from prospect_hf.data.clip_stream import ClipStream, SessionStream
from prospect_hf.data.clips import ClipDataset, ClipInputs, wrong_changes
from prospect_hf.data.packing import Clip
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import UsageError
from prospect_hf.sessions import IGNORE
from tracking_dst_smolvlm import StateTable, Tracking

LONG = make_session(2, 4000, 4, event_rate=0.001, turn_rate=0.02)
LABELS = ("speaking_labels", "dst_update_labels")


class NoPictures(NoiseReader):
    """No picture is read: the draws do not depend on them."""

    def inputs(self, session: SessionRows, begin: int, end: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": torch.zeros(0)}


def inputs(rate: float = 1.0, noise: float = 0.0, seed: int = 0, **more: float) -> ClipInputs:
    return ClipInputs(small_processor(), NoPictures(), seed=seed, negative_rate=rate, state_noise=noise, **more)


def whole(session: SessionRows) -> Clip:
    return Clip(session, 0, len(session), 0)


# -- negatives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_the_share_of_the_negatives_counts_and_every_positive(rate: float) -> None:
    item, plain = inputs(rate)(whole(LONG), 0, 0), inputs()(whole(LONG), 0, 0)
    positive = (plain[LABELS[0]] == 1) | (plain[LABELS[1]] == 1)
    assert 20 < int(positive.sum()) < 400
    for name in LABELS:
        # A frame where one decision is positive keeps both labels.
        assert torch.equal(item[name][positive], plain[name][positive])
        negative = ~positive & (plain[name] != IGNORE)
        kept = item[name][negative] != IGNORE
        spread = 4 * math.sqrt(rate * (1 - rate) / len(kept))
        assert abs(float(kept.float().mean()) - rate) <= spread
        assert (item[name][negative][kept] == 0).all()
        assert ((item[name] == plain[name]) | (item[name] == IGNORE)).all()
    for name in plain.keys() - set(LABELS):
        assert torch.equal(item[name], plain[name]), name


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), spare=st.integers(0, 200), epoch=st.integers(0, 3))
def test_where_clips_begin_does_not_change_the_draws(seed: int, spare: int, epoch: int) -> None:
    session = make_session(seed, 40, 3)
    make = inputs(0.3, 0.5)
    at_once = make(whole(session), epoch, 0)
    clips = clips_of([session], small_processor(), 200 + spare)
    parts = [make(clip, epoch, 17 + number) for number, clip in enumerate(clips)]
    for name in LABELS:
        assert torch.equal(torch.cat([part[name] for part in parts]), at_once[name])
    texts = [small_processor().tokenizer.decode(item["input_ids"]) for item in (at_once, *parts)]
    said = [re.findall("State: ([^<]*)<", text) for text in texts]
    assert said[0] == [one for of_clip in said[1:] for one in of_clip]


def test_the_draws_follow_from_seed_epoch_and_session() -> None:
    def kept(session: SessionRows = LONG, seed: int = 0, epoch: int = 0, index: int = 0) -> list[int]:
        return inputs(0.3, seed=seed)(whole(session), epoch, index)["speaking_labels"].tolist()

    other = dataclasses.replace(LONG, session_id="other")
    assert kept() == kept(index=5)
    assert len({tuple(one) for one in (kept(), kept(epoch=1), kept(seed=1), kept(other))}) == 4


def test_late_clips_and_text_dropout_keep_their_draws() -> None:
    sessions = [make_session(seed, 30, 3) for seed in range(4)]
    clips = clips_of(sessions, small_processor(), 4096)
    plain = ClipDataset(clips, inputs(text_dropout=0.7, late_start=0.6))
    drawn = ClipDataset(clips, inputs(0.2, text_dropout=0.7, late_start=0.6))
    for number in range(4):
        for name in ("input_ids", "labels", "dst_state_labels"):
            assert torch.equal(plain[number][name], drawn[number][name])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_draws_what_the_stored_clips_draw(tmp_path: Path, workers: int) -> None:
    """With any number of workers, in every epoch: a frame's labels follow from its session and place."""
    sessions = [make_session(seed, 9 + seed, 2) for seed in range(4)]
    manifest = published([sessions[:2], sessions[2:]], tmp_path)
    rows = SessionStream(tuple(tmp_path / shard.path for shard in manifest.shards), "hash").rows
    make = ClipInputs(small_processor(), NoiseReader(), negative_rate=0.4, state_noise=0.5)
    stream = ClipStream(rows, make, 4096, 2, 3)
    loader = iter(DataLoader(stream, batch_size=None, num_workers=workers))
    found = [[next(loader) for _ in range(4)] for _ in range(2)]
    stored = ClipDataset(clips_of(sessions, small_processor(), 4096), make)
    kept = []
    for epoch, items in enumerate(found):
        stored.set_epoch(epoch)
        expected = {tuple(stored[i]["input_ids"].tolist()): stored[i] for i in range(4)}
        for item in items:
            same = expected[tuple(item["input_ids"].tolist())]
            assert all(torch.equal(item[name], same[name]) for name in (*LABELS, "labels", "dst_state_labels"))
        kept.append(sorted(item["dst_update_labels"].tolist() for item in items))
    assert kept[0] != kept[1]


# -- wrong state texts --------------------------------------------------------------------------------------------


def test_a_share_of_the_state_texts_is_wrong_and_is_not_learned() -> None:
    session = make_session(3, 400, 80, event_rate=0.5)
    processor = small_processor()
    item, plain = inputs(noise=0.3)(whole(session), 0, 0), inputs()(whole(session), 0, 0)
    for name in (*LABELS, "dst_state_labels", "step_positions"):
        assert torch.equal(item[name], plain[name]), name
    said, true = (re.findall("State: ([^<]*)<", processor.tokenizer.decode(one["input_ids"])) for one in (item, plain))
    wrong = [ours != theirs for ours, theirs in zip(said, true, strict=True)]
    share = sum(wrong) / len(wrong)
    assert len(wrong) > 40 and abs(share - 0.3) < 4 * math.sqrt(0.21 / len(wrong))
    # The labels are the true state texts and the responses, and no token of a wrong text.
    learned = processor.tokenizer.decode(item["labels"][item["labels"] != IGNORE]).split("<end_of_utterance>")
    wanted = [f" {text}" for text, bad in zip(said, wrong, strict=True) if not bad]
    assert [text for text in learned if re.fullmatch(r" [0-9]+ (in progress|completed|not started).*", text)] == wanted
    prompts = [one["input_ids"][: int(one["step_positions"][-1, 1]) + 1] for one in (item, plain)]
    assert torch.equal(*prompts)
    drawn = inputs(noise=0.3)(whole(session), 1, 0)
    assert not torch.equal(drawn["input_ids"], item["input_ids"])


@settings(max_examples=100, deadline=None)
@given(
    steps=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    changed=st.dictionaries(st.integers(0, 11), st.integers(1, 2)),
)
def test_a_wrong_text_is_legible_untrue_and_not_longer(steps: int, seed: int, changed: dict[int, int]) -> None:
    changes = {step: state for step, state in changed.items() if step < steps}
    if not changes:
        return
    processor = small_processor()
    wrong = wrong_changes(changes, steps, processor, random.Random(seed))
    if wrong is None:
        return
    assert wrong != changes and len(wrong) == len(changes)
    table = StateTable([0] * steps, Tracking())
    assert table.read_text(state_text(wrong)) == {s: v for s, v in wrong.items() if v} and table.malformed == 0
    assert processor.turn_lengths("State", [state_text(wrong)]) <= processor.turn_lengths(
        "State", [state_text(changes)]
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), spare=st.integers(0, 60))
def test_noise_makes_no_clip_longer_than_it_may_be(seed: int, spare: int) -> None:
    session = make_session(seed, 30, 12, event_rate=0.6)
    clips = clips_of([session], small_processor(), 260 + spare)
    for number, clip in enumerate(clips):
        assert len(inputs(noise=1.0)(clip, 0, number)["input_ids"]) <= clip.tokens


# -- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["negative_rate", "state_noise"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_shares_are_shares(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"data\.{name} must lie in \[0, 1\]"):
        DataArguments(root="corpus", **{name: value})


def test_evaluation_draws_nothing() -> None:
    """Validation clips and the evaluators make their inputs with the defaults."""
    plain = ClipInputs(small_processor(), NoPictures())
    assert (plain.negative_rate, plain.state_noise, plain.text_dropout, plain.late_start) == (1.0, 0.0, 0.0, 0.0)
    item = plain(whole(LONG), 3, 1)
    assert item["speaking_labels"].tolist() == LONG.speaking.tolist()
    assert np.array_equal(item["dst_update_labels"].numpy(), LONG.dst_update)
