"""The life of a run: it ends early or not, keeps its best model, is validated freely, and says what is not finite."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_fixtures import NoiseReader, clip_dataset, make_session, new_model, small_processor
from trainer_fixtures import trainer_of, weights_of

from context_dst_smolvlm import Context, StreamError
from prospect_hf.errors import UsageError
from prospect_hf.training import trainer as trainer_module
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.callbacks import without_improvement
from prospect_hf.training.checkpoint_files import checkpoints
from prospect_hf.training.free_validation import FIGURES, FreeValidation, free_metrics, spread
from prospect_hf.training.memory.advice import RunOutOfMemory
from prospect_hf.training.trainer import DSTTrainer

SHORT = [make_session(seed, 4, 2, event_rate=0.6, turn_rate=0.6) for seed in range(4)]
STEPS: dict[str, Any] = {"per_device_train_batch_size": 2, "eval_strategy": "steps", "eval_steps": 1}
STEPS |= {"save_strategy": "steps", "save_steps": 1, "max_steps": 6}


def scored(monkeypatch: pytest.MonkeyPatch, scores: list[float | None], name: str = "task_score") -> None:
    """Give evaluation number n the nth score; None: it is undefined there."""
    real = trainer_module.head_metrics
    left = iter(scores)

    def metrics(*args: Any, **kwargs: Any) -> dict[str, float]:
        found, score = real(*args, **kwargs), next(left)
        return {key: value for key, value in found.items() if key != name} | ({} if score is None else {name: score})

    monkeypatch.setattr(trainer_module, "head_metrics", metrics)


def equal(one: DSTTrainer, other: DSTTrainer) -> bool:
    theirs = weights_of(other)
    return all(torch.equal(weight, theirs[name]) for name, weight in weights_of(one).items())


# -- early stopping, best model -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "greater", "waited"),
    [
        ([], True, 0),
        ([0.5], True, 0),
        ([0.5, 0.6, 0.6], True, 1),
        ([0.5, 0.4, None, 0.5], True, 3),
        ([None, None], True, 2),
        ([None, 0.1], True, 0),
        ([0.5, 0.4, 0.6], False, 1),
    ],
)
def test_evaluations_without_improvement_are_counted(values: list[float | None], greater: bool, waited: int) -> None:
    assert without_improvement(values, greater) == waited


@pytest.mark.parametrize("killed_at", [2, 3, 4])
def test_a_resumed_run_stops_early_where_the_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Best at step 2, patience 2: the run ends at step 4, also if it was killed before, in between, or at the end."""
    scores: list[float | None] = [0.1, 0.5, 0.4, 0.5, 0.9, 0.9]
    settings = STEPS | {"early_stopping_patience": 2, "load_best_model_at_end": True}
    with monkeypatch.context() as patch:
        scored(patch, scores)
        whole = trainer_of(tmp_path, SHORT, SHORT[:1], **settings)
        whole.train()
    assert whole.state.global_step == 4 and whole.state.best_global_step == 2 and whole.state.best_metric == 0.5
    with monkeypatch.context() as patch:
        scored(patch, scores[killed_at:])
        resumed = trainer_of(tmp_path, SHORT, SHORT[:1], model=new_model(seed=9), **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{killed_at}"))
    assert resumed.state.global_step == 4 and resumed.state.best_global_step == 2
    assert equal(whole, resumed)  # the best model, and not the last


def test_a_run_that_goes_on_is_not_evaluated_on_start_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Best at step 1, patience 2: one evaluation more at step 2 would end the resumed run there."""
    scores: list[float | None] = [0.1, 0.5, 0.4, 0.4]  # the first one before any step
    settings = STEPS | {"early_stopping_patience": 2, "eval_on_start": True}
    with monkeypatch.context() as patch:
        scored(patch, scores)
        whole = trainer_of(tmp_path, SHORT, SHORT[:1], **settings)
        whole.train()
    with monkeypatch.context() as patch:
        scored(patch, scores[3:])
        resumed = trainer_of(tmp_path, SHORT, SHORT[:1], **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    evaluated = [[log["step"] for log in one.state.log_history if "eval_loss" in log] for one in (whole, resumed)]
    assert evaluated == [[0, 1, 2, 3]] * 2 and equal(whole, resumed)


def test_the_best_model_is_kept_beside_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the best step is none of those at which checkpoints are saved."""
    scored(monkeypatch, [0.1, 0.2, 0.9, 0.3, 0.2, 0.1])
    settings = STEPS | {"load_best_model_at_end": True, "save_total_limit": 2, "save_steps": 2}
    trainer = trainer_of(tmp_path, SHORT, SHORT[:1], **settings)
    trainer.train()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-6", "checkpoint-3"]
    assert trainer.state.best_global_step == 3 and trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")


def test_a_metric_that_is_undefined_is_said_once_and_counts_as_no_improvement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scored(monkeypatch, [0.3, None, None, 0.9])
    trainer = trainer_of(tmp_path, SHORT, SHORT[:1], **STEPS, early_stopping_patience=2)
    trainer.train()
    assert trainer.state.global_step == 3 and trainer.state.best_global_step == 1
    said = [message for message in caplog.messages if "undefined" in message]
    assert said == [f"Step {step}: eval_task_score is undefined and counts as no improvement." for step in (2, 3)]


@pytest.mark.parametrize("metric", ["no_such_metric", "dst_update_f1"])
def test_a_metric_that_the_evaluation_never_has_is_refused(tmp_path: Path, metric: str) -> None:
    """A name with a mistake, or one that the validation split has no label for."""
    unlabelled = [make_session(8, 4, 2, labelled=False)]
    settings = STEPS | {"metric_for_best_model": metric, "load_best_model_at_end": True}
    trainer = trainer_of(tmp_path, SHORT, unlabelled, **settings)
    with pytest.raises(UsageError, match=f"metric_for_best_model={metric} is no metric .* give one of .*speaking_loss"):
        trainer.train()


def test_the_best_model_is_that_of_the_task_score(tmp_path: Path) -> None:
    def chosen(**settings: Any) -> tuple[str | None, bool | None]:
        args = DSTTrainingArguments(output_dir=str(tmp_path), use_cpu=True, eval_strategy="steps", **settings)
        return args.best_metric, args.greater_is_better

    assert chosen(early_stopping_patience=1) == ("eval_task_score", True)
    assert chosen(load_best_model_at_end=True, save_strategy="steps") == ("eval_task_score", True)
    assert chosen(metric_for_best_model="perplexity") == ("eval_perplexity", False)
    assert chosen(metric_for_best_model="eval_loss") == ("eval_loss", False)
    assert chosen() == (None, None)
    first = DSTTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, look_steps=1, early_stopping_patience=3, eval_strategy="steps"
    ).for_first_stage()
    assert first.early_stopping_patience is None and first.best_metric is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"early_stopping_patience": 0, "eval_strategy": "steps"}, "must be 1 or more, not 0"),
        ({"early_stopping_patience": 2}, "has no effect without evaluations: set training.eval_strategy"),
        ({"free_validation_sessions": 2}, "has no effect without evaluations: set training.eval_strategy"),
        ({"free_validation_sessions": -1, "eval_strategy": "steps"}, "must be 0 or more, not -1"),
    ],
)
def test_settings_without_effect_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DSTTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **settings)


