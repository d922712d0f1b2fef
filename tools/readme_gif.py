"""Draw ``docs/stream.gif``: a trained model follows one held-out session, frame by frame.

    python tools/readme_gif.py --model outputs/tiny --root outputs/simulated

Below the picture of each frame stands what the model decided on it: the last utterance, p(speak) and p(update) with
their thresholds, and the table of steps. It is the drawing of ``stream.annotate=true``, as a GIF.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from prospect_hf.checkpoints import load_trained
from prospect_hf.errors import UsageError
from prospect_hf.files import replacing
from prospect_hf.streaming import subtitles
from prospect_hf.streaming.arguments import StreamArguments
from prospect_hf.streaming.followed_task import session_task
from prospect_hf.streaming.trace import Trace
from prospect_hf.timeline import frame_at
from streaming_dst_smolvlm import DSTStream

SESSION = "assembly101.assembly_sim-test-00005__view0.talk_more_0"
SIZE = (640, 560)  # pixels, width and height
PICTURE = (174, 0, 465, 291)  # where the painter puts a square picture: left, top, right, bottom
PICTURE_COLOURS = 20
SPEED = 2  # times real time
LAST_FRAME_MS = 3000
MAX_BYTES = 1_000_000

Colour = tuple[int, int, int]


def draw_session(model_folder: Path, root: Path, session: str) -> tuple[list[Image.Image], float]:
    """Follow ``session`` and draw each frame with its decisions; returns the drawings and their rate per second."""
    model, processor = load_trained(model_folder)
    fps = model.config.fps
    task = session_task(StreamArguments(root=str(root), session=session), processor, fps)
    stream = DSTStream(model, processor, task.plan, task.goal)
    events: list[dict[str, Any]] = []
    pictures: list[Image.Image] = []
    for frame in task.frames(0.0):
        assert isinstance(frame.frame, Image.Image)  # a session of a corpus has pictures
        user_text = task.said_until(frame_at(frame.time, fps))
        events.append(asdict(stream.step(frame.frame, user_text, frame.time)))
        pictures.append(frame.frame)
    header = {
        "plan": task.plan,
        "fps": fps,
        "speaking_threshold": stream.batch.speaking_threshold,
        "dst_update_threshold": stream.batch.dst_update_threshold,
    }
    painter = subtitles.Painter(Trace(header, events), SIZE, None)
    return [painter.draw(event, picture) for event, picture in zip(events, pictures, strict=True)], fps


def panel_colours() -> list[Colour]:
    """The colours of the panel, with the dimmed bars and the edges of the letters."""
    ink, background = subtitles.INK, subtitles.BACKGROUND
    edges = [blend(ink, background, share) for share in (0.2, 0.45, 0.75)]
    dimmed = [blend(colour, (0, 0, 0), 0.55) for colour in (subtitles.SPEAK, subtitles.UPDATE)]
    plain = [background, ink, subtitles.FAINT, subtitles.LINE, subtitles.SPEAK, subtitles.UPDATE]
    return [*plain, *subtitles.STATE_COLOURS.values(), *edges, *dimmed]


def blend(one: Colour, other: Colour, share: float) -> Colour:
    """``share`` of ``one``, the rest of ``other``."""
    red, green, blue = (round(share * a + (1 - share) * b) for a, b in zip(one, other, strict=True))
    return red, green, blue


def reduce_colours(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """``frames`` with one palette for all, without dithering, so that equal pixels stay equal from frame to frame.

    The camera's noise would flicker between the colours of the picture and those of the panel: the picture is reduced
    to its own colours.
    """
    left, top, right, bottom = PICTURE
    samples = frames[:: max(1, len(frames) // 8)]
    strip = Image.new("RGB", ((right - left) * len(samples), bottom - top))
    for place, frame in enumerate(samples):
        strip.paste(frame.crop(PICTURE), (place * (right - left), 0))
    of_picture = strip.quantize(PICTURE_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colours = list(of_picture.getpalette() or [])[: 3 * PICTURE_COLOURS]
    of_all = Image.new("P", (1, 1))
    of_all.putpalette(colours + [value for colour in panel_colours() for value in colour])
    reduced = []
    for frame in frames:
        whole = frame.quantize(palette=of_all, dither=Image.Dither.NONE)
        whole.paste(frame.crop(PICTURE).quantize(palette=of_picture, dither=Image.Dither.NONE), PICTURE)
        reduced.append(whole)
    return reduced


def write_gif(path: Path, frames: Sequence[Image.Image], fps: float) -> int:
    """Write ``frames``, ``SPEED`` times as fast as they were taken; returns the number of bytes.

    Raises:
        UsageError: the file would be larger than ``MAX_BYTES``.
    """
    durations = [round(1000 / fps / SPEED)] * (len(frames) - 1) + [LAST_FRAME_MS]
    first, *others = reduce_colours(frames)
    with replacing(path) as temporary:
        first.save(temporary, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=True)
        size = temporary.stat().st_size
        if size > MAX_BYTES:
            raise UsageError(f"{path} would take {size:,} bytes, more than {MAX_BYTES:,}: give a shorter session.")
    return size


def main() -> int:
    """Draw the GIF; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("outputs/tiny"), help="folder of a trained model")
    parser.add_argument("--root", type=Path, default=Path("outputs/simulated"), help="folder with processed_data")
    parser.add_argument("--session", default=SESSION, help="a session of that corpus")
    parser.add_argument("--output", type=Path, default=Path("docs/stream.gif"))
    arguments = parser.parse_args()
    try:
        frames, fps = draw_session(arguments.model, arguments.root, arguments.session)
        size = write_gif(arguments.output, frames, fps)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.output}: {len(frames)} frames, {size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
