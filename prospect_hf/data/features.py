"""Caches encoded frames on disk: with a frozen vision tower, an epoch then runs the language model alone.

One safetensors file per video contains ``features`` ``[frames, tokens, hidden]``; its metadata gives the absolute index
of the first frame. The folder's name is a hash of everything that determines a feature (vision tower, connector, image
preprocessing, tokens per frame) and the file's name a hash of the video's content, so features of another model or
video are never read by mistake, and a copied or renamed corpus uses the features that are there. Each file is sealed:
its content hash is checked before the first read.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.content_hash import UNSEALED, FileState, check_seal, file_state, seal
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.files import replacing
from prospect_hf.frames.opened import frames_hash
from prospect_hf.progress import Progress

FRAMES_PER_PASS = 64
# Part of the name of the folder: files of another layout are not read.
LAYOUT = "sealed"
REMEDY = "remove it, then the video is encoded again"


class FrameFeatures:
    """Reads encoded frames by position, with the interface of ``FrameReader``.

    Args:
        folder: folder of the files that ``encode_sessions`` wrote.
        reader: reader of the pictures that were encoded.
    """

    def __init__(self, folder: Path, reader: FrameReader) -> None:
        self.folder, self.reader = folder, reader
        # They travel to worker processes with this object, so that no worker hashes a video or a file again.
        self._paths: dict[tuple[str, str], Path] = {}
        self._checked: dict[Path, FileState] = {}

    def path(self, session: SessionRows) -> Path:
        """The file of the session's video; of the session itself where pictures are drawn from its labels.

        Raises:
            DataError: the frame file is missing.
        """
        video = session.source, session.frames_file if self.reader.frames == "store" else session.session_id
        if video not in self._paths:
            self._paths[video] = self.folder / session.source / f"{_content(self.reader, session)}.safetensors"
        return self._paths[video]

    def check(self, path: Path) -> None:
        """Check the file's content hash, once for each state of the file; errors as in :func:`check_seal`."""
        state = file_state(path)
        if self._checked.get(path) != state:
            check_seal(path, REMEDY)
            self._checked[path] = state

    def inputs(self, session: SessionRows, begin: int, end: int) -> dict[str, torch.Tensor]:
        """The model input ``frame_features`` ``[frames, tokens, hidden]``, positions ``begin`` to ``end`` (exclusive).

        Raises:
            DataError: the file is missing, unreadable or damaged, or lacks one of these frames.
        """
        path = self.path(session)
        try:
            self.check(path)
            with safe_open(path, "pt") as file:
                features = file.get_slice("features")
                first, count = int(file.metadata()["first_frame"]), features.get_shape()[0]
                at = session.first_frame + begin - first
                if at < 0 or at + end - begin > count:
                    raise DataError(
                        f"{path}: contains frames {first} to {first + count - 1}, but frames "
                        f"{session.first_frame + begin} to {session.first_frame + end - 1} are needed; "
                        "remove the file and encode again."
                    )
                return {"frame_features": features[at : at + end - begin]}
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: no features of session {session.session_id} ({error}); encode them.") from error


def encode_sessions(
    model: DSTSmolVLMForConditionalGeneration,
    reader: FrameReader,
    sessions: Sequence[SessionRows],
    cache_dir: Path,
    progress: bool = True,
) -> FrameFeatures:
    """Encode the frames of ``sessions``, except for videos whose features are current.

    A video is encoded where no features of its content are there, or where they lack a frame; then they get the frames
    that they had too, so that another run on the same folder keeps its own. Each file is written under a temporary name
    and then renamed, so a rerun after an interruption continues with the next video.

    Args:
        model: the model; its vision tower and connector must not change afterwards.
        reader: reader of the pictures.
        sessions: sessions of any number of videos; the sessions of one video share its features.
        cache_dir: folder that contains one subfolder of features per model.
        progress: show a progress bar.

    Raises:
        DataError: a frame or an existing features file cannot be read.
    """
    found = FrameFeatures(cache_dir / fingerprint(model, reader), reader)
    videos: dict[Path, list[SessionRows]] = defaultdict(list)
    for session in sessions:
        videos[found.path(session)].append(session)
    training = model.training
    model.eval()
    with Progress(len(videos), "encoding frames", "video", show=progress) as bar:
        for path, of_video in videos.items():
            first = min(session.first_frame for session in of_video)
            end = max(session.first_frame + len(session) for session in of_video)
            held = _held(found, path)
            if not (held.start <= first and end <= held.stop):
                if held:
                    first, end = min(first, held.start), max(end, held.stop)
                _write(path, _encode(model, reader, of_video[0], first, end), first)
            bar.update()
    model.train(training)
    return found


@torch.inference_mode()
def _encode(
    model: DSTSmolVLMForConditionalGeneration, reader: FrameReader, session: SessionRows, first: int, end: int
) -> torch.Tensor:
    """Features of the absolute frames ``first`` to ``end`` of the session's video."""
    passes = []
    for begin in range(first, end, FRAMES_PER_PASS):
        stop = min(begin + FRAMES_PER_PASS, end)
        pixels = reader.inputs(session, begin - session.first_frame, stop - session.first_frame)["pixel_values"]
        passes.append(model.encode_frames(pixels.to(model.device)).cpu())
    return torch.cat(passes)


def _content(reader: FrameReader, session: SessionRows) -> str:
    """32 hex digits that identify the pictures: a hash of the stored frames, or of what is drawn."""
    if reader.frames == "store":
        return frames_hash(reader.path(session))[:32]
    facts = f"{reader.frames} {session.video_uid} {session.first_frame} {session.states_after.shape}"
    drawn = session.session_id.encode() if reader.frames == "blank" else session.states_after.tobytes()
    return hashlib.sha256(facts.encode() + b"\0" + drawn).hexdigest()[:32]


def _held(features: FrameFeatures, path: Path) -> range:
    """The absolute frames in a file of features; none where there is no file."""
    if not path.is_file():
        return range(0)
    try:
        features.check(path)
        with safe_open(path, "pt") as file:
            first, count = int(file.metadata()["first_frame"]), file.get_slice("features").get_shape()[0]
    except SafetensorError as error:
        raise DataError(f"{path}: not a file of encoded frames ({error}); {REMEDY}.") from error
    return range(first, first + count)


def _write(path: Path, features: torch.Tensor, first: int) -> None:
    with replacing(path) as temporary:
        save_file({"features": features.contiguous()}, temporary, {"first_frame": str(first), **UNSEALED})
        seal(temporary)


def fingerprint(model: DSTSmolVLMForConditionalGeneration, reader: FrameReader) -> str:
    """16 hex digits of a hash of everything that determines a feature apart from the frame."""
    digest = hashlib.sha256(LAYOUT.encode())
    for part in (model.model.vision_model, model.model.connector):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    config, images = model.config, reader.processor.image_processor
    digest.update(f"{config.stream_tokens} {config.scale_factor} {reader.frames}".encode())
    digest.update(images.to_json_string().encode())
    return digest.hexdigest()[:16]
