"""The example clip: its pictures are the simulated ones, browsers play it, and a trained model follows it the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser import open_browser
from omegaconf import OmegaConf

from prospect_hf.checkpoints import load_trained
from prospect_hf.errors import UsageError
from prospect_hf.settings import CONFIGS
from prospect_hf.simulator.clip import CLIP_SCENE, CLIP_SEED, ClipFacts, clip_episode, write_clip
from prospect_hf.simulator.flavours import FLAVOURS
from prospect_hf.simulator.render import render
from prospect_hf.simulator.scene import SceneConfig
from prospect_hf.streaming.frame_sources import open_source
from streaming_dst_smolvlm import DSTStream

pytest.importorskip("av", reason="PyAV is not installed (extra stream)")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipFacts:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


def test_sampling_the_clip_gives_each_simulated_frame_once(clip: ClipFacts) -> None:
    frames = [frame.frame for frame in open_source(str(clip.video), 2.0)]
    pictures = render(clip_episode())
    assert len(frames) == len(pictures)
    wanted = np.stack([np.asarray(picture, np.float32) for picture in pictures])
    shown = np.stack([np.asarray(frame.reduce(8), np.float32) for frame in frames])
    # Of 255 grey levels; neighbouring pictures differ by more, and the sensor noise alone by 3.
    assert np.abs(shown - wanted).mean() < 1.5 and np.abs(shown - wanted).mean((1, 2, 3)).max() < 2
    assert np.abs(wanted[1:] - wanted[:-1]).mean((1, 2, 3)).min() > 3


def test_the_facts_are_the_session_s(clip: ClipFacts) -> None:
    episode = clip_episode()
    assert clip.plan_file == clip.video.with_name("clip.plan.txt")
    assert clip.plan_file.read_text(encoding="utf-8").splitlines() == list(clip.plan) == list(episode.plan)
    assert clip.goal == "Making the Snack Plate"
    # What is heard on frame f is said by the end of its half second.
    assert [(second * 2 - 1, text) for second, text in clip.user_texts + clip.utterances] == [
        (turn.frame, turn.content) for role in ("user", "assistant") for turn in episode.turns if turn.role == role
    ]
    # An example in which something happens, and which ends with its task.
    assert episode.has_mistake and len(episode.spans()) > episode.num_steps and len(clip.user_texts) > 1
    assert set(episode.visible_states(len(episode.frames) - 1)) == {2} and len(episode.frames) < 120


def test_the_scenes_are_those_of_make_train() -> None:
    scene = OmegaConf.to_container(OmegaConf.load(CONFIGS / "data" / "simulated.yaml").scene)
    assert isinstance(scene, dict)
    ranges = {str(name): tuple(value) if isinstance(value, list) else value for name, value in scene.items()}
    assert SceneConfig(**ranges, p_truncated=0.0) == CLIP_SCENE


def test_another_seed_and_source_give_another_clip() -> None:
    plans = {clip_episode(source, seed).plan for source in FLAVOURS for seed in (CLIP_SEED, 1)}
    assert len(plans) == 12
    with pytest.raises(UsageError, match="simulator source 'gtea': unknown"):
        clip_episode("gtea")


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UsageError, match=r"Writing a clip needs PyAV.*pip install -e \"\.\[stream\]\""):
        write_clip(tmp_path / "clip.mp4")
    assert not list(tmp_path.iterdir())


def test_a_browser_plays_it(clip: ClipFacts) -> None:
    with open_browser() as new_page:
        page = new_page()
        page.goto(clip.video.as_uri())
        page.wait_for_function("document.querySelector('video').readyState >= 2", timeout=20_000)
        video = page.locator("video")
        assert video.evaluate("v => [v.videoWidth, v.videoHeight]") == [384, 384]
        assert video.evaluate("v => v.duration") == pytest.approx(len(clip_episode().frames) / 2)


@pytest.mark.slow
def test_a_trained_model_follows_the_clip_as_it_follows_the_session_s_own_frames(
    clip: ClipFacts, repository: Path
) -> None:
    folder = repository / "outputs" / "tiny"
    if not (folder / "config.json").is_file():
        pytest.skip("no model in outputs/tiny: run `make train`")
    model, processor = load_trained(folder)
    texts = {round(second * 2) - 1: text for second, text in clip.user_texts}
    own = render(clip_episode())
    sampled = [frame.frame for frame in open_source(str(clip.video), model.config.fps)]
    followed = []
    for pictures in (own, sampled):
        stream = DSTStream(model, processor, list(clip.plan), clip.goal)
        followed.append([stream.step(picture, texts.get(frame)) for frame, picture in enumerate(pictures)])
    assert len(followed[0]) == len(followed[1])
    same_states = np.mean([ours.states == theirs.states for ours, theirs in zip(*followed, strict=True)])
    same_texts = np.mean([ours.text == theirs.text for ours, theirs in zip(*followed, strict=True)])
    assert same_states > 0.97 and same_texts > 0.95
    right = [event.states == clip_episode().visible_states(frame) for frame, event in enumerate(followed[1])]
    assert np.mean(right) > 0.9