# -- evaluations change nothing -----------------------------------------------------------------------------------


def free(sessions: int = 2, context: str = "summarize_with_dst") -> FreeValidation:
    return FreeValidation(small_processor(), NoiseReader(), SHORT[:sessions], Context(context))


def test_a_run_with_evaluations_comes_to_the_weights_of_one_without(tmp_path: Path) -> None:
    """With dropout, so that the steps depend on torch's generator; teacher-forced and free."""

    def trained(name: str, **settings: Any) -> DSTTrainer:
        model = new_model()
        for layer in model.model.text_model.layers:
            layer.self_attn.attention_dropout = 0.5
        trainer = trainer_of(tmp_path / name, SHORT, SHORT[:2], model=model, max_steps=3, **settings)
        if settings:
            trainer.free_validation = free()
        trainer.train()
        return trainer

    without, evaluated = trained("without"), trained("with", eval_strategy="steps", eval_steps=1)
    assert equal(without, evaluated)
    (entry, *_) = [entry for entry in evaluated.state.log_history if "eval_loss" in entry]
    assert {"eval_free_joint_state_accuracy", "eval_free_speaking_f1_1s"} <= entry.keys()


def test_an_evaluation_leaves_every_generator_as_it_was(tmp_path: Path) -> None:
    draws: list[Callable[[], float]] = [random.random, np.random.random, lambda: float(torch.rand(()))]
    trainer = trainer_of(tmp_path, SHORT, SHORT[:2])
    seen = []
    for evaluate in (False, True):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        if evaluate:
            trainer.evaluate()
        seen.append([draw() for draw in draws])
    assert seen[0] == seen[1]


