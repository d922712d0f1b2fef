"""Encoded frames on disk: with a frozen vision tower, an epoch then runs the language model alone.

One safetensors file per video contains ``features`` ``[frames, tokens, hidden]``. Its metadata gives the absolute index
of the first frame and the fingerprint of the model that encoded them. The file's name is a hash of the video's content,
so a copied or renamed corpus uses the features that are there; the folder's name is a hash of the fingerprint, and
features of another model are refused wherever they lie. Each file is sealed: its content hash is checked before the
first read. ``encode.py`` writes the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.content_hash import FileState, KnownHashes, check_seal, file_state
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.opened import frames_hash, no_frames

# Frames that are prepared, encoded or read at a time.
FRAMES_PER_PASS = 64
# Version of the files; those of another one are not read.
LAYOUT = "2"
# Name of the type that features are stored in -> the type.
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
REMEDY = "remove it, then the video is encoded again"
# The settings of an image processor that pixels depend on; others come and go as a processor is saved and loaded.
PREPROCESSING = (
    *("do_convert_rgb", "do_normalize", "do_rescale", "do_resize", "image_mean", "image_std", "max_image_size"),
    *("resample", "rescale_factor", "size"),
)
# The file of known hashes, in the folder that contains the folders of features.
HASHES_FILE = "hashes.json"


@dataclass(frozen=True)
class Fingerprint:
    """What determines a feature apart from the frame; each file of features has it in its metadata.

    Args:
        model: the model's name, for messages alone.
        vision: hash of the weights of vision tower and connector, and of what else their figures depend on.
        preprocessing: hash of the settings of the image processor.
        tokens: tokens a frame.
        hidden: size of a token.
        pictures: ``store``, ``rendered`` or ``blank``.
        computed: the type that the vision tower computes in.
        dtype: the type of the stored features.
        layout: version of the files.
    """

    model: str
    vision: str
    preprocessing: str
    tokens: int
    hidden: int
    pictures: str
    computed: str = "float32"
    dtype: str = "float32"
    layout: str = LAYOUT

    @property
    def digest(self) -> str:
        """16 hex digits of a hash of everything but the model's name: the name of a folder of features."""
        facts = {name: value for name, value in asdict(self).items() if name != "model"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def metadata(self) -> dict[str, str]:
        """As the metadata of a safetensors file."""
        return {name: str(value) for name, value in asdict(self).items()}

    def differences(self, found: Mapping[str, str]) -> list[str]:
        """What another fingerprint, given as metadata, has otherwise: ``tokens 4, here 1``."""
        return [
            f"{name} {found.get(name, 'unknown')}, here {value}"
            for name, value in self.metadata.items()
            if name != "model" and found.get(name) != value
        ]


def fingerprint(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    pictures: str,
    dtype: str = "float32",
    autocast: str | None = None,
) -> Fingerprint:
    """The fingerprint of the features that a model makes.

    Args:
        pictures: ``store``, ``rendered`` or ``blank``, where the frames come from.
        dtype: the type of the stored features.
        autocast: the type of automatic mixed precision; none: the model's own type alone.
    """
    vision, config = model.config.vision_config, model.config
    # Weights of equal shapes compute other figures with another number of heads.
    facts = [vision.num_attention_heads, vision.hidden_act, vision.layer_norm_eps, vision.image_size, vision.patch_size]
    digest = hashlib.sha256(f"{facts} {config.scale_factor}".encode())
    for part in (model.model.vision_model, model.model.connector):
        for name, tensor in sorted(part.state_dict().items()):
            # By their values: a frozen tower in bfloat16 and its copy in float32 are one tower (``computed`` differs).
            value = tensor.detach().cpu().float().contiguous()
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.view(torch.uint8).numpy())
    settings = processor.image_processor.to_dict()
    prepared = {name: settings.get(name) for name in PREPROCESSING}
    name = Path(config._name_or_path or "a new model")
    own = str(model.dtype).removeprefix("torch.")
    return Fingerprint(
        model=name.name if name.is_absolute() else str(name),
        vision=digest.hexdigest()[:16],
        preprocessing=hashlib.sha256(json.dumps(prepared, sort_keys=True).encode()).hexdigest()[:16],
        tokens=config.stream_tokens,
        hidden=config.text_config.hidden_size,
        pictures=pictures,
        computed=f"{own} under {autocast} autocast" if autocast else own,
        dtype=dtype,
    )


@dataclass(frozen=True)
class FeatureFile:
    """The header of a file of features: the absolute frames that it holds, and its metadata."""

    frames: range
    metadata: dict[str, str]


