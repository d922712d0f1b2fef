"""The stamp of a run: the model revision, code, data and settings that its figures depend on."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf import __version__
from prospect_hf.code_fingerprint import code_fingerprint
from prospect_hf.evaluation.arguments import EvaluateArguments
from prospect_hf.evaluation.corpus import Corpus, recorded_held_out
from prospect_hf.hub.weights import WEIGHTS_KEY, weights_hash
from prospect_hf.machine import machine
from prospect_hf.metrics.encoders import SentenceEncoder
from prospect_hf.words import TOKENIZATION

# The code of this package that determines a prediction, in addition to the model's code.
PREDICTION_CODE = (
    "data/*.py",
    "frames/*.py",
    "evaluation/free_running.py",
    "evaluation/predictions.py",
    "evaluation/runs.py",
    "evaluation/teacher_forced.py",
    "evaluation/windowed.py",
)
# The files of a model folder that determine its predictions.
REVISED = ("*.safetensors", "config.json", "*processor*.json", "token*.json", "vocab.json", "merges.txt")


def model_revision(folder: Path) -> str:
    """16 hex digits of a hash of a model folder's weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in REVISED for path in folder.glob(pattern)):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def prediction_code_fingerprint() -> str:
    """12 hex digits of a hash of the code that determines a prediction: model, data reading and both evaluators.

    A hash and not the version number, which does not change with every edit: predictions of other code are not reused.
    """
    model_code = Path(str(inspect.getsourcefile(DSTSmolVLMForConditionalGeneration))).parent
    parts = (
        code_fingerprint(model_code, ["*_dst_smolvlm.py"]),
        code_fingerprint(Path(__file__).resolve().parents[1], PREDICTION_CODE),
    )
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


def common_stamp(
    args: EvaluateArguments,
    corpus: Corpus,
    model: DSTSmolVLMForConditionalGeneration,
    encoder: SentenceEncoder | None,
) -> dict[str, Any]:
    """The part of the stamp that all runs of this evaluation share."""
    # Null where nobody knows it: a folder without a record of its training, and nothing given.
    held_out: list[str] | None = corpus.data.held_out_sources
    if not held_out and recorded_held_out(Path(args.model)) is None:
        held_out = None
    speaking, update = args.speaking_threshold, args.dst_update_threshold
    return {
        "mode": "",
        "model": shown_folder(args.model),
        "model_revision": model_revision(Path(args.model)),
        WEIGHTS_KEY: weights_hash(Path(args.model)),
        "data": shown_folder(str(corpus.data.root)),
        "data_fingerprint": corpus.fingerprint,
        "split": args.split,
        "held_out_sources": held_out,
        "sources": list(dict.fromkeys(session.source for session in corpus.sessions)),
        "sessions": len(corpus.sessions),
        "limit": args.limit,
        "frames": corpus.data.frames,
        "dst": corpus.data.dst,
        "fps": model.config.fps,
        "speaking_threshold": model.config.speaking_threshold if speaking is None else speaking,
        "dst_update_threshold": model.config.dst_update_threshold if update is None else update,
        "context": None,
        "tracking": None,
        "decoding": None,
        "encoder": None if encoder is None else encoder.identity,
        "tokenization": TOKENIZATION,
        "prospect_hf": __version__,
        "code": prediction_code_fingerprint(),
        "machine": machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "draws": args.draws,
    }


def shown_folder(folder: str) -> str:
    """A folder as results name it: as it was given, or its name alone where that is an absolute path."""
    path = Path(folder)
    return path.absolute().name if path.is_absolute() or not path.name else folder


def baseline_stamp(stamp: Mapping[str, Any], name: str, seed: int) -> dict[str, Any]:
    """The stamp of baseline ``name``: no model, and threshold 0.5 for its probabilities of 0 and 1.

    Args:
        stamp: what all runs share.
        name: of the baseline, with its settings.
        seed: of its random numbers; a baseline without any has it too.
    """
    baseline = {"mode": "baseline", "model": name, "model_revision": None, WEIGHTS_KEY: None, "code": None}
    return dict(stamp) | baseline | {"baseline_seed": seed, "speaking_threshold": 0.5, "dst_update_threshold": 0.5}
