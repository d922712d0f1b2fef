"""What an evaluation works on: the sessions of a split, the model's revision, and the stamp that tells them apart."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf import __version__
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.corpus import prepare_rows, split_sessions
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.rows import SessionRows
from prospect_hf.errors import DataError, UsageError
from prospect_hf.evaluation import baselines
from prospect_hf.evaluation.arguments import EvaluateArguments
from prospect_hf.evaluation.encoders import SentenceEncoder
from prospect_hf.evaluation.predictions import Prediction, session_fingerprint
from prospect_hf.evaluation.tally import Embeddings
from prospect_hf.evaluation.texts import DocumentFrequencies, document_frequencies
from prospect_hf.settings import parse

logger = logging.getLogger(__name__)

# Prepared rows name their clip after the conversation's own name.
_CLIP = re.compile(r"\.clip_\d+$")
# The files of a model's folder that decide what it answers.
REVISED = ("*.safetensors", "config.json", "*processor*.json", "token*.json", "vocab.json", "merges.txt")


@dataclass(frozen=True)
class Corpus:
    """What is evaluated on.

    Args:
        data: the settings.
        sessions: of the split; ``train`` those of the training split, for the baselines.
        reader: their pictures.
        fingerprints: of each session, by its id.
    """

    data: DataArguments
    sessions: list[SessionRows]
    train: list[SessionRows]
    reader: FrameReader
    fingerprints: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """16 hex digits of all sessions."""
        parts = " ".join(f"{name} {value}" for name, value in sorted(self.fingerprints.items()))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


def data_of(model: Path, given: Mapping[str, Any]) -> DataArguments:
    """The data settings: those of a chosen file, or those that the model was trained with and what is given over them.

    A simulated corpus that is there is read as it lies: writing it anew for some of its sources would take the others
    away.

    Raises:
        UsageError: the model's folder does not say what it was trained on, or settings that would change a simulated
            corpus are given with the root of one that is there.
    """
    if "name" in given:
        return parse(DataArguments, given, "data")
    if not model.is_dir():
        raise UsageError(f"evaluate.model={model}: no such folder; give that of a trained model.")
    path = model / "results.json"
    try:
        trained = dict(json.loads(path.read_text(encoding="utf-8"))["settings"]["data"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} does not say what the model was trained on ({error}); choose data=proassist data.root=FOLDER."
        ) from error
    data = parse(DataArguments, {**trained, **given}, "data")
    if data.name == "simulated" and (Path(str(data.root)) / "processed_data").is_dir():
        changed = [key for key in ("recordings", "seed", "scene") if key in given and given[key] != trained.get(key)]
        if changed:
            raise UsageError(
                f"data.{changed[0]} makes another corpus than the one in {data.root}; give it a data.root of its own."
            )
        data = replace(data, name="proassist")
    return data


def load_corpus(args: EvaluateArguments, data: DataArguments, processor: DSTSmolVLMProcessor) -> Corpus:
    """The sessions of the split.

    Raises:
        UsageError: the settings do not fit the corpus.
        DataError: there are no sessions, or one cannot be read.
    """
    loaded = prepare_rows(data)
    sessions = split_sessions(loaded, args.split)
    if not sessions:
        raise DataError(f"data.root={data.root} has no {args.split} sessions in {', '.join(data.sources)}.")
    if args.limit is not None:
        seen: Counter[str] = Counter()
        kept = []
        for session in sessions:
            seen[session.source] += 1
            if seen[session.source] <= args.limit:
                kept.append(session)
        logger.info("%d of %d sessions (evaluate.limit).", len(kept), len(sessions))
        sessions = kept
    forms: dict[str, set[bool]] = {}
    for session in sessions:
        forms.setdefault(_CLIP.sub("", session.session_id), set()).add(bool(_CLIP.search(session.session_id)))
    twice = [name for name, of in forms.items() if len(of) > 1]
    if twice:
        raise DataError(
            f"session {twice[0]} and {len(twice) - 1} others occur as dialogs and as prepared rows, and would be "
            "counted twice; choose one, data.forms=[dialogs]."
        )
    reader = FrameReader(Path(str(data.root)), data.frames, processor)
    if data.frames != "store":
        logger.info("Frames are %s, not the videos': the figures say nothing about seeing.", data.frames)
    fingerprints = {session.session_id: session_fingerprint(session, reader) for session in sessions}
    train = split_sessions(loaded, "train") if args.baselines else []
    return Corpus(data, sessions, train, reader, fingerprints)


def model_revision(folder: Path) -> str:
    """16 hex digits of a model folder's weights and settings."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in REVISED for path in folder.glob(pattern)):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def code_fingerprint() -> str:
    """12 hex digits of the code that decides a prediction: the model's own, reading and packing, both evaluators.

    A version number does not change with every edit; predictions that another code made must not be taken for this
    one's.
    """
    package = Path(__file__).resolve().parents[1]
    model_code = Path(str(inspect.getsourcefile(DSTSmolVLMForConditionalGeneration))).parent
    files = [*model_code.glob("*_dst_smolvlm.py"), *(package / "data").glob("*.py")]
    files += [package / "evaluation" / f"{name}.py" for name in ("offline", "stream", "predict", "predictions")]
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        digest.update(path.name.encode() + b" " + path.read_bytes())
    return digest.hexdigest()[:12]


