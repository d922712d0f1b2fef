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
