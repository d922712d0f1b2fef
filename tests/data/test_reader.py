"""The pictures of a session's frames: the right frame of the right file, or one of the two kinds that are drawn."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from frame_fixtures import FORMS
from model_fixtures import SIZE, make_session, small_processor
from PIL import Image
from video_fixtures import number_of

from prospect_hf.data.clip_index import clips_of
from prospect_hf.data.clips import ClipDataset, ClipInputs
from prospect_hf.data.reader import FrameReader
from prospect_hf.errors import DataError
from prospect_hf.frames.store import write_frames


def jpeg(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), (level, level, level)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture()
def corpus(tmp_path: Path) -> Path:
    """A frame file of 20 pictures, each as bright as its index tells."""
    folder = tmp_path / "processed_data" / "wtag" / "frames"
    folder.mkdir(parents=True)
    write_frames(folder / "v0.arrow", [jpeg(10 * index) for index in range(20)])
    return tmp_path


def test_frames_are_read_by_their_absolute_index(corpus: Path) -> None:
    reader = FrameReader(corpus, "store", small_processor())
    session = make_session(0, frames=8, first_frame=6)
    pictures = reader.read(session, 2, 5)
    assert [round(float(p.mean()) / 10) for p in pictures] == [8, 9, 10]
    assert all(p.shape == (SIZE, SIZE, 3) and p.dtype == np.uint8 for p in pictures)
    clips = ClipDataset(clips_of([session], small_processor(), 125), ClipInputs(small_processor(), reader))
    assert len(clips) > 1
    pixels = torch.cat([clips[index]["pixel_values"] for index in range(len(clips))])
    assert [round(float((p.mean() + 1) / 2 * 25.5)) for p in pixels] == list(range(6, 14))


@pytest.mark.parametrize("kept", [0, 3, 20])
def test_pictures_are_the_same_read_again(corpus: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Whether all, some or none of the decoded pictures are kept."""
    monkeypatch.setattr("prospect_hf.data.reader.KEPT_BYTES", kept * SIZE * SIZE * 3)
    reader, session = FrameReader(corpus, "store", small_processor()), make_session(0, frames=8, first_frame=6)
    first = [picture.tobytes() for picture in reader.read(session, 0, 8)]
    assert [picture.tobytes() for picture in reader.read(session, 0, 8)] == first
    assert [picture.tobytes() for picture in reader.read(session, 3, 5)] == first[3:5]
    assert len(set(first)) == 8


def test_a_frame_that_the_file_does_not_have_is_an_error(corpus: Path) -> None:
    session = make_session(0, frames=8, first_frame=15)
    with pytest.raises(DataError, match=r"v0\.arrow: no frame 20"):
        FrameReader(corpus, "store", small_processor()).read(session, 0, 8)
    with pytest.raises(DataError, match=r"v1\.arrow: no such frame file"):
        FrameReader(corpus, "store", small_processor()).read(make_session(1), 0, 1)


def test_drawn_and_blank_pictures() -> None:
    session = make_session(0, frames=10, first_frame=30, event_rate=1.0)
    drawn = FrameReader(Path("."), "rendered", small_processor())
    pictures = drawn.read(session, 0, 10)
    assert all(p.shape == (SIZE, SIZE, 3) and p.dtype == np.uint8 for p in pictures)
    assert all(np.array_equal(a, b) for a, b in zip(drawn.read(session, 4, 7), pictures[4:7], strict=True))
    blank = FrameReader(Path("."), "blank", small_processor()).read(session, 0, 10)
    assert len(blank) == 10 and len({p.tobytes() for p in blank}) == 1
    with pytest.raises(DataError, match=r"data\.frames must be one of"):
        FrameReader(Path("."), "invented", small_processor())


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_frames_are_read_from_whichever_form_stands_there(
    tmp_path: Path, make: Callable[[Path, str, int], Path]
) -> None:
    path = make(tmp_path / "processed_data/wtag/frames", "v0", 12)
    session = make_session(0, frames=8, first_frame=3)
    reader = FrameReader(tmp_path, "store", small_processor())
    assert reader.path(session) == path
    pictures = reader.read(session, 1, 7)
    assert [number_of(Image.fromarray(picture)) for picture in pictures] == list(range(4, 10))
    assert [number_of(Image.fromarray(picture)) for picture in reader.read(session, 0, 2)] == [3, 4]
    with pytest.raises(DataError, match=rf"{path.name}: no frame 12; it holds 12 frames, 0 to 11"):
        reader.read(make_session(0, frames=8, first_frame=6), 0, 8)


def test_frames_beside_the_annotations_of_a_source_are_found(tmp_path: Path) -> None:
    path = tmp_path / "wtag/frames/v0.arrow"
    write_frames(path, [jpeg(10)])
    assert FrameReader(tmp_path, "store", small_processor()).path(make_session(0)) == path


@pytest.mark.parametrize("changed", [{"frames_file": "../../../x.arrow"}, {"source": ".."}, {"frames_file": "/etc/x"}])
def test_rows_cannot_name_frames_outside_of_the_corpus(corpus: Path, changed: dict[str, str]) -> None:
    session = dataclasses.replace(make_session(0), **changed)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"its frames are said to be at .*, which may lie outside of"):
        FrameReader(corpus, "store", small_processor()).read(session, 0, 1)
