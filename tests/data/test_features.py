"""Encoded frames: what the model takes in place of pictures, by absolute index, and never those of another model."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from model_fixtures import (
    HEAD_LOGITS,
    NoiseReader,
    clip_dataset,
    collate,
    largest_difference,
    make_session,
    model_inputs,
    new_model,
    picture,
    small_model,
    small_processor,
)
from PIL import Image

from modeling_dst_smolvlm import Decoding
from prospect_hf.data import features as features_module
from prospect_hf.data.clip_index import clips_of
from prospect_hf.data.clips import ClipDataset
from prospect_hf.data.features import FrameFeatures, encode_sessions, fingerprint
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.evaluation.free_running import follow
from prospect_hf.frames.store import write_frames
from prospect_hf.simulator.render import encode_jpeg

SESSIONS = [make_session(0, 12, 3), make_session(1, 30, 2, first_frame=90), make_session(2, 1, 4)]


def encode(sessions: list[SessionRows], folder: Path, reader: FrameReader | None = None) -> FrameFeatures:
    return encode_sessions(small_model(), reader or NoiseReader(), sessions, folder, progress=False)


def store(root: Path, session: SessionRows, frames: int, backwards: bool = False) -> None:
    """The session's frame file: ``frames`` pictures of noise; those of a film run backwards take the same space."""
    path = root / "processed_data" / session.source / session.frames_file
    path.parent.mkdir(parents=True, exist_ok=True)
    order = reversed(range(frames)) if backwards else range(frames)
    pictures = (picture(session.video_uid, frame) for frame in order)
    write_frames(path, (encode_jpeg(Image.fromarray(one)) for one in pictures))


@pytest.mark.parametrize("tokens_per_frame", [1, 4, "full"])
def test_features_answer_as_pixels_do(tmp_path: Path, tokens_per_frame: int | str) -> None:
    model, processor = small_model(tokens_per_frame), small_processor(tokens_per_frame)
    features = encode_sessions(model, NoiseReader(), SESSIONS, tmp_path, progress=False)
    seen = clip_dataset(SESSIONS, tokens_per_frame, 700)
    encoded = ClipDataset(clips_of(SESSIONS, processor, 700), processor, features)
    pixels, tokens = collate([seen[i] for i in range(len(seen))]), collate([encoded[i] for i in range(len(encoded))])
    assert "pixel_values" not in tokens and tokens["frame_features"].shape[1] == processor.tokens_per_frame
    with torch.inference_mode():
        a, b = model(**model_inputs(pixels)), model(**model_inputs(tokens))
    for name in (*HEAD_LOGITS, "logits"):
        assert largest_difference(a[name], b[name]) <= 1e-4, name


def test_following_features_is_following_pixels(tmp_path: Path) -> None:
    model, processor = small_model(), small_processor()
    features = encode(SESSIONS, tmp_path)
    a, b = (
        follow(model, processor, frames, SESSIONS, decoding=Decoding(max_new_tokens=4), progress=False)
        for frames in (NoiseReader(), features)
    )
    for one, other in zip(a, b, strict=True):
        assert one.spoken == other.spoken and np.array_equal(one.table, other.table)
        assert np.abs(one.p_speak - other.p_speak).max() <= 1e-4


def test_features_are_read_by_absolute_frame(tmp_path: Path) -> None:
    """A second conversation over the same video starts elsewhere and shares its file."""
    early, late = make_session(1, 30, first_frame=2), make_session(1, 10, first_frame=25)
    late.session_id = "another"
    store(tmp_path, early, 40)
    reader = FrameReader(tmp_path, "store", small_processor())
    features = encode([late, early], tmp_path / "cache", reader)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1
    with torch.inference_mode():
        for session, begin, end in ((early, 3, 9), (late, 0, 10), (early, 0, 30)):
            expected = small_model().encode_frames(reader.inputs(session, begin, end)["pixel_values"])
            assert largest_difference(features.inputs(session, begin, end)["frame_features"], expected) <= 1e-5
    beyond = make_session(1, 10, first_frame=31)
    with pytest.raises(DataError, match=r"contains frames 2 to 34, but frames 31 to 40 are needed"):
        features.inputs(beyond, 0, 10)
    before = make_session(1, 10, first_frame=0)
    with pytest.raises(DataError, match=r"frames 0 to 9 are needed"):
        features.inputs(before, 0, 10)


def test_a_long_video_is_encoded_in_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encode(SESSIONS, tmp_path / "a").inputs(SESSIONS[1], 0, 30)["frame_features"]
    monkeypatch.setattr(features_module, "FRAMES_PER_PASS", 7)
    parts = encode(SESSIONS, tmp_path / "b").inputs(SESSIONS[1], 0, 30)["frame_features"]
    assert largest_difference(whole, parts) <= 1e-5


def frames_seen(features: FrameFeatures, session: SessionRows) -> torch.Tensor:
    return features.inputs(session, 0, len(session))["frame_features"].clone()


