"""Missing predictions: only those are made, a worker that dies is a sentence."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from model_fixtures import NoiseReader, make_session, small_processor
from stream_fixtures import FIVE, talkative_model

from context_dst_smolvlm import Context
from prospect_hf.errors import DataError
from prospect_hf.evaluation.predictions import PredictionStore
from prospect_hf.evaluation.runs import Run, predict_missing, workers

SESSIONS = [make_session(seed, 12 + seed, 3) for seed in range(5)]


def run_in(folder: Path, thresholds: tuple[float, float] = (0.5, 0.5)) -> Run:
    store = PredictionStore(folder, {}, {session.session_id: "0f" for session in SESSIONS})
    return Run("stream, none", store, NoiseReader(), thresholds, 2, 2048, Context("none"), None, FIVE)  # type: ignore[arg-type]


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    model, processor = talkative_model(), small_processor()
    assert predict_missing(run_in(tmp_path), SESSIONS, model, processor, progress=False) == 5
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(times) == 5
    assert predict_missing(run_in(tmp_path), SESSIONS, model, processor, progress=False) == 0
    run_in(tmp_path).store.path(SESSIONS[3]).unlink()
    assert predict_missing(run_in(tmp_path), SESSIONS, model, processor, progress=False) == 1
    assert sum(path.stat().st_mtime_ns != time for path, time in times.items()) == 1


@pytest.mark.parametrize("thresholds", [(0.0, 2.0), (2.0, 0.0)])
def test_the_thresholds_are_the_runs_and_the_model_keeps_its_own(
    tmp_path: Path, thresholds: tuple[float, float]
) -> None:
    model = talkative_model()
    before = model.config.to_dict()
    run = run_in(tmp_path, thresholds)
    predict_missing(run, SESSIONS, model, small_processor(), progress=False)
    predictions = [run.store.load(session) for session in SESSIONS]
    assert any(prediction.spoken for prediction in predictions) == (thresholds[0] == 0.0)
    assert any(prediction.updates for prediction in predictions) == (thresholds[1] == 0.0)
    assert model.config.to_dict() == before


def test_a_worker_that_was_killed_is_a_sentence(tmp_path: Path) -> None:
    class Killed:
        """A pool whose worker dies."""

        def submit(self, *work: Any) -> Future[int]:
            """A future that says so."""
            future: Future[int] = Future()
            future.set_exception(BrokenProcessPool("A process in the process pool was terminated abruptly"))
            return future

    with pytest.raises(DataError, match="stream, none: a worker process was killed"):
        predict_missing(run_in(tmp_path), SESSIONS, talkative_model(), small_processor(), Killed(), False)  # type: ignore[arg-type]


def test_one_process_needs_no_other(tmp_path: Path) -> None:
    with workers(tmp_path, 1) as pool:
        assert pool is None
