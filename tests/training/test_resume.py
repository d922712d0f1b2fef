"""Resuming: a checkpoint that is not whole, or not this run's, is never gone on from; what is missing is named."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frame_fixtures import pictures, video
from model_fixtures import make_session
from stored_fixtures import in_store

from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError, UsageError
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.build import build_processor
from prospect_hf.training.checkpoint_files import LIST, checkpoints, fault_in_files, remove_old, write_list
from prospect_hf.training.resume import Interrupted, find_checkpoint, run_record, sessions_hash
from prospect_hf.training.splits import Splits
from prospect_hf.training.tiny import tiny_processor

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "tokenizer.json")
TRAIN, VALIDATION = [make_session(0, 12, 3), make_session(1, 9, 2)], [make_session(2, 7, 4)]


def arguments(output: Path, **training: Any) -> DSTTrainingArguments:
    given = {"max_steps": 6, "learning_rate": 0.001, "seed": 1, "use_cpu": True}
    return DSTTrainingArguments(**{"output_dir": str(output), **given, **training})


def record(
    args: DSTTrainingArguments,
    train: Sequence[SessionRows] = TRAIN,
    validation: Sequence[SessionRows] = VALIDATION,
    model: dict[str, Any] | None = None,
    **data: Any,
) -> dict[str, Any]:
    of_data = DataArguments(**{"root": "corpus", "frames": "rendered", "recordings": {"train": 2}, **data})
    stores = [in_store(sessions) for sessions in (train, validation, [])]
    return run_record(ModelArguments(**(model or {})), of_data, args, Splits(*stores, {}))


def saved(output: Path, step: int, listed: bool = True, without: str = "nothing", **training: Any) -> Path:
    """A checkpoint of the run of ``arguments``."""
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in FILES:
        if name != without:
            (folder / name).write_bytes(f"{name} of step {step}".encode() * 50)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "epoch": step / 2}))
    if listed:
        write_list(folder, record(arguments(output, **training)))
    return folder


def found(output: Path, wanted: bool | str = True, **training: Any) -> Interrupted | None:
    args = arguments(output, resume_from_checkpoint=wanted, **training)
    return find_checkpoint(args, record(args))


# -- whole or half ------------------------------------------------------------------------------------------------


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("damage", [missing, empty, truncated, zeroed, flipped, longer])
@pytest.mark.parametrize("name", [*FILES, LIST])
def test_a_damaged_checkpoint_is_left_aside_by_name(
    tmp_path: Path, name: str, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = saved(tmp_path, 2), saved(tmp_path, 4)
    damage(newer / name)
    with caplog.at_level(logging.WARNING):
        resumed = found(tmp_path)
    assert resumed is not None and resumed.folder == older
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert (
        "Left aside: checkpoint-4: " in message and name in message and message.endswith("goes on from checkpoint-2.")
    )
    # Named, it is refused; so is the last one that is left.
    with pytest.raises(UsageError, match=f"checkpoint-4 cannot be used: .*{name}"):
        found(tmp_path, str(newer))
    shutil.rmtree(older)
    if damage is not missing or name != LIST:
        with pytest.raises(UsageError, match=f"holds no checkpoint to go on from .checkpoint-4: .*{name}"):
            found(tmp_path)


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    saved(tmp_path, 2)
    newest = saved(tmp_path, 10, max_steps=20)
    assert checkpoints(tmp_path)[0] == newest
    resumed = found(tmp_path, max_steps=20)
    length = {"training.max_steps": 20, "training.num_train_epochs": 3.0}
    assert resumed is not None and resumed == Interrupted(
        newest, [{"until_step": 10, **length}], False, resumed.run_name
    )
    assert resumed.run_name.startswith(tmp_path.name)
    named = found(tmp_path, str(tmp_path / "checkpoint-2"))
    assert named is not None and named.folder == tmp_path / "checkpoint-2"
    assert found(tmp_path, False) is None


@pytest.mark.parametrize("half", [(), (2,), (2, 4)])
def test_where_no_save_ever_ended_the_run_starts_from_its_beginning(
    tmp_path: Path, half: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """A job that is killed before its first checkpoint and restarted with the same command goes on."""
    for step in half:
        saved(tmp_path, step, listed=False)
    with caplog.at_level(logging.WARNING):
        assert found(tmp_path) is None
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert "the run starts from its beginning" in message
    names = ", ".join(f"checkpoint-{step}" for step in reversed(half))
    assert not half or f"({names}: it has no {LIST}, so saving it was interrupted)" in message


def test_a_named_checkpoint_must_be_there_and_whole(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        found(tmp_path, str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=f"cannot be used: it has no {LIST}"):
        found(tmp_path, str(saved(tmp_path, 2, listed=False)))


def test_a_checkpoint_saved_without_optimizer_is_none_to_go_on_from(tmp_path: Path) -> None:
    saved(tmp_path, 2, without="optimizer.pt")
    with pytest.raises(UsageError, match="checkpoint-2: it was saved without the optimizer's state"):
        found(tmp_path)


def test_old_checkpoints_are_removed_half_ones_first(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        saved(tmp_path, step)
    saved(tmp_path, 8, listed=False)
    remove_old(tmp_path, 3, {tmp_path / "checkpoint-4"})
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-6", "checkpoint-4", "checkpoint-2"]
    remove_old(tmp_path, None, set())
    remove_old(tmp_path, 1, {tmp_path / "checkpoint-4"})
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-4"]
    assert fault_in_files(tmp_path / "checkpoint-4") is None


# -- the same run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"training": {"learning_rate": 0.002}}, "training.learning_rate is 0.002 and the interrupted run has 0.001"),
        ({"training": {"seed": 2}}, "training.seed is 2 and the interrupted run has 1"),
        (
            {"training": {"per_device_train_batch_size": 4}},
            "training.per_device_train_batch_size is 4 and the interrupted run has its default",
        ),
        ({"training": {"lr_scheduler_type": "cosine"}}, "training.lr_scheduler_type is cosine and"),
        (
            {"training": {"decision_loss": "focal"}},
            "training.decision_loss is focal and the interrupted",
        ),
        ({"training": {"muon_learning_rate": 0.1}}, "muon_learning_rate is 0.1 and the interrupted run has null"),
        ({"training": {"look_steps": 3}}, "training.look_steps is 3 and the interrupted run has 0"),
        ({"training": {"ignore_data_skip": True}}, "training.ignore_data_skip is true and"),
        ({"model": {"hidden_size": 128}}, "model.hidden_size is 128 and the interrupted run has 96"),
        ({"model": {"name_or_path": "base"}}, "model.name_or_path is base and the interrupted run has null"),
        ({"sources": ["wtag"]}, r"data.sources is \[\"wtag\"\] and the interrupted run has \[\"assembly101\","),
        ({"recordings": {"train": 3}}, "data.recordings.train is 3 and the interrupted run has 2"),
        ({"scene": {"jitter": 0}}, "data.scene.jitter is 0 and the interrupted run has its default"),
        ({"max_seq_len": 99}, "data.max_seq_len is 99 and the interrupted run has 2048"),
        ({"train": TRAIN[:1]}, "the training sessions in data.root, or their frames, are not those of the interrupted"),
        ({"validation": TRAIN[:1]}, "the validation sessions in data.root"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    folder = saved(tmp_path, 2)
    for wanted in (True, str(folder)):
        args = arguments(tmp_path, resume_from_checkpoint=wanted, **changed.get("training", {}))
        now = record(args, **{key: value for key, value in changed.items() if key != "training"})
        with pytest.raises(UsageError, match=message):
            find_checkpoint(args, now)


def test_every_key_that_differs_is_named(tmp_path: Path) -> None:
    saved(tmp_path, 2)
    both = "learning_rate is 0.5 and the interrupted run has 0.001, training.seed is 7 and the interrupted run has 1"
    with pytest.raises(UsageError, match=both):
        found(tmp_path, learning_rate=0.5, seed=7)


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 2)
    args = arguments(tmp_path, resume_from_checkpoint=True)
    with pytest.raises(UsageError, match="there are 2 processes and the interrupted run had 1"):
        find_checkpoint(args, record(args) | {"processes": 2})


def test_what_changes_no_weight_may_differ(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved(tmp_path / "first", 2)
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "first", moved)
    training = {"logging_steps": 1, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 1, "run_name": "b"}
    training |= {"eval_strategy": "steps", "eval_steps": 3, "dataloader_num_workers": 2, "disable_tqdm": True}
    args = arguments(moved, resume_from_checkpoint=True, **training)
    with caplog.at_level(logging.WARNING):
        resumed = find_checkpoint(args, record(args, root="elsewhere", cache_dir="there"))
    assert resumed is not None and resumed.folder == moved / folder.name and not caplog.records


def test_a_base_that_moved_is_the_same_base(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    settings = [record(args, model={"name_or_path": f"{folder}/base"})["settings"] for folder in ("/here", "/there")]
    assert settings[0] == settings[1] and "/here" not in json.dumps(settings)


def test_a_run_may_be_made_longer_but_not_shorter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path, 4)
    with caplog.at_level(logging.WARNING):
        assert found(tmp_path, max_steps=8) is not None
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert "training.max_steps is 8 and the interrupted run has 6: from step 4 on, the learning rate follows" in message
    for shorter in ({"max_steps": 3}, {"max_steps": -1, "num_train_epochs": 1}):
        with pytest.raises(UsageError, match=r"checkpoint-4 is at step 4 \(epoch 2.00\), past the end"):
            found(tmp_path, **shorter)


def test_a_run_of_other_settings_does_not_hide_this_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An earlier run's checkpoint in the folder, of a later step than any of the run that was killed."""
    saved(tmp_path, 6, seed=9)
    ours = saved(tmp_path, 2)
    with caplog.at_level(logging.WARNING):
        resumed = found(tmp_path)
    assert resumed is not None and resumed.folder == ours
    assert "checkpoint-6: training.seed is 1 and the interrupted run has 9" in caplog.text


