"""A way of labelling videos: what it stands for in the provenance, what it will cost, and how it labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from prospect_hf.align.named import named_aligner
from prospect_hf.annotate.by_processes import alignments
from prospect_hf.annotate.corpus import Video
from prospect_hf.annotate.made import Emit, failed, labelled
from prospect_hf.annotate.records import Provenance
from prospect_hf.annotate.validation import Policy
from prospect_hf.errors import DataError

# Those parts of the provenance that are settings.
SOURCE_KEYS = ("aligner", "version", "model", "prompt")


class Labelling(ABC):
    """A way of labelling.

    Args:
        source: aligner, version, model and prompt, as each record has them.
        policy: of the validation.
        settings: what else the labels follow from, beside the records.
    """

    def __init__(self, source: Provenance, policy: Policy, settings: dict[str, Any]) -> None:
        self.source, self.policy, self.settings = source, policy, settings

    def facts(self) -> dict[str, Any]:
        """All that the labels follow from, beside the records."""
        named = {key: value for key, value in asdict(self.source).items() if key in SOURCE_KEYS}
        return named | self.settings | asdict(self.policy)

    def begin(self) -> None:
        """Get ready to label. Raises ``UsageError`` where the settings of the server cannot be used."""
        return

    def prepare(self, videos: Iterable[Video], emit: Emit | None) -> str:
        """Find out what labelling will cost, before anything is asked; a way that asks nobody has nothing to find out.

        Args:
            videos: those that are to be labelled.
            emit: is told what was made of videos about which nobody needs to be asked; None: nothing is to be made.

        Returns:
            the cost in words; empty for a way that asks nobody.
        """
        return ""

    def spent(self) -> dict[str, float | None]:
        """What this run has spent, as ``LLMClient.spent`` tells it; empty for a way that asks nobody."""
        return {}

    @abstractmethod
    def label(self, videos: Iterable[Video], emit: Emit) -> None:
        """Label videos, and tell ``emit`` what was made of each, in any order; few videos are held at a time.

        Raises:
            LimitReached: a limit of the language model's settings, after what was answered is emitted.
            UsageError: the server cannot be used.
        """


class LocalLabelling(Labelling):
    """Labels by an aligner that needs no server, in worker processes.

    Args:
        name, encoder: as in ``named_aligner``.
        processes: worker processes; 1: in this process.
        policy: of the validation.

    Raises:
        UsageError: there is no such encoder.
    """

    def __init__(self, name: str, encoder: str, processes: int, policy: Policy) -> None:
        super().__init__(Provenance(name, named_aligner(name, encoder).version), policy, {})
        self.name, self.encoder, self.processes = name, encoder, processes

    def label(self, videos: Iterable[Video], emit: Emit) -> None:
        """As in ``Labelling``."""
        for video, found in alignments(self.name, self.encoder, videos, self.processes):
            if isinstance(found, DataError):
                emit(video, failed(video, found, self.source))
            else:
                emit(video, labelled(video, found, self.source, self.policy))
