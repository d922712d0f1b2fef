"""Export: a dataset's labels in LeRobot's format."""

from __future__ import annotations

from pathlib import Path

from prospect_hf.dataset.arguments import ExportArguments
from prospect_hf.dataset.lerobot import VERSION, export_lerobot
from prospect_hf.terminal import say


def run(export: ExportArguments) -> None:
    """Write the export and print what is in it, and what is not.

    Raises:
        UsageError: a folder or source is wrong, or the sessions have several frame rates.
        DataError: the dataset is damaged.
    """
    done = export_lerobot(Path(export.dataset), Path(export.output_dir), sources=export.sources)
    say(
        f"Wrote {done.episodes} episodes with {done.frames:,} frames in LeRobot's format {VERSION} to "
        f"{export.output_dir}. The format has no place for the summaries of {done.progress:,} turns and the remarks on "
        f"mistakes at {done.mistakes:,} frames."
    )
