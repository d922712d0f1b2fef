"""Draws the pictures of an episode.

A picture is drawn ``supersample`` times larger from ready-made pieces (bench, parts, bolt) and averaged down; light and
noise come last. ``view`` 1 is another camera on the same recording: mirrored, with other light, shake and noise.
"""

from __future__ import annotations

import hashlib
import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

from prospect_hf.simulator.flavours import COLOURS, Colour
from prospect_hf.simulator.scene import (
    DRAWER,
    FAST,
    FIXTURE,
    GENERATOR_VERSION,
    HELD,
    LOOSE,
    SHUT,
    UNITS,
    Episode,
    Point,
    SceneState,
    towards,
)

RADIUS = 4.6
BOLT_RADIUS = 2.7
OUTLINE: Colour = (22, 22, 26)
# The plate of a fixture that is pressed, and of one that is not.
LIT: Colour = (255, 255, 255)
UNLIT: Colour = (60, 60, 66)
HANDS: tuple[Colour, ...] = ((224, 186, 160), (186, 138, 108), (118, 82, 62), (160, 160, 166))

Box = tuple[float, float, float, float]


def render(episode: Episode, view: int = 0) -> list[Image.Image]:
    """One RGB picture of ``image_size`` x ``image_size`` for each frame of ``episode``, seen by camera ``view``."""
    scene = episode.scene
    key = f"{GENERATOR_VERSION}/{episode.seed}/{episode.source}/{episode.split}/{episode.index}/view{view}"
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
    painter = _Painter(episode, skin=HANDS[int(rng.integers(len(HANDS)))])
    shake = _shake(rng, len(episode.frames), scene.jitter)
    light = _light(rng, len(episode.frames), scene.image_size, scene.lighting)
    pictures = []
    for index, state in enumerate(episode.frames):
        picture = painter.paint(state, (float(shake[index, 0]), float(shake[index, 1])))
        if view % 2 == 1:
            picture = ImageOps.mirror(picture)
        pixels = np.asarray(picture, dtype=np.float32) * light[index]
        if scene.noise > 0:
            pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(scene.noise)
        pictures.append(Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8)))
    return pictures


