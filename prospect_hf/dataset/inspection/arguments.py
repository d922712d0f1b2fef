"""What can be set about inspecting a dataset: the ``inspect`` group of ``scripts/inspect_dataset.py``."""

from __future__ import annotations

from dataclasses import dataclass

from prospect_hf.errors import UsageError


@dataclass
class InspectArguments:
    """Which dataset is checked and shown, and what is at hand beside it.

    Args:
        dataset: the folder, as ``scripts/build_dataset.py`` writes it or as it was downloaded from the Hub.
        output_dir: where the page, the pictures and the figures are written.
        session: id of the session to show; without it, one of each source.
        tokenizer: folder of a trained model, or of any SmolVLM2 tokenizer: counts the tokens of every session.
        frames: the folder that has the frames of each source in ``{source}/frames``, or ``processed_data`` with
            them: sessions are compared with the length of their video, and some frames are shown.
    """

    dataset: str | None = None
    output_dir: str = "outputs/inspection"
    session: str | None = None
    tokenizer: str | None = None
    frames: str | None = None

    def __post_init__(self) -> None:
        if not self.dataset:
            raise UsageError("Give the dataset: prospect inspect FOLDER, or inspect.dataset=FOLDER.")
