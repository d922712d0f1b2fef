"""What can be set about the data of a run: the ``data`` group, which training and evaluation share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prospect_hf.errors import UsageError
from prospect_hf.sessions import SOURCES


@dataclass
class DataArguments:
    """What is learned from.

    Args:
        name: ``simulated`` (rendered toy tasks, made on the first run) or ``proassist`` (processed_data on disk).
        root: the folder that holds ``processed_data``; for ``simulated`` it is where the corpus is written.
        sources: which of the six sources.
        forms: ``dialogs`` (generated_dialogs records), ``prepared`` (prepared rows), or both.
        frames: ``store`` (the sources' frame files), ``rendered`` (simple pictures drawn from the labels, for timelines
            whose video is not there) or ``blank`` (one grey picture: the control that sees nothing).
        dst: where DST labels come from: ``files``, ``align`` (annotated spans matched with the plan) or ``none``.
        dst_root: folder of label files, for ``dst=files`` where the records hold no ``dst`` themselves.
        suffix: of the dialog files, ``{split}{suffix}.json``.
        on_error: ``raise`` at a bad record, or ``skip`` it: counted and listed.
        cache_dir: where the frame rows are kept.
        max_seq_len: tokens of a training clip at most.
        text_dropout: the largest share of the model's own texts that is left out of a training clip (``ClipDataset``).
        late_start: the share of training clips that begin at a later frame, in the state reached by then.
        recordings: simulated recordings a source: train, val, test.
        seed: of the simulated corpus.
        scene: settings of the simulator (``prospect_hf.simulator.script.SceneConfig``) that differ from its defaults.
    """

    name: str = "simulated"
    root: str | None = None
    sources: list[str] = field(default_factory=lambda: list(SOURCES))
    forms: list[str] = field(default_factory=lambda: ["dialogs"])
    frames: str = "store"
    dst: str = "files"
    dst_root: str | None = None
    suffix: str = "_filtered"
    on_error: str = "raise"
    cache_dir: str = "outputs/cache"
    max_seq_len: int = 2048
    text_dropout: float = 0.0
    late_start: float = 0.0
    recordings: dict[str, int] = field(default_factory=dict)
    seed: int = 0
    scene: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        choices = {
            "name": (self.name, ("simulated", "proassist")),
            "frames": (self.frames, ("store", "rendered", "blank")),
            "dst": (self.dst, ("files", "align", "none")),
            "on_error": (self.on_error, ("raise", "skip")),
        }
        choices |= {f"forms[{i}]": (form, ("dialogs", "prepared")) for i, form in enumerate(self.forms)}
        choices |= {f"sources[{i}]": (source, SOURCES) for i, source in enumerate(self.sources)}
        for name, (value, allowed) in choices.items():
            if value not in allowed:
                raise UsageError(f"data.{name} must be one of {', '.join(allowed)}, not {value!r}.")
        if not self.root:
            raise UsageError("data.root is not set: give the folder that holds processed_data, data.root=FOLDER.")
        if not self.sources or not self.forms:
            raise UsageError("data.sources and data.forms must each name at least one.")
        if not 0.0 <= self.text_dropout <= 1.0:
            raise UsageError(f"data.text_dropout must lie in [0, 1], not {self.text_dropout}.")
        if not 0.0 <= self.late_start <= 1.0:
            raise UsageError(f"data.late_start must lie in [0, 1], not {self.late_start}.")
