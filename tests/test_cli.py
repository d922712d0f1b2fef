"""The console command: the table of commands, help, and that scripts are the same commands."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from prospect_hf import __version__
from prospect_hf.cli import main
from prospect_hf.jobs.commands import COMMANDS
from prospect_hf.settings_schema import read_settings

# Script -> the command that it is.
SCRIPTS = {
    **{name: name for name in ("train", "evaluate", "stream", "demo", "merge", "simulate")},
    "encode_frames": "encode",
    "sample_frames": "sample",
    "build_dataset": "dataset",
    "inspect_dataset": "inspect",
    "join_frames": "join",
    "export_lerobot": "export",
    "compare_dst": "compare-dst",
    "plan_memory": "plan-memory",
}


def test_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {name}" in told for name in COMMANDS)


@pytest.mark.parametrize("arguments", [["--version"], ["train", "--version"], ["demo", "--version"]])
def test_the_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"prospect-hf {__version__}\n"


def test_no_such_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "'trian' is no command: known are train, plan-memory, evaluate" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.settings])
def test_help_lists_every_key_with_type_default_and_meaning(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    told = capsys.readouterr().out
    assert COMMANDS[name].summary in told
    for group, path in COMMANDS[name].groups.items():
        for key, setting in read_settings(path).items():
            assert f"  {group}.{key} ({setting.type}, default " in told


def test_help_shows_the_defaults_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    assert "training.max_steps (int, default 1000)" in capsys.readouterr().out


def test_help_imports_nothing_heavy(repository: Path) -> None:
    script = (
        "import sys; from prospect_hf.cli import main; main(['train', '--help']);"
        "print('heavy:', sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_names_exists(name: str) -> None:
    if name == "demo":
        pytest.importorskip("gradio", reason="the demo needs the extra demo")
    module, function = COMMANDS[name].run.split(":")
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_shows_the_examples_of_its_command(name: str, repository: Path) -> None:
    shown = " ".join((repository / "scripts" / f"{name}.py").read_text(encoding="utf-8").replace("\\\\\n", "").split())
    for _, arguments in COMMANDS[SCRIPTS[name]].examples:
        assert f"python scripts/{name}.py {' '.join(arguments.split())}".strip() in shown


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_its_command(name: str, repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, repository / "scripts" / f"{name}.py", "--help"], capture_output=True, text=True, check=True
    )
    assert (
        f"usage: python scripts/{name}.py" in done.stdout
        and COMMANDS[SCRIPTS[name]].summary.split(":")[0] in done.stdout
    )


def test_completion_knows_groups_keys_and_commands(tmp_path: Path) -> None:
    def completions(line: str) -> list[str]:
        answer = tmp_path / "answer"
        environment = {
            **os.environ,
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_IFS": "\n",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
            "_ARGCOMPLETE_SUPPRESS_SPACE": "0",
        }
        subprocess.run([sys.executable, "-m", "prospect_hf.cli"], env=environment, check=True)
        return [entry.strip() for entry in answer.read_text().split("\n")]

    assert "train" in completions("prospect tr")
    assert "model=smolvlm2_500m" in completions("prospect train model=smol")
    assert "training.learning_rate=" in completions("prospect train training.learn")
