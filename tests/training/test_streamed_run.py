"""Training from a streaming dataset: resumed twice, and with any number of workers, it gives the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from job_fixtures import SETTINGS, train
from model_fixtures import NoiseReader, collate, make_session, new_model, small_processor
from stored_fixtures import published

from prospect_hf.data.clip_stream import ClipStream, SessionStream
from prospect_hf.data.clips import ClipInputs
from prospect_hf.hub.weights import weights_hash
from prospect_hf.jobs import train as job
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.trainer import DSTTrainer

SESSIONS = [make_session(seed, 6 + 2 * seed, 3) for seed in range(6)]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> SessionStream:
    folder = tmp_path_factory.mktemp("rows")
    manifest = published([SESSIONS[:2], SESSIONS[2:]], folder)
    return SessionStream(tuple(folder / shard.path for shard in manifest.shards), "hash")


def trained(sessions: SessionStream, folder: Path, steps: int, resume: bool = False, **settings: Any) -> DSTTrainer:
    """A run of two clips a batch and two batches a step: an epoch of about two steps."""
    args = DSTTrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        max_steps=steps,
        lr_scheduler_type="constant",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=0.01,
        save_strategy="steps",
        save_steps=steps,
        logging_steps=100,
        disable_tqdm=True,
        **settings,
    )
    inputs = ClipInputs(small_processor(), NoiseReader(), 0.5, 3, 0.3, negative_rate=0.4, state_noise=0.5)
    stream = ClipStream(sessions.rows, inputs, 150, args.train_batch_size, 3)
    torch.manual_seed(0)
    trainer = DSTTrainer(model=new_model(), args=args, train_dataset=stream, data_collator=collate)
    trainer.train(resume_from_checkpoint=str(max(folder.glob("checkpoint-*"))) if resume else None)
    assert trainer.state.global_step == steps
    return trainer


def weights(trainer: DSTTrainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach() for name, weight in trainer.model.named_parameters()}


def test_a_run_that_is_resumed_twice_gives_the_weights_of_one_part(sessions: SessionStream, tmp_path: Path) -> None:
    whole = weights(trained(sessions, tmp_path / "whole", 7))
    trained(sessions, tmp_path / "parts", 2, dataloader_num_workers=2)
    trained(sessions, tmp_path / "parts", 5, resume=True)
    parts = weights(trained(sessions, tmp_path / "parts", 7, resume=True, dataloader_num_workers=2))
    assert all(torch.equal(parts[name], weight) for name, weight in whole.items())
    started = weights(DSTTrainer(model=new_model(), args=DSTTrainingArguments(output_dir=str(tmp_path), use_cpu=True)))
    assert any(not torch.equal(started[name], weight) for name, weight in whole.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["data.rows=rows", "training.look_steps=0", "training.max_steps=-1"], "set training.max_steps"),
        (["data.rows=rows"], "set training.look_steps=0"),
        (
            ["data.rows=rows", "training.look_steps=0", "model.freeze_vision=true", "data.features=folder"],
            "unset data.features",
        ),
        (["training.look_steps=0"], "give data.rows=FOLDER"),
    ],
)
def test_what_needs_all_sessions_is_refused(
    tmp_path: Path, given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [f"data.root={tmp_path}", f"training.output_dir={tmp_path / 'out'}"]
    assert train([*SETTINGS, *folders, "data.streaming=true", *given]) == 2
    assert message in capsys.readouterr().err


def test_given_rows_train_the_model_of_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights from the corpus and from its rows elsewhere; a stream of them trains too."""
    monkeypatch.setattr(job, "evaluate_freely", lambda *args, **kwargs: ({}, None))
    root, cache = f"data.root={tmp_path / 'corpus'}", tmp_path / "cache"

    def weights_of(name: str, *given: str) -> str:
        assert train([*SETTINGS, root, f"training.output_dir={tmp_path / name}", *given]) == 0
        return weights_hash(tmp_path / name)

    first = weights_of("first", f"data.cache_dir={cache}")
    (manifest,) = (cache / "rows").glob("*/manifest.json")
    manifest.parent.rename(tmp_path / "rows")
    given = [f"data.rows={tmp_path / 'rows'}", f"data.cache_dir={tmp_path / 'other'}"]
    assert weights_of("second", *given) == first
    streamed = ["data.streaming=true", "training.look_steps=0", "data.text_dropout=0.5"]
    assert weights_of("third", *given, *streamed) == weights_of("fourth", *given, *streamed)
    assert json.loads((tmp_path / "third" / "results.json").read_text())["results"]["steps"] == 3
