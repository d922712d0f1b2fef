"""The ``dst_frames`` dataset: one row per frame, with the frame's texts, state changes and labels.

Rows contain no pixels: a row names its frame file and its frame index. Input files are read and checked when the rows
are built. Cached rows are reused only while the input files and the label code are unchanged.

With ``datasets`` 3, this file is a loading script too: ``load_dataset("dst_frames.py", "wtag", root=...,
trust_remote_code=True)``, with this package on the path.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pyarrow as pa

from prospect_hf.align.named import ENCODER
from prospect_hf.dataset.input_files import VERSION, DstFramesConfig, Form
from prospect_hf.dataset.read import read_all
from prospect_hf.dataset.report import REPORT_FILE, load_report, report_lines, summary, whole_report
from prospect_hf.dataset.row_maker import FEATURES, session_tables
from prospect_hf.errors import UsageError
from prospect_hf.files import write_json
from prospect_hf.sessions import SOURCES, Session
from prospect_hf.sources.proassist import DST
from prospect_hf.sources.report import OnError
from prospect_hf.sources.splits import SplitCheck, SplitLeaks

logger = logging.getLogger(__name__)


class DstFrames(datasets.ArrowBasedBuilder):
    """Frame rows of one source or of all: ``DstFrames(config_name="wtag", root="...", dst="words")``.

    Splits are train, validation and test; a split without input files is left out. ``report`` lists what was read and
    skipped, by split and source; it is also written next to the rows as ``report.json``.

    Raises:
        UsageError: a setting or folder is wrong, or there is nothing to read.
        DataError: a record is invalid.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = DstFramesConfig
    BUILDER_CONFIGS: ClassVar[list[DstFramesConfig]] = [
        *(DstFramesConfig(name=source, version=VERSION, sources=(source,)) for source in SOURCES),
        DstFramesConfig(name="all", version=VERSION),
    ]

    def __init__(self, *args: Any, config_name: str | None = None, **kwargs: Any) -> None:
        # Without a config name, the library would create a config "default" from the other arguments.
        if config_name not in self.builder_configs:
            raise UsageError(f"config_name is {config_name!r}; it must be one of {', '.join(self.builder_configs)}.")
        self._report: dict[str, Any] | None = None
        super().__init__(*args, config_name=config_name, **kwargs)

    @property
    def report(self) -> dict[str, Any]:
        """The report of the build, see ``whole_report``.

        Raises ``UsageError`` where the rows are not built yet.
        """
        if self._report is None:
            self._report = load_report(Path(self.cache_dir) / REPORT_FILE)
        return self._report

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=FEATURES)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # All files are read here: the library wraps errors of _generate_examples in its own exception.
        check = SplitCheck(self.config.split_leaks)
        reports = [report for report in read_all(self.config, check) if report.sessions]
        summaries = {(report.split, report.source): summary(report) for report in reports}
        self._report = whole_report(self.config.sources, summaries, check)
        if not reports:
            raise UsageError(f"{self.config.root}: no session of {', '.join(self.config.sources)}.")
        sessions = {
            split: [one for report in reports if report.split == split for one in report.sessions]
            for split in self._report["splits"]
        }
        return [datasets.SplitGenerator(name=split, gen_kwargs={"sessions": of}) for split, of in sessions.items()]

    def _download_and_prepare(self, dl_manager: Any, verification_mode: Any, **prepare_splits_kwargs: Any) -> None:
        super()._download_and_prepare(dl_manager, verification_mode, **prepare_splits_kwargs)
        # At this point the folder is the library's temporary one, which it renames when everything is written.
        write_json(Path(self._output_dir) / REPORT_FILE, self._report)

    def _generate_tables(self, sessions: list[Session]) -> Iterator[tuple[int, pa.Table]]:
        yield from enumerate(table for session in sessions for table in session_tables(session))


def load_dst_frames(
    config_name: str,
    root: Path,
    *,
    cache_dir: Path,
    sources: Sequence[str] | None = None,
    dst: DST = "none",
    dst_root: Path | None = None,
    dst_encoder: str = ENCODER,
    suffix: str = "_filtered",
    on_error: OnError = "raise",
    form: Form = "dialogs",
    split_leaks: SplitLeaks = "raise",
    num_proc: int | None = None,
) -> datasets.DatasetDict:
    """Build the rows under ``cache_dir`` unless they are cached there, and load them: {split: rows}.

    What was left out is logged, on every call. Raises what ``DstFrames`` raises. ``read_report`` returns the report of
    one split or of all.
    """
    builder = DstFrames(
        config_name=config_name,
        cache_dir=str(cache_dir),
        root=str(Path(root).resolve()),
        sources=None if sources is None else tuple(sources),
        dst=dst,
        dst_root=None if dst_root is None else str(Path(dst_root).resolve()),
        dst_encoder=dst_encoder,
        suffix=suffix,
        on_error=on_error,
        form=form,
        split_leaks=split_leaks,
    )
    builder.download_and_prepare(num_proc=num_proc)
    for line in report_lines(builder.report):
        logger.info("%s: %s", form, line)
    return builder.as_dataset()
