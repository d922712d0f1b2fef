"""The inspect job: checks a dataset, prints its tables, writes a page, pictures and figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from prospect_hf.dataset.inspection.arguments import InspectArguments
from prospect_hf.dataset.inspection.inspect import Inspection, inspect_dataset
from prospect_hf.dataset.inspection.page import text_report, write_figures, write_page
from prospect_hf.dataset.inspection.pictures import frame_strip, timeline_picture
from prospect_hf.errors import UsageError
from prospect_hf.files import replacing_folder
from prospect_hf.terminal import say

if TYPE_CHECKING:
    from processing_dst_smolvlm import DSTSmolVLMProcessor


def run(inspect: InspectArguments) -> int:
    """Check the dataset and show it; the exit code is 1 where a promise is broken.

    Raises:
        UsageError: the folder is no dataset, a folder that is named is not there, or there is no such session.
    """
    folder, output = Path(str(inspect.dataset)), Path(inspect.output_dir)
    frames = None if inspect.frames is None else Path(inspect.frames)
    if frames is not None and not frames.is_dir():
        raise UsageError(f"inspect.frames={frames} is no folder; give the one that holds the frames of each source.")
    if output.resolve() == folder.resolve() or folder.resolve() in output.resolve().parents:
        raise UsageError(f"inspect.output_dir={output} lies in the dataset, which would be published with it.")
    processor = None if inspect.tokenizer is None else load_sequence_builder(Path(inspect.tokenizer))
    found = inspect_dataset(folder, frames=frames, processor=processor, session=inspect.session)
    written = write(output, found)
    say(text_report(found))
    say(f"\n{', '.join(map(str, written))}")
    return 1 if found.broken else 0


def load_sequence_builder(folder: Path) -> DSTSmolVLMProcessor:
    """The sequence builder with the tokenizer of ``folder``; pictures play no part in the length of a stream.

    Raises:
        UsageError: it holds no tokenizer, or not SmolVLM2's.
    """
    if not folder.is_dir():
        raise UsageError(f"inspect.tokenizer={folder} is no folder; give that of a model or of its tokenizer.")
    # Imported here: they take seconds, and most inspections count no tokens.
    from transformers import AutoTokenizer
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    from processing_dst_smolvlm import DSTSmolVLMProcessor
    from prospect_hf.checkpoints import reading

    with reading(f"inspect.tokenizer={folder}"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return DSTSmolVLMProcessor(SmolVLMImageProcessorPil(), tokenizer)


def write(output: Path, found: Inspection) -> list[Path]:
    """Write the page, the figures and the pictures of the sessions that are shown; returns their paths."""
    page, figures, pictures = output / "inspection.html", output / "inspection.json", output / "sessions"
    write_page(page, found)
    write_figures(figures, found)
    with replacing_folder(pictures) as folder:
        for session in found.shown:
            name = re.sub(r"[^\w.-]", "_", session.source)[:80]
            timeline_picture(session).save(folder / f"{name}.timeline.png")
            if session.pictures:
                frame_strip(session).save(folder / f"{name}.frames.png")
    return [page, figures, *sorted(pictures.iterdir())]
