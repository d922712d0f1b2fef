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
    [1.458494, 0.1716193, 0.1845607, 1.102314, 0.0],
    [1.371004, 0.1163224, 0.1585836, 1.096098, 0.0],
]
WHOLE_SESSIONS = {
    "balanced": [
        [8.446058, 0.7026982, 0.6877349, 1.089307, 5.966318],
        [8.198596, 0.6901947, 0.6853097, 1.053165, 5.769926],
        [8.104570, 0.6857932, 0.6818296, 1.036226, 5.700723],
    ],
    "focal": [
        [7.307185, 0.1049230, 0.1466335, 1.089405, 5.966224],
        [7.031341, 0.0943694, 0.1164809, 1.053439, 5.767053],
        [6.934262, 0.0928703, 0.1072413, 1.036241, 5.697910],
    ],
}
VALIDATION_LOSS = {"balanced": 8.151326, "focal": 6.931927}
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
