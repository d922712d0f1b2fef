"""The sessions of a run by split, with their label balance."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.clip_stream import SessionStream
from prospect_hf.data.corpus import LoadedRows, prepare_rows, split_sessions, streamed_sessions
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.data.session_store import SessionStore
from prospect_hf.dataset.layout import SPLITS
from prospect_hf.errors import DataError
from prospect_hf.sessions import SOURCES

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """The sessions of each split, and the label counts by ``"SOURCE FORM SPLIT"``.

    ``stream``: with ``data.streaming``, the training sessions; ``train`` is then empty. ``held_out_sources``: of these,
    ``test`` alone has sessions.
    """

    train: SessionStore
    validation: SessionStore
    test: SessionStore
    balance: dict[str, dict[str, int]]
    stream: SessionStream | None = None
    held_out_sources: tuple[str, ...] = ()

    @property
    def learned(self) -> Iterable[SessionRows]:
        """The training sessions, to be read in one pass."""
        return self.train if self.stream is None else self.stream

    @property
    def sessions(self) -> SessionStore:
        """The sessions of all splits."""
        return SessionStore([*self.train.files, *self.validation.files, *self.test.files])

    @property
    def held_out(self) -> tuple[str, SessionStore]:
        """Name and sessions of the split for the free run: test, or validation where there is no test session."""
        return ("test", self.test) if self.test else ("validation", self.validation)


def load_splits(data: DataArguments) -> Splits:
    """Read the sessions; a simulated corpus is written first if it is missing.

    Raises:
        UsageError: a folder is missing, or the settings contradict each other.
        DataError: a record cannot be used, there is no training session, or a held-out source has no test session.
    """
    loaded = prepare_rows(data)
    where = f"data.root={data.root}" if data.rows is None else f"data.rows={data.rows}"
    for source in data.held_out_sources:
        if not any(part.manifest.of_split("test", source) for part in loaded):
            raise DataError(
                f"{where} has no test sessions of {source}, which data.held_out_sources holds out to evaluate on: name "
                "a source that it has."
            )
    stream = streamed_sessions(loaded, "train") if data.streaming else None
    train = SessionStore([]) if data.streaming else split_sessions(loaded, "train")
    validation, test = (split_sessions(loaded, split) for split in ("validation", "test"))
    if not (train if stream is None else stream.files):
        out = f" but in the held-out {', '.join(data.held_out_sources)}" if data.held_out_sources else ""
        raise DataError(f"{where} has no training rows in {', '.join(data.learned_sources)}{out}.")
    if data.frames != "store":
        logger.info("Frames are %s, not the videos': the model learns nothing about seeing.", data.frames)
    return Splits(train, validation, test, label_balance_by_source(loaded), stream, tuple(data.held_out_sources))


def label_balance_by_source(loaded: Sequence[LoadedRows]) -> dict[str, dict[str, int]]:
    """Label counts of every source, form and split that is read, from the manifests: ``"wtag dialogs train"``."""
    balance = {}
    for part in loaded:
        for split in SPLITS:
            read = part.sources_of(split)
            of_split = part.manifest.balance.get(split, {})
            counted = {source: of_split[source] for source in SOURCES if source in read and source in of_split}
            for source, counts in counted.items():
                balance[f"{source} {part.form} {split}"] = counts
            if counted:
                names = next(iter(counted.values()))
                balance[f"all {part.form} {split}"] = {
                    name: sum(counts[name] for counts in counted.values()) for name in names
                }
    return balance
