"""Words on the command line, plan files and files of user texts that nobody meant."""

from __future__ import annotations

import copy
import json
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing import Target, assert_no_fault, survey
from mutations import ODD_NUMBERS, ODD_TEXTS, mutate_bytes, mutate_json

from prospect_hf.jobs.command import _load
from prospect_hf.jobs.data_commands import SIMULATE
from prospect_hf.jobs.model_commands import EVALUATE, STREAM, TRAIN
from prospect_hf.settings import choices_of, compose, parse
from prospect_hf.settings_schema import read_settings
from prospect_hf.simulator.clip import clip_episode
from prospect_hf.simulator.scene import SceneConfig
from prospect_hf.streaming.arguments import StreamArguments
from prospect_hf.streaming.followed_task import video_task
from prospect_hf.streaming.plan_changes import due, plan_after, read_plan_changes

PIECES = ("=", ".", "[", "]", "{", "}", ",", ":", "'", '"', " ", "~", "+", "${x}", "${oc.env:HOME}", "!!python/x", "&a",
          "*a", "<<", "|", "\\", "#", "@", "\t", "null", "1e3", "0x1f", "1_000", "2026-11-27", "1:30")  # fmt: skip
VALUES = (
    "[1,2]",
    "[a,b",
    "{a:1}",
    "{train:1,val:0,test:-1}",
    "[[1],[2]]",
    "'x'",
    '"x',
    "[3,5]",
    "[5,3]",
    "true",
    "none",
)


def settings() -> Target:
    commands = (STREAM, EVALUATE, SIMULATE, TRAIN)
    keys = {command.name: [(group, key) for group, path in command.groups.items() for key in read_settings(path)]
            for command in commands}  # fmt: skip
    for command in commands:
        for path in command.groups.values():
            _load(path)

    def target(rng: random.Random, folder: Path) -> None:
        command = rng.choice(commands)
        overrides = []
        for _ in range(rng.choice([1, 2, 3])):
            group, key = rng.choice(keys[command.name])
            value = rng.choice([str(rng.choice(ODD_NUMBERS)), rng.choice(ODD_TEXTS[:-4]), rng.choice(VALUES)])
            if rng.random() < 0.3:
                parts = [value, *rng.sample(PIECES, rng.choice([1, 2, 3]))]
                rng.shuffle(parts)
                value = "".join(parts)
            word = f"{group}.{key}={value}"
            if rng.random() < 0.15:
                word = f"{group}.{key}.{rng.choice(['x', 'train', '', '0', 'steps'])}={value}"
            if rng.random() < 0.1:
                word = f"{group}={rng.choice([*choices_of(group), value])}"
            if rng.random() < 0.1:
                word = mutate_bytes(word.encode("utf-8", "replace"), rng).decode("utf-8", "surrogateescape")
            overrides.append(word.replace("/nowhere", str(folder)))
        composed = compose(str(command.settings), command.groups, overrides)
        for name, path in command.groups.items():
            parse(_load(path), composed[name], name)

    return target


def plans_on_disk() -> Target:
    def target(rng: random.Random, folder: Path) -> None:
        path = folder / "plan.txt"
        path.write_bytes(mutate_bytes("Fill the kettle.\nBoil the water.\nBrüh.\n".encode(), rng, 4))
        if rng.random() < 0.1:
            path.unlink()
            path.mkdir()
        said = f"{rng.choice(ODD_NUMBERS)} {rng.choice(ODD_TEXTS)}" if rng.random() < 0.6 else rng.choice(ODD_TEXTS)
        numbers = [value for value in ODD_NUMBERS if isinstance(value, float)]
        args = StreamArguments(
            source="x.mp4", plan_file=str(path), user_texts=[said, "3 What now?"], start_s=rng.choice([0.0, *numbers]),
            end_s=rng.choice([None, *numbers]), speaking_threshold=rng.choice([None, *numbers]),
        )  # fmt: skip
        video_task(args, 2.0).said_until(7)

    return target


def changes_on_disk() -> Target:
    base = [{"time": 2.0, "plan": ["Fill the kettle.", "Brüh."], "goal": "Tea"}, {"time": 30, "plan": ["Pour."]}]

    def target(rng: random.Random, folder: Path) -> None:
        path = folder / "changes.json"
        text = json.dumps(mutate_json(copy.deepcopy(base), rng), ensure_ascii=rng.random() < 0.5)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        if rng.random() < 0.3:
            path.write_bytes(mutate_bytes(path.read_bytes(), rng, 4))
        changes = deque(read_plan_changes(path))
        plan_after(due(changes, 7, 2.0), ["a"], "b")

    return target


def scenes() -> Target:
    def target(rng: random.Random, folder: Path) -> None:
        values: dict[str, object] = {}
        for name, default in rng.sample(sorted(vars(SceneConfig()).items()), 2):
            number = rng.choice([0, -1, 1, 2, 9, 0.5, 1.5, float("nan")])
            values[name] = (number, rng.choice([0, 1, 5, 9])) if isinstance(default, tuple) else number
        SceneConfig(**values)  # type: ignore[arg-type]
        clip_episode(rng.choice(["wtag", "ego4d", "", "x"]), rng.choice([0, 7, -1, 10**30]))

    return target


TARGETS: dict[str, tuple[Callable[[], Target], int]] = {
    "settings": (settings, 50),
    "plan files": (plans_on_disk, 60),
    "files of plan changes": (changes_on_disk, 60),
    "scenes": (scenes, 40),
}


@pytest.mark.parametrize("name", TARGETS)
def test_odd_settings(name: str, tmp_path: Path) -> None:
    make, inputs = TARGETS[name]
    assert_no_fault(survey(name, make(), inputs, tmp_path))
