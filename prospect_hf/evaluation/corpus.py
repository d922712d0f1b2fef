"""Loads the sessions of an evaluation, and fingerprints them."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checked_json import as_dict, get_dict, load_json
from prospect_hf.data.arguments import FOLDERS, DataArguments
from prospect_hf.data.corpus import prepare_rows, split_sessions
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError, UsageError
from prospect_hf.evaluation.arguments import EvaluateArguments
from prospect_hf.evaluation.predictions import session_fingerprint
from prospect_hf.hub.published import ELSEWHERE
from prospect_hf.hub.weights import WEIGHTS_KEY, check_weights
from prospect_hf.sessions import SOURCES
from prospect_hf.settings import parse

logger = logging.getLogger(__name__)

# Ending of the session ids of prepared rows, after the id of the conversation.
_CLIP = re.compile(r"\.clip_\d+$")


@dataclass(frozen=True)
class Corpus:
    """The data of an evaluation.

    Args:
        data: the settings.
        sessions: the sessions of the evaluated split.
        train: the sessions of the training split, for the baselines; empty without baselines.
        reader: reader of the pictures.
        fingerprints: session id -> fingerprint of the session.
    """

    data: DataArguments
    sessions: Sequence[SessionRows]
    train: Sequence[SessionRows]
    reader: FrameReader
    fingerprints: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """16 hex digits of a hash over all sessions."""
        parts = " ".join(f"{name} {value}" for name, value in sorted(self.fingerprints.items()))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


def data_of(model: Path, given: Mapping[str, Any]) -> DataArguments:
    """The data settings: ``given`` where it names a corpus, otherwise those of the model's training with its overrides.

    An existing simulated corpus is read as it is: writing it again for some sources would delete the other ones. The
    held-out sources are always those of the training, where that is recorded.

    Raises:
        UsageError: the model's folder does not record its training data, ``given`` would change an existing simulated
            corpus, or says that other sources were held out.
    """
    recorded = recorded_held_out(model)
    if recorded is not None:
        said = given.get("held_out_sources", recorded)
        if sorted(said) != sorted(recorded):
            raise UsageError(
                f"data.held_out_sources=[{','.join(map(str, said))}] is not what {model} was trained with, "
                f"[{','.join(recorded)}]: leave it out, since the model's results.json says it."
            )
        given = {**given, "held_out_sources": recorded}
    if "name" in given:
        return parse(DataArguments, given, "data")
    if not model.is_dir():
        raise UsageError(f"evaluate.model={model}: no such folder; give the folder of a trained model.")
    path = model / "results.json"
    try:
        facts = as_dict(load_json(path), str(path))
        settings = get_dict(facts, "settings", str(path))
        trained = get_dict(settings, "data", f"{path}: settings")
        weights = facts.get(WEIGHTS_KEY)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} does not record the training data ({error}); set data=proassist data.root=FOLDER."
        ) from error
    check_weights(model, weights, path)
    trained |= {name: folder for name in FOLDERS if (folder := _folder(model, name, trained.get(name), given))}
    data = parse(DataArguments, {**trained, **given}, "data")
    if data.name == "simulated" and (Path(str(data.root)) / "processed_data").is_dir():
        changed = [key for key in ("recordings", "seed", "scene") if key in given and given[key] != trained.get(key)]
        if changed:
            raise UsageError(
                f"data.{changed[0]} differs from the existing corpus in {data.root}; set data.root to another folder."
            )
        data = replace(data, name="proassist")
    return data


def recorded_held_out(model: Path) -> list[str] | None:
    """The sources that were held out when the model in a folder was trained; None where nothing is recorded.

    Raises:
        DataError: what is recorded is no list of sources.
    """
    path = model / "results.json"
    try:
        facts = as_dict(load_json(path), str(path))
        data = get_dict(get_dict(facts, "settings", str(path)), "data", f"{path}: settings")
    except (OSError, ValueError):
        return None  # not a folder that prospect train wrote: the data must be given, and so can this
    held_out = data.get("held_out_sources", [])  # an earlier version held out none
    if not isinstance(held_out, list) or any(source not in SOURCES for source in held_out):
        raise DataError(f"{path}: held_out_sources is {held_out!r} and no list of sources; train or download it again.")
    return held_out


def _folder(model: Path, name: str, recorded: object, given: Mapping[str, Any]) -> str | None:
    """A folder of the training data, which ``results.json`` names relative to the model's folder; None: not named."""
    if not isinstance(recorded, str) or name in given:
        return None
    if recorded.startswith(ELSEWHERE):
        if name == "cache_dir":
            return DataArguments.cache_dir
        raise UsageError(
            f"{model / 'results.json'} does not say where {recorded.removeprefix(ELSEWHERE)} lies, which the model "
            f"learned from: set data.{name}=FOLDER."
        )
    return os.path.normpath(model / recorded)


def load_corpus(args: EvaluateArguments, data: DataArguments, processor: DSTSmolVLMProcessor) -> Corpus:
    """Load the sessions of ``args.split``, at most ``args.limit`` of each source.

    Raises:
        UsageError: the settings do not match the corpus.
        DataError: there is no session, a session is invalid, or one is in both forms.
    """
    loaded = prepare_rows(data)
    sessions: Sequence[SessionRows] = split_sessions(loaded, args.split)
    if not sessions:
        out = f" ({', '.join(data.held_out_sources)} was held out)" if data.held_out_sources else ""
        raise DataError(f"data.root={data.root} has no {args.split} sessions in {', '.join(data.sources)}{out}.")
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
    duplicates = [name for name, session_forms in forms.items() if len(session_forms) > 1]
    if duplicates:
        raise DataError(
            f"session {duplicates[0]} and {len(duplicates) - 1} others occur as dialogs and as prepared rows and would "
            "be counted twice; choose one form, for example data.forms=[dialogs]."
        )
    reader = FrameReader(Path(str(data.root)), data.frames, processor)
    if data.frames != "store":
        logger.info("data.frames=%s: the model sees no video, so the figures say nothing about vision.", data.frames)
    fingerprints = {session.session_id: session_fingerprint(session, reader) for session in sessions}
    train: Sequence[SessionRows] = split_sessions(loaded, "train") if args.baselines else []
    return Corpus(data, sessions, train, reader, fingerprints)