def encode_jpeg(picture: Image.Image) -> bytes:
    """The picture as a JPEG of quality 95 with full colour resolution: small parts are told apart by colour."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _shake(rng: np.random.Generator, frames: int, jitter: float) -> npt.NDArray[np.float64]:
    """Camera offsets [frames, 2] in units: a slow walk around zero plus a little per frame, at most 2 x ``jitter``."""
    kept = 0.9
    pushes = rng.standard_normal((frames, 2)) * math.sqrt(1 - kept**2)
    walk = np.zeros((frames, 2))
    at = rng.standard_normal(2)
    for index in range(frames):
        at = kept * at + pushes[index]
        walk[index] = at
    walk += rng.standard_normal((frames, 2)) * 0.25
    return np.clip(walk, -2, 2) * jitter


def _light(rng: np.random.Generator, frames: int, size: int, lighting: float) -> npt.NDArray[np.float32]:
    """Factors [frames, size, size, 3]: brightness and tint of the recording, a gradient over it, a slow flicker."""
    gain = 1 + rng.uniform(-lighting, lighting)
    tint = 1 + rng.uniform(-lighting, lighting, 3) / 4
    angle = rng.uniform(0, 2 * math.pi)
    rows, columns = np.mgrid[0:size, 0:size] / max(size - 1, 1) - 0.5
    gradient = 1 + lighting * (rows * math.sin(angle) + columns * math.cos(angle))
    phase, pace = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.4)
    flicker = 1 + lighting / 4 * np.sin(phase + pace * np.arange(frames))
    still = gain * gradient[:, :, None] * tint
    light: npt.NDArray[np.float32] = np.asarray(flicker[:, None, None, None] * still[None], dtype=np.float32)
    return light


class _Painter:
    """Holds the ready-made pieces of one episode. ``paint`` draws a frame from them."""

    def __init__(self, episode: Episode, skin: Colour) -> None:
        self.episode = episode
        self.size = episode.scene.image_size
        self.supersample = episode.scene.supersample
        self.scale = self.size * self.supersample / UNITS
        self.margin = math.ceil(2 * episode.scene.jitter * self.scale) + 1
        self.skin = skin
        self.skin_edge: Colour = (skin[0] * 5 // 9, skin[1] * 5 // 9, skin[2] * 5 // 9)
        self.elsewhere, self.bench = self._paint_bench()
        self.bolt = self._paint_bolt()
        self.lid = self._paint_lid()
        self.sprites: dict[tuple[int, int, bool], Image.Image] = {}

    def paint(self, state: SceneState, shake: Point) -> Image.Image:
        """The scene of ``state``, moved by ``shake`` units, at its final size and without light or noise."""
        side = self.size * self.supersample
        left, top = self.margin + round(shake[0] * self.scale), self.margin + round(shake[1] * self.scale)
        canvas = self._paint_scene(state, (left, top, left + side, top + side))
        if state.pan:
            scene, canvas = canvas, self.elsewhere.crop((left, top, left + side, top + side))
            canvas.paste(scene, (round(state.pan * self.scale), 0))
        return canvas.reduce(self.supersample) if self.supersample > 1 else canvas

    def _paint_scene(self, state: SceneState, view: tuple[int, int, int, int]) -> Image.Image:
        """What the camera sees in the box ``view`` of the bench."""
        canvas = self.bench.crop(view)
        origin = (view[0] - self.margin, view[1] - self.margin)
        held = None
        for index, pose in enumerate(state.poses):
            part = self.episode.parts[index]
            if part.kind == FIXTURE:
                self._paint_fixture(canvas, index, pose.where == LOOSE, origin)
                continue
            if part.kind == DRAWER:
                self._paste(canvas, self._sprite(index, 0, False), part.home, origin)  # the stock
            if pose.where == HELD:
                held = index
            elif pose.where == SHUT:
                assert part.slot is not None
                self._paste(canvas, self.lid, part.slot, origin)
            else:
                self._paste(canvas, self._sprite(index, pose.angle, False), pose.at, origin)
            if pose.where == FAST:
                self._paste(canvas, self.bolt, pose.at, origin)
        if state.hand is not None:
            self._paint_hand(canvas, state.hand, state.closed, held, state, origin)
        return canvas

    def _paste(self, canvas: Image.Image, sprite: Image.Image, at: Point, origin: tuple[int, int]) -> None:
        x = round(at[0] * self.scale - sprite.width / 2) - origin[0]
        y = round(at[1] * self.scale - sprite.height / 2) - origin[1]
        canvas.paste(sprite, (x, y), sprite)

    def _paint_bench(self) -> tuple[Image.Image, Image.Image]:
        """The bare bench, and the bench with tray, board, wells and slots."""
        flavour, scale, margin = self.episode.flavour, self.scale, self.margin
        side = self.size * self.supersample + 2 * margin
        bench = Image.new("RGB", (side, side), flavour.bench)
        draw = ImageDraw.Draw(bench)

        def box(x0: float, y0: float, x1: float, y1: float) -> Box:
            return (x0 * scale + margin, y0 * scale + margin, x1 * scale + margin, y1 * scale + margin)

        _paint_texture(draw, flavour.texture, flavour.bench_mark, side, scale)
        bare = bench.copy()
        board, tray = {
            "bottom": ((0.4, 0.4, 47.6, 23.8), (0.4, 24.4, 47.6, 47.6)),
            "right": ((0.4, 0.4, 23.8, 47.6), (24.4, 0.4, 47.6, 47.6)),
            "left": ((24.2, 0.4, 47.6, 47.6), (0.4, 0.4, 23.6, 47.6)),
        }[flavour.tray_side]
        edge = max(1, round(0.35 * scale))
        draw.rounded_rectangle(box(*board), radius=2 * scale, fill=flavour.board, outline=OUTLINE, width=edge)
        draw.rounded_rectangle(box(*tray), radius=2 * scale, fill=flavour.tray, outline=OUTLINE, width=edge)
        for x, y in self.episode.wells:
            draw.ellipse(box(x - 5.6, y - 5.6, x + 5.6, y + 5.6), fill=_darker(flavour.tray, 0.4))
        for part in self.episode.parts:
            if part.slot is not None:
                x, y = part.slot
                draw.rectangle(box(x - 5, y - 5, x + 5, y + 5), fill=_darker(flavour.board, 0.8))
                draw.rectangle(box(x - 5, y - 5, x + 5, y + 5), outline=_darker(flavour.board, 0.5), width=edge)
        return bare, bench

    def _paint_bolt(self) -> Image.Image:
        """A white ring with a dark rim and a dark middle: the mark of a completed step."""
        size = 2 * math.ceil(BOLT_RADIUS * self.scale) + 1
        bolt = Image.new("RGBA", (size, size), (0, 0, 0, 0))
        draw = ImageDraw.Draw(bolt)
        middle = (size - 1) / 2
        for radius, fill in ((BOLT_RADIUS, OUTLINE), (2.1, (255, 255, 255)), (0.7, OUTLINE)):
            reach = radius * self.scale
            draw.ellipse((middle - reach, middle - reach, middle + reach, middle + reach), fill=fill)
        return bolt

    def _paint_lid(self) -> Image.Image:
        """The front of a closed drawer: a plate with a handle, over a whole slot."""
        size = 2 * math.ceil(5 * self.scale) + 1
        lid = Image.new("RGBA", (size, size), _darker(self.episode.flavour.board, 0.65))
        draw = ImageDraw.Draw(lid)
        edge = max(1, round(0.5 * self.scale))
        draw.rectangle((0, 0, size - 1, size - 1), outline=OUTLINE, width=edge)
        draw.line((0.25 * size, 0.5 * size, 0.75 * size, 0.5 * size), fill=(235, 235, 235), width=2 * edge)
        return lid

    def _paint_fixture(self, canvas: Image.Image, index: int, pressed: bool, origin: tuple[int, int]) -> None:
        """A round plate with the fixture's shape on it; the plate is lit while the fixture is pressed."""
        slot = self.episode.parts[index].slot
        assert slot is not None
        x, y = slot[0] * self.scale - origin[0], slot[1] * self.scale - origin[1]
        draw = ImageDraw.Draw(canvas)
        for radius, fill in ((5.6, OUTLINE), (5.0, LIT if pressed else UNLIT)):
            reach = radius * self.scale
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill)
        self._paste(canvas, self._sprite(index, 0, False), slot, origin)

    def _sprite(self, index: int, angle: int, lifted: bool) -> Image.Image:
        """The picture of part ``index``, turned by ``angle`` degrees; a ``lifted`` one is nearer, so larger."""
        key = (index, angle, lifted)
        if key not in self.sprites:
            part = self.episode.parts[index]
            smaller = 0.75 if part.kind == FIXTURE else 1.0
            radius = RADIUS * self.scale * (1.15 if lifted else smaller)
            size = 2 * math.ceil(radius * 1.5) + 1
            sprite = Image.new("RGBA", (size, size), (0, 0, 0, 0))
            draw = ImageDraw.Draw(sprite)
            edge = 0.6 * self.scale
            for grow, fill in ((0.0, OUTLINE), (edge, COLOURS[part.colour])):
                _paint_shape(draw, part.shape, (size - 1) / 2, radius - grow, angle, fill)
            self.sprites[key] = sprite
        return self.sprites[key]

    def _paint_hand(
        self,
        canvas: Image.Image,
        hand: Point,
        closed: bool,
        held: int | None,
        state: SceneState,
        origin: tuple[int, int],
    ) -> None:
        """Draw arm and palm, then the held part over them (so that it stays visible), then the fingertips."""
        draw = ImageDraw.Draw(canvas)
        base = self.episode.arm_base
        palm = towards(hand, base, 5.2 if held is None else 6.2)
        across = ((base[1] - hand[1]) / math.dist(hand, base), -(base[0] - hand[0]) / math.dist(hand, base))
        spread = 1.7 if closed else 3.4

        def to_canvas(point: Point) -> Point:
            return (point[0] * self.scale - origin[0], point[1] * self.scale - origin[1])

        def limb(start: Point, end: Point, width: float) -> None:
            for extra, fill in ((0.8, self.skin_edge), (0.0, self.skin)):
                stroke = round((width + extra) * self.scale)
                draw.line((to_canvas(start), to_canvas(end)), fill=fill, width=stroke)
                for x, y in (to_canvas(start), to_canvas(end)):
                    half = stroke / 2
                    draw.ellipse((x - half, y - half, x + half, y + half), fill=fill)

        limb(palm, base, 4.0)
        if held is not None:
            pose = state.poses[held]
            self._paste(canvas, self._sprite(held, pose.angle, True), pose.at, origin)
            spread = 4.9
        for sign in (-1, 1) if closed else (-1, 0, 1):
            tip = (hand[0] + across[0] * spread * sign, hand[1] + across[1] * spread * sign)
            limb(palm if held is None else towards(tip, palm, 1.5), tip, 1.3)


