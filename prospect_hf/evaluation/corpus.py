"""What an evaluation works on: the sessions of a split, the model's revision, and the stamp that tells them apart."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.corpus import prepare_rows, split_sessions
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError, UsageError
from prospect_hf.evaluation.arguments import EvaluateArguments
from prospect_hf.evaluation.predictions import session_fingerprint
from prospect_hf.settings import parse

logger = logging.getLogger(__name__)

# Prepared rows name their clip after the conversation's own name.
_CLIP = re.compile(r"\.clip_\d+$")


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
