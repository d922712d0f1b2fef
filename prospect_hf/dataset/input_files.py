"""Configuration of ``dst_frames``: the input files of the rows, and their fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import datasets

import prospect_hf
from prospect_hf.code_fingerprint import code_fingerprint
from prospect_hf.content_hash import file_hash
from prospect_hf.errors import UsageError
from prospect_hf.frames.opened import frame_entries
from prospect_hf.sessions import SOURCES
from prospect_hf.sources.dialog_files import FILTERED, dialog_files, other_forms
from prospect_hf.sources.prepared import PREPARED_FILES, prepared_files
from prospect_hf.sources.proassist import DST, source_folder
from prospect_hf.sources.report import FILE_SPLITS, OnError

VERSION = datasets.Version("2.0.0")

Form = Literal["dialogs", "prepared"]

# The code that determines the content of a row and of the report; a change here invalidates cached rows.
LABEL_CODE = (
    "sessions.py",
    "timeline.py",
    "checked_json.py",
    "words.py",
    "sources/*.py",
    "sources/annotations/*.py",
    "labels/*.py",
    "frames/base.py",
    "frames/folder.py",
    "frames/opened.py",
    "frames/store.py",
    "frames/video.py",
    "dataset/dst_frames.py",
    "dataset/input_files.py",
    "dataset/licenses.py",
    "dataset/read.py",
    "dataset/row_maker.py",
    "dataset/report.py",
)


@dataclasses.dataclass(eq=False)
class DstFramesConfig(datasets.BuilderConfig):
    """Configuration of the builder.

    Args:
        root: folder that holds ``processed_data``.
        sources: the sources to read; a source without files is left out and listed in the report as absent.
        dst: "files", "align" or "none", see ``read_sessions``; "align" gives prepared rows no state labels.
        dst_root: folder of state label files.
        suffix: which dialog files are read: "_filtered", "" (unfiltered) or "/" (a file for each video), see
            ``dialog_files``.
        pattern: glob pattern of the prepared files, with ``{split}`` as placeholder.
        on_error: "raise" or "skip" on a bad record.
        form: "dialogs" (generated_dialogs) or "prepared" (prepared rows).
    """

    root: str = ""
    sources: Sequence[str] = SOURCES
    dst: DST = "none"
    dst_root: str = ""
    suffix: str = FILTERED
    pattern: str = PREPARED_FILES
    on_error: OnError = "raise"
    form: Form = "dialogs"

    def input_files(self) -> dict[tuple[str, str], list[Path]]:
        """The existing input files by (split, source), ordered by split.

        Raises ``UsageError`` where ``root`` has no ``processed_data``, or no input file.
        """
        if not self.root:
            raise UsageError("root is not set; give the folder that holds processed_data.")
        if self.form not in ("dialogs", "prepared"):
            raise UsageError(f"form is '{self.form}'; it must be dialogs or prepared.")
        root = Path(self.root)
        for source in self.sources:
            if source not in SOURCES:
                raise UsageError(f"source '{source}' is unknown; known are {', '.join(SOURCES)}.")
        if len(self.sources) == 1:
            source_folder(root, self.sources[0])
        elif not (root / "processed_data").is_dir():
            raise UsageError(f"{root / 'processed_data'}: no such folder; root is the folder that holds it.")
        found: dict[tuple[str, str], list[Path]] = {}
        for split in FILE_SPLITS:
            for source in self.sources:
                if self.form == "prepared":
                    files = prepared_files(root, source, split, self.pattern)
                else:
                    files = dialog_files(root, source, split, self.suffix)
                if files:
                    found[split, source] = files
        if not found:
            raise UsageError(self._nothing_found(root))
        return found

    def _nothing_found(self, root: Path) -> str:
        """The message where there is no input file: what was looked for, and which other forms there are."""
        place, sources = root / "processed_data", ", ".join(self.sources)
        if self.form == "prepared":
            return f"{place}: no prepared/{self.pattern.replace('{split}', '{train,val,test}')} for {sources}."
        names = {name for source in self.sources for name in other_forms(root, source)}
        there = f"; there are {', '.join(sorted(names))}, which another value of suffix reads" if names else ""
        return f"{place}: no generated_dialogs/{{train,val,test}}{self.suffix}.json for {sources}{there}."

    def fingerprint(self) -> str:
        """A hash of everything that determines the rows: the texts of the input files, the frame files, the label code.

        Of stored frames, which only set how many frames there are, size and time stand for the content.
        """
        root = Path(self.root)
        texts = {path for paths in self.input_files().values() for path in paths}
        if self.dst_root:
            texts.update(Path(self.dst_root).rglob("*.json"))
        digest = hashlib.sha256()
        for path in sorted(texts):
            digest.update(f"{path.resolve()}\0{file_hash(path)}\0".encode())
        for source in self.sources:
            for path in frame_entries(root / "processed_data" / source / "frames"):
                stat = path.stat()  # of a folder of pictures: its time changes with the names in it
                digest.update(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        digest.update(code_fingerprint(Path(prospect_hf.__file__).parent, LABEL_CODE).encode())
        return digest.hexdigest()

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """The name of the cache folder, which changes with the inputs."""
        inputs = {**config_kwargs, "fingerprint": self.fingerprint()}
        return str(super().create_config_id(inputs, custom_features=custom_features))
