"""The ``dst_frames`` dataset: one row a frame, with everything that was said and that changed on it.

Pixels stay in the frame stores; a row names its store and its frame. Input files are read and checked when the rows are
made, and a cache of rows is taken again only while they (and the code that makes the labels) are unchanged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import prospect_hf
from prospect_hf.errors import UsageError
from prospect_hf.sessions import COMPLETED, IGNORE, IN_PROGRESS, NOT_STARTED, SOURCES, Session
from prospect_hf.sources.prepared import PREPARED_FILES, prepared_files, read_prepared
from prospect_hf.sources.proassist import DST, dialogs_file, read_sessions, source_folder
from prospect_hf.sources.report import FILE_SPLITS, OnError, SessionsReport, check_splits
from prospect_hf.timeline import build_timeline

VERSION = datasets.Version("1.0.0")
REPORT_FILE = "report.json"
Form = Literal["dialogs", "prepared"]

FEATURES = datasets.Features(
    {
        "source": datasets.Value("string"),
        "video_uid": datasets.Value("string"),
        "session_id": datasets.Value("string"),
        "recording": datasets.Value("string"),
        "user_type": datasets.Value("string"),
        "frame_index": datasets.Value("int32"),
        "timestamp": datasets.Value("float32"),
        "frames_file": datasets.Value("string"),
        "goal": datasets.Value("string"),
        "steps": datasets.List(datasets.Value("string")),
        "user_text": datasets.Value("string"),
        "speaking": datasets.Value("int8"),
        "response": datasets.Value("string"),
        "dst_update": datasets.Value("int8"),
        "transitions": datasets.List({"step": datasets.Value("int32"), "transition": datasets.Value("string")}),
        "states_before": datasets.List(datasets.Value("int8")),
        "states_after": datasets.List(datasets.Value("int8")),
        "progress": datasets.Value("string"),
    }
)
_LABEL_CODE = ("sessions.py", "timeline.py", "sources/*.py", "labels/align.py", "data/dst_frames.py")


@dataclasses.dataclass(eq=False)
class DstFramesConfig(datasets.BuilderConfig):
    """What rows are made of.

    root: folder that holds ``processed_data``. sources: which to read; one that has no file there is left out and
    named in the report. form: "dialogs" (generated_dialogs) or "prepared" (prepared rows).
    dst: "files", "align" or "none", see ``read_sessions``; prepared rows have state labels with "files" alone.
    dst_root: folder of state label files. suffix: of dialog files. pattern: of prepared files, ``{split}`` filled in.
    on_error: "raise" or "skip".
    """

    root: str = ""
    sources: Sequence[str] = SOURCES
    dst: DST = "none"
    dst_root: str = ""
    suffix: str = "_filtered"
    pattern: str = PREPARED_FILES
    on_error: OnError = "raise"
    form: Form = "dialogs"

    def input_files(self) -> dict[tuple[str, str], list[Path]]:
        """The files of each (split, source), in the order of splits; only those that exist.

        Raises ``UsageError`` where root is no such folder, or has nothing to read.
        """
        if not self.root:
            raise UsageError("root is not set; it is the folder that holds processed_data.")
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
                    dialogs = dialogs_file(root, source, split, self.suffix)
                    files = [dialogs] if dialogs.is_file() else []
                if files:
                    found[split, source] = files
        if not found:
            wanted = (
                f"prepared/{self.pattern.format(split='{train,val,test}')}"
                if self.form == "prepared"
                else f"generated_dialogs/{{train,val,test}}{self.suffix}.json"
            )
            raise UsageError(f"{root / 'processed_data'}: no {wanted} for {', '.join(self.sources)}.")
        return found

    def fingerprint(self) -> str:
        """A digest of all that decides the rows: where every input lies, its size and its time; and the label code."""
        root = Path(self.root)
        files = {path for paths in self.input_files().values() for path in paths}
        for source in self.sources:
            files.update((root / "processed_data" / source / "frames").glob("*.arrow"))
        if self.dst_root:
            files.update(Path(self.dst_root).rglob("*.json"))
        digest = hashlib.sha256()
        for path in sorted(files):
            stat = path.stat()
            digest.update(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        package = Path(prospect_hf.__file__).parent
        for path in sorted(path for pattern in _LABEL_CODE for path in package.glob(pattern)):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """The name of the cache folder: a changed input gives another one."""
        inputs = {**config_kwargs, "fingerprint": self.fingerprint()}
        return str(super().create_config_id(inputs, custom_features=custom_features))


class DstFrames(datasets.GeneratorBasedBuilder):
    """Frame rows of one source, or of all: ``DstFrames(config_name="wtag", root="...", dst="align")``.

    Splits are train, validation and test, as far as their files exist. ``report`` tells, by split and source, what was
    read and what was not; it also lies beside the rows as ``report.json``. Raises ``UsageError`` and ``DataError``.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = DstFramesConfig
    BUILDER_CONFIGS: ClassVar[list[DstFramesConfig]] = [
        *(DstFramesConfig(name=source, version=VERSION, sources=(source,)) for source in SOURCES),
        DstFramesConfig(name="all", version=VERSION),
    ]

    def __init__(self, *args: Any, config_name: str | None = None, **kwargs: Any) -> None:
        # Left to itself, the library makes up a config called "default" out of the other arguments.
        if config_name not in self.builder_configs:
            raise UsageError(f"config_name is {config_name!r}; it must be one of {', '.join(self.builder_configs)}.")
        self._report: dict[str, Any] | None = None
        super().__init__(*args, config_name=config_name, **kwargs)

    @property
    def report(self) -> dict[str, Any]:
        """``{"absent": [source], "splits": {split: {source: {...}}}}``, see ``SessionsReport``.

        Raises ``UsageError`` before the rows are made.
        """
        if self._report is None:
            self._report = _load_report(Path(self.cache_dir) / REPORT_FILE)
        return self._report

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=FEATURES)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # Everything is read here and not in _generate_examples, whose errors the library wraps in its own.
        files = self.config.input_files()
        reports = [self._read(source, split) for split, source in files]
        check_splits(reports)
        by_split: dict[str, list[SessionsReport]] = {}
        for report in reports:
            by_split.setdefault(report.split, []).append(report)
        read = {source for _, source in files}
        self._report = {
            "absent": [source for source in self.config.sources if source not in read],
            "splits": {
                split: {report.source: _summary(report) for report in of_split} for split, of_split in by_split.items()
            },
        }
        return [
            datasets.SplitGenerator(
                name=split, gen_kwargs={"sessions": [one for report in of_split for one in report.sessions]}
            )
            for split, of_split in by_split.items()
        ]

    def _read(self, source: str, split: str) -> SessionsReport:
        config = self.config
        root, dst_root = Path(config.root), Path(config.dst_root) if config.dst_root else None
        if config.form == "dialogs":
            return read_sessions(
                root,
                source,
                split,
                dst=config.dst,
                dst_root=dst_root,
                suffix=config.suffix,
                on_error=config.on_error,
            )
        if config.dst == "files" and dst_root is None:
            raise UsageError("prepared rows have no state labels of their own; set dst_root, or dst=none.")
        return read_prepared(
            root,
            source,
            split,
            pattern=config.pattern,
            dst_root=dst_root if config.dst == "files" else None,
            on_error=config.on_error,
        )

    def _download_and_prepare(self, dl_manager: Any, verification_mode: Any, **prepare_splits_kwargs: Any) -> None:
        super()._download_and_prepare(dl_manager, verification_mode, **prepare_splits_kwargs)
        # The folder is still the library's temporary one, which it renames when all is written.
        text = json.dumps(self._report, indent=1, ensure_ascii=False)
        (Path(self._output_dir) / REPORT_FILE).write_text(text + "\n", encoding="utf-8")

    def _generate_examples(self, sessions: list[Session]) -> Iterator[tuple[Any, dict[str, Any]]]:
        for number, session in enumerate(sessions):
            for row in session_rows(session):
                yield datasets.builder.Key(number, row["frame_index"]), row


