"""Thresholds and temperatures chosen on the validation split, by evaluation's matching, in the configuration."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from model_fixtures import clip_dataset, collate, make_session, model_inputs, new_model, small_processor

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.data.clips import ClipDataset
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.free_running import follow
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.score import score
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.calibration import calibrate
from prospect_hf.training.clip_metrics import ClipRow, Decision
from prospect_hf.training.stages import choose_thresholds
from prospect_hf.training.trainer import DSTTrainer

SESSIONS = [make_session(number, frames, 3, turn_rate=0.3) for number, frames in enumerate((24, 17, 31, 9))]
SILENT = [make_session(20, 12, 2, turn_rate=0.0, event_rate=0.0)]


def trainer_of(
    folder: Path, sessions: list[SessionRows], model: DSTSmolVLMForConditionalGeneration, scaling: bool = False
) -> DSTTrainer:
    return DSTTrainer(
        model=model,
        args=DSTTrainingArguments(
            output_dir=str(folder), use_cpu=True, disable_tqdm=True, temperature_scaling=scaling, report_to=[]
        ),
        train_dataset=clip_dataset(sessions),
        eval_dataset=clip_dataset(sessions) if sessions else None,
        data_collator=collate,
        processing_class=small_processor(),
    )


def loud() -> DSTSmolVLMForConditionalGeneration:
    """A model whose decisions differ from frame to frame."""
    model = new_model()
    with torch.no_grad():
        for head in (model.speaking_decision_head, model.dst_update_head):
            head.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(7))
    return model


def as_streamed(rows: list[ClipRow], owners: list[int], threshold: float) -> list[Prediction]:
    """What a stream with these probabilities says: a text on each frame that reaches the threshold, silence while the
    user talks."""
    predictions = []
    for number, session in enumerate(SESSIONS):
        mine = [row for row, owner in zip(rows, owners, strict=True) if owner == number]
        p = np.concatenate([row["speaking"] for row in mine])
        states = np.concatenate([row["states"] for row in mine])
        says = [at for at in np.flatnonzero(p >= threshold).tolist() if session.speaking[at] != -100]
        predictions.append(Prediction(p, p, states, states, dict.fromkeys(says, "text")))
    return predictions


def test_the_threshold_has_the_highest_f1_that_evaluation_can_measure(tmp_path: Path) -> None:
    model = loud()
    trainer = trainer_of(tmp_path, SESSIONS, model)
    found = choose_thresholds(trainer)["calibration"]["speaking"]
    assert model.config.speaking_threshold == found["threshold"] != 0.5

    rows, owners = trainer.validation_rows()

    def evaluated(threshold: float) -> float:
        said = as_streamed(rows, owners, threshold)
        value = score(said, SESSIONS, model.config.fps, (threshold, 0.5))["speaking_f1_1s"]
        return 0.0 if value is None else float(value)

    assert evaluated(found["threshold"]) == pytest.approx(found["f1"])
    assert evaluated(0.5) == pytest.approx(found["at_half"])
    others = np.unique(np.concatenate([row["speaking"] for row in rows]))
    assert max(evaluated(float(other)) for other in others) == pytest.approx(found["f1"])


def late_by(frames: int, owners: list[int], fps: float) -> float | None:
    """F1 of a decision that comes ``frames`` late, in the second of two clips; the event ends the first."""
    labels, p = np.zeros((2, 6), int), np.full((2, 6), 0.1)
    labels[0, 5], p[1, frames - 1] = 1, 0.9
    rows = [{"speaking": p[clip], "speaking_labels": labels[clip]} for clip in (0, 1)]
    return Decision(rows, owners, "speaking", fps).sweep().at(0.5).f1


def test_a_pair_may_span_two_clips_of_a_session() -> None:
    assert late_by(1, [0, 0], 2.0) == 1.0 and late_by(1, [0, 1], 2.0) == 0.0


def test_the_tolerance_is_a_second_in_frames() -> None:
    assert [late_by(frames, [0, 0], 2.0) for frames in (2, 3)] == [1.0, 0.0]
    assert [late_by(frames, [0, 0], 4.0) for frames in (4, 5)] == [1.0, 0.0]
    assert late_by(1, [0, 0], 0.5) == 0.0


def test_clips_know_their_sessions() -> None:
    clips: ClipDataset = clip_dataset(SESSIONS)
    assert [clips.clips.sessions[owner] for owner in clips.clips.owners] == [clip.session for clip in clips.clips]


def test_a_decision_without_both_labels_keeps_its_threshold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = loud()
    model.config.speaking_threshold, model.config.speaking_temperature = 0.37, 2.5
    with caplog.at_level(logging.INFO):
        found = calibrate(trainer_of(tmp_path, SILENT, model, scaling=True))["calibration"]["speaking"]
    assert (
        model.config.speaking_threshold == found["threshold"] == 0.37 and found["kept"] == "no frame has the label yes"
    )
    assert model.config.speaking_temperature == 2.5
    assert "Validation: speaking (no frame has the label yes); its threshold stays at 0.370." in caplog.text


def test_without_a_validation_split_nothing_changes(tmp_path: Path) -> None:
    model = loud()
    model.config.speaking_threshold, model.config.dst_update_temperature = 0.37, 2.5
    trainer = trainer_of(tmp_path, SESSIONS, model)
    trainer.eval_dataset = None
    assert choose_thresholds(trainer) == {}
    assert (model.config.speaking_threshold, model.config.dst_update_temperature) == (0.37, 2.5)


def test_the_metrics_are_those_at_the_chosen_thresholds(tmp_path: Path) -> None:
    model = loud()
    trainer = trainer_of(tmp_path, SESSIONS, model)
    found = calibrate(trainer)
    again = trainer.evaluate()
    for name, value in found["validation"].items():
        assert again[name] == pytest.approx(value), name
    assert found["validation"]["eval_speaking_f1_1s"] == found["validation"]["eval_speaking_best_f1_1s"]
    cells = sum(map(sum, found["validation_confusion"]))
    assert cells == sum(int((one.states_after >= 0).sum()) for one in SESSIONS)


# -- temperature --------------------------------------------------------------------------------------------------


def test_temperature_scaling_lowers_the_likelihood_loss_and_keeps_the_order(tmp_path: Path) -> None:
    plain, scaled = loud(), loud()
    before, after = (
        calibrate(trainer_of(tmp_path, SESSIONS, model, scaling)) for model, scaling in ((plain, False), (scaled, True))
    )
    assert plain.config.speaking_temperature == 1.0 < scaled.config.speaking_temperature  # it was sure and wrong
    for name in ("speaking", "dst_update"):
        one, other = before["calibration"][name], after["calibration"][name]
        assert other["calibration_error_at_1"] == one["calibration_error"] == one["calibration_error_at_1"]
        assert other["f1"] == pytest.approx(one["f1"]) and other["temperature"] != 1.0
    for name in ("speaking_average_precision", "speaking_best_f1", "joint_state_accuracy", "loss", "speaking_loss"):
        assert after["validation"][f"eval_{name}"] == pytest.approx(before["validation"][f"eval_{name}"])


def test_a_temperature_at_its_limit_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = loud()
    with torch.no_grad():
        model.speaking_decision_head.weight *= 100  # sure of everything, and no better than chance
    calibrate(trainer_of(tmp_path, SESSIONS, model, scaling=True))
    (said,) = [record.getMessage() for record in caplog.records if "at the limit" in record.getMessage()]
    assert said.startswith("Speaking: its temperature is at the limit, 10:")


def test_without_scaling_the_temperature_of_an_earlier_run_is_given_up(tmp_path: Path) -> None:
    model = loud()
    model.config.speaking_temperature = 3.0
    calibrate(trainer_of(tmp_path, SESSIONS, model))
    assert model.config.speaking_temperature == 1.0


def test_the_losses_of_an_evaluation_are_those_of_the_training(tmp_path: Path) -> None:
    """A calibrated model that is trained on has its temperatures until the end of that training."""
    model = loud()
    trainer = trainer_of(tmp_path, SESSIONS, model)
    before = trainer.evaluate()
    model.config.speaking_temperature, model.config.dst_update_temperature = 3.0, 0.4
    after = trainer.evaluate()
    for name in ("loss", "speaking_loss", "dst_update_loss"):
        assert after[f"eval_{name}"] == pytest.approx(before[f"eval_{name}"]), name
    assert after["eval_speaking_calibration_error"] != before["eval_speaking_calibration_error"]


def test_the_temperature_divides_in_eval_mode_alone() -> None:
    model, batch = loud(), collate([clip_dataset(SESSIONS)[0]])
    inputs = model_inputs(batch, "labels")
    with torch.no_grad():
        plain = model.eval()(**inputs)
        model.config.speaking_temperature, model.config.dst_update_temperature = 2.0, 4.0
        cool, trained = model(**inputs), model.train()(**inputs)
    assert torch.equal(cool.speaking_logits, plain.speaking_logits / 2)
    assert torch.equal(cool.dst_update_logits, plain.dst_update_logits / 4)
    assert torch.equal(cool.dst_state_logits, plain.dst_state_logits)
    assert torch.equal(trained.speaking_logits, plain.speaking_logits)
    assert torch.equal(cool.speaking_logits.argmax(-1), plain.speaking_logits.argmax(-1))


def test_streams_and_a_saved_model_have_the_temperature(tmp_path: Path) -> None:
    model = loud()
    frames = clip_dataset(SESSIONS).inputs.frames
    model.config.speaking_threshold = model.config.dst_update_threshold = 1.0  # silent: each frame is read alike
    (before,) = follow(model, small_processor(), frames, SESSIONS[:1], progress=False)
    model.config.speaking_temperature = 3.0
    model.save_pretrained(tmp_path)
    again = DSTSmolVLMForConditionalGeneration.from_pretrained(tmp_path)
    assert again.config.speaking_temperature == 3.0 and again.config.dst_update_temperature == 1.0
    (after,) = follow(again, small_processor(), frames, SESSIONS[:1], progress=False)
    inside = (before.p_speak > 1e-4) & (before.p_speak < 1 - 1e-4)
    assert inside.any()
    margins = [np.log(p / (1 - p))[inside] for p in (before.p_speak, after.p_speak)]
    np.testing.assert_allclose(margins[1], margins[0] / 3, atol=2e-2)
    np.testing.assert_allclose(after.p_update, before.p_update, atol=1e-6)


@pytest.mark.parametrize("name", ["speaking_temperature", "dst_update_temperature"])
@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(name: str, value: float) -> None:
    config = new_model().config
    assert getattr(config, name) == 1.0  # of configurations that do not have it
    setattr(config, name, value)
    with pytest.raises(ValueError, match=f"{name} must be a positive number"):
        config.check()
