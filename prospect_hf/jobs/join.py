"""Join: a dataset's rows with the frames that the user extracted, after a check that they are the right ones."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

from prospect_hf.dataset.arguments import JoinArguments
from prospect_hf.dataset.join import FramesReport, check_videos, join_frames
from prospect_hf.dataset.layout import check_files, load_manifest
from prospect_hf.sources.report import OnError
from prospect_hf.terminal import say

logger = logging.getLogger(__name__)


def run(join: JoinArguments) -> None:
    """Check every video, write the dataset with pictures, and print what was found.

    Raises:
        UsageError: a folder is missing or wrong, or no video has frames.
        DataError: the dataset is damaged; or frames are missing or not the right ones, with ``on_error=raise``.
    """
    dataset, frames, on_error = Path(join.dataset), Path(join.frames), cast(OnError, join.on_error)
    if join.check_only:
        manifest = load_manifest(dataset)
        check_files(dataset, manifest)
        say(_told(check_videos(dataset, manifest, frames, on_error)))
        return
    found = join_frames(
        dataset,
        frames,
        Path(join.output_dir),
        on_error=on_error,
        processes=join.processes,
        shard_rows=join.shard_rows,
    )
    say(
        f'{_told(found)}\n\nLoad the rows with their pictures by datasets.load_dataset({join.output_dir!r}, "all", '
        'split="train"). Do not publish them.'
    )


def _told(found: FramesReport) -> str:
    """What was found out, in words; the reasons of what is left out are logged."""
    for _, reason in found.skipped:
        logger.warning("left out: %s", reason)
    counts = found.summary()
    lines = [
        f"{counts['same']} have the very frames that the dataset was built with",
        f"{counts['alike']} have frames that look the same",
        f"{counts['counted']} have enough frames, and could not be compared",
        f"{len(found.skipped)} have none or not the right ones",
    ]
    return f"Of {counts['videos']} videos, {', '.join(lines[:-1])}, and {lines[-1]}."
