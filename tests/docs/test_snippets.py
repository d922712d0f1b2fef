"""Every example of the pages works: Python is executed as it stands, commands and links are checked to exist.

A page's Python blocks run in order, with names of their own, in a folder that has a tiny trained model in
``outputs/tiny``, a corpus in ``outputs/simulated`` and the clip of ``prospect simulate``. Pages share a process, since
importing torch and transformers takes seconds; the pages that need no package run in another one, which never loads it.
Shell blocks marked ``run`` are executed in the same folder.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_pages import Block, Page, read_page
from model_fixtures import SIZE, new_model, small_processor

from prospect_hf.cli import main
from prospect_hf.hub.model_card import write_card
from prospect_hf.jobs.command import given_settings, make_parser
from prospect_hf.jobs.commands import COMMANDS
from prospect_hf.settings import choices_of, compose
from prospect_hf.settings_schema import read_settings

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = sorted(
    str(path.relative_to(REPOSITORY))
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "prospect_hf/evaluation/modules/*/README.md")
    for path in REPOSITORY.glob(pattern)
    if path.name != "model_card.md"  # a template: it is checked as a card that it becomes
)
PAGES = {name: read_page(REPOSITORY / name, name) for name in NAMES}
GROUPS = {group: path for command in COMMANDS.values() for group, path in command.groups.items()}
SHELL = ("bash", "console", "sh", "shell")
MOST_README_LINES = 150

# Pages come as JSON: (name, folder to run in, [(line, code)]). Tracebacks name the page and the line in it.
RUNNER = """
import json, os, sys

for page, folder, blocks in json.load(sys.stdin):
    os.chdir(folder)
    namespace = {"__name__": "__main__"}
    for line, code in blocks:
        exec(compile("\\n" * (line - 1) + code, page, "exec"), namespace)