class FrameFeatures:
    """Reads encoded frames by position, with the interface of ``FrameReader``.

    Args:
        folder: folder of the files.
        reader: reader of the pictures that were encoded.
        expected: the fingerprint of the features that this run needs.
        known: hashes of videos and of files of features that need not be read again.
    """

    def __init__(self, folder: Path, reader: FrameReader, expected: Fingerprint, known: KnownHashes) -> None:
        self.folder, self.reader, self.expected, self.known = folder, reader, expected, known
        # They travel to worker processes with this object, so that no worker hashes a video or a file again.
        self._paths: dict[str, Path] = {}
        self._checked: dict[Path, tuple[FileState, FeatureFile]] = {}

    def path(self, session: SessionRows) -> Path:
        """The file of the session's video; of the session itself where pictures are drawn from its labels.

        Raises:
            DataError: the frame file is missing.
        """
        if self.reader.frames != "store":
            return self.path_of(drawn_content(self.reader, session))
        return self.path_of_video(self.reader.path(session))

    def path_of_video(self, video: Path) -> Path:
        """The file of features of the frames in ``video``; errors as in :func:`path`."""
        if str(video) not in self._paths:
            try:
                self._paths[str(video)] = self.path_of(self.known.hash(video, frames_hash))
            except FileNotFoundError:
                raise no_frames(video) from None
        return self._paths[str(video)]

    def path_of(self, content: str) -> Path:
        """The file of features of a content, 32 hex digits or more."""
        return self.folder / f"{content[:32]}.safetensors"

    def header(self, path: Path) -> FeatureFile:
        """What a file of features holds, which must be features of this run's model. Its numbers are not read.

        Raises:
            DataError: the file is damaged, or another model encoded it.
            OSError: the file cannot be read.
        """
        with _opened(path) as file:
            metadata = file.metadata() or {}
            first, shape = metadata.get("first_frame", ""), file.get_slice("features").get_shape()
        if len(shape) != 3 or not first.isdecimal():
            raise DataError(f"{path}: not a file of encoded frames (no first_frame, or {shape}); {REMEDY}.")
        differences = self.expected.differences(metadata)
        if differences:
            raise DataError(
                f"{path}: these features are of {metadata.get('model', 'an unknown model')} and not of this run's "
                f"{self.expected.model} ({'; '.join(differences)}): give the folder that `prospect encode` names for "
                "this model, or remove this one."
            )
        if shape[1:] != [self.expected.tokens, self.expected.hidden]:
            raise DataError(f"{path}: its features are {shape} and not what its metadata says; {REMEDY}.")
        return FeatureFile(range(int(first), int(first) + shape[0]), metadata)

    def check(self, path: Path) -> FeatureFile:
        """The header of a whole file: its content hash is checked, once for each state of the file.

        Raises:
            DataError: as in :func:`header`, or the content hash is another one.
            OSError: the file cannot be read.
        """
        state = file_state(path)
        if path in self._checked and self._checked[path][0] == state:
            return self._checked[path][1]
        if self.known.get(path) is None:
            check_seal(path, REMEDY)
            self.known.add(path, state, "sealed")
        self._checked[path] = state, self.header(path)
        return self._checked[path][1]

    def held(self, path: Path) -> range:
        """The absolute frames in a file of features; none where there is no file. Errors as in :func:`check`."""
        return self.check(path).frames if path.is_file() else range(0)

    def inputs(self, session: SessionRows, begin: int, end: int) -> dict[str, torch.Tensor]:
        """The model input ``frame_features`` ``[frames, tokens, hidden]``, positions ``begin`` to ``end`` (exclusive).

        Features of every type are given as float32.

        Raises:
            DataError: the file is missing, unreadable or damaged, or lacks one of these frames.
        """
        path = self.path(session)
        wanted = range(session.first_frame + begin, session.first_frame + end)
        try:
            held = self.check(path).frames
            check_range(path, held, wanted)
            with _opened(path) as file:
                at = wanted.start - held.start
                features = file.get_slice("features")[at : at + len(wanted)].to(torch.float32)
        except OSError as error:
            raise DataError(
                f"{path}: no features of session {session.session_id} ({error}); encode them with `prospect encode`."
            ) from error
        broken = ~features.isfinite().flatten(1).all(1)
        if bool(broken.any()):
            frame = wanted[int(broken.nonzero()[0])]
            raise DataError(f"{path}: the features of frame {frame} are not finite; {REMEDY}.")
        return {"frame_features": features}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise DataError(f"{path}: not a whole file of encoded frames ({error}); {REMEDY}.") from error


def check_range(path: Path, held: range, wanted: range) -> None:
    """Raise ``DataError`` where a file of features lacks a frame that is wanted."""
    if not (held.start <= wanted.start and wanted.stop <= held.stop):
        raise DataError(
            f"{path}: contains frames {held.start} to {held.stop - 1}, but frames {wanted.start} to {wanted.stop - 1} "
            "are needed; remove the file and encode again."
        )


def drawn_content(reader: FrameReader, session: SessionRows) -> str:
    """32 hex digits that identify pictures that are drawn: a hash of what is drawn."""
    facts = f"{reader.frames} {session.video_uid} {session.first_frame} {session.states_after.shape}"
    drawn = session.session_id.encode() if reader.frames == "blank" else session.states_after.astype(np.int8).tobytes()
    return hashlib.sha256(facts.encode() + b"\0" + drawn).hexdigest()[:32]


def given_features(
    folder: Path,
    model: DSTSmolVLMForConditionalGeneration,
    reader: FrameReader,
    sessions: Sequence[SessionRows],
    known: KnownHashes,
) -> FrameFeatures:
    """The features in a folder that the user names: every session's frames must be there, of this model.

    The types that they were computed and stored in are those of the folder.

    Raises:
        UsageError: there is no such folder, or no features are in it.
        DataError: features are missing, damaged or of another model.
    """
    some = min(folder.glob("*.safetensors"), default=None)
    if some is None:
        raise UsageError(
            f"data.features={folder} has no files of features; give the folder that `prospect encode` names."
        )
    expected = fingerprint(model, reader.processor, reader.frames)
    with _opened(some) as file:
        found = file.metadata() or {}
    if found.get("dtype") in DTYPES:
        expected = replace(expected, dtype=found["dtype"], computed=found.get("computed", expected.computed))
    features = FrameFeatures(folder, reader, expected, known)
    features.header(some)
    for session in sessions:
        path = features.path(session)
        if not path.is_file():
            raise DataError(
                f"data.features={folder} has no features of session {session.session_id} ({path.name}); encode its "
                "video with `prospect encode`, or unset data.features."
            )
        check_range(path, features.check(path).frames, range(session.first_frame, session.first_frame + len(session)))
    known.save()
    return features