# -- the same sessions --------------------------------------------------------------------------------------------


def test_every_label_and_text_is_in_the_hash_of_the_sessions() -> None:
    def changed(**attributes: Any) -> SessionRows:
        session = make_session(3, 12, 3, event_rate=0.6)
        for name, value in attributes.items():
            setattr(session, name, value)
        return session

    plain = changed()
    assert plain.items
    at = next(iter(plain.items))
    speaking, states = plain.speaking.copy(), plain.states_after.copy()
    speaking[0], states[-1, 0] = 1 - speaking[0], 1 - states[-1, 0]
    others = [
        changed(session_id="other"),
        changed(goal="other"),
        changed(steps=[*plain.steps[:-1], "other"]),
        changed(first_frame=plain.first_frame + 1),
        changed(speaking=speaking),
        changed(dst_update=np.zeros_like(plain.dst_update) - 100),
        changed(states_after=states),
        changed(items={key: item for key, item in plain.items.items() if key != at}),
    ]
    splits = ([plain], [plain, plain], [], *([one] for one in others))
    hashes = [sessions_hash(in_store(sessions), None) for sessions in splits]
    assert len(set(hashes)) == len(hashes)
    assert sessions_hash(in_store([changed()]), None) == hashes[0]


def test_other_frames_are_other_sessions(tmp_path: Path) -> None:
    path = tmp_path / "processed_data" / TRAIN[0].source / TRAIN[0].frames_file
    with pytest.raises(DataError, match=r"no such frame file; check data\.root"):
        sessions_hash(in_store(TRAIN[:1]), tmp_path)
    path.parent.mkdir(parents=True)
    hashes = set()
    for content in (b"a" * 200_000, b"b" + b"a" * 199_999, b"a" * 199_999 + b"b", b"a" * 200_001):
        path.write_bytes(content)
        hashes.add(sessions_hash(in_store(TRAIN[:1]), tmp_path))
    assert len(hashes) == 4
    path.unlink()
    for form in (video, pictures):
        shown = form(path.parent, path.stem, 4)
        hashes.add(sessions_hash(in_store(TRAIN[:1]), tmp_path))
        if shown.is_file():
            shown.unlink()
    (shown / "4.png").write_bytes(b"x")
    hashes.add(sessions_hash(in_store(TRAIN[:1]), tmp_path))
    assert len(hashes) == 7


def test_a_resumed_run_keeps_its_tokenizer(tmp_path: Path) -> None:
    shape = ModelArguments(vocab_size=400)
    ours = tiny_processor(["Fold the wide paper crane", "crane paper folded"] * 9, shape)
    ours.save_pretrained(tmp_path)
    kept = build_processor(shape, TRAIN, tmp_path)
    assert kept.tokenizer.get_vocab() == ours.tokenizer.get_vocab()
    assert build_processor(shape, TRAIN).tokenizer.get_vocab() != ours.tokenizer.get_vocab()