def session_rows(session: Session) -> Iterator[dict[str, Any]]:
    """One row a frame of ``session``, in order; ``timestamp`` is the end of the frame, when it is known."""
    timeline = build_timeline(session)
    shared = {
        "source": session.source,
        "video_uid": session.video_uid,
        "session_id": session.session_id,
        "recording": session.recording,
        "user_type": session.user_type,
        "frames_file": session.frames_file,
        "goal": session.goal,
        "steps": [step.text for step in session.steps],
    }
    before, after = timeline.states_before.tolist(), timeline.states_after.tolist()
    for row in range(timeline.num_frames - timeline.first_frame):
        frame = timeline.first_frame + row
        turn = timeline.turns.get(frame)
        spoken = turn is not None and turn.role == "assistant"
        yield {
            **shared,
            "frame_index": frame,
            "timestamp": (frame + 1) / session.fps,
            "user_text": turn.text if turn is not None and not spoken else "",
            "speaking": int(timeline.speaking[row]),
            "response": turn.text if turn is not None and spoken else "",
            "dst_update": int(timeline.dst_update[row]),
            "transitions": [
                {"step": event.step, "transition": event.transition} for event in timeline.events.get(frame, ())
            ],
            "states_before": before[row],
            "states_after": after[row],
            "progress": turn.progress if turn is not None else "",
        }


