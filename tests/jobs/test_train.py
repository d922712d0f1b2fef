"""``scripts/train.py``: two sources in, a finished folder out; a wrong setting is one sentence and exit code 2."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from job_fixtures import SETTINGS
from job_fixtures import train as main
from model_fixtures import HEAD_LOGITS, new_model, picture, small_processor
from transformers import LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.evaluation.baselines import silent
from prospect_hf.hub.weights import weights_hash
from prospect_hf.jobs import train as run_module
from prospect_hf.jobs.model_commands import TRAIN
from prospect_hf.settings import CONFIGS, compose, parse


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Where the simulated corpus and its rows are kept; the first run writes them."""
    folder = tmp_path_factory.mktemp("corpus")
    return [f"data.root={folder / 'corpus'}", f"data.cache_dir={folder / 'cache'}"]


def run_script(repository: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The script as a user runs it, from another folder than the repository's."""
    return subprocess.run(
        [sys.executable, repository / "scripts" / "train.py", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture()
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``main`` here, without the free run, which the script's own test pays for.

    It has one thread, as the script has: with another number, sums differ in their last digits.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def follow(model: Any, processor: Any, frames: Any, sessions: Any, context: Any, progress: bool) -> list[Any]:
        return [silent(one) for one in sessions]

    monkeypatch.setattr("prospect_hf.training.results.follow_in_shares", follow)
    yield
    torch.set_num_threads(threads)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that ``main`` prints before it returns 2."""
    capsys.readouterr()
    assert main(arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    return errors[0]


# -- a whole run --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(
    repository: Path, corpus: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A finished folder, and what the script printed."""
    folder = tmp_path_factory.mktemp("run")
    output = f"training.output_dir={folder / 'out'}"
    done = run_script(repository, folder, *SETTINGS, *corpus, output)
    assert done.returncode == 0, done.stderr
    return folder / "out", done


def test_a_run_ends_with_a_finished_folder(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = finished
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert "joint state accuracy" in done.stdout and str(folder) in done.stdout.splitlines()[-1]
    facts = json.loads((folder / "results.json").read_text())
    results = facts["results"]
    assert results["steps"] == 3 and results["seconds"] > results["train_seconds"] > 0
    assert results["free_run"]["split"] == "test" and results["free_run"]["sessions"] == 2
    assert {"eval_loss", "eval_speaking_f1", "eval_joint_state_accuracy"} <= results["validation"].keys()
    assert {"joint_state_accuracy", "speaking_f1_1s", "dst_update_f1_1s", "response_bleu"} <= results["free_run"].keys()
    assert set(results["majority"]) == {"joint_state_accuracy", "response_exact_match", "response_bleu"}
    assert 0 <= results["majority"]["response_bleu"] <= 100 and results["free_run"]["response_bleu"] is not None
    assert facts["settings"]["model"]["hidden_size"] == 32 and facts["settings"]["data"]["sources"] == ["wtag", "ego4d"]
    for split in ("train", "validation", "test"):
        parts = [facts["balance"][f"{source} dialogs {split}"] for source in ("wtag", "ego4d")]
        assert sum(part["rows"] for part in parts) == facts["balance"][f"all dialogs {split}"]["rows"] > 0
    assert not list(folder.glob("*.partial"))


def test_without_a_terminal_progress_is_plain_lines(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = finished
    lines = done.stderr.splitlines()
    losses = r"loss \d+\.\d{3} \(speaking \d\.\d{3}, update \d\.\d{3}, state \d\.\d{3}, text \d\.\d{3}\)"
    patterns = [
        r"simulating 8/8, 100 %, took \d+:\d\d",
        r"building rows, kB (\d+)/\1, 100 %, took \d+:\d\d",
        rf"first stage 1/2, 50 %, \d+:\d\d left: {losses}, lr .+",
        rf"first stage 2/2, 100 %, took \d+:\d\d: {losses}, lr \d\.\de-\d",
        r"encoding frames (\d+)/\1, 100 %, took \d+:\d\d",
        rf"whole sessions 1/3, 33 %, \d+:\d\d left: {losses}, lr .+",
        rf"whole sessions 2/3, 66 %, \d+:\d\d left: {losses}, lr .+",
        rf"whole sessions 3/3, 100 %, took \d+:\d\d: {losses}, lr .+",
        rf"evaluation 1/1, 100 %, took \d+:\d\d: {losses}, .*joint state accuracy \d\.\d{{3}}.*",
        r"following sessions 2/2, 100 %, took \d+:\d\d",
    ]
    places = [[at for at, line in enumerate(lines) if re.fullmatch(pattern, line)] for pattern in patterns]
    assert all(len(at) == 1 for at in places), (places, done.stderr)
    assert places == sorted(places)
    assert "Writing model shards" not in done.stderr and "{'loss'" not in done.stderr + done.stdout


def test_the_page_of_the_run_shows_both_stages_and_the_command(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = finished
    assert str(folder / "train_report.html") in done.stdout.splitlines()[-1]
    page = (folder / "train_report.html").read_text()
    data = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert data["command"].startswith("python scripts/train.py ") and "training.max_steps=3" in data["command"]
    first, second = data["stages"]
    assert [step for step, _ in first["curves"][0]["train"]] == [1, 2]
    assert [step for step, _ in second["curves"][0]["train"]] == [1, 2, 3]
    results = json.loads((folder / "results.json").read_text())
    thresholds = [results["results"]["calibration"][name]["threshold"] for name in ("speaking", "dst_update")]
    config = json.loads((folder / "config.json").read_text())
    assert thresholds == [config["speaking_threshold"], config["dst_update_threshold"]] == data["thresholds"]
    assert len(data["examples"]) == 2 and data["confusions"] and len(results["sessions"]["training"]) == 64
    assert f"{thresholds[0]:.3f}" in (folder / "README.md").read_text()


def test_the_card_is_whole(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = finished
    card = (folder / "README.md").read_text()
    assert not re.search(r"\{\{|\}\}|\{%|%\}|Undefined", card)
    head, body = card.split("---\n", 2)[1:]
    assert "library_name: transformers" in head and "base_model" not in head
    results = json.loads((folder / "results.json").read_text())["results"]
    assert f"| States: State head, joint accuracy | {results['free_run']['joint_state_accuracy']:.3f} |" in body
    assert "Decisions: Speaking, F1 within 1 s" in body and "transition_f1" not in body
    assert "3 steps" in body and "wtag, ego4d" in body and "test split" in body
    settings = json.loads(re.findall(r"```json\n(.*?)```", body, re.S)[0])
    assert settings["training"]["max_steps"] == 3


def test_the_folder_reloads_with_its_thresholds(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = finished
    validation = json.loads((folder / "results.json").read_text())["results"]["validation"]
    model = DSTSmolVLMForConditionalGeneration.from_pretrained(folder).eval()
    assert model.config.speaking_threshold == validation["eval_speaking_best_threshold_1s"]
    assert model.config.dst_update_threshold == validation["eval_dst_update_best_threshold_1s"]
    processor = DSTSmolVLMProcessor.from_pretrained(folder)
    inputs = processor("Make tea", ["Boil.", "Pour."], [picture("v", frame) for frame in range(3)])
    with torch.no_grad():
        output = model(**inputs)
    assert output.dst_state_logits.shape == (1, 3, 2, 3) and torch.isfinite(output.dst_state_logits).all()
    assert {"configuration_dst_smolvlm.py", "modeling_dst_smolvlm.py", "processing_dst_smolvlm.py"} <= {
        path.name for path in folder.iterdir()
    }


def test_the_same_settings_give_the_same_weights(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
    corpus: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    in_process: None,
) -> None:
    """A second run, on the corpus that is there, in another process; it is also told to save and then to go on."""
    from safetensors.torch import load_file

    arguments = [*SETTINGS, *corpus, f"training.output_dir={tmp_path}", "training.save_strategy=steps"]
    assert main([*arguments, "training.save_steps=2"]) == 0
    whole = load_file(tmp_path / "model.safetensors")
    for name, weight in load_file(finished[0] / "model.safetensors").items():
        assert torch.equal(weight, whole[name]), name
    shutil.rmtree(tmp_path / "checkpoint-3")
    (tmp_path / "model.safetensors").unlink()
    assert main([*arguments, "training.save_steps=2", "training.resume_from_checkpoint=true"]) == 0
    for name, weight in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(weight, whole[name]), name
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert results["earlier_parts"] == [{"until_step": 2, "training.max_steps": 3, "training.num_train_epochs": 3.0}]
    assert "trained from step 2 to 3 steps in" in capsys.readouterr().out
    # Nothing that is not this run's is taken.
    again = [*arguments, "training.resume_from_checkpoint=true"]
    assert "training.seed is 1 and the interrupted run has 0" in refused(capsys, *again, "training.seed=1")
    other = [f"data.root={tmp_path / 'other'}", "data.seed=5"]
    assert "data.seed is 5 and the interrupted run has 0" in refused(capsys, *again, *other)


def stock_folder(folder: Path) -> Path:
    """A stock SmolVLM checkpoint of the small shape, processor files included."""
    config = new_model().config
    stock = SmolVLMForConditionalGeneration(
        SmolVLMConfig(
            text_config=config.text_config.to_dict(),
            vision_config=config.vision_config.to_dict(),
            scale_factor=config.scale_factor,
            image_token_id=config.image_token_id,
        )
    )
    stock.save_pretrained(folder)
    small_processor().tokenizer.save_pretrained(folder)
    small_processor().image_processor.save_pretrained(folder)
    return folder


def test_a_stock_checkpoint_is_trained_and_trained_again(corpus: list[str], tmp_path: Path, in_process: None) -> None:
    stock = stock_folder(tmp_path / "stock")
    # The small tokenizer knows none of the corpus's words, so streams are longer.
    common = [*SETTINGS, *corpus, "data.max_seq_len=2000", "training.max_steps=1", "model.freeze_vision=true"]
    common += ["training.look_steps=0", "training.muon_learning_rate=null"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert (
        main([*common, f"model.name_or_path={stock}", "model.tokens_per_frame=4", f"training.output_dir={first}"]) == 0
    )
    before = SmolVLMForConditionalGeneration.from_pretrained(stock)
    after = DSTSmolVLMForConditionalGeneration.from_pretrained(first)
    assert after.config.tokens_per_frame == 4
    for part in ("model.vision_model", "model.connector"):
        theirs = before.get_submodule(part).state_dict()
        assert all(torch.equal(weight, theirs[name]) for name, weight in after.get_submodule(part).state_dict().items())
    assert "base_model: stock\n" in (first / "README.md").read_text()
    # Nothing that is published tells where on this machine the folders lie.
    assert not [path for path in first.rglob("*") if path.is_file() and str(tmp_path).encode() in path.read_bytes()]
    # A folder that training wrote is a checkpoint too: with no learning rate it comes out as it went in.
    again = [f"model.name_or_path={first}", "model.tokens_per_frame=4", f"training.output_dir={second}"]
    assert main([*common, *again, "training.learning_rate=0.0"]) == 0
    copied = DSTSmolVLMForConditionalGeneration.from_pretrained(second)
    inputs = small_processor(4)("Make tea", ["Boil."], [picture("v", 0), picture("v", 1)])
    with torch.no_grad():
        ours, theirs = after.eval()(**inputs), copied.eval()(**inputs)
    assert all(torch.equal(ours[name], theirs[name]) for name in (*HEAD_LOGITS, "logits"))


# -- bad usage ----------------------------------------------------------------------------------------------------


def test_a_free_run_that_fails_keeps_the_trained_model(
    corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A context in which no frame has room is found when sessions are followed: the training is not lost by it."""
    settings = ["training.look_steps=0", "training.max_steps=1", "context.max_tokens=60"]
    verbosity, level = transformers.logging.get_verbosity(), logging.getLogger().level
    error = refused(capsys, *SETTINGS, *corpus, *settings, f"training.output_dir={tmp_path}")
    transformers.logging.set_verbosity(verbosity)
    logging.getLogger().setLevel(level)
    assert "max_tokens=60" in error
    assert (tmp_path / "model.safetensors").is_file() and (tmp_path / "config.json").is_file()


def test_the_script_says_what_is_wrong_in_one_line(repository: Path, tmp_path: Path) -> None:
    done = run_script(repository, tmp_path, "training.learning_rat=1e-5")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: training.learning_rat is no setting; did you mean training.learning_rate?\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("data.sorces=[wtag]", r"data\.sorces is no setting; did you mean data\.sources\?"),
        ("model.hiden_size=8", r"model\.hiden_size is no setting; did you mean model\.hidden_size\?"),
        ("data.scene.jiter=0", r"data\.scene\.jiter is no setting; did you mean data\.scene\.jitter\?"),
        ("learning_rate=1e-5", r"'learning_rate' is no setting.*did you mean training\.learning_rate\?"),
        ("+learning_rate=1e-5", r"'learning_rate' is no setting.*did you mean training\.learning_rate\?"),
        ("dta.root=folder", r"'dta\.root' is no setting.*did you mean data\.root\?"),
        ("model=smolvlm9", r"model=smolvlm9 is no choice: known are .*smolvlm2_500m.*did you mean model=smolvlm2_"),
        ("training.learning_rate=fast", r"training\.learning_rate must be float, not 'fast'"),
        ("training.max_steps=1.5", r"training\.max_steps must be int, not 1\.5"),
        ("training.max_steps=-5", r"training\.max_steps must be 1 or more, or -1 .*, not -5"),
        ("training.max_steps=0", r"training\.max_steps must be 1 or more, or -1 .*, not 0"),
        ("training.num_train_epochs=-1", r"training\.num_train_epochs must be above 0, not -1"),
        ("training.look_steps=-1", r"error: training\.look_steps must be 0 or more, not -1"),
        ("training.look_batch_size=-1", r"training\.look_batch_size must be 1 or more, not -1"),
        ("data.max_seq_len=null", r"data\.max_seq_len must be int, not None"),
        (
            "data.max_seq_len=9000",
            r"data\.max_seq_len=9000 is more than the 8192 positions of the model: set it to 8192",
        ),
        ("training.mode=lora", r"training\.mode=lora and training\.look_steps do not go together"),
        ("data.sources=wtag", r"data\.sources must be list\[str\], not 'wtag'"),
        ("data.sources=[mars]", r"data\.sources\[0\] must be one of assembly101, .*not 'mars'"),
        ("data.recordings.train=0", r"recordings .*'train': 0.* count of 1 or more"),
        ("data.text_dropout=2", r"data\.text_dropout must lie in \[0, 1\]"),
        ("data.max_seq_len=20", r"session wtag\..*, frame 0: .* over max_seq_len=20"),
        ("model.tokens_per_frame=2", r"model\.tokens_per_frame must be one of 1, 4, 9, 16, full, not 2"),
        ("model.hidden_size=33", r"model\.hidden_size=33 must be a multiple of model\.heads=2"),
        ("model.heads=0", r"model\.heads must be 1 or more"),
        ("model.name_or_path=/nowhere/at/all", r"model\.name_or_path=/nowhere/at/all cannot be loaded"),
        ("training.resume_from_checkpoint=/nowhere", r"resume_from_checkpoint=/nowhere: no such folder"),
        (
            "model.freeze_vision=true",
            r"look_steps trains the vision tower and model\.freeze_vision forbids it",
        ),
        ("training.per_device_train_batch_size=0", "per_device_train_batch_size must be 1 or more, not 0"),
        ("training.gradient_accumulation_steps=0", "gradient_accumulation_steps must be 1 or more, not 0"),
        ("training.report_to=no_tracker", "training.report_to=no_tracker: that tracker is not installed"),
        ("training.use_liger_kernel=true", "has no effect on this model"),
        ("training.push_to_hub=true", "would publish before results and card are written: upload the finished folder"),
        ("training.look_utterances=1.5", r"training\.look_utterances must lie in \[0, 1\], not 1\.5"),
        ("training.look_utterances=.nan", r"training\.look_utterances must lie in \[0, 1\], not nan"),
        ("model.copy_steps=-1", r"model\.copy_steps must be 0 or more, not -1"),
        ("training.look_pairs=0", r"training\.look_pairs must be 1 or more, not 0"),
        ("training.focal_gamma=2", r"training\.focal_gamma=2 has no effect with training\.decision_loss=balanced"),
        ("model=3", "model=3 is no choice: known are smolvlm2_256m"),
        ("", "'' is no setting"),
    ],
)
def test_bad_settings(
    argument: str, message: str, corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    output = f"training.output_dir={tmp_path / 'out'}"
    assert re.search(message, refused(capsys, *SETTINGS, *corpus, output, argument))
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_stream_that_does_not_fit_is_found_before_training(
    corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], in_process: None, monkeypatch: Any
) -> None:
    monkeypatch.setattr(run_module, "learn_to_look", None)  # it is not called
    output = f"training.output_dir={tmp_path / 'out'}"
    assert "over max_seq_len=20" in refused(capsys, *SETTINGS, *corpus, output, "data.max_seq_len=20")


@pytest.mark.parametrize(
    "choice",
    [
        ["data=simulated_full", "training=tiny_full"],
        ["model=smolvlm2_256m", "data=proassist", "data.root=x", "training.bf16=false"],
        ["model=smolvlm2_500m", "training.bf16=false"],
        ["model=smolvlm2_2b", "training.bf16=false"],
        *([f"context={path.stem}"] for path in sorted((CONFIGS / "context").glob("*.yaml"))),
    ],
)
def test_every_file_of_the_configuration_can_be_used(choice: list[str]) -> None:
    values = compose("train", TRAIN.groups, choice)
    for group, path in TRAIN.groups.items():
        module, name = path.split(":")
        parse(getattr(import_module(module), name), values[group], group)


def test_checkpoints_of_the_wrong_kind(
    corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    common = [*SETTINGS, *corpus, f"training.output_dir={tmp_path / 'out'}"]
    llama = tmp_path / "llama"
    LlamaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8).save_pretrained(llama)
    assert f"{llama} is a llama checkpoint; give a SmolVLM2" in refused(capsys, *common, f"model.name_or_path={llama}")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty} cannot be loaded" in refused(capsys, *common, f"model.name_or_path={empty}")
    (empty / "config.json").write_text("{oops")
    assert "invalid JSON" in refused(capsys, *common, f"model.name_or_path={empty}")
    stock = stock_folder(tmp_path / "stock")
    (stock / "model.safetensors").unlink()
    assert "model.safetensors" in refused(capsys, *common, "data.max_seq_len=2000", f"model.name_or_path={stock}")
    # Weights of which a part is missing are no whole checkpoint, whatever transformers would draw in their place.
    shorter = SmolVLMConfig.from_pretrained(stock)
    shorter.text_config.num_hidden_layers = 1
    SmolVLMForConditionalGeneration(shorter).save_pretrained(tmp_path / "short")
    shutil.copy(tmp_path / "short" / "model.safetensors", stock)
    message = refused(capsys, *common, "data.max_seq_len=2000", f"model.name_or_path={stock}")
    assert "is not a complete SmolVLM2 checkpoint" in message and "layers.1." in message


def test_data_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str], in_process: None) -> None:
    def proassist(*arguments: str) -> str:
        output = [f"training.output_dir={tmp_path / 'out'}", f"data.cache_dir={tmp_path / 'cache'}"]
        return refused(capsys, "data=proassist", "data.sources=[wtag]", "data.forms=[dialogs]", *output, *arguments)

    assert "data.root is not set" in proassist()
    assert "/nowhere has no subfolder processed_data" in proassist("data.root=/nowhere")
    dialogs = tmp_path / "processed_data" / "wtag" / "generated_dialogs"
    dialogs.mkdir(parents=True)
    assert "generated_dialogs" in proassist(f"data.root={tmp_path}")
    for text, reason in (("{nope", "invalid JSON"), ("[]", "empty"), ('[{"video_uid": "v1"}]', "record 0 (v1)")):
        (dialogs / "train_filtered.json").write_text(text)
        assert reason in proassist(f"data.root={tmp_path}")
    assert "no usable session (1 skipped)" in proassist(f"data.root={tmp_path}", "data.on_error=skip")


def test_a_folder_that_cannot_be_written_is_one_line(
    corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(capsys, *SETTINGS, *corpus, f"training.output_dir={tmp_path / 'file'}")


def test_nothing_private_is_written(corpus: list[str], tmp_path: Path, in_process: None) -> None:
    """Neither a secret nor where the folders lie, in any file of the folder, checkpoints included."""
    secret, settings = "hf_9tZsecretsecret", ["training.save_strategy=steps", "training.look_steps=0"]
    settings += ["training.save_steps=1", "training.eval_strategy=steps", "training.eval_steps=1"]
    settings += ["training.load_best_model_at_end=true"]
    settings += [f"training.hub_token={secret}", f"training.output_dir={tmp_path / 'out'}", "training.max_steps=2"]
    settings += [
        "training.accelerator_config={dispatch_batches:false}",
        f"training.run_name={tmp_path}/run of {secret}",
    ]
    assert main([*SETTINGS, *corpus, *settings]) == 0
    folders = [corpus[0].partition("=")[2].removesuffix("/corpus"), str(tmp_path)]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"README.md", "results.json", "trainer_state.json"} <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        assert not [text for text in (*folders, secret) if text.encode() in content], path
    states = [json.loads(path.read_text()) for path in files if path.name == "trainer_state.json"]
    assert len(states) == 3 and {state["best_model_checkpoint"] for state in states} <= {"checkpoint-1", "checkpoint-2"}
    given = json.loads((tmp_path / "out" / "results.json").read_text())["settings"]["training"]
    assert "hub_token" not in given and given["output_dir"] == "."


def test_a_retraining_that_is_killed_leaves_no_results_of_the_old_model(
    corpus: list[str], tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = [f"training.output_dir={tmp_path}", "training.look_steps=0", "training.max_steps=1"]
    assert main([*SETTINGS, *corpus, *output]) == 0
    facts = json.loads((tmp_path / "results.json").read_text())
    assert facts["weights_sha256"] == weights_hash(tmp_path)
    assert f"weights_sha256: {facts['weights_sha256']}\n" in (tmp_path / "README.md").read_text()
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "prospect.yaml").write_text("of the old weights")

    def killed(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "evaluate_freely", killed)
    assert main([*SETTINGS, *corpus, *output, "training.seed=1"]) == 1
    assert weights_hash(tmp_path) != facts["weights_sha256"]
    for name in ("README.md", "results.json", "train_report.html", ".eval_results/prospect.yaml"):
        assert not (tmp_path / name).exists(), name


def test_results_name_the_machine(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = finished
    found = json.loads((folder / "results.json").read_text())["machine"]
    assert (found["torch"], found["transformers"]) == (torch.__version__, transformers.__version__)
    assert (found["threads"], found["processes"]) == (1, 1) and found["processor"] and found["python"]
    assert f"Machine: {found['processor'].split()[0]}" in (folder / "README.md").read_text()


def test_the_same_seed_and_threads_give_the_same_bits(corpus: list[str], tmp_path: Path, in_process: None) -> None:
    for name in ("a", "b"):
        assert main([*SETTINGS, *corpus, f"training.output_dir={tmp_path / name}"]) == 0
    assert weights_hash(tmp_path / "a") == weights_hash(tmp_path / "b")
