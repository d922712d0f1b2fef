"""Encoded frames: what the model takes in place of pictures, by absolute index, and never those of another model."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
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
from safetensors import safe_open
from safetensors.torch import save_file

from modeling_dst_smolvlm import Decoding, DSTSmolVLMForConditionalGeneration
from prospect_hf.content_hash import UNSEALED, KnownHashes, seal
from prospect_hf.data import encode as encode_module
from prospect_hf.data import features as features_module
from prospect_hf.data.clip_index import clips_of
from prospect_hf.data.clips import ClipDataset, ClipInputs
from prospect_hf.data.encode import encode_sessions
from prospect_hf.data.features import HASHES_FILE, FrameFeatures, fingerprint, given_features
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError, UsageError
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
    encoded = ClipDataset(clips_of(SESSIONS, processor, 700), ClipInputs(processor, features))
    pixels, tokens = collate([seen[i] for i in range(len(seen))]), collate([encoded[i] for i in range(len(encoded))])
    assert "pixel_values" not in tokens and tokens["frame_features"].shape[1] == processor.tokens_per_frame
    with torch.inference_mode():
        a, b = model(**model_inputs(pixels)), model(**model_inputs(tokens))
    assert abs(float(a.loss) - float(b.loss)) <= 1e-4
    for name in HEAD_LOGITS:
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
    monkeypatch.setattr(encode_module, "encode_pass", None)  # whatever is encoded again would fail
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
    model, processor = new_model(), small_processor()
    own = fingerprint(model, processor, "store").digest
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    model.config._name_or_path = "another name"
    assert fingerprint(model, processor, "store").digest == own  # the language model has no part in a feature
    saved = fingerprint(small_model(), small_processor(), "store").digest
    small_processor().save_pretrained(tmp_path)
    loaded = type(processor).from_pretrained(tmp_path, trust_remote_code=False)
    assert fingerprint(small_model(), loaded, "store").digest == saved
    others = [
        fingerprint(small_model(4), processor, "store"),
        fingerprint(model, processor, "rendered"),
        fingerprint(model, processor, "store", dtype="float16"),
        fingerprint(model, processor, "store", autocast="bfloat16"),
    ]
    with torch.no_grad():
        model.model.vision_model.encoder.layers[0].mlp.fc1.bias[0] += 1e-3
    others.append(fingerprint(model, processor, "store"))
    other = new_model()
    other.config.vision_config.num_attention_heads = 1  # the same weights
    others.append(fingerprint(other, processor, "store"))
    loaded.image_processor.image_mean = [0.4, 0.5, 0.5]
    others.append(fingerprint(model, loaded, "store"))
    assert len({own, *(one.digest for one in others)}) == 1 + len(others)


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


def known(features: FrameFeatures) -> KnownHashes:
    """What a new process knows."""
    return KnownHashes(features.folder.parent / HASHES_FILE)


def test_a_file_of_features_is_hashed_once_on_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session(4, 5)
    features = encode([session], tmp_path)
    copy = shutil.copytree(features.folder, tmp_path / "copy")
    monkeypatch.setattr(features_module, "check_seal", None)
    features.inputs(session, 1, 3)
    FrameFeatures(features.folder, features.reader, features.expected, known(features)).inputs(session, 1, 3)
    with pytest.raises(TypeError):  # a copy may have been damaged on its way
        FrameFeatures(copy, features.reader, features.expected, known(features)).inputs(session, 1, 3)


def test_videos_that_nothing_wrote_to_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prospect_hf.content_hash.YOUNG_NS", 0)
    session = make_session(3, 10)
    store(tmp_path, session, 10)

    def again() -> FrameFeatures:
        return encode([session], tmp_path / "cache", FrameReader(tmp_path, "store", small_processor()))

    first = again()
    monkeypatch.setattr(features_module, "check_seal", None)
    monkeypatch.setattr(features_module, "frames_hash", None)
    monkeypatch.setattr(encode_module, "encode_pass", None)
    assert torch.equal(frames_seen(again(), session), frames_seen(first, session))
    os.utime(first.reader.path(session), ns=(0, 0))
    with pytest.raises(TypeError):
        again()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_features_of_another_type_are_read_as_float32(tmp_path: Path, dtype: str) -> None:
    whole = frames_seen(encode(SESSIONS, tmp_path / "a"), SESSIONS[1])
    features = encoded_as(dtype, tmp_path / "b")
    halved = frames_seen(features, SESSIONS[1])
    assert halved.dtype == torch.float32 and features.path(SESSIONS[1]).stat().st_size < 30 * 32 * 3 + 2000
    assert torch.equal(halved, whole.to(encode_module.DTYPES[dtype]).float()) and not torch.equal(halved, whole)


def encoded_as(dtype: str, folder: Path) -> FrameFeatures:
    """Features of ``SESSIONS`` stored in a type."""
    reader, model = NoiseReader(), small_model()
    expected = fingerprint(model, reader.processor, reader.frames, dtype)
    features = FrameFeatures(folder / expected.digest, reader, expected, KnownHashes(folder / HASHES_FILE))
    encode_module.encode_videos(model, features, encode_module.videos_of(SESSIONS, reader), progress=False)
    return features


def test_a_folder_that_is_given_is_read_as_it_is(tmp_path: Path) -> None:
    features = encoded_as("float16", tmp_path)
    given = given_features(features.folder, small_model(), NoiseReader(), SESSIONS, known(features))
    assert given.expected.dtype == "float16"
    assert torch.equal(frames_seen(given, SESSIONS[1]), frames_seen(features, SESSIONS[1]))


def test_a_stale_folder_is_refused_by_name(tmp_path: Path) -> None:
    features, reader = encoded_as("float16", tmp_path), NoiseReader()

    def give(model: DSTSmolVLMForConditionalGeneration, sessions: list[SessionRows], folder: Path) -> None:
        given_features(folder, model, reader, sessions, known(features))

    other = new_model()
    with torch.no_grad():
        other.model.vision_model.encoder.layers[0].mlp.fc1.bias[0] += 1e-3
    other.config._name_or_path = "outputs/other"
    with pytest.raises(
        DataError, match=r"are of a new model and not of this run's outputs/other \(vision \w+, here \w+\)"
    ):
        give(other, SESSIONS, features.folder)
    with pytest.raises(DataError, match=r"\(tokens 1, here 4\): give the folder that `prospect encode` names"):
        give(small_model(4), SESSIONS, features.folder)
    with pytest.raises(UsageError, match=r"data\.features=.*/none has no files of features"):
        give(small_model(), SESSIONS, tmp_path / "none")
    with pytest.raises(DataError, match=r"no features of session wtag\.v7\.talk_some_0"):
        give(small_model(), [make_session(7, 5)], features.folder)
    path = features.path(SESSIONS[1])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{path.name}: (the file is damaged|not a whole file).*; remove it"):
        give(small_model(), SESSIONS, features.folder)


def test_a_given_folder_must_have_every_frame(tmp_path: Path) -> None:
    """Another session of the same video needs frames that were not encoded."""
    session, longer = make_session(3, 6, first_frame=2), make_session(3, 14)
    store(tmp_path, longer, 14)
    reader = FrameReader(tmp_path, "store", small_processor())
    features = encode([session], tmp_path / "cache", reader)
    with pytest.raises(DataError, match=r"contains frames 2 to 7, but frames 0 to 13 are needed"):
        given_features(features.folder, small_model(), reader, [longer], known(features))


def test_a_file_that_came_into_another_folder_is_refused(tmp_path: Path) -> None:
    halved, whole = encoded_as("float16", tmp_path), encode(SESSIONS, tmp_path)
    shutil.copy(halved.path(SESSIONS[0]), whole.path(SESSIONS[0]))
    for read in (lambda: whole.inputs(SESSIONS[0], 0, 5), lambda: encode(SESSIONS, tmp_path)):
        with pytest.raises(DataError, match=r"\(dtype float16, here float32\)"):
            read()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_frame": "many"}, "no first_frame"),
        ({"tokens": "4"}, r"tokens 4, here 1"),
        ({"layout": "1"}, r"layout 1, here 2"),
        ({"model": "x" * 10, "vision": "0" * 16}, r"are of xxxxxxxxxx and not of"),
    ],
)
def test_what_the_metadata_says_is_checked(tmp_path: Path, change: dict[str, str], message: str) -> None:
    session = make_session(4, 5)
    features = encode([session], tmp_path)
    rewrite(features.path(session), change, lambda numbers: numbers)
    with pytest.raises(DataError, match=message):
        features.inputs(session, 0, 5)


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    session = make_session(4, 5, first_frame=10)
    features = encode([session], tmp_path)

    def damaged(numbers: torch.Tensor) -> torch.Tensor:
        numbers[3, 0, 7] = float("nan")
        return numbers

    rewrite(features.path(session), {}, damaged)
    assert features.inputs(session, 0, 3)["frame_features"].isfinite().all()
    with pytest.raises(DataError, match=r"the features of frame 13 are not finite; remove it"):
        features.inputs(session, 0, 5)


def rewrite(path: Path, change: dict[str, str], numbers: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """A sealed file of other content, as another program could write it."""
    with safe_open(path, "pt") as file:
        metadata, held = file.metadata(), file.get_tensor("features")
    save_file({"features": numbers(held)}, path, {**metadata, **change, **UNSEALED})
    seal(path)