def _summary(report: SessionsReport) -> dict[str, Any]:
    return {
        "sessions": len(report.sessions),
        "videos": len({session.video_uid for session in report.sessions}),
        "recordings": len({session.recording for session in report.sessions}),
        "rows": sum(session.num_frames - session.first_frame for session in report.sessions),
        "turns": sum(len(session.turns) for session in report.sessions),
        "beyond_turns": report.beyond_turns,
        "unlabelled": report.unlabelled,
        "reordered": report.reordered,
        "unusable_segments": report.unusable_segments,
        "steps": report.steps,
        "labelled_steps": report.labelled_steps,
        "skipped": [{"origin": origin, "reason": reason} for origin, reason in report.skipped],
    }


def _load_report(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"{path}: no such report; the rows are not made yet, or lie elsewhere.")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def load_dst_frames(
    config_name: str,
    root: Path,
    *,
    cache_dir: Path,
    sources: Sequence[str] | None = None,
    dst: DST = "none",
    dst_root: Path | None = None,
    suffix: str = "_filtered",
    on_error: OnError = "raise",
    form: Form = "dialogs",
    num_proc: int | None = None,
) -> datasets.DatasetDict:
    """Make the rows under ``cache_dir``, or take them from there, and open them: {split: rows}.

    Raises what ``DstFrames`` raises. ``read_report`` gives the report of a split or of all.
    """
    builder = DstFrames(
        config_name=config_name,
        cache_dir=str(cache_dir),
        root=str(Path(root).resolve()),
        sources=None if sources is None else tuple(sources),
        dst=dst,
        dst_root=None if dst_root is None else str(Path(dst_root).resolve()),
        suffix=suffix,
        on_error=on_error,
        form=form,
    )
    builder.download_and_prepare(num_proc=num_proc)
    return builder.as_dataset()


def read_report(rows: datasets.Dataset | datasets.DatasetDict) -> dict[str, Any]:
    """The ``report`` of the rows' builder, found beside their files.

    Raises ``UsageError`` where rows were put together from several builds, or are no longer the files' own.
    """
    folders = {folder for split in (rows.values() if isinstance(rows, dict) else [rows]) for folder in _folders(split)}
    if len(folders) != 1:
        raise UsageError(f"rows of {len(folders)} builds; ask for the report of each before they are put together.")
    return _load_report(folders.pop() / REPORT_FILE)


def _folders(rows: datasets.Dataset) -> list[Path]:
    return sorted({Path(file["filename"]).parent for file in rows.cache_files})


def _turns_beyond(rows: datasets.Dataset) -> int:
    beyond = 0
    for folder in _folders(rows):
        splits = _load_report(folder / REPORT_FILE)["splits"]
        if str(rows.split) not in splits:
            raise UsageError(
                f"the rows are of split {rows.split}, but {folder} holds {', '.join(splits)}; "
                "concatenate_datasets keeps a split's name only with split=."
            )
        report = splits[str(rows.split)]
        beyond += sum(report[source]["beyond_turns"] for source in rows.unique("source") if source in report)
    return beyond


def label_balance(rows: datasets.Dataset) -> dict[str, int]:
    """How often each label occurs in one split as loaded: rows, sessions, videos, and rows by label.

    States are counted per step and frame, after the frame's events. ``turns_beyond_frames`` comes from the reports
    beside the rows' files, since such turns are in no row. Raises ``UsageError`` where there is no such report.
    """
    columns = ["session_id", "video_uid", "speaking", "dst_update", "states_after"]
    counts: dict[str, Counter[Any]] = {column: Counter() for column in columns}
    for batch in rows.select_columns(columns).with_format("arrow").iter(batch_size=100_000):
        for column in columns:
            values = batch.column(column).combine_chunks()
            flat = values.flatten() if pa.types.is_list(values.type) else values
            for entry in pc.value_counts(flat).to_pylist():
                counts[column][entry["values"]] += entry["counts"]
    speaking, update, states = counts["speaking"], counts["dst_update"], counts["states_after"]
    return {
        "rows": len(rows),
        "sessions": len(counts["session_id"]),
        "videos": len(counts["video_uid"]),
        "speaking_1": speaking[1],
        "speaking_0": speaking[0],
        "speaking_ignored": speaking[IGNORE],
        "dst_update_1": update[1],
        "dst_update_0": update[0],
        "dst_update_ignored": update[IGNORE],
        "states_not_started": states[NOT_STARTED],
        "states_in_progress": states[IN_PROGRESS],
        "states_completed": states[COMPLETED],
        "states_ignored": states[IGNORE],
        "turns_beyond_frames": _turns_beyond(rows),
    }


def balance_by_source(rows: datasets.Dataset) -> dict[str, dict[str, int]]:
    """``label_balance`` of each source in one split."""
    source = np.asarray(rows["source"][:])
    return {
        name: label_balance(rows.select(np.flatnonzero(source == name))) for name in SOURCES if (source == name).any()
    }
