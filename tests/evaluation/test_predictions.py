"""Predictions on disk: saved = loaded, another run's file is not taken for this one's."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_fixtures import NoiseReader, make_session
from safetensors.numpy import save_file

from processing_dst_smolvlm import FrameItem
from prospect_hf.errors import DataError
from prospect_hf.evaluation.baselines import oracle, silent
from prospect_hf.evaluation.predictions import ForcedTexts, Prediction, PredictionStore, session_fingerprint
from prospect_hf.evaluation.runs import Run, predict_missing

SESSION = make_session(0, 14, 3)


def store_of(folder: Path, **facts: object) -> PredictionStore:
    return PredictionStore(folder, {"mode": "stream", **facts}, {SESSION.session_id: "0f"})


def a_prediction(seed: int = 0, forced: bool = False) -> Prediction:
    rng = np.random.default_rng(seed)
    made = Prediction(
        p_speak=rng.random(14),
        p_update=rng.random(14),
        states=rng.integers(0, 3, (14, 3)),
        table=None if forced else rng.integers(0, 3, (14, 3)),
        spoken={3: 'Take "it".\n', 9: "\u2028 \U0001f600"},
        updates=[2, 5],
        rejected=4,
        overflows=[7],
        wordless=forced,
    )
    if forced:
        count = np.arange(3)
        made.forced = ForcedTexts(count, count > 1, count + 1, rng.random(3), count, count)
    return made


@given(st.integers(0, 1000), st.booleans())
def test_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, seed: int, forced: bool) -> None:
    store, made = store_of(tmp_path_factory.mktemp("store")), a_prediction(seed, forced)
    store.save(SESSION, made)
    found = store.load(SESSION)
    for name in ("p_speak", "p_update", "states", "table"):
        ours, theirs = vars(made)[name], vars(found)[name]
        assert (ours is None and theirs is None) or np.array_equal(ours, theirs)
    assert (found.spoken, found.updates, found.rejected, found.overflows) == (made.spoken, [2, 5], 4, [7])
    assert found.wordless == made.wordless == forced
    if made.forced is None or found.forced is None:
        assert made.forced is found.forced
    else:
        assert all(np.array_equal(vars(made.forced)[name], value) for name, value in vars(found.forced).items())
    assert [path.name for path in store.folder.iterdir()] == [f"{SESSION.session_id}.safetensors"]


def test_another_run_or_corpus_is_not_this_one(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    assert not store.has(SESSION)
    store.save(SESSION, a_prediction())
    assert store.has(SESSION) and store_of(tmp_path).has(SESSION)
    other = store_of(tmp_path, speaking_threshold=0.4)
    assert not other.has(SESSION)
    with pytest.raises(DataError, match="evaluate again"):
        other.load(SESSION)
    moved = PredictionStore(tmp_path, {"mode": "stream"}, {SESSION.session_id: "10"})
    assert not moved.has(SESSION)


def test_broken_files_and_wrong_shapes_are_named(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    with pytest.raises(DataError, match="shape"):
        store.save(SESSION, oracle(make_session(1, 13, 3)))
    store.path(SESSION).write_bytes(b"cut short")
    with pytest.raises(DataError, match="remove it"):
        store.has(SESSION)


def test_a_flipped_bit_is_no_number(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    store.save(SESSION, a_prediction(forced=True))
    path = store.path(SESSION)
    whole = path.read_bytes()
    for place in range(8, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(DataError, match="evaluate again"):
            store.load(SESSION)
        try:
            assert not store.has(SESSION)  # its key is another one: it is made again
        except DataError as error:
            assert "remove it and evaluate again" in str(error)


def test_a_file_of_an_earlier_version_is_made_again(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    save_file({"p_speak": np.zeros(14)}, store.path(SESSION), {"key": "of an earlier version"})
    assert not store.has(SESSION)
    store.save(SESSION, a_prediction())
    assert store.has(SESSION)


def test_a_fingerprint_tells_every_difference() -> None:
    reader = NoiseReader()
    first = session_fingerprint(SESSION, reader)
    assert first == session_fingerprint(make_session(0, 14, 3), reader) and len(first) == 16
    speaking, states = SESSION.speaking.copy(), SESSION.states_after.copy()
    speaking[0], states[0, 0] = 1 - speaking[0], 1
    others = [
        dataclasses.replace(SESSION, goal="another"),
        dataclasses.replace(SESSION, steps=[*SESSION.steps[:2], "another"]),
        dataclasses.replace(SESSION, first_frame=1),
        dataclasses.replace(SESSION, speaking=speaking),
        dataclasses.replace(SESSION, states_after=states),
        dataclasses.replace(SESSION, items=SESSION.items | {0: FrameItem(user_text="hello")}),
    ]
    prints = {session_fingerprint(other, reader) for other in others}
    assert len(prints) == len(others) and first not in prints


def test_the_content_of_the_frame_file_counts(tmp_path: Path) -> None:
    reader = NoiseReader()
    reader.frames, reader.root = "store", tmp_path
    with pytest.raises(DataError, match="no such frame file"):
        session_fingerprint(SESSION, reader)
    path = tmp_path / "processed_data" / SESSION.source / SESSION.frames_file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"12")
    first = session_fingerprint(SESSION, reader)
    time = path.stat().st_mtime_ns
    path.write_bytes(b"13")
    os.utime(path, ns=(time, time))
    assert session_fingerprint(SESSION, reader) != first
    path.write_bytes(b"12")
    assert session_fingerprint(SESSION, reader) == first


def test_every_label_text_and_source_counts_for_the_fingerprint() -> None:
    """Beyond what tells two sessions apart at a glance: each array of labels, each part of an item, the pictures."""
    reader, rendered = NoiseReader(), NoiseReader()
    rendered.frames = "rendered"
    frame, item = next((at, item) for at, item in SESSION.items.items() if item.response)
    others = [
        dataclasses.replace(SESSION, session_id="another"),
        dataclasses.replace(SESSION, source="ego4d"),
        dataclasses.replace(SESSION, video_uid="another"),
        dataclasses.replace(SESSION, items=SESSION.items | {frame: dataclasses.replace(item, response="another")}),
        dataclasses.replace(SESSION, items=SESSION.items | {frame: dataclasses.replace(item, changes={2: 2})}),
    ]
    for name in ("speaking", "dst_update", "states_before", "states_after"):
        labels = vars(SESSION)[name].copy()
        labels.flat[-1] += 1
        others.append(dataclasses.replace(SESSION, **{name: labels}))
    prints = {session_fingerprint(other, reader) for other in others} | {session_fingerprint(SESSION, rendered)}
    assert len(prints) == len(others) + 1 and session_fingerprint(SESSION, reader) not in prints


@pytest.mark.parametrize("name", ["p_speak", "states", "table"])
def test_no_part_of_a_prediction_may_be_short(tmp_path: Path, name: str) -> None:
    made = a_prediction()
    setattr(made, name, vars(made)[name][:-1])
    store = store_of(tmp_path)
    with pytest.raises(DataError, match="the prediction has shape"):
        store.save(SESSION, made)
    assert not store.has(SESSION)


def test_only_missing_sessions_are_predicted(tmp_path: Path) -> None:
    class Silent(Run):
        """Predicts silence, and writes down for whom."""

        def predict(self, model: Any, processor: Any, sessions: Any, done: Any) -> None:
            """Keep silence for each."""
            for session in sessions:
                self.store.save(session, silent(session))
                asked.append(session.session_id)
                done()

    asked: list[str] = []
    sessions = [make_session(seed, 10 + seed % 3, 2) for seed in range(7)]
    store = PredictionStore(tmp_path, {}, {session.session_id: "0f" for session in sessions})
    run = Silent("silence", store, None, (0.5, 0.5), 2, 100)  # type: ignore[arg-type]
    wanted = [session.session_id for session in sessions]
    assert predict_missing(run, sessions, None, None, progress=False) == 7 and sorted(asked) == wanted  # type: ignore[arg-type]
    asked.clear()
    assert predict_missing(run, sessions, None, None, progress=False) == 0 and asked == []  # type: ignore[arg-type]
    for number in (2, 5):
        store.path(sessions[number]).unlink()
    assert predict_missing(run, sessions, None, None, progress=False) == 2  # type: ignore[arg-type]
    assert sorted(asked) == [wanted[2], wanted[5]]


def test_a_safetensors_file_of_something_else_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    for facts in (None, {"format": "pt"}):
        save_file({"p_speak": np.zeros(14)}, store.path(SESSION), facts)
        for read in (store.has, store.load):
            with pytest.raises(DataError, match="no key"):
                read(SESSION)