"""
# Reads a trained folder by its own code alone, as a model's card does.
WITHOUT_PACKAGE = "docs/model.md"


def blocks_of(languages: tuple[str, ...]) -> list[Block]:
    return [block for page in PAGES.values() for block in page.blocks if block.language in languages]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as it is after `make train` and `prospect simulate --clip clip.mp4`, made in seconds."""
    pytest.importorskip("av", reason="PyAV is not installed (extra stream)")
    from prospect_hf.simulator.clip import write_clip
    from prospect_hf.simulator.corpus import write_corpus
    from prospect_hf.simulator.scene import SceneConfig

    root = tmp_path_factory.mktemp("workplace")
    model = new_model()
    model.save_pretrained(root / "outputs/tiny")
    small_processor().save_pretrained(root / "outputs/tiny")
    scene = SceneConfig(image_size=SIZE, supersample=1, steps=(3, 5))
    write_corpus(root / "outputs/simulated", ["wtag"], {"train": 2, "val": 1, "test": 1}, 0, scene, progress=False)
    write_clip(root / "clip.mp4")
    (root / "prospect_hf").symlink_to(REPOSITORY / "prospect_hf")  # modules of evaluate are loaded by their path
    (root / "programs").mkdir()
    for name, arguments in (("prospect", "-m prospect_hf.cli"), ("python", "")):
        (root / "programs" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (root / "programs" / name).chmod(0o755)
    (root / "programs" / "runner.py").write_text(RUNNER)
    return root


def environment(workplace: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{workplace / 'programs'}{os.pathsep}{os.environ['PATH']}",
        "HF_HOME": str(workplace / "huggingface"),
        "OMP_NUM_THREADS": "1",
    }


def run_python(pages: list[tuple[Page, Path]], workplace: Path) -> None:
    """Run the Python blocks of each page in its folder, one page after the other in one process."""
    given = [
        (page.name, str(folder), [(block.line, block.code) for block in page.blocks if block.language == "python"])
        for page, folder in pages
    ]
    done = subprocess.run(
        [sys.executable, workplace / "programs/runner.py"],
        input=json.dumps(given),
        env=environment(workplace),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_python_runs_as_it_stands(workplace: Path) -> None:
    pages = [page for name, page in PAGES.items() if page.has_python and name != WITHOUT_PACKAGE]
    assert {"README.md", "docs/streaming.md", "docs/data.md", "docs/evaluation.md"} <= {page.name for page in pages}
    run_python([(page, workplace) for page in pages], workplace)


def test_python_that_needs_no_package_and_a_models_card_run_as_they_stand(workplace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(workplace / "outputs/tiny", folder)
    for name in ("clip.mp4", "clip.plan.txt"):
        shutil.copy(workplace / name, folder)
    facts = {
        "settings": {
            "model": {"name_or_path": None, "image_size": SIZE, "hidden_size": 32},
            "data": {"frames": "store", "name": "simulated", "sources": ["wtag"]},
        },
        "results": {"steps": 1, "train_seconds": 1.0},
        "balance": {},
    }
    card = read_page(write_card(folder, facts), "model_card.md")
    assert sum(block.language == "python" for block in card.blocks) == 3
    check_inline_code(card)
    run_python([(card, folder), (PAGES[WITHOUT_PACKAGE], workplace)], workplace)


@pytest.mark.parametrize(
    "block", [b for b in blocks_of(SHELL) if b.mark == "run"], ids=lambda block: f"{block.page}:{block.line}"
)
def test_marked_commands_run(block: Block, workplace: Path) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        cwd=workplace,
        env=environment(workplace),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("block", blocks_of(SHELL), ids=lambda block: f"{block.page}:{block.line}")
def test_commands_exist_and_their_settings_are_known(block: Block, repository: Path) -> None:
    assert block.mark in ("", "run")
    for line in block.commands():
        if words := shlex.split(line, comments=True):
            check_command(words, repository)


def check_command(words: list[str], repository: Path) -> None:
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):  # VENV=FOLDER make venv
        words = words[1:]
    program, *arguments = words
    if program == "prospect":
        check_prospect(arguments)
    elif program.endswith("python") and arguments[0] == "-m":
        assert arguments[1] == "pytest"
        for argument in arguments[2:]:
            assert not argument.startswith("tests/") or (repository / argument).exists(), argument
    elif program.endswith("python"):
        script = Path(arguments[0])
        assert (repository / script).is_file(), script
        if script.parent == Path("scripts"):
            (command,) = re.findall(r'main\(\["([a-z]+)"', (repository / script).read_text(encoding="utf-8"))
            check_prospect([command, *arguments[1:]])
    elif program in ("torchrun", "accelerate"):
        if "--config_file" in arguments:
            assert (repository / arguments[arguments.index("--config_file") + 1]).is_file(), arguments
        (at,) = [at for at, argument in enumerate(arguments) if argument.endswith(".py")]
        check_command(["python", *arguments[at:]], repository)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (repository / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets), arguments
    elif program == "pip":
        check_extras(arguments[-1], repository)
    elif program == "bash":
        assert (repository / arguments[0]).is_file(), arguments
    else:
        assert words in (["source", ".venv/bin/activate"], ["eval", "$(register-python-argcomplete prospect)"]), words


def check_prospect(arguments: list[str]) -> None:
    """Refuses an unknown command, setting, file of settings, or a value of another type than its key's."""
    if arguments == ["--help"] or arguments[1:] == ["--help"]:
        assert main(arguments) == 0
        return
    if arguments[:2] in (["evaluate", "compare"], ["evaluate", "report"]):
        arguments = arguments[1:]
    command = COMMANDS[arguments[0]]
    parsed = make_parser(command, "prospect").parse_args(arguments[1:])
    if command.settings is not None:
        compose(command.settings, command.groups, given_settings(command, parsed))


def check_extras(requirement: str, repository: Path) -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 brings tomllib")
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = re.search(r"\[([\w,-]+)\]$", requirement)
    assert wanted is None or set(wanted[1].split(",")) <= set(extras), requirement


@pytest.mark.parametrize("name", NAMES)
def test_settings_files_and_commands_in_the_text_exist(name: str) -> None:
    if name != "CHANGELOG.md":  # it names what has gone
        check_inline_code(PAGES[name])


def check_inline_code(page: Page) -> None:
    for code in page.inline_code():
        if re.match(r"(prospect|make|pip install|python scripts/\S+) ", code):
            words = shlex.split(code)
            assert words[0] != "prospect" or words[1] in (*COMMANDS, "COMMAND", "--help"), code
            if words[0] in ("make", "pip"):
                check_command(words, REPOSITORY)
        for word in code.split():
            check_setting(word, code)
        if re.fullmatch(r"(prospect_hf|scripts|tests|benchmarks|docs|tools|\.ci)/[\w./*-]*", code):
            found = list(REPOSITORY.glob(code.rstrip("/"))) or list(REPOSITORY.glob(f"{code}.py"))
            assert found, f"no file {code}"


def check_setting(word: str, code: str) -> None:
    """A word such as ``data.root=FOLDER``, ``context.max_tokens`` or ``model=smolvlm2_500m``."""
    setting = re.fullmatch(r"([a-z]+)\.([a-z_]+)(\..+)?(=.*)?", word)
    if setting and setting[1] in GROUPS and f"{setting[1]}.py" not in word:
        assert setting[2] in read_settings(GROUPS[setting[1]]), f"{word} in `{code}` is no setting"
    choice = re.fullmatch(r"([a-z]+)=([a-z_0-9]+)", word)
    if choice and choice[1] in GROUPS:
        assert choice[2] in choices_of(choice[1]), f"{word} in `{code}` is no file of settings"


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    for target in PAGES[name].links():
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        path = ((REPOSITORY / name).parent / file).resolve() if file else REPOSITORY / name
        assert path.exists(), f"{name} links to {target}: no such file"
        if anchor:
            page = PAGES[str(path.relative_to(REPOSITORY))]
            assert anchor in page.anchors(), f"{name} links to {target}: no such heading"


def test_every_page_is_in_the_index() -> None:
    linked = set(PAGES["docs/README.md"].links())
    assert {Path(name).name for name in NAMES if name.startswith("docs/")} - {"README.md"} <= linked


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= MOST_README_LINES


def test_the_picture_of_the_readme_is_small() -> None:
    assert (REPOSITORY / "docs/stream.gif").stat().st_size < 1_000_000
