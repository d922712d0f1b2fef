"""Settings: the keys as the source declares them, and values as a person types them."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.errors import UsageError
from prospect_hf.jobs.commands import COMMANDS
from prospect_hf.settings import compose, parse
from prospect_hf.settings_schema import described_arguments, read_settings

PATHS = sorted({path for command in COMMANDS.values() for path in command.groups.values()})
STREAM = COMMANDS["stream"]


def load(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("path", PATHS)
def test_the_source_declares_what_the_dataclass_has(path: str) -> None:
    schema, cls = read_settings(path), load(path)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    assert schema.keys() == fields.keys()
    hints = get_type_hints(cls)
    for name, setting in schema.items():
        if setting.hint in (int, float, bool, str):
            assert hints[name] is setting.hint
        if fields[name].default is not dataclasses.MISSING and setting.default in ("None", "True", "False"):
            assert repr(fields[name].default) == setting.default
        if not setting.inherited:
            assert setting.help, f"{path}: {name} has no description"


def test_a_default_shows_the_constant_and_not_its_name() -> None:
    schema = read_settings("prospect_hf.data.arguments:DataArguments")
    assert schema["sources"].default == "['assembly101', 'ego4d', 'egoexolearn', 'epickitchens', 'holoassist', 'wtag']"
    for command in COMMANDS.values():
        for path in command.groups.values():
            for name, setting in read_settings(path).items():
                named = re.fullmatch("[A-Z_]{2,}", setting.default or "")
                assert setting.inherited or not named, f"{path}: the default of {name} shows as {setting.default}"


def test_an_entry_of_a_docstring_may_describe_several_names() -> None:
    told = described_arguments(
        "What.\n\nArgs:\n    a, b: the first\n        and second.\n    c: third.\n\nRaises:\n    x: no."
    )
    assert told == {"a": "the first and second.", "b": "the first and second.", "c": "third."}


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda text: text[0] not in "'\"~")


@given(words)
def test_a_text_setting_is_taken_as_it_stands(goal: str) -> None:
    expected = None if goal in ("null",) else goal
    composed = compose("stream", STREAM.groups, [f"stream.goal={goal}"])
    assert composed["stream"]["goal"] == (goal if expected is None else expected)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("clip (1), final=yes.mp4", "clip (1), final=yes.mp4"),
        ("l'été à l'œil.mp4", "l'été à l'œil.mp4"),
        ("'quoted: text'", "quoted: text"),
        ("null", None),
        ("3", "3"),
        ("${oc.env:HOME}", "${oc.env:HOME}"),
    ],
)
def test_file_names_are_no_grammar(text: str, value: str | None) -> None:
    assert compose("stream", STREAM.groups, [f"stream.source={text}"])["stream"]["source"] == value


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("training.learning_rate=1e-5", 1e-5),
        ("training.max_steps=20", 20),
        ("training.bf16=false", False),
        ("training.eval_strategy=no", "no"),
        ("training.save_strategy=steps", "steps"),
        ("training.resume_from_checkpoint=true", True),
        ("training.muon_learning_rate=null", None),
        ("data.sources=[wtag,ego4d]", ["wtag", "ego4d"]),
        ("data.recordings={train:1,val:2}", {"train": 1, "val": 2}),
        ("data.recordings={train: 1, val: 2}", {"train": 1, "val": 2}),
        ("data.scene={steps:[2,2],p_truncated:0.5}", {"steps": [2, 2], "p_truncated": 0.5}),
        ("+training.seed=3", 3),
    ],
)
def test_other_values_are_yaml(setting: str, value: Any) -> None:
    group, _, key = setting.lstrip("+").partition("=")[0].partition(".")
    assert compose("train", COMMANDS["train"].groups, [setting])[group][key] == value


def test_a_part_of_a_mapping_is_set_and_the_rest_stays() -> None:
    data = compose("train", COMMANDS["train"].groups, ["data.recordings.train=2", "data.scene.steps=[2,2]"])["data"]
    assert data["recordings"] == {"train": 2, "val": 6, "test": 8}
    assert data["scene"] == {"steps": [2, 2], "p_shared_colour": 0.0}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.max_stepz=3", "training.max_stepz is no setting; did you mean training.max_steps?"),
        ("max_steps=3", "did you mean training.max_steps?"),
        ("training.max_steps=abc", "training.max_steps must be int, not 'abc'."),
        ("training.max_steps", "gives no value: write training.max_steps=VALUE."),
        (
            "model=smolvlm3",
            "model=smolvlm3 is no choice: known are smolvlm2_256m, smolvlm2_256m_text, smolvlm2_2b, smolvlm2_500m, "
            "tiny",
        ),
        ("data.sources=[wtag", "data.sources=[wtag is not a value that YAML can read"),
        ("data.recordings={train", "data.recordings={train is not a value that YAML can read"),
        ("data.sources=wtag", "data.sources must be list[str], not 'wtag'."),
        ("outputs/tiny", "'outputs/tiny' is no setting"),
        ("data.recordings.train=many", "data.recordings must be dict[str, int]"),
    ],
)
def test_what_is_wrong_is_one_sentence(setting: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        compose("train", COMMANDS["train"].groups, [setting])
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.settings])
def test_the_defaults_of_every_command_parse(name: str) -> None:
    command = COMMANDS[name]
    needed = {
        "stream": ["stream.source=clip.mp4", "stream.plan=[step]"],
        "simulate": ["simulate.clip=clip.mp4"],
        "sample": ["sample.videos=videos", "sample.root=corpus", "sample.source=wtag"],
        "inspect": ["inspect.dataset=outputs/dst_frames"],
        "join": ["join.dataset=outputs/dst_frames", "join.frames=corpus", "join.output_dir=outputs/joined"],
        "export": ["export.dataset=outputs/dst_frames", "export.output_dir=outputs/lerobot"],
        "compare-dst": ["compare_dst.a=labels", "compare_dst.b=others"],
    }
    extra = needed.get(name, [])
    composed = compose(str(command.settings), command.groups, extra)
    for group, path in command.groups.items():
        if group not in command.raw:
            parse(load(path), composed[group], group)


def test_a_misspelt_key_is_refused_before_torch_is_imported(repository: Path) -> None:
    script = (
        "import sys; from prospect_hf.cli import main; code = main(['train', 'training.max_stepz=3']);"
        "print(code, sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n" and time.perf_counter() - began < 20


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "evaluate.draws=5"],
        ["evaluate", "context.keep_tokens=0"],
        ["evaluate", "tracking.hysteresis=7"],
        ["stream", "stream.source=clip.mp4", "stream.plan=[a]", "stream.speaking_threshold=7"],
        ["stream", "stream.source=clip.mp4", "stream.plan=[a]", "stream.start_s=-5"],
        ["stream", "stream.source=clip.mp4"],
        ["simulate", "simulate.source=mars", "simulate.clip=clip.mp4"],
        ["train", "model.hidden_size=-1"],
        ["train", "data.text_dropout=2"],
    ],
)
def test_a_value_out_of_range_is_refused_before_a_model_is_loaded(arguments: list[str], repository: Path) -> None:
    """Only model and training, whose settings are those of transformers, need a heavy import."""
    script = (
        f"import sys; from prospect_hf.cli import main; code = main({arguments!r});"
        "print(code, sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    heavy = "['torch', 'transformers']" if "model" in arguments[1] else "[]"
    assert done.stdout == f"2 {heavy}\n"
