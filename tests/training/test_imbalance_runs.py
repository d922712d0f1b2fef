"""The choices about rare decisions in whole jobs: they reach the model, its folder and its record, and resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from job_fixtures import SETTINGS, evaluate, train
from safetensors.torch import load_file

from prospect_hf.checkpoints import load_trained
from prospect_hf.data.clips import ClipInputs
from prospect_hf.jobs import train as job

CHOICES = [
    "model.decision_source=lm",
    "training.decision_loss=balanced",
    "data.negative_rate=0.4",
    "data.state_noise=0.5",
    "data.text_dropout=0.5",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("corpus")
    return [f"data.root={folder / 'corpus'}", f"data.cache_dir={folder / 'cache'}"]


def test_a_job_with_every_choice_resumes_exactly(
    tmp_path: Path, corpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "evaluate_freely", lambda *args, **kwargs: ({}, None))
    more = ["training.look_steps=0", "training.save_strategy=steps", "training.save_steps=3"]
    steps = ["training.max_steps=6", *more]  # an epoch has two steps: the checkpoint lies in the middle of one
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train([*SETTINGS, *corpus, *CHOICES, *steps, f"training.output_dir={whole}"]) == 0
    parts.mkdir()
    shutil.move(whole / "checkpoint-3", parts / "checkpoint-3")
    resumed = [f"training.output_dir={parts}", "training.resume_from_checkpoint=true"]
    assert train([*SETTINGS, *corpus, *CHOICES, *steps, *resumed]) == 0
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(second[name], weight) for name, weight in first.items())
    # Another choice is another run.
    for changed in ("data.negative_rate=0.5", "data.state_noise=0.1", "model.decision_source=heads"):
        assert train([*SETTINGS, *corpus, *CHOICES, *steps, *resumed, changed]) == 2


def test_a_job_without_state_texts_is_trained_followed_and_evaluated(
    tmp_path: Path, corpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ClipInputs] = []
    build = ClipInputs.__init__

    def spied(self: ClipInputs, *args: object, **kwargs: object) -> None:
        build(self, *args, **kwargs)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(ClipInputs, "__init__", spied)
    choices = ["model.decision_source=lm", "model.state_feedback=false", "training.class_weights=data"]
    choices += ["training.decision_loss=focal"]
    folder = tmp_path / "model"
    assert train([*SETTINGS, *corpus, *choices, "data.negative_rate=0.4", f"training.output_dir={folder}"]) == 0
    assert [inputs.negative_rate for inputs in made] == [0.4, 1.0]  # the training clips', the validation clips'
    facts = json.loads((folder / "results.json").read_text())
    counts = facts["balance"]["all dialogs train"]
    for name in ("speaking", "dst_update"):
        labels = [counts[f"{name}_{value}"] for value in (0, 1)]
        assert facts["results"]["class_weights"][name] == pytest.approx([sum(labels) / (2 * count) for count in labels])
    assert facts["results"]["free_run"]["sessions"] == 2
    assert facts["settings"]["model"]["decision_source"] == "lm"
    model, processor = load_trained(folder)
    assert model.config.decision_source == "lm" and not model.config.state_feedback and not processor.state_feedback
    assert evaluate([f"evaluate.model={folder}", f"evaluate.output_dir={tmp_path / 'report'}"]) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["data.state_noise=0.1", "model.state_feedback=false"], "data.state_noise makes state texts wrong, and with"),
        (["training.decision_loss=balanced", "training.focal_gamma=2"], "training.focal_gamma=2 has no effect with"),
        (["training.decision_loss=none"], "training.decision_loss must be one of balanced, focal, cross_entropy"),
        (["training.class_weights=[1,x]"], "training.class_weights"),
        (["training.focal_alpha=[1,2]"], "training.focal_alpha is no setting"),
        (["data.negative_rate=2"], r"data.negative_rate must lie in [0, 1]"),
    ],
)
def test_bad_choices_end_in_a_sentence(
    tmp_path: Path, corpus: list[str], given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train([*SETTINGS, *corpus, f"training.output_dir={tmp_path}", *given]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