# -- free validation ----------------------------------------------------------------------------------------------


def test_the_counts_of_shares_are_those_of_all_sessions() -> None:
    model, sessions = new_model(), free(4)
    alone = free_metrics(sessions.counts(model, (0.5, 0.5), 0, 1))
    shares = [sessions.counts(model, (0.5, 0.5), number, 3) for number in range(3)]
    assert [len(share) for share in shares] == [2, 1, 1]
    together = free_metrics([counts for share in shares for counts in share])
    assert together == pytest.approx(alone) and set(alone) <= {f"free_{name}" for name in (*FIGURES, "task_score")}
    scores = [alone[f"free_{name}"] for name in ("joint_state_accuracy", "speaking_f1_1s", "dst_update_f1_1s")]
    assert alone["free_task_score"] == pytest.approx(sum(scores) / 3)


def test_thresholds_of_the_evaluation_reach_the_free_run() -> None:
    model, sessions = new_model(), free(2)
    never, always = (free_metrics(sessions.counts(model, (at, at), 0, 1)) for at in (1.1, -0.1))
    assert never["free_speaking_f1_1s"] == 0.0 < always["free_speaking_f1_1s"]
    assert model.config.speaking_threshold == 0.5


def test_a_session_that_exceeds_the_context_stops_the_run(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, SHORT, SHORT[:1], **STEPS)
    context = Context("none", max_tokens=40)
    trainer.free_validation = FreeValidation(small_processor(), NoiseReader(), [make_session(1, 40, 2)], context)
    with pytest.raises(StreamError):
        trainer.train()


def test_sessions_are_spread_over_the_split() -> None:
    assert [session.video_uid for session in spread(SHORT, 2)] == ["v0", "v2"]
    assert len(spread(SHORT, 9)) == 4


# -- what is not finite -------------------------------------------------------------------------------------------


def named(trainer: DSTTrainer) -> DSTTrainer:
    trainer.train_dataset.inputs.named = True
    return trainer


