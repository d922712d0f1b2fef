"""Caches encoded frames on disk: with a frozen vision tower, an epoch then runs the language model alone.

One safetensors file per video contains ``features`` ``[frames, tokens, hidden]``; its metadata gives the absolute index
of the first frame. The folder's name is a hash of everything that determines a feature (vision tower, connector, image
preprocessing, tokens per frame), so features of another model are never read by mistake.
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
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.files import replacing
from prospect_hf.progress import Progress

FRAMES_PER_PASS = 64


class FrameFeatures:
    """Reads encoded frames by position, with the interface of ``FrameReader``.

    Args:
        folder: folder of the files that ``encode_sessions`` wrote.
        reader: reader of the pictures that were encoded.
    """

    def __init__(self, folder: Path, reader: FrameReader) -> None:
        self.folder, self.reader = folder, reader

    def path(self, session: SessionRows) -> Path:
        """The file of the session's video; of the session itself where pictures are drawn from its labels."""
        if self.reader.frames == "store":
            return self.folder / session.source / Path(session.frames_file).with_suffix(".safetensors")
        return self.folder / session.source / f"{session.session_id}.safetensors"

    def inputs(self, session: SessionRows, begin: int, end: int) -> dict[str, torch.Tensor]:
        """The model input ``frame_features`` ``[frames, tokens, hidden]``, positions ``begin`` to ``end`` (exclusive).

        Raises:
            DataError: the file is missing, unreadable, or lacks one of these frames.
        """
        path = self.path(session)
        try:
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
        except (FileNotFoundError, SafetensorError) as error:
            raise DataError(f"{path}: no features of session {session.session_id} ({error}); encode them.") from error


def encode_sessions(
    model: DSTSmolVLMForConditionalGeneration,
    reader: FrameReader,
    sessions: Sequence[SessionRows],
    cache_dir: Path,
    progress: bool = True,
) -> FrameFeatures:
    """Encode the frames of ``sessions``, except for videos whose features are current.

    A video is encoded again when its frame file has changed or its features lack a frame. Each file is written under
    a temporary name and then renamed, so a rerun after an interruption continues with the next video.

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
            origin = _origin(reader, of_video[0])
            if not _is_current(path, origin, first, end):
                _write(path, _encode(model, reader, of_video, first, end), origin, first)
            bar.update()
    model.train(training)
    return found


@torch.inference_mode()
def _encode(
    model: DSTSmolVLMForConditionalGeneration, reader: FrameReader, sessions: list[SessionRows], first: int, end: int
) -> torch.Tensor:
    """Features of the absolute frames ``first`` to ``end`` of one video."""
    earliest = min(sessions, key=lambda session: session.first_frame)
    passes = []
    for begin in range(0, end - first, FRAMES_PER_PASS):
        pixels = reader.inputs(earliest, begin, min(begin + FRAMES_PER_PASS, end - first))["pixel_values"]
        passes.append(model.encode_frames(pixels.to(model.device)).cpu())
    return torch.cat(passes)


def _origin(reader: FrameReader, session: SessionRows) -> str:
    """Identifies the version of the pictures: size and time of the frame file, or a hash of the labels drawn."""
    if reader.frames == "blank":
        return reader.frames
    if reader.frames == "rendered":
        return hashlib.sha256(session.states_after.tobytes()).hexdigest()
    try:
        stat = reader.path(session).stat()
    except FileNotFoundError:
        raise DataError(
            f"{reader.path(session)}: no such frame file; check data.root, or set data.frames=rendered."
        ) from None
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _is_current(path: Path, origin: str, first: int, end: int) -> bool:
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            facts, count = file.metadata(), file.get_slice("features").get_shape()[0]
    except SafetensorError as error:
        raise DataError(f"{path}: not a file of encoded frames ({error}); remove it.") from error
    begin = int(facts["first_frame"])
    return facts["origin"] == origin and begin <= first and end <= begin + count


def _write(path: Path, features: torch.Tensor, origin: str, first: int) -> None:
    with replacing(path) as temporary:
        save_file({"features": features.contiguous()}, temporary, {"origin": origin, "first_frame": str(first)})


def fingerprint(model: DSTSmolVLMForConditionalGeneration, reader: FrameReader) -> str:
    """16 hex digits of a hash of everything that determines a feature apart from the frame."""
    digest = hashlib.sha256()
    for part in (model.model.vision_model, model.model.connector):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    config, images = model.config, reader.processor.image_processor
    digest.update(f"{config.stream_tokens} {config.scale_factor} {reader.frames}".encode())
    digest.update(images.to_json_string().encode())
    return digest.hexdigest()[:16]