def common_stamp(
    args: EvaluateArguments,
    corpus: Corpus,
    model: DSTSmolVLMForConditionalGeneration,
    encoder: SentenceEncoder | None,
) -> dict[str, Any]:
    """What every run of this evaluation has in common."""
    speaking, update = args.speaking_threshold, args.dst_update_threshold
    return {
        "mode": "",
        "model": args.model,
        "model_revision": model_revision(Path(args.model)),
        "data": str(corpus.data.root),
        "data_fingerprint": corpus.fingerprint,
        "split": args.split,
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
        "prospect_hf": __version__,
        "code": code_fingerprint(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "draws": args.draws,
    }


def baseline_stamp(stamp: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The stamp of a baseline: no model, and decisions that are 0 or 1."""
    nobody = {"mode": "baseline", "model": name, "model_revision": None, "code": None}
    return dict(stamp) | nobody | {"speaking_threshold": 0.5, "dst_update_threshold": 0.5}


def baseline_predictions(corpus: Corpus) -> dict[str, list[Prediction]]:
    """The baselines by name; those that learn from a training split are left out, and that is said, without one."""
    made = {
        "baseline, silent": [baselines.silent(session) for session in corpus.sessions],
        "baseline, oracle": [baselines.oracle(session) for session in corpus.sessions],
    }
    if corpus.train:
        text = baselines.majority_response(corpus.train)
        schedule = baselines.Schedule(corpus.train)
        made["baseline, majority at the right times"] = [baselines.majority(s, text) for s in corpus.sessions]
        made["baseline, schedule"] = [schedule(session) for session in corpus.sessions]
    else:
        logger.info("There is no training split: the baselines that learn from one are left out.")
    return made


def embed(
    encoder: SentenceEncoder, sessions: Sequence[SessionRows], runs: Sequence[Sequence[Prediction]]
) -> Embeddings:
    """The embeddings of all utterances, said and to be said."""
    said = {text for made in runs for prediction in made for text in prediction.spoken.values()}
    wanted = {item.response for session in sessions for item in session.items.values() if item.response}
    return encoder(said | wanted, progress=True)


def source_frequencies(sessions: Sequence[SessionRows]) -> dict[str, DocumentFrequencies]:
    """How common n-grams are among the references of each source: its figures do not depend on other sources."""
    texts: dict[str, list[str]] = {session.source: [] for session in sessions}
    for session in sessions:
        texts[session.source].extend(i.response for i in session.items.values() if i.response)
    return {source: document_frequencies(of_source) for source, of_source in texts.items()}
