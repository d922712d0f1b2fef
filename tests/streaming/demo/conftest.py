"""Fixtures of the demo's tests: a clip, and the folder of a small model."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from model_fixtures import picture, small_processor
from PIL import Image
from stream_fixtures import talkative_model
from video_fixtures import write_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of noise, on which the model speaks now and then; 6 seconds at 2 a second."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    pictures = [Image.fromarray(picture("clip", frame)) for frame in range(12)]
    return write_clip(path, range(12), Fraction(1, 2), rate=2, options={"crf": "0"}, pictures=pictures)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that speaks on about half of the frames, saved as training does."""
    path = tmp_path_factory.mktemp("model") / "talkative"
    talkative_model().save_pretrained(path)
    small_processor().save_pretrained(path)
    return path
