"""The simulate job: a clip with the command that follows it, or a corpus; bad settings are one sentence."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from prospect_hf.errors import UsageError
from prospect_hf.jobs import simulate
from prospect_hf.jobs.model_commands import STREAM
from prospect_hf.settings import CONFIGS, compose, parse
from prospect_hf.simulator.arguments import SimulateArguments
from prospect_hf.simulator.clip import ClipFacts
from prospect_hf.simulator.corpus import corpus_is_current
from prospect_hf.streaming.arguments import StreamArguments
from prospect_hf.streaming.followed_task import FollowedTask, video_task
from prospect_hf.timeline import frame_at


def followed(command: str) -> FollowedTask:
    """What the printed command follows."""
    words = shlex.split(command)
    assert words[:3] == ["prospect", "stream", "stream.model=outputs/tiny"]
    return video_task(parse(StreamArguments, compose("stream", STREAM.groups, words[2:])["stream"], "stream"), 2.0)


@pytest.mark.parametrize("source", ["wtag", "epickitchens"])
def test_the_printed_command_follows_the_clip(source: str, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("av", reason="PyAV is not installed (extra stream)")
    path = tmp_path / 'an odd, "named" folder\'s $clip=1' / "clip.mp4"
    simulate.run(simulate=SimulateArguments(clip=str(path), source=source, seed=3))
    told = capsys.readouterr().out
    plan_file = path.with_name("clip.plan.txt")
    assert str(path) in told and str(plan_file) in told
    task = followed(told.strip().splitlines()[-1])
    assert task.source == str(path) and task.plan == plan_file.read_text(encoding="utf-8").splitlines()
    assert task.goal == {"wtag": "Making the Snack Plate", "epickitchens": "Packing the Kitchen Rack"}[source]
    assert task.texts[0][1].endswith("Can you guide me?")
    assert len(list(task.frames(0.0))) > 20


def test_words_of_any_kind_survive_the_command() -> None:
    said = ((1.5, "It's \"loose\", isn't it?"), (13.0, "[a, b] {c: d} $x ${y} \\ # = :"))
    facts = ClipFacts(Path("clip.mp4"), Path("clip.plan.txt"), "Fix: it, [now] = 1", ("one",), said, ())
    words = shlex.split(simulate.follow_command(facts))
    args = parse(StreamArguments, compose("stream", STREAM.groups, words[2:])["stream"], "stream")
    assert (args.goal, tuple(args.said())) == (facts.goal, said)
    assert args.source == "clip.mp4" and args.plan_file == "clip.plan.txt"
    assert [frame_at(second, 2.0) - 1 for second, _ in args.said()] == [2, 25]


def test_a_corpus_that_training_reuses(tmp_path: Path, capsys: Any) -> None:
    simulate.run(simulate=SimulateArguments(root=str(tmp_path / "corpus"), source="wtag", recordings={"test": 1}))
    told = capsys.readouterr().out
    assert "Wrote 1 recordings of wtag" in told
    assert "Frames whose picture alone tells the state of every step: 100.0 % (test)." in told
    assert corpus_is_current(tmp_path / "corpus", ["wtag"], {"test": 1}, 0, simulate.SCENE)


def test_the_defaults_are_those_of_make_train() -> None:
    data = OmegaConf.load(CONFIGS / "data" / "simulated.yaml")
    assert data.recordings == simulate.RECORDINGS
    assert {name: tuple(v) if OmegaConf.is_list(v) else v for name, v in data.scene.items()} == {
        "steps": simulate.SCENE.steps,
        "p_shared_colour": simulate.SCENE.p_shared_colour,
    }


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("simulate.clip=FILE.mp4 for a clip or simulate.root", {}),
        ("not both", {"clip": "a.mp4", "root": "corpus"}),
        ("end its name with .mp4", {"clip": "a.gif"}),
        ("recordings belongs to a corpus", {"clip": "a.mp4", "recordings": {"test": 1}}),
        ("source must be one of assembly101, .* not 'gtea'", {"clip": "a.mp4", "source": "gtea"}),
        ("recordings.test=0", {"root": "corpus", "recordings": {"test": 0}}),
        ("recordings.dev=1", {"root": "corpus", "recordings": {"dev": 1}}),
    ],
)
def test_bad_settings_are_one_sentence(message: str, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=message):
        SimulateArguments(**settings)
