"""What can be set about building a dataset."""

from __future__ import annotations

from dataclasses import dataclass

from prospect_hf.errors import UsageError


@dataclass
class DatasetArguments:
    """How frame rows become a dataset that can be published. What is read is set in the group ``data``.

    Args:
        output_dir: the dataset's folder.
        processes: how many processes write files; the files are the same for any number.
        images: whether rows have the pictures themselves; otherwise they name a frame file and a frame.
        shard_rows: largest number of rows of a Parquet file; a session is never cut. By default 500,000, with pictures
            10,000.
        sample: how many sessions of each source and split the configuration ``sample`` has; 0 leaves it out.
    """

    output_dir: str = "outputs/dst_frames"
    processes: int = 1
    images: bool = False
    shard_rows: int | None = None
    sample: int = 2

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise UsageError("dataset.output_dir is empty: give the folder of the dataset.")
        for name, value, least in (
            ("processes", self.processes, 1),
            ("shard_rows", self.shard_rows, 1),
            ("sample", self.sample, 0),
        ):
            if value is not None and value < least:
                raise UsageError(f"dataset.{name}={value}: give at least {least}.")


@dataclass
class JoinArguments:
    """How the rows of a dataset are joined with frames that you extracted.

    Args:
        dataset: folder of a dataset without pictures.
        frames: the folder that has the frames of each source in ``{source}/frames``, or ``processed_data`` with them.
            A video's frames are a frame file, a folder of pictures or the video itself, named as the rows say.
        output_dir: the folder of the dataset with pictures.
        on_error: "raise", or "skip": rows of videos without the right frames are left out and listed.
        check_only: only checks the frames and reports; nothing is written.
        processes: how many processes write files; the files are the same for any number.
        shard_rows: largest number of rows of a Parquet file; a session is never cut.
    """

    dataset: str = ""
    frames: str = ""
    output_dir: str = ""
    on_error: str = "raise"
    check_only: bool = False
    processes: int = 1
    shard_rows: int = 10_000

    def __post_init__(self) -> None:
        for name, value in (("dataset", self.dataset), ("frames", self.frames)):
            if not value:
                raise UsageError(f"join.{name} is not set: join.{name}=FOLDER.")
        if not self.output_dir and not self.check_only:
            raise UsageError(
                "join.output_dir is not set: give a folder for the rows with pictures, or check_only=true."
            )
        if self.on_error not in ("raise", "skip"):
            raise UsageError(f"join.on_error={self.on_error}: it must be raise or skip.")
        for key, number in (("processes", self.processes), ("shard_rows", self.shard_rows)):
            if number < 1:
                raise UsageError(f"join.{key}={number}: give at least 1.")


@dataclass
class ExportArguments:
    """How a dataset is exported to LeRobot's format.

    Args:
        dataset: folder of a dataset.
        output_dir: the folder of the export; an earlier export in it is replaced.
        sources: those that are exported; all where not given.
    """

    dataset: str = ""
    output_dir: str = ""
    sources: list[str] | None = None

    def __post_init__(self) -> None:
        for name, value in (("dataset", self.dataset), ("output_dir", self.output_dir)):
            if not value:
                raise UsageError(f"export.{name} is not set: export.{name}=FOLDER.")
        if self.sources is not None and not self.sources:
            raise UsageError("export.sources is empty: name the sources, or leave it out for all.")
