"""The sessions of a run by split, with their label balance."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.corpus import LoadedRows, prepare_rows, split_sessions
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.dataset.balance import balance_by_source, label_balance
from prospect_hf.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """The sessions of each split, and the label counts by ``"SOURCE FORM SPLIT"``."""

    train: list[SessionRows]
    validation: list[SessionRows]
    test: list[SessionRows]
    balance: dict[str, dict[str, int]]

    @property
    def sessions(self) -> list[SessionRows]:
        """The sessions of all splits."""
        return [*self.train, *self.validation, *self.test]

    @property
    def held_out(self) -> tuple[str, list[SessionRows]]:
        """Name and sessions of the split for the free run: test, or validation where there is no test session."""
        return ("test", self.test) if self.test else ("validation", self.validation)


def load_splits(data: DataArguments) -> Splits:
    """Read the sessions; a simulated corpus is written first if it is missing.

    Raises:
        UsageError: a folder is missing, or the settings contradict each other.
        DataError: a record cannot be used, or there is no training session.
    """
    loaded = prepare_rows(data)
    train, validation, test = (split_sessions(loaded, split) for split in ("train", "validation", "test"))
    if not train:
        raise DataError(f"data.root={data.root} has no training rows in {', '.join(data.sources)}.")
    if data.frames != "store":
        logger.info("Frames are %s, not the videos': the model learns nothing about seeing.", data.frames)
    return Splits(train, validation, test, label_balance_by_source(loaded))


def label_balance_by_source(loaded: Sequence[LoadedRows]) -> dict[str, dict[str, int]]:
    """Label counts of every source, form and split: ``"wtag dialogs train" -> counts``."""
    balance = {}
    for part in loaded:
        for split, rows in part.rows.items():
            for source, counts in balance_by_source(rows).items():
                balance[f"{source} {part.form} {split}"] = counts
            balance[f"all {part.form} {split}"] = label_balance(rows)
    return balance
