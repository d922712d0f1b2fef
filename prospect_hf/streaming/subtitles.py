"""Subtitles of a trace for any player, and its video with the model's decisions and step table drawn below it.

An utterance of frame i begins when that frame has been seen, at (i + 1) / fps seconds.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from prospect_hf.errors import DataError, UsageError
from prospect_hf.extras import missing
from prospect_hf.files import replacing, write_text
from prospect_hf.sessions import COMPLETED, IN_PROGRESS, NOT_STARTED
from prospect_hf.streaming.trace import Trace
from prospect_hf.terminal import BIDI

MIN_CUE = 2.0  # seconds that a cue lasts at least
SECONDS_PER_CHARACTER = 0.06

Picture = Image.Image | NDArray[np.uint8]
Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Box = tuple[float, float, float, float]

# Players interpret <b> and {\an8} as markup, and "-->" as a time range; these look-alikes are plain text.
_MARKUP = str.maketrans({"<": "\u2039", ">": "\u203a", "{": "(", "}": ")"})

BACKGROUND: Colour = (18, 21, 27)
INK: Colour = (236, 239, 244)
FAINT: Colour = (150, 158, 172)
LINE: Colour = (58, 65, 78)
STATE_COLOURS: dict[int, Colour] = {
    NOT_STARTED: (128, 137, 152),
    IN_PROGRESS: (245, 178, 66),
    COMPLETED: (70, 190, 160),
}
SPEAK: Colour = (108, 172, 255)
UPDATE: Colour = (214, 150, 245)
DEVIATION: Colour = (255, 143, 133)


def one_line(text: str) -> str:
    """``text`` on one line, without control characters and lone surrogates, and with single spaces."""
    kept = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp"):
            kept.append(" ")
        elif category == "Cs":
            kept.append("\ufffd")
        elif character not in BIDI:
            kept.append(character)
    return " ".join("".join(kept).split())


def utterances(trace: Trace) -> list[tuple[float, str]]:
    """(seconds, lines) of every frame with an utterance; the user's line is before the assistant's answer."""
    said = []
    for event in trace.events:
        lines = []
        if user := one_line(event["user_text"]):
            lines.append(f"User: {user}")
        if assistant := one_line(event["text"] or ""):
            lines.append(f"Assistant: {assistant}")
        if lines:
            said.append((event["time"], "\n".join(lines)))
    return said


def cue_times(trace: Trace) -> list[tuple[float, float, str]]:
    """(start, end, text) of every cue in seconds, in order and without overlap."""
    fps = trace.header["fps"]
    said = utterances(trace)
    cues = []
    for index, (second, text) in enumerate(said):
        start = second + 1 / fps  # the model has seen a frame at its end
        end = start + max(MIN_CUE, SECONDS_PER_CHARACTER * len(text))
        if index + 1 < len(said):
            end = min(end, said[index + 1][0] + 1 / fps)
        cues.append((start, end, text))
    return cues


def write_srt(path: Path, trace: Trace) -> int:
    """Write the utterances of assistant and user as SubRip subtitles; returns the number of cues."""
    blocks = [
        f"{number}\n{_clock(start)} --> {_clock(end)}\n{text.translate(_MARKUP)}\n"
        for number, (start, end, text) in enumerate(cue_times(trace), start=1)
    ]
    write_text(path, "\n".join(blocks))
    return len(blocks)


def annotate_video(
    path: Path, trace: Trace, frames: Iterable[Picture], size: tuple[int, int] = (720, 960), font: Path | None = None
) -> int:
    """Write an MP4 at the trace's frame rate, so that it plays at real speed.

    Below each picture: the last utterance, p(speak) and p(update) with their thresholds, and the step table with what
    deviates from the plan, of which a long plan shows a window around the current step.

    Args:
        path: the MP4; it is written beside its place, then renamed.
        trace: with at least one event.
        frames: for each event one picture, RGB or uint8 [height, width, 3], in order; later pictures are not read.
        size: width and height of the video in pixels.
        font: a TrueType file, for scripts that PIL's own font lacks.

    Returns:
        The number of frames.

    Raises:
        UsageError: PyAV is missing, or the size is odd or too small.
        DataError: the trace has no events, or there are fewer pictures than events.
    """
    try:
        import av
    except ModuleNotFoundError:
        raise missing("Writing a video", "PyAV", "stream") from None
    width, height = size
    if width % 2 or height % 2 or width < 320 or height < 400:
        raise UsageError(f"size {width}x{height}: the video's sides must be even, at least 320 wide and 400 high.")
    if not trace.events:
        raise DataError(f"{path}: the trace has no events, so there is no video to write.")
    painter = Painter(trace, size, font)
    rate = Fraction(trace.header["fps"]).limit_denominator(1001)
    pictures = iter(frames)
    options = {"movflags": "faststart"}
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4", options=options) as container:
        # A key frame every ten frames, so that jumping within the video is quick.
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for event in trace.events:
            picture = next(pictures, None)
            if picture is None:
                raise DataError(
                    f"{path}: no picture for frame {event['frame']}; the trace has {len(trace.events)} events, "
                    f"the first of them frame {trace.events[0]['frame']}, and needs a picture for each."
                )
            drawn = painter.draw(event, _as_picture(picture, event["frame"]))
            container.mux(stream.encode(av.VideoFrame.from_image(drawn)))
        container.mux(stream.encode(None))
    return len(trace.events)


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"


def _as_picture(picture: Picture, frame: int) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise DataError(
            f"picture of frame {frame}: expected uint8 [height, width, 3], found {picture.dtype} {list(picture.shape)}."
        )
    return Image.fromarray(picture)


class Painter:
    """Draws the events of a trace as pictures with a panel below."""

    def __init__(self, trace: Trace, size: tuple[int, int], font: Path | None) -> None:
        self.header = trace.header
        self.size = size
        self.unit = size[0] / 720  # a design pixel at the default width
        self.plans = {event["frame"]: plan for event, plan in zip(trace.events, trace.plans(), strict=True)}
        self.cues = cue_times(trace)
        # (frame, step, kind) of every deviation from the plan.
        self.deviations = [
            (event["frame"], one["step"], one["kind"]) for event in trace.events for one in event["deviations"]
        ]
        self.deviations += [(trace.events[-1]["frame"], one["step"], one["kind"]) for one in trace.end or ()]
        self.body = _font(font, 19 * self.unit)
        self.small = _font(font, 16 * self.unit)
        self.subtitle = _font(font, 22 * self.unit)
        self.symbols = {state: _symbol(round(18 * self.unit), state) for state in STATE_COLOURS}

    def draw(self, event: dict[str, Any], picture: Image.Image) -> Image.Image:
        """The event's picture with its panel."""
        width, height = self.size
        u = self.unit
        canvas = Image.new("RGB", self.size, BACKGROUND)
        draw = ImageDraw.Draw(canvas)
        top = round(height * 0.52)
        # Small pictures are enlarged without smoothing, so that the pixels that the model was given can be seen.
        scale = min(width / picture.width, top / picture.height)
        inner = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        method = Image.Resampling.NEAREST if scale > 3 else Image.Resampling.LANCZOS
        canvas.paste(picture.resize(inner, method), ((width - inner[0]) // 2, (top - inner[1]) // 2))
        margin = 20 * u
        y = top + 10 * u
        self._said(draw, (margin, y, width - margin, y + 86 * u), event["time"])
        y += 92 * u
        middle = margin + (width - 2 * margin) / 2 - 8 * u
        for left, key, limit, label, colour in (
            (margin, "p_speak", "speaking_threshold", "speak", SPEAK),
            (middle + 16 * u, "p_update", "dst_update_threshold", "update", UPDATE),
        ):
            box = (left, y, left + middle - margin, y + 40 * u)
            self._bar(draw, box, f"p({label})", event[key], self.header[limit], colour)
        self._steps(canvas, (margin, y + 52 * u, width - margin, height - 34 * u), event)
        seconds = event["frame"] / self.header["fps"]
        note = f"{int(seconds) // 60}:{seconds % 60:04.1f}   frame {event['frame']}   {event['cache_length']} tokens"
        if event["context"] is not None:
            note += f"   context: {event['context']['tokens_before']} to {event['context']['tokens_after']} tokens"
        draw.text((margin, height - 17 * u), note, FAINT, self.small, anchor="lm")
        return canvas

    def _said(self, draw: ImageDraw.ImageDraw, box: Box, second: float) -> None:
        """The last utterance: bright from its own frame until its cue ends, faint afterwards."""
        now = second + 1 / self.header["fps"]
        last = [cue for cue in self.cues if cue[0] <= now + 1e-9][-1:]
        for _, end, text in last:
            colour = INK if now < end + 1e-9 else FAINT
            lines = [row for line in text.split("\n") for row in _wrap(line, self.subtitle, box[2] - box[0])]
            room = max(1, int((box[3] - box[1]) / (28 * self.unit)))
            if len(lines) > room:
                lines = [
                    *lines[: room - 1],
                    _shorten(lines[room - 1] + " \u2026\u2026", self.subtitle, box[2] - box[0]),
                ]
            for index, line in enumerate(lines):
                draw.text((box[0], box[1] + (14 + 28 * index) * self.unit), line, colour, self.subtitle, anchor="lm")

    def _bar(
        self, draw: ImageDraw.ImageDraw, box: Box, label: str, value: float, threshold: float, colour: Colour
    ) -> None:
        left, top, right, bottom = box
        u = self.unit
        above = value >= threshold
        draw.text((left, top + 9 * u), label, INK if above else FAINT, self.small, anchor="lm")
        draw.text((right, top + 9 * u), f"{value:.2f}", INK if above else FAINT, self.small, anchor="rm")
        track = (left, bottom - 16 * u, right, bottom - 4 * u)
        draw.rectangle(track, LINE)
        if value > 0:
            fill = colour if above else tuple(round(0.55 * c) for c in colour)
            draw.rectangle((left, track[1], left + (right - left) * min(value, 1), track[3]), fill)
        tick = left + (right - left) * min(max(threshold, 0), 1)
        draw.line((tick, bottom - 20 * u, tick, bottom), INK, max(1, round(2 * u)))

    def _steps(self, canvas: Image.Image, box: Box, event: dict[str, Any]) -> None:
        draw = ImageDraw.Draw(canvas)
        left, top, right, bottom = box
        u = self.unit
        states, plan = event["states"], self.plans[event["frame"]]
        row = 27 * u
        draw.text((right, top + 8 * u), "p(state)", FAINT, self.small, anchor="rm")
        draw.text((left, top + 8 * u), "steps", FAINT, self.small, anchor="lm")
        top += 22 * u
        room = max(1, int((bottom - top) / row))
        # The window contains the last step in progress, else the first that is not started, else the last of the plan.
        working = [index for index, state in enumerate(states) if state == IN_PROGRESS]
        waiting = [index for index, state in enumerate(states) if state == NOT_STARTED]
        current = (working[-1:] + waiting[:1] + [len(states) - 1])[0]
        cut = len(states) > room
        shown = max(1, room - 1) if cut else room
        first = min(max(0, current - shown // 2), max(0, len(states) - shown))
        moved = {move["step"] for move in event["transitions"]}
        strayed = {  # of this plan
            step: kind.replace("_", " ")
            for frame, step, kind in self.deviations
            if frame <= event["frame"] and self.plans[frame] is plan
        }
        for line, index in enumerate(range(first, min(first + shown, len(states)))):
            y = top + (line + 0.5) * row
            state = states[index]
            if index in moved:
                draw.rectangle((left - 6 * u, y - row / 2 + 1, right + 6 * u, y + row / 2 - 1), LINE)
            symbol = self.symbols[state]
            canvas.paste(symbol, (round(left), round(y - symbol.height / 2)), symbol)
            mark = strayed.get(index, "")  # the last one of the step
            room_of_mark = self.small.getlength(mark) + 12 * u if mark else 0.0
            text = f"{index + 1}. {one_line(plan[index])}"
            words = _shorten(text, self.body, right - left - 100 * u - room_of_mark)
            draw.text((right - 58 * u, y), mark, DEVIATION, self.small, anchor="rm")
            draw.text((left + 28 * u, y), words, FAINT if state == NOT_STARTED else INK, self.body, anchor="lm")
            sure = event["probabilities"][index][state]
            draw.text((right, y), f"{sure:.2f}", STATE_COLOURS[state], self.small, anchor="rm")
        if cut:
            done = sum(state == COMPLETED for state in states)
            note = f"steps {first + 1} to {first + shown} of {len(states)}, {done} completed"
            draw.text((left + 28 * u, top + (shown + 0.5) * row), note, FAINT, self.small, anchor="lm")


def _symbol(side: int, state: int) -> Image.Image:
    """A ring, a half disc or a disc with a tick: shapes differ as well as colours, and no font is needed."""
    large = 8 * side  # drawn large and averaged down, because PIL draws hard edges
    symbol = Image.new("RGBA", (large, large), (*STATE_COLOURS[state], 0))
    draw = ImageDraw.Draw(symbol)
    edge, line = large // 12, large // 9
    box = (edge, edge, large - edge, large - edge)
    if state == COMPLETED:
        draw.ellipse(box, (*STATE_COLOURS[state], 255))
        tick = [(large * 0.28, large * 0.52), (large * 0.44, large * 0.68), (large * 0.73, large * 0.34)]
        draw.line(tick, (*BACKGROUND, 255), line, joint="curve")
    else:
        draw.ellipse(box, None, (*STATE_COLOURS[state], 255), line)
    if state == IN_PROGRESS:
        draw.pieslice(box, 90, 270, (*STATE_COLOURS[state], 255))
    return symbol.resize((side, side), Image.Resampling.BOX)


def _font(path: Path | None, size: float) -> Font:
    if path is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(str(path), size)
    except OSError as error:
        raise UsageError(f"{path}: no TrueType font that can be read ({error}).") from error


def _shorten(text: str, font: Font, width: float) -> str:
    """``text``, cut to ``width`` pixels with an ellipsis if it is wider."""
    if font.getlength(text[:400]) <= width and len(text) <= 400:
        return text
    # The width grows with the text, so bisection finds the greatest length that fits.
    count = bisect_right(range(1, min(len(text), 400)), width, key=lambda end: font.getlength(text[:end] + "\u2026"))
    return text[:count].rstrip() + "\u2026"


def _wrap(text: str, font: Font, width: float) -> list[str]:
    """``text`` in lines of at most ``width`` pixels, broken between words; a word wider than that is cut short."""
    lines: list[str] = []
    for word in text[:2000].split(" "):
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(_shorten(word, font, width))
    return lines
