"""The trainer: each loss over its own labels however the batches fall, logged by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_fixtures import (
    HEAD_LOGITS,
    clip_dataset,
    collate,
    largest_difference,
    make_session,
    model_inputs,
    new_model,
    small_processor,
)
from trainer_fixtures import SESSIONS, train_logs, trainer_of, weights_of

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.clips import ClipDataset
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import UsageError
from prospect_hf.sessions import IGNORE
from prospect_hf.settings import parse
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.callbacks import BestCheckpoint
from prospect_hf.training.clip_metrics import head_metrics
from prospect_hf.training.loss_arguments import LOSSES, LossArguments
from prospect_hf.training.losses import label_counts


def by_hand(model: DSTSmolVLMForConditionalGeneration, clips: ClipDataset, gamma: float = 2.0) -> dict[str, float]:
    """The four losses over all labels of ``clips``, from the definition, clip by clip without padding."""
    terms: dict[str, list[torch.Tensor]] = {name: [] for name in LOSSES}
    for index in range(len(clips)):
        batch = collate([clips[index]])
        with torch.no_grad():
            output = model.eval()(**model_inputs(batch, "labels"))
        for name in ("speaking", "dst_update"):
            labels = batch[f"{name}_labels"]
            p = output[f"{name}_logits"].double().softmax(-1)[labels != IGNORE]
            p = p.gather(1, labels[labels != IGNORE][:, None]).flatten()
            terms[name].append(-((1 - p) ** gamma) * p.log())
        for name, logits, labels in (
            ("dst_state", output.dst_state_logits, batch["dst_state_labels"]),
            ("response", output.logits[:, :-1], batch["labels"][:, 1:]),
        ):
            kept = labels != IGNORE
            terms[name].append(F.cross_entropy(logits[kept].double(), labels[kept], reduction="none"))
    return {name: float(torch.cat(values).mean()) for name, values in terms.items()}


# -- one step -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [{}, {"decision_loss": "focal"}, {"decision_loss": "cross_entropy", "class_weights": [0.5, 8.0]}],
    ids=["balanced", "focal", "weighted"],
)
def test_accumulation_gives_the_step_of_one_batch(tmp_path: Path, loss: dict[str, Any]) -> None:
    """8 x 1 = 4 x 2 = 2 x 4 = 1 x 8 (batch x accumulation), for weights and for every logged loss."""
    clips = clip_dataset(SESSIONS)
    counts = torch.stack([label_counts(collate([clips[index]]), LossArguments()) for index in range(8)])
    counts = counts[..., 0]
    assert (counts == 0).any(0).sum() >= 3 and (counts.max(0).values > 3 * counts.mean(0) / 2).all()  # uneven indeed
    steps, logs = [], []
    for batch, accumulation in ((8, 1), (4, 2), (2, 4), (1, 8)):
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        trainer = trainer_of(tmp_path, **sizes, **loss)
        before = weights_of(trainer)
        trainer.train()
        assert trainer.state.global_step == 1
        steps.append({name: weight - before[name] for name, weight in weights_of(trainer).items()})
        logs.append(train_logs(trainer)[0])
    assert max(float(change.abs().max()) for change in steps[0].values()) > 1e-3
    for step, log in zip(steps[1:], logs[1:], strict=True):
        for name, change in step.items():
            assert largest_difference(change, steps[0][name]) <= 1e-5, name
        for name in ("loss", *(f"{loss}_loss" for loss in LOSSES)):
            assert log[name] == pytest.approx(logs[0][name], abs=1e-5), name


def test_each_loss_is_logged_by_name_and_summed_by_weight(tmp_path: Path) -> None:
    weights = dict(zip(LOSSES, (0.5, 2.0, 3.0, 0.25), strict=True))
    settings: dict[str, Any] = {f"{name}_loss_weight": weight for name, weight in weights.items()}
    settings["decision_loss"] = "focal"
    trainer = trainer_of(
        tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4, evaluate=SESSIONS, **settings
    )
    expected = by_hand(new_model(), clip_dataset(SESSIONS))
    evaluated = trainer.evaluate()
    trainer.train()
    (log,) = train_logs(trainer)
    for name in LOSSES:
        assert log[f"{name}_loss"] == pytest.approx(expected[name], rel=1e-4), name
        assert evaluated[f"eval_{name}_loss"] == pytest.approx(expected[name], rel=1e-4), name
    total = sum(weights[name] * expected[name] for name in LOSSES)
    assert log["loss"] == pytest.approx(total, rel=1e-4) and evaluated["eval_loss"] == pytest.approx(total, rel=1e-4)
    assert evaluated["eval_perplexity"] == pytest.approx(np.exp(expected["response"]), rel=1e-3)


def test_losses_are_logged_as_means_over_the_steps_between(tmp_path: Path) -> None:
    every = trainer_of(tmp_path, max_steps=6, per_device_train_batch_size=4, logging_steps=1)
    every.train()
    third = trainer_of(tmp_path, max_steps=6, per_device_train_batch_size=4, logging_steps=3)
    third.train()
    singles, means = train_logs(every), train_logs(third)
    assert len(singles) == 6 and len(means) == 2
    for index, mean in enumerate(means):
        for name in ("loss", *(f"{loss}_loss" for loss in LOSSES)):
            assert mean[name] == pytest.approx(
                np.mean([log[name] for log in singles[3 * index : 3 * index + 3]]), abs=1e-5
            )
    # A trainer may train again: the count of steps starts anew, the means do not.
    third.train()
    again = train_logs(third)[-1]
    assert again["loss"] == pytest.approx(sum(again[f"{name}_loss"] for name in LOSSES), rel=1e-4)


HEADS_OF = {
    "speaking": ["speaking_decision_head"],
    "dst_update": ["dst_update_head"],
    "dst_state": ["dst_state_head", "dst_state_norm", "dst_frame_proj", "dst_step_norm", "dst_step_proj"],
}


@pytest.mark.parametrize("off", HEADS_OF)
def test_a_head_without_weight_learns_nothing(tmp_path: Path, off: str) -> None:
    settings: dict[str, Any] = {f"{off}_loss_weight": 0.0}
    trainer = trainer_of(tmp_path, **settings)
    before = weights_of(trainer)
    trainer.train()
    for name, weight in weights_of(trainer).items():
        for loss, heads in HEADS_OF.items():
            if name.split(".")[0] in heads:
                assert torch.equal(weight, before[name]) == (loss == off), name
    assert train_logs(trainer)[0][f"{off}_loss"] > 0  # it is still measured


def test_without_any_weight_nothing_moves_and_text_alone_leaves_the_heads(tmp_path: Path) -> None:
    off: dict[str, Any] = {f"{name}_loss_weight": 0.0 for name in LOSSES}
    trainer = trainer_of(tmp_path, **off)
    before = weights_of(trainer)
    trainer.train()
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(trainer).items())
    trainer = trainer_of(tmp_path, **{**off, "response_loss_weight": 1.0})
    trainer.train()
    after = weights_of(trainer)
    heads = [head for names in HEADS_OF.values() for head in names]
    assert all(torch.equal(after[n], before[n]) for n in before if n.split(".")[0] in heads)
    assert not torch.equal(
        after["lm_head.weight"] if "lm_head.weight" in after else after["model.text_model.embed_tokens.weight"],
        before["model.text_model.embed_tokens.weight"],
    )


def test_frozen_parts_stay(tmp_path: Path) -> None:
    model = new_model()
    model.model.vision_model.requires_grad_(False)
    model.model.connector.requires_grad_(False)
    trainer = trainer_of(tmp_path, model=model, max_steps=2)
    before = weights_of(trainer)
    trainer.train()
    frozen = {name for name in before if name.startswith(("model.vision_model", "model.connector"))}
    after = weights_of(trainer)
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    moved = {name.split(".")[0] for name in before.keys() - frozen if not torch.equal(after[name], before[name])}
    assert moved == {"model", *(head for heads in HEADS_OF.values() for head in heads)}


def test_the_model_learns(tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path, SESSIONS[:1], max_steps=60, optim="adamw_torch", learning_rate=5e-3, evaluate=SESSIONS[:1]
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    for name in LOSSES:
        assert after[f"eval_{name}_loss"] < before[f"eval_{name}_loss"] / 5, name
    assert after["eval_joint_state_accuracy"] == 1.0 and after["eval_dst_update_average_precision"] == 1.0


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    model = new_model()
    with torch.no_grad():
        model.dst_update_head.bias[0] = float("nan")
    trainer = trainer_of(tmp_path, model=model)
    with pytest.raises(FloatingPointError, match=r"not finite at step 0 .*dst_update nan"):
        trainer.train()
    assert trainer.progress.steps is None  # no bar is left open


@pytest.mark.parametrize("disable_tqdm", [False, True])
def test_progress_is_a_line_for_each_log_and_each_evaluation(
    tmp_path: Path, disable_tqdm: bool, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO", "prospect_hf.progress")
    settings = {"max_steps": 4, "logging_steps": 2, "eval_strategy": "steps", "eval_steps": 4}
    trainer_of(tmp_path, evaluate=SESSIONS, disable_tqdm=disable_tqdm, **settings).train()
    losses = r"loss \d+\.\d{3} \(speaking \d+\.\d{3}, update \d+\.\d{3}, state \d+\.\d{3}, text \d+\.\d{3}\)"
    patterns = [
        rf"training 2/4, 50 %, 0:\d\d left: {losses}, lr 1\.0e-1",
        rf"training 4/4, 100 %, took 0:\d\d: {losses}, lr 1\.0e-1",
        rf"evaluation 3/3, 100 %, took 0:\d\d: {losses}, .*joint state accuracy .*, best speaking F1 .*",
    ]
    assert len(caplog.messages) == len(patterns)
    for line, pattern in zip(caplog.messages, patterns, strict=True):
        assert re.fullmatch(pattern, line), line
    assert "".join(capsys.readouterr()) == ""


@pytest.mark.parametrize("sessions", [SESSIONS[1:2], SESSIONS[2:3]], ids=["no state labels", "no text"])
def test_batches_without_labels_for_a_loss_are_trained_on(tmp_path: Path, sessions: list[SessionRows]) -> None:
    trainer = trainer_of(tmp_path, sessions, evaluate=sessions, max_steps=2)
    trainer.train()
    metrics = trainer.evaluate()
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(torch.isfinite(weight).all() for weight in weights_of(trainer).values())


# -- texts left out, saved folder ----------------------------------------------------------------------------------


def test_text_dropout_does_change_a_run(tmp_path: Path) -> None:
    runs = [trainer_of(tmp_path, dropout=dropout, max_steps=2) for dropout in (0.0, 0.9)]
    for trainer in runs:
        trainer.train()
    logs = [train_logs(trainer)[1]["response_loss"] for trainer in runs]
    assert abs(logs[0] - logs[1]) > 1e-4


def test_the_saved_folder_gives_the_same_logits(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", max_steps=2)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    model = DSTSmolVLMForConditionalGeneration.from_pretrained(tmp_path / "saved").eval()
    processor = DSTSmolVLMProcessor.from_pretrained(tmp_path / "saved")
    batch = model_inputs(collate([clip_dataset(SESSIONS)[3]]), "labels")
    with torch.no_grad():
        ours, theirs = trainer.model.eval()(**batch), model(**batch)
    for name in (*HEAD_LOGITS, "logits"):
        assert torch.equal(ours[name], theirs[name]), name
    assert processor.build("g", ["s"], [0], []) == small_processor().build("g", ["s"], [0], [])
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"configuration_dst_smolvlm.py", "modeling_dst_smolvlm.py", "processing_dst_smolvlm.py"} <= names
    auto_map = json.loads((tmp_path / "saved" / "config.json").read_text())["auto_map"]
    assert {"AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoProcessor"} <= auto_map.keys()


# -- evaluation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_evaluation_covers_every_clip_and_does_not_depend_on_batches(tmp_path: Path, batch_size: int) -> None:
    """8 clips in batches of 3 leave an odd one."""
    trainer = trainer_of(tmp_path, evaluate=SESSIONS, per_device_eval_batch_size=batch_size)
    loop = trainer.evaluation_loop(trainer.get_eval_dataloader(), "evaluation")
    assert loop.num_samples == 8
    for record, session in zip(loop.predictions, SESSIONS, strict=True):
        assert record["speaking_labels"].tolist() == session.speaking.tolist()
        assert record["dst_update_labels"].tolist() == session.dst_update.tolist()
        assert record["dst_state_labels"].tolist() == session.states_after.tolist()
        assert record["states"].shape == session.states_after.shape
    alone = trainer_of(tmp_path, evaluate=SESSIONS, per_device_eval_batch_size=2).evaluate()
    ours = {
        name: value for name, value in trainer.evaluate().items() if "per_second" not in name and "runtime" not in name
    }
    assert {
        "eval_loss",
        "eval_perplexity",
        "eval_speaking_f1",
        "eval_dst_update_f1",
        "eval_joint_state_accuracy",
    } <= ours.keys()
    for name, value in ours.items():
        assert value == pytest.approx(alone[name], rel=1e-4, abs=1e-6), name


def records(session: SessionRows) -> dict[str, np.ndarray]:
    """What evaluation would collect of a model that is always right."""
    return {
        "speaking": (session.speaking == 1) * 0.8 + 0.1,
        "dst_update": (session.dst_update == 1) * 0.8 + 0.1,
        "states": np.maximum(session.states_after, 0),
        "speaking_labels": session.speaking,
        "dst_update_labels": session.dst_update,
        "dst_state_labels": session.states_after,
        "loss_sums": np.array([[3.0, 0.0], [2.0, 0.0], [0.5, 0.25], [4.0, 0.0]]),
        "loss_counts": np.array([[6.0, 0.0], [4.0, 0.0], [1.0, 0.5], [2.0, 0.0]]),
    }


def metrics_of(rows: list[dict[str, np.ndarray]], weights: dict[str, float]) -> dict[str, float]:
    """The metrics of rows that are whole sessions."""
    return head_metrics(rows, weights, new_model().config, list(range(len(rows))))


def test_a_model_that_is_always_right_scores_one() -> None:
    weights = dict(zip(LOSSES, (1.0, 2.0, 3.0, 4.0), strict=True))
    metrics = metrics_of([records(session) for session in SESSIONS], weights)
    for head in ("speaking", "dst_update"):
        for name in ("precision", "recall", "f1", "average_precision", "balanced_accuracy", "best_f1", "best_f1_1s"):
            assert metrics[f"{head}_{name}"] == 1.0, (head, name)
        assert 0.1 < metrics[f"{head}_best_threshold"] < 0.9 and 0.1 < metrics[f"{head}_best_threshold_1s"] < 0.9
        assert metrics[f"{head}_calibration_error"] == pytest.approx(0.1)
    assert metrics["task_score"] == 1.0
    for name in ("joint_state_accuracy", "joint_state_accuracy_at_updates", "step_accuracy", "state_macro_f1"):
        assert metrics[name] == 1.0, name
    assert metrics["speaking_loss"] == 0.5 and metrics["dst_state_loss"] == 1.0 and metrics["response_loss"] == 2.0
    assert metrics["loss"] == 0.5 * 1 + 0.5 * 2 + 1.0 * 3 + 2.0 * 4
    assert metrics["perplexity"] == pytest.approx(np.exp(2.0))


def test_what_is_undefined_is_left_out_of_the_log() -> None:
    """A split without a positive has no recall and no average precision; trackers take numbers alone."""
    row = records(make_session(9, 6, 1, turn_rate=0.0, event_rate=0.0))
    row["speaking"] = np.zeros(6)
    metrics = metrics_of([row], dict.fromkeys(LOSSES, 1.0))
    assert all(isinstance(value, float) for value in metrics.values())
    for name in ("recall", "f1", "average_precision", "best_f1", "best_f1_1s", "best_threshold_1s"):
        assert f"speaking_{name}" not in metrics
    assert "task_score" not in metrics
    assert metrics["speaking_best_threshold"] == 0.5 and metrics["joint_state_accuracy"] == 1.0
    assert "joint_state_accuracy_at_updates" not in metrics


def test_one_wrong_state_is_seen() -> None:
    rows = [records(session) for session in SESSIONS]
    rows[3]["states"] = rows[3]["states"].copy()
    rows[3]["states"][4, 1] = (rows[3]["states"][4, 1] + 1) % 3
    metrics = metrics_of(rows, dict.fromkeys(LOSSES, 1.0))
    labelled = sum(len(session) for session in SESSIONS if session.labelled)
    assert metrics["joint_state_accuracy"] == pytest.approx(1 - 1 / labelled)


# -- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speaking_loss_weight": -1.0}, "training.speaking_loss_weight must be 0 or more"),
        ({"response_loss_weight": float("nan")}, "training.response_loss_weight must be 0 or more"),
        ({"decision_loss": "focal", "focal_gamma": -0.5}, "training.focal_gamma must be 0 or more"),
        ({"decision_loss": "focal", "class_weights": [1.0]}, "training.class_weights must be data or two weights"),
        ({"remove_unused_columns": True}, "training.remove_unused_columns must be false"),
        ({"learning_rat": 1e-3}, r"training.learning_rat is no setting; did you mean training.learning_rate\?"),
        ({"eval_strategy": "sometimes"}, "training settings cannot be used"),
    ],
)
def test_settings_that_cannot_be_are_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(DSTTrainingArguments, {"output_dir": str(tmp_path), "use_cpu": True, **settings}, "training")


def test_focal_settings_reach_the_loss(tmp_path: Path) -> None:
    focal = {"evaluate": SESSIONS, "decision_loss": "focal", "focal_gamma": 0.0}
    trainer = trainer_of(tmp_path, **focal)
    expected = by_hand(new_model(), clip_dataset(SESSIONS), gamma=0.0)
    assert trainer.evaluate()["eval_speaking_loss"] == pytest.approx(expected["speaking"], rel=1e-4)
    doubled = trainer_of(tmp_path, **focal, class_weights=[2.0, 2.0])
    assert doubled.evaluate()["eval_speaking_loss"] == pytest.approx(2 * expected["speaking"], rel=1e-4)


def test_clips_grouped_by_length_are_all_read_in_every_epoch(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, train_sampling_strategy="group_by_length", per_device_train_batch_size=2)
    lengths = [clip.tokens for clip in trainer.train_dataset.clips]
    sampler = trainer._get_train_sampler()
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(8))
        assert lengths[orders[-1][0]] == max(lengths)  # the longest first, so that memory runs out at once or never
    assert orders[0] == orders[2] != orders[1]


def test_a_run_that_goes_on_finds_its_best_checkpoint(tmp_path: Path) -> None:
    """Its state names the best checkpoint without the folder, which may have been moved meanwhile."""
    args = SimpleNamespace(output_dir=str(tmp_path))
    (tmp_path / "checkpoint-2").mkdir()
    for best, found in ((None, None), (3, None), (2, str(tmp_path / "checkpoint-2"))):
        state = SimpleNamespace(best_global_step=best, best_model_checkpoint=None)
        BestCheckpoint().on_train_begin(args, state, SimpleNamespace())
        assert state.best_model_checkpoint == found
