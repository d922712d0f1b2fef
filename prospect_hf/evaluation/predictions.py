"""Predictions of a session, and their store on disk; metrics and reports read predictions and never the model.

Each session has one safetensors file, written atomically, with a key: a hash of everything that determines its content.
A run that was interrupted continues with the missing sessions. Files of another model, threshold or corpus have another
key and are not reused. Each file is sealed: its content hash is checked whenever it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from prospect_hf.content_hash import UNSEALED, check_seal, seal
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.files import replacing
from prospect_hf.frames.opened import frames_hash
from streaming_dst_smolvlm import StreamEvent

REMEDY = "remove it and evaluate again"


@dataclass
class ForcedTexts:
    """How well the LM head predicts the reference texts; each array is ``[texts]``.

    Args:
        frame: the frame of the text.
        is_state: whether the text is a state text; otherwise it is a response.
        tokens: number of labelled tokens, including the end token.
        nll: sum of the negative log-likelihoods, in nats.
        right: number of tokens that are the argmax at their position.
        prefix: number of such tokens before the first wrong one.
    """

    frame: NDArray[np.int64]
    is_state: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    nll: NDArray[np.float64]
    right: NDArray[np.int64]
    prefix: NDArray[np.int64]


@dataclass
class Prediction:
    """The model's predictions on one session.

    Args:
        p_speak, p_update: ``[frames]`` probabilities of speaking and of a DST update.
        states: ``[frames, steps]`` argmax of the state head at each frame.
        table: ``[frames, steps]`` tracked states after each frame, which change only where the model decides on an
            update; None without tracking (teacher-forced).
        spoken: frame -> the assistant's text.
        updates: frames on which the tracked states changed.
        rejected: number of state changes that the tracking policy rejected.
        overflows: frames before which the context was shortened.
        forced: the LM head on the reference texts; None in a stream.
        wordless: it decides when to speak, but writes no texts; those of ``spoken`` are empty, and say nothing.
    """

    p_speak: NDArray[Any]
    p_update: NDArray[Any]
    states: NDArray[Any]
    table: NDArray[Any] | None
    spoken: dict[int, str] = field(default_factory=dict)
    updates: list[int] = field(default_factory=list)
    rejected: int = 0
    overflows: list[int] = field(default_factory=list)
    forced: ForcedTexts | None = None
    wordless: bool = False

    def __len__(self) -> int:
        return len(self.p_speak)


def prediction_of(events: Sequence[StreamEvent]) -> Prediction:
    """The prediction made of the events of a complete stream."""
    return Prediction(
        p_speak=np.array([event.p_speak for event in events]),
        p_update=np.array([event.p_update for event in events]),
        states=np.array([event.probabilities for event in events]).argmax(-1),
        table=np.array([event.states for event in events]),
        spoken={event.frame: event.text for event in events if event.text is not None},
        updates=[event.frame for event in events if event.transitions],
        rejected=sum(event.rejected for event in events),
        overflows=[event.frame for event in events if event.context is not None],
    )


def session_fingerprint(session: SessionRows, reader: FrameReader) -> str:
    """16 hex digits of a hash of a session's rows (plan, texts, labels, frame indices) and of its stored frames.

    Raises:
        DataError: the frames are missing.
    """
    digest = hashlib.sha256(reader.frames.encode())
    if reader.frames == "store":
        digest.update(frames_hash(reader.path(session)).encode())
    facts = [session.session_id, session.source, session.video_uid, session.goal, session.steps, session.first_frame]
    items = [[at, sorted(item.changes.items()), item.user_text, item.response] for at, item in session.items.items()]
    digest.update(json.dumps([*facts, sorted(items)], ensure_ascii=True).encode())
    for labels in (session.speaking, session.dst_update, session.states_before, session.states_after):
        digest.update(np.ascontiguousarray(labels, "<i8").tobytes())
    return digest.hexdigest()[:16]


class PredictionStore:
    """The predictions of one run, one file per session.

    Args:
        folder: folder of the run.
        facts: everything that determines a prediction apart from the session (model, thresholds, context, ...).
        fingerprints: session id -> fingerprint of the session.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], fingerprints: Mapping[str, str]) -> None:
        self.folder, self.fingerprints = folder, dict(fingerprints)
        self.facts = json.dumps(facts, sort_keys=True)

    def path(self, session: SessionRows) -> Path:
        """The session's file."""
        return self.folder / f"{session.session_id}.safetensors"

    def key(self, session: SessionRows) -> str:
        """A hash of everything that determines the session's prediction."""
        return hashlib.sha256(f"{self.facts} {self.fingerprints[session.session_id]}".encode()).hexdigest()

    def has(self, session: SessionRows) -> bool:
        """Whether the store has a prediction of the session with the same key.

        Raises:
            DataError: the file cannot be read, or is damaged.
        """
        path = self.path(session)
        if not path.is_file() or self._facts(path)["key"] != self.key(session):
            return False
        check_seal(path, REMEDY)
        return True

    def save(self, session: SessionRows, prediction: Prediction) -> None:
        """Write a session's prediction.

        Raises:
            DataError: its shapes do not match the session.
        """
        shapes = [(session.states_after.shape, prediction.states.shape), ((len(session),), prediction.p_speak.shape)]
        if prediction.table is not None:
            shapes.append((session.states_after.shape, prediction.table.shape))
        for wanted, found in shapes:
            if wanted != found:
                raise DataError(f"session {session.session_id}: the prediction has shape {found}, not {wanted}.")
        arrays = {
            "p_speak": np.asarray(prediction.p_speak, np.float64),
            "p_update": np.asarray(prediction.p_update, np.float64),
            "states": np.asarray(prediction.states, np.int8),
        }
        if prediction.table is not None:
            arrays["table"] = np.asarray(prediction.table, np.int8)
        if prediction.forced is not None:
            arrays |= {f"forced_{name}": value for name, value in vars(prediction.forced).items()}
        facts = {
            "key": self.key(session),
            "spoken": json.dumps(prediction.spoken),
            "updates": json.dumps(prediction.updates),
            "rejected": str(prediction.rejected),
            "overflows": json.dumps(prediction.overflows),
            "wordless": json.dumps(prediction.wordless),
            **UNSEALED,
        }
        with replacing(self.path(session)) as temporary:
            save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, temporary, facts)
            seal(temporary)

    def load(self, session: SessionRows) -> Prediction:
        """Load a session's prediction.

        Raises:
            DataError: the file is missing, has another key, is damaged or cannot be read.
        """
        path = self.path(session)
        facts = self._facts(path)
        if facts["key"] != self.key(session):
            raise DataError(f"{path}: was made with another model, setting or corpus; evaluate again.")
        check_seal(path, REMEDY)
        arrays = load_file(path)
        forced = {name.removeprefix("forced_"): value for name, value in arrays.items() if name.startswith("forced_")}
        return Prediction(
            p_speak=arrays["p_speak"],
            p_update=arrays["p_update"],
            states=arrays["states"].astype(np.int64),
            table=arrays["table"].astype(np.int64) if "table" in arrays else None,
            spoken={int(frame): text for frame, text in json.loads(facts["spoken"]).items()},
            updates=json.loads(facts["updates"]),
            rejected=int(facts["rejected"]),
            overflows=json.loads(facts["overflows"]),
            forced=ForcedTexts(**forced) if forced else None,
            wordless=json.loads(facts["wordless"]),
        )

    @staticmethod
    def _facts(path: Path) -> dict[str, str]:
        """The file's metadata. Before its seal is checked, only the key may be read from it."""
        try:
            with safe_open(path, "np") as file:
                facts: dict[str, str] | None = file.metadata()
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path}: not a file of predictions ({error}); {REMEDY}.") from error
        if facts is None or "key" not in facts:
            raise DataError(f"{path}: not a file of predictions (it has no key); {REMEDY}.")
        return facts