def test_nothing_is_encoded_twice_and_a_changed_video_is(tmp_path: Path) -> None:
    session = make_session(3, 10)
    store(tmp_path, session, 10)
    reader = FrameReader(tmp_path, "store", small_processor())
    features = encode([session], tmp_path / "cache", reader)
    path = features.path(session)
    first, written, video = frames_seen(features, session), path.stat().st_mtime_ns, reader.path(session).stat()
    encode([session], tmp_path / "cache", reader)
    assert path.stat().st_mtime_ns == written
    # Another content is another video, although its file has the same size and time.
    store(tmp_path, session, 10, backwards=True)
    os.utime(reader.path(session), ns=(video.st_atime_ns, video.st_mtime_ns))
    changed = reader.path(session).stat()
    assert (changed.st_size, changed.st_mtime_ns) == (video.st_size, video.st_mtime_ns)
    again = encode([session], tmp_path / "cache", FrameReader(tmp_path, "store", small_processor()))
    assert largest_difference(frames_seen(again, session), first) > 1e-2
    assert largest_difference(frames_seen(again, session), first.flip(0)) <= 1e-5


def test_a_copied_and_renamed_corpus_uses_the_features_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(3, 10)
    store(tmp_path / "one", session, 10)
    first = frames_seen(
        encode([session], tmp_path / "cache", FrameReader(tmp_path / "one", "store", small_processor())), session
    )
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    there = FrameReader(tmp_path / "two", "store", small_processor())
    renamed = dataclasses.replace(session, frames_file="frames/renamed.arrow")
    there.path(session).rename(there.path(session).with_name("renamed.arrow"))
    monkeypatch.setattr(features_module, "_encode", None)  # whatever is encoded again would fail
    assert torch.equal(frames_seen(encode([renamed], tmp_path / "cache", there), renamed), first)


def test_a_session_that_needs_more_frames_has_its_video_encoded_again(tmp_path: Path) -> None:
    short, longer, earlier = make_session(3, 6, first_frame=4), make_session(3, 14), make_session(3, 3)
    store(tmp_path, longer, 14)
    reader = FrameReader(tmp_path, "store", small_processor())
    encode([short], tmp_path / "cache", reader)
    found = encode([earlier], tmp_path / "cache", reader)
    assert len(found.inputs(earlier, 0, 3)["frame_features"]) == 3
    # Another run that uses the same folder keeps its frames.
    assert len(found.inputs(short, 0, 6)["frame_features"]) == 6
    assert len(encode([longer], tmp_path / "cache", reader).inputs(longer, 0, 14)["frame_features"]) == 14


def test_another_model_has_a_folder_of_its_own(tmp_path: Path) -> None:
    model, reader = new_model(), NoiseReader()
    own = fingerprint(model, reader)
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    assert fingerprint(model, reader) == own  # the language model has no part in a feature
    with torch.no_grad():
        model.model.vision_model.encoder.layers[0].mlp.fc1.bias[0] += 1e-3
    assert fingerprint(model, reader) != own
    assert fingerprint(small_model(4), reader) != fingerprint(small_model(1), reader)
    assert fingerprint(small_model(), FrameReader(Path("."), "rendered", small_processor())) != own


def test_features_of_drawn_frames_belong_to_the_session(tmp_path: Path) -> None:
    """Two conversations over a video may have other labels, and drawn pictures show the labels."""
    one, other = make_session(1, 8), make_session(1, 8, event_rate=1.0)
    other.session_id = "another"
    features = encode([one, other], tmp_path, FrameReader(Path("."), "rendered", small_processor()))
    assert features.path(one) != features.path(other)
    # Labels that were made anew draw other pictures.
    before = features.inputs(one, 0, 8)["frame_features"].clone()
    one.states_after = 2 - one.states_after
    again = encode([one], tmp_path, FrameReader(Path("."), "rendered", small_processor()))
    assert largest_difference(before, again.inputs(one, 0, 8)["frame_features"]) > 1e-2


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    session = make_session(4, 5)
    with pytest.raises(DataError, match=r"v4\.arrow: no such frame file"):
        encode([session], tmp_path, FrameReader(tmp_path, "store", small_processor()))
    features = encode([session], tmp_path)
    with pytest.raises(DataError, match="no features of session"):
        features.inputs(make_session(5, 5), 0, 5)
    features.path(session).write_bytes(b"no safetensors")
    for read in (lambda: features.inputs(session, 0, 5), lambda: encode([session], tmp_path)):
        with pytest.raises(DataError, match=rf"{features.path(session).name}: .* no content hash, .*; remove it, then"):
            read()


def test_a_flipped_bit_in_a_file_of_features_is_no_number(tmp_path: Path) -> None:
    session = make_session(4, 5)
    features = encode([session], tmp_path)
    path = features.path(session)
    features.inputs(session, 0, 5)
    whole = bytearray(path.read_bytes())
    for place in (9, whole.index(b"first_frame") + 14, len(whole) // 2, len(whole) - 1):
        broken = whole.copy()
        broken[place] ^= 1
        path.write_bytes(broken)
        for read in (lambda: features.inputs(session, 0, 5), lambda: encode([session], tmp_path)):
            with pytest.raises(DataError, match=r"the file is damaged, .*; remove it, then the video is encoded again"):
                read()
    path.unlink()
    assert len(encode([session], tmp_path).inputs(session, 0, 5)["frame_features"]) == 5


def test_a_file_of_features_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session(4, 5)
    features = encode([session], tmp_path)
    features.inputs(session, 0, 5)
    monkeypatch.setattr(features_module, "check_seal", None)
    features.inputs(session, 1, 3)
    another = FrameFeatures(features.folder, features.reader)
    with pytest.raises(TypeError):
        another.inputs(session, 1, 3)