def _darker(colour: Colour, factor: float) -> Colour:
    return (int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor))


def _paint_shape(draw: ImageDraw.ImageDraw, shape: str, middle: float, radius: float, angle: int, fill: Colour) -> None:
    """A filled shape about ``2 * radius`` across, centred at ``(middle, middle)``."""
    if shape == "disc":
        # A little smaller than the square, which at 8 pixels differs from it in its corners alone.
        reach = 0.95 * radius
        draw.ellipse((middle - reach, middle - reach, middle + reach, middle + reach), fill=fill)
        return
    corners = {
        "square": [(-0.95, -0.95), (0.95, -0.95), (0.95, 0.95), (-0.95, 0.95)],
        "triangle": [(0.0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
        "cross": [
            (x * sx, y * sy)
            for sx, sy, points in (
                (1, -1, ((0.45, 1.1), (0.45, 0.45), (1.1, 0.45))),
                (1, 1, ((1.1, 0.45), (0.45, 0.45), (0.45, 1.1))),
                (-1, 1, ((0.45, 1.1), (0.45, 0.45), (1.1, 0.45))),
                (-1, -1, ((1.1, 0.45), (0.45, 0.45), (0.45, 1.1))),
            )
            for x, y in points
        ],
    }[shape]
    turn = math.radians(angle)
    cos, sin = math.cos(turn) * radius, math.sin(turn) * radius
    draw.polygon([(middle + x * cos - y * sin, middle + x * sin + y * cos) for x, y in corners], fill=fill)


def _paint_texture(draw: ImageDraw.ImageDraw, texture: str, mark: Colour, side: int, scale: float) -> None:
    """The bench's own pattern, the same in every recording of a flavour."""
    width = max(1, round(0.5 * scale))
    if texture in ("planks", "tiles", "grid"):
        gap = {"planks": 5.0, "tiles": 9.0, "grid": 3.5}[texture] * scale
        for i in range(math.ceil(side / gap)):
            draw.line((0, i * gap, side, i * gap), fill=mark, width=width)
            if texture != "planks":
                draw.line((i * gap, 0, i * gap, side), fill=mark, width=width)
    elif texture == "checks":
        gap = 4.0 * scale
        for row in range(math.ceil(side / gap)):
            for column in range(row % 2, math.ceil(side / gap), 2):
                draw.rectangle((column * gap, row * gap, (column + 1) * gap, (row + 1) * gap), fill=mark)
    elif texture == "speckles":
        for i in range(220):
            # A fixed low-discrepancy scatter: the golden ratio along one axis, its square root along the other.
            x, y = (i * 0.61803) % 1 * side, (i * 0.75488) % 1 * side
            draw.ellipse((x - width, y - width, x + width, y + width), fill=mark)
