"""The losses of a very short training, pinned: a change of the training's mathematics must be noticed and explained.

The values were measured on an x86-64 CPU. Another processor adds in another order, so they are compared to 0.1 %.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from job_fixtures import SETTINGS, train

from prospect_hf.jobs import train as job
from prospect_hf.training.trainer import DSTTrainer

# loss, then speaking, dst_update, dst_state and response
FIRST_STAGE = [
    [2.754243, 0.1689619, 0.1748529, 1.106847, 3.000631],
    [1.921529, 0.2214002, 0.1839524, 1.102996, 0.0],
]
WHOLE_SESSIONS = {
    "balanced": [
        [8.405556, 0.7020718, 0.6970776, 1.078940, 5.927467],
        [8.170818, 0.6959949, 0.6881562, 1.038430, 5.748237],
        [8.047688, 0.6922779, 0.6864731, 1.023389, 5.645548],
    ],
    "focal": [
        [7.237118, 0.1127847, 0.1177629, 1.079032, 5.927538],
        [6.988073, 0.09765358, 0.1063249, 1.038932, 5.745162],
        [6.864796, 0.09376232, 0.1041428, 1.023529, 5.643362],
    ],
}
VALIDATION_LOSS = {"balanced": 8.098400, "focal": 6.885601}
NAMES = ("loss", "speaking_loss", "dst_update_loss", "dst_state_loss", "response_loss")


@pytest.mark.parametrize("loss", WHOLE_SESSIONS)
def test_the_losses_of_both_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    curves: dict[str, list[list[float]]] = {}
    log = DSTTrainer.log

    def recording(self: DSTTrainer, logs: dict[str, float], start_time: float | None = None) -> None:
        log(self, logs, start_time)
        if "loss" in logs:
            curves.setdefault(self.progress.stage, []).append([logs[name] for name in NAMES])

    def no_free_run(*args: Any, **kwargs: Any) -> tuple[dict[str, Any], None]:
        return {}, None

    monkeypatch.setattr(DSTTrainer, "log", recording)
    monkeypatch.setattr(job, "evaluate_freely", no_free_run)
    folders = {"data.root": "corpus", "data.cache_dir": "cache", "training.output_dir": "out"}
    steps = [
        "training.look_steps=4",
        "training.max_steps=6",
        "training.warmup_steps=0",
        "training.logging_steps=2",
        f"training.decision_loss={loss}",
    ]
    assert train([*SETTINGS, *(f"{key}={tmp_path / name}" for key, name in folders.items()), *steps]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert curves["first stage"] == [pytest.approx(losses, rel=1e-3) for losses in FIRST_STAGE]
    assert curves["whole sessions"] == [pytest.approx(losses, rel=1e-3) for losses in WHOLE_SESSIONS[loss]]
    assert results["validation"]["eval_loss"] == pytest.approx(VALIDATION_LOSS[loss], rel=1e-3)