def test_a_loss_that_is_not_finite_names_its_clips_and_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = named(trainer_of(tmp_path, SHORT, max_steps=4, save_strategy="steps", save_steps=2))
    sums = trainer.loss_sums

    def broken(model: Any, inputs: dict[str, Any]) -> Any:
        found, outputs = sums(model, inputs)
        return (found * torch.nan if trainer.state.global_step == 3 else found), outputs

    monkeypatch.setattr(trainer, "loss_sums", broken)
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    text = str(caught.value)
    assert text.startswith("The loss is not finite at step 3 (speaking nan, ")
    assert all(f"{session.session_id} frames 0-3" in text for session in SHORT)
    assert text.endswith(f"{tmp_path / 'checkpoint-2'} is the last checkpoint before it.")
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2"]


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_gradients_that_are_not_finite_stop_before_the_step(tmp_path: Path, max_grad_norm: float) -> None:
    trainer = named(trainer_of(tmp_path, SHORT[:1], max_steps=2, max_grad_norm=max_grad_norm))
    before = weights_of(trainer)
    trainer.model.speaking_decision_head.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(FloatingPointError, match=r"gradients are not finite at step 0 .*v0.*no checkpoint was saved"):
        trainer.train()
    after = weights_of(trainer)
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_an_evaluation_whose_loss_is_not_finite_names_its_clips_and_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tmp_path, SHORT, evaluate=SHORT[2:], **STEPS)
    trainer.eval_dataset.inputs.named = True
    sums = trainer.loss_sums

    def broken(model: Any, inputs: dict[str, Any]) -> Any:
        found, outputs = sums(model, inputs)
        return (found if model.training or trainer.state.global_step < 2 else found * torch.inf), outputs

    monkeypatch.setattr(trainer, "loss_sums", broken)
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    text = str(caught.value)
    assert text.startswith("The loss of the evaluation is not finite at step 2, in the clips ")
    assert all(f"{session.session_id} frames 0-3" in text for session in SHORT[2:])
    assert text.endswith(f"{tmp_path / 'checkpoint-1'} is the last checkpoint before it.")


def test_memory_that_runs_out_in_an_evaluation_names_the_batch_of_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def runs_out(*given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    trainer = trainer_of(tmp_path, SHORT, evaluate=SHORT, per_device_eval_batch_size=3)
    monkeypatch.setattr(trainer, "loss_sums", runs_out)
    with pytest.raises(RunOutOfMemory, match=r"had training.per_device_eval_batch_size=3; set training.*_size=1"):
        trainer.evaluate()


@pytest.mark.parametrize("saves", [True, False])
def test_weights_that_are_not_finite_take_the_place_of_no_good_checkpoint(tmp_path: Path, saves: bool) -> None:
    """Gradients and loss are finite, the step is not: at once where it is saved, else at the end of the run."""
    settings = STEPS | {"max_steps": 2, "save_total_limit": 1, "eval_strategy": "no", "learning_rate": 1e38}
    trainer = named(trainer_of(tmp_path, SHORT, **settings | {"save_strategy": "steps" if saves else "no"}))
    trainer.model.speaking_decision_head.weight.register_hook(
        lambda gradient: torch.full_like(gradient, 100.0 if trainer.state.global_step == 1 else 0.0)
    )
    for name, weight in trainer.model.named_parameters():
        weight.requires_grad_(name == "speaking_decision_head.weight")
    found = r"weights are not finite after step 2 \(speaking_decision_head.weight\), in the clips .*"
    last = "checkpoint-1 is the last checkpoint before it" if saves else "no checkpoint was saved"
    with pytest.raises(FloatingPointError, match=found + last):
        trainer.train()
    assert [path.name for path in checkpoints(tmp_path)] == (["checkpoint-1"] if saves else [])


def test_of_a_checkpoint_with_the_weights_that_gave_the_loss_the_one_before_is_named_too(tmp_path: Path) -> None:
    trainer = named(trainer_of(tmp_path, SHORT, **STEPS | {"max_steps": 2, "eval_strategy": "no"}))
    trainer.train()
    text = str(trainer._not_finite("The loss is not finite"))
    first, second = tmp_path / "checkpoint-1", tmp_path / "checkpoint-2"
    assert text.endswith(
        f"{second} is the last checkpoint before it, with the weights that gave it, and {first} the one before."
    )


# -- epochs in workers --------------------------------------------------------------------------------------------


def test_workers_that_live_on_know_the_epoch() -> None:
    """Texts are left out anew in each epoch, also with ``dataloader_persistent_workers``."""
    clips = clip_dataset(SHORT[:2], dropout=0.9)
    loader = torch.utils.data.DataLoader(clips, batch_size=None, num_workers=1, persistent_workers=True)
    for epoch in (0, 1, 5):
        clips.set_epoch(epoch)
        seen = [item["input_ids"].tolist() for item in loader]
        assert seen == [clips[index]["input_ids"].tolist() for index in range(2)]
