"""Writes one simulated session as a video with its plan: an example that the model of ``make train`` follows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from prospect_hf.extras import missing
from prospect_hf.files import replacing, write_text
from prospect_hf.simulator.render import render
from prospect_hf.simulator.scene import FPS, Episode, SceneConfig, seconds
from prospect_hf.simulator.script import simulate

# The scenes of configs/data/simulated.yaml, never cut short: an example ends with its task.
CLIP_SCENE = SceneConfig(steps=(3, 5), p_shared_colour=0.0, p_truncated=0.0)
# Four steps in 48 seconds; a wrong part is picked, a step comes loose and is done again, the user asks a question.
CLIP_SEED = 22
# A split that no corpus has: no model was trained on the clip. Recording 1 has a user who talks some.
CLIP_SPLIT, CLIP_INDEX = "clip", 1
# 48 pixels become 384. Each pixel becomes whole blocks of the codec's half-size colour planes, so colours do not
# bleed, and the sides are multiples of the codec's 16-pixel blocks, which keeps the file small.
ENLARGED = 8
CRF = 16


@dataclass(frozen=True)
class ClipFacts:
    """What a clip shows.

    Args:
        video, plan_file: what was written; the plan has one step a line.
        goal, plan: as the sessions of the corpus have them.
        user_texts: (seconds, what the user says), as ``stream.user_texts`` takes them.
        utterances: (seconds, what the assistant should say).
    """

    video: Path
    plan_file: Path
    goal: str
    plan: tuple[str, ...]
    user_texts: tuple[tuple[float, str], ...]
    utterances: tuple[tuple[float, str], ...]


def clip_episode(source: str = "wtag", seed: int = CLIP_SEED) -> Episode:
    """The session that ``write_clip`` shows. Raises ``UsageError`` for an unknown source."""
    return simulate(source, seed, CLIP_SPLIT, CLIP_INDEX, CLIP_SCENE)


def write_clip(path: Path, source: str = "wtag", seed: int = CLIP_SEED) -> ClipFacts:
    """Write an MP4 of one simulated session to ``path``, and its plan beside it (``clip.mp4``: ``clip.plan.txt``).

    The video has one picture a frame at 2 frames a second, so sampling it at 2 fps gives each frame once.

    Raises:
        UsageError: PyAV is missing, or there is no such source.
    """
    episode = clip_episode(source, seed)
    plan_file = path.with_suffix(".plan.txt")
    _write_video(path, render(episode))
    write_text(plan_file, "".join(f"{step}\n" for step in episode.plan))
    said = {
        role: tuple((seconds(turn.frame), turn.content) for turn in episode.turns if turn.role == role)
        for role in ("user", "assistant")
    }
    return ClipFacts(path, plan_file, episode.flavour.title, episode.plan, said["user"], said["assistant"])


def _write_video(path: Path, pictures: list[Image.Image]) -> None:
    try:
        import av
    except ModuleNotFoundError:
        raise missing("Writing a clip", "PyAV", "stream") from None
    options = {"movflags": "faststart"}
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4", options=options) as container:
        # A key frame every ten frames: a viewer jumps about in it. yuv420p: browsers play no other H.264.
        stream = container.add_stream("libx264", rate=FPS, options={"crf": str(CRF), "g": "10"})
        stream.width, stream.height = (ENLARGED * side for side in pictures[0].size)
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            enlarged = picture.resize((stream.width, stream.height), Image.Resampling.NEAREST)
            container.mux(stream.encode(av.VideoFrame.from_image(enlarged)))
        container.mux(stream.encode(None))
