"""The pipeline: a video and a plan in, events out. That it comes with the folder is tested in test_remote_code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from model_fixtures import picture, small_processor
from PIL import Image
from stream_fixtures import FIVE, PLAN, assert_same_events, talkative_model

from pipeline_dst_smolvlm import DSTStreamPipeline
from streaming_dst_smolvlm import DSTStream, StreamError, StreamEvent
from tracking_dst_smolvlm import Tracking

FRAMES = [Image.fromarray(picture("clip", frame)) for frame in range(9)]


def pipe() -> DSTStreamPipeline:
    made = talkative_model().stream_pipeline(small_processor())
    assert isinstance(made, DSTStreamPipeline)
    return made


def expected(frames: list[Image.Image], plan: list[str], goal: str, said: dict[int, str]) -> list[StreamEvent]:
    stream = DSTStream(talkative_model(), small_processor(), plan, goal, decoding=FIVE)
    return [stream.step(frame, said.get(number)) for number, frame in enumerate(frames)]


def test_pictures_and_a_plan_give_events() -> None:
    said = {3: "where does the wheel"}
    events = pipe()(FRAMES, PLAN, "the red wheel", user_texts=said, decoding=FIVE)
    assert_same_events(events, expected(FRAMES, PLAN, "the red wheel", said))
    arrays = pipe()([np.asarray(frame) for frame in FRAMES], plan=PLAN, goal="the red wheel", decoding=FIVE)
    assert_same_events(arrays, expected(FRAMES, PLAN, "the red wheel", {}))


def test_a_plan_that_changes_on_the_way() -> None:
    events = pipe()(FRAMES, PLAN, "the red wheel", plan_changes={0: PLAN[1:], 4: ["now please", "two"]}, decoding=FIVE)
    stream = DSTStream(talkative_model(), small_processor(), PLAN[1:], "the red wheel", decoding=FIVE)
    ours = [stream.step(frame) for frame in FRAMES[:4]]
    stream.change_plan(["now please", "two"])
    assert_same_events(events, ours + [stream.step(frame) for frame in FRAMES[4:]])
    assert [event.plan_change is not None for event in events] == [n in (0, 4) for n in range(9)]
    with pytest.raises(StreamError, match="plan is empty"):
        pipe()(FRAMES, PLAN, plan_changes={1: []})


def test_several_videos_each_with_its_plan() -> None:
    videos = [{"video": FRAMES, "plan": PLAN, "goal": "two"}, {"video": FRAMES[:4], "plan": PLAN[:1]}]
    first, second = pipe()(videos, decoding=FIVE)
    assert_same_events(first, expected(FRAMES, PLAN, "two", {}))
    assert_same_events(second, expected(FRAMES[:4], PLAN[:1], "", {}))


def test_a_video_file_is_sampled_at_the_models_rate(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed (extra stream)")
    path = tmp_path / "clip.gif"
    FRAMES[0].save(path, save_all=True, append_images=FRAMES[1:], duration=250)  # 4 a second, 2.25 s
    events = pipe()(str(path), PLAN, decoding=FIVE)
    assert [event.time for event in events] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert len(pipe()(path, PLAN, context="drop_all", tracking=Tracking(policy="monotone"))) == 5


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="Give the plan"):
        pipe()(FRAMES)
    with pytest.raises(ValueError, match="no video"):
        pipe()([{"plan": PLAN}])
    with pytest.raises(TypeError, match="threshold"):
        pipe()(FRAMES, PLAN, threshold=0.5)
    with pytest.raises(StreamError, match="plan is empty"):
        pipe()(FRAMES, [])
    with pytest.raises(ValueError, match="no such video file"):
        pipe()("/no/where.mp4", PLAN)
