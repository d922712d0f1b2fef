"""A session as pictures, for places that show no page: its timeline (steps over time), and a strip of its frames."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont, ImageOps

from prospect_hf.dataset.inspection.views import ShownSession
from prospect_hf.progress import clock
from prospect_hf.sessions import COMPLETED, IN_PROGRESS, NOT_STARTED
from prospect_hf.terminal import visible

# The colours of html/palette.css, light.
CARD, INK, SOFT, LINE, GRID = "#ffffff", "#1a1f29", "#576070", "#dde1e8", "#eceff3"
ASSISTANT, USER, MISTAKE = "#1f5fd0", "#576070", "#b3261e"
STATES = {NOT_STARTED: "#e3e6ec", IN_PROGRESS: "#f0a92e", COMPLETED: "#35a58a"}
NAMES = {NOT_STARTED: "not started", IN_PROGRESS: "in progress", COMPLETED: "completed"}

WIDTH, MARGIN, GUTTER = 1600, 24, 420  # pixels
MOST_ROWS = 400  # of steps
TICKS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400)
THUMBNAIL, COLUMNS = 240, 6


def timeline_picture(session: ShownSession) -> Image.Image:
    """The states of each step over time, with the utterances and mistakes above them.

    It is ``WIDTH`` pixels wide; what has no room is cut, and the picture says how many steps it leaves out.
    """
    view = session.view
    steps: list[str] = view["steps"][:MOST_ROWS]
    row = 24 if len(steps) <= 40 else 16 if len(steps) <= 120 else 12
    lanes = [(f"assistant ({session.turns[0]})", ASSISTANT, [one["frame"] for one in view["said"]])]
    lanes += [(f"user ({session.turns[1]})", USER, [one["frame"] for one in view["user"]])] if view["user"] else []
    top = 96
    grid_top = top + 24 * (1 + len(lanes) + bool(session.mistakes))
    bottom = grid_top + row * len(steps)
    picture = Image.new("RGB", (WIDTH, bottom + 52), CARD)
    draw = ImageDraw.Draw(picture)
    pen = _Pen(draw)
    plot = WIDTH - GUTTER - MARGIN
    frames, fps, first = view["frames"], view["fps"], view["first_frame"]

    def x(frame: float) -> float:
        return GUTTER + plot * frame / frames

    pen.text(MARGIN, 18, session.goal or session.session_id, 22, WIDTH - 2 * MARGIN)
    begin, end = clock(first / fps), clock((first + frames) / fps)
    facts = (
        f"{session.source}, {session.split} · {session.session_id} · {begin} to {end} · "
        f"{frames:,} frames at {fps:g} fps"
    )
    rule = f"state rule {session.state_rule}" if session.labelled else "no state labels"
    pen.text(MARGIN, 52, f"{facts} · {rule}", 14, WIDTH - 2 * MARGIN, SOFT)

    every = next((one for one in TICKS_S if plot * one * fps / frames >= 80), TICKS_S[-1])
    for second in range(math.ceil(first / fps / every) * every, math.ceil((first + frames) / fps), every):
        at = x(second * fps - first)
        draw.line((at, top + 18, at, bottom), GRID)
        if at + 50 < WIDTH:
            pen.text(at + 3, top, clock(second), 12, 80, SOFT)
    lane_top = top + 24
    for name, colour, spoken in lanes:
        pen.text(MARGIN, lane_top + 3, name, 13, GUTTER - 2 * MARGIN)
        for frame in spoken:
            draw.rectangle((x(frame), lane_top + 3, x(frame) + 2, lane_top + 20), colour)
        lane_top += 24
    if session.mistakes:
        pen.text(MARGIN, lane_top + 3, f"mistakes ({len(session.mistakes)})", 13, GUTTER - 2 * MARGIN)
        for start, stop, _ in session.mistakes:
            draw.rectangle((x(start), lane_top + 8, max(x(stop), x(start) + 1), lane_top + 15), MISTAKE)

    changes: dict[int, list[tuple[int, int]]] = {}
    for frame, step, state in sorted(view["predicted_states"]):
        changes.setdefault(step, [(0, NOT_STARTED)]).append((frame, state))
    for number, step in enumerate(steps):
        y = grid_top + row * number
        draw.line((MARGIN, y, WIDTH - MARGIN, y), GRID)
        pen.text(MARGIN, y + (row - 14) // 2, f"{number + 1}. {step}", min(13, row - 2), GUTTER - MARGIN - 12)
        if session.labelled:
            runs = changes.get(number, [(0, NOT_STARTED)])
            for (start, state), (stop, _) in zip(runs, [*runs[1:], (frames, 0)], strict=True):
                if stop > start:
                    draw.rectangle((x(start), y + 3, max(x(stop) - 1, x(start) + 1), y + row - 3), STATES[state])
    draw.line((MARGIN, bottom, WIDTH - MARGIN, bottom), LINE)
    _legend(draw, pen, bottom + 18, _left_out(session, len(view["steps"]) - len(steps)))
    return picture


def _left_out(session: ShownSession, steps: int) -> str:
    parts = [f"{steps:,} more steps"] if steps else []
    parts += [session.left_out] if session.left_out else []
    return f"not shown: {', '.join(parts)}" if parts else ""


def _legend(draw: ImageDraw.ImageDraw, pen: _Pen, y: int, note: str) -> None:
    at = MARGIN
    for state, colour in STATES.items():
        draw.rectangle((at, y + 2, at + 22, y + 14), colour)
        at += 30 + pen.text(at + 30, y, NAMES[state], 13, 200, SOFT) + 24
    pen.text(at, y, note, 13, WIDTH - MARGIN - at, SOFT)


def frame_strip(session: ShownSession) -> Image.Image:
    """The pictures of a session in rows of ``COLUMNS``, each with its time."""
    thumbnails = []
    for frame, picture in session.pictures:
        thumbnails.append((frame, ImageOps.contain(picture.convert("RGB"), (THUMBNAIL, THUMBNAIL))))
    height = max(small.height for _, small in thumbnails) + 24
    columns = min(COLUMNS, len(thumbnails))
    size = (columns * (THUMBNAIL + 8) + 8, math.ceil(len(thumbnails) / columns) * height + 8)
    strip = Image.new("RGB", size, CARD)
    pen = _Pen(ImageDraw.Draw(strip))
    for number, (frame, small) in enumerate(thumbnails):
        left, top = 8 + number % columns * (THUMBNAIL + 8), 8 + number // columns * height
        strip.paste(small, (left, top + 18))
        absolute = session.view["first_frame"] + frame
        pen.text(left, top, f"{clock(absolute / session.view['fps'])}, frame {absolute}", 12, THUMBNAIL, SOFT)
    return strip


class _Pen:
    """Writes texts of the data: on one line, cut where the room ends."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw = draw

    def text(self, x: float, y: float, text: str, size: int, room: float, colour: str = INK) -> int:
        """Write ``text`` and return its width; the pixels of ``room`` are its width at most."""
        font = ImageFont.load_default(size)
        shown = _fitting(visible(text[:400]), font, room)
        self._draw.text((x, y), shown, colour, font)
        return int(font.getlength(shown))


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    if font.getlength(text) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        half = (low + high + 1) // 2
        low, high = (half, high) if font.getlength(text[:half] + "...") <= room else (low, half - 1)
    return text[:low].rstrip() + "..." if low else ""
