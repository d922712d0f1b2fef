"""The data of a simulated recording: its difficulty, parts, frames, events and utterances.

Time runs in frames. Frame ``f`` shows the scene at the END of its half second, so whatever is first visible in frame
``f`` has the time ``(f + 1) / FPS`` seconds, and the label rule ``floor(time * fps) - 1`` gives ``f`` back.

Lengths are in scene units: the picture is ``UNITS`` units wide and high, whatever its size in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from prospect_hf.errors import UsageError
from prospect_hf.simulator.flavours import FLAVOURS, Flavour

FPS = 2
UNITS = 48
# Part of every seed: raise it when a change makes the same seed give other scenes.
GENERATOR_VERSION = 2

# Where a part is. SHUT: it looks as it did before its step began: a closed drawer, a fixture that nobody presses.
TRAY, HELD, LOOSE, FAST, SHUT = "tray", "held", "loose", "fast", "shut"
# What the look of a part tells of its step: 0 not started, 1 in progress, 2 completed; a shut one may be 0 or 2.
STATE_OF = {TRAY: 0, HELD: 1, LOOSE: 1, FAST: 2, SHUT: None}
# PLAIN parts stay where they are fastened, to be seen to the end. A DRAWER closes over its part, which comes from a
# stock that looks the same however much was taken. A FIXTURE of the board is pressed, and comes back.
PLAIN, DRAWER, FIXTURE = "plain", "drawer", "fixture"

SLOT_COUNT = 8
WELL_COUNT = 8

Point = tuple[float, float]
Range = tuple[int, int]


@dataclass(frozen=True)
class SceneConfig:
    """How hard the scenes are. Ranges are inclusive; lengths of time are in frames (half seconds)."""

    image_size: int = 48
    """Width and height of a picture in pixels."""
    supersample: int = 3
    """Pictures are drawn this many times larger and averaged down; 1 is fast and jagged."""
    steps: Range = (3, 6)
    """Parts that belong to the plan, one step each; at most 6."""
    distractors: Range = (0, 2)
    """Parts that belong to no step; with ``steps`` at most 8."""
    p_shared_colour: float = 0.3
    """Chance that a part takes the colour of an earlier one (never its shape too)."""
    p_out_of_order: float = 0.2
    """Chance that the person starts another remaining step than the plan's next."""
    p_mistake: float = 0.2
    """Chance, before each step, that the person first picks a distractor and puts it back."""
    p_reopen: float = 0.12
    """Chance that a completed step comes loose later on; a step does so at most once."""
    p_truncated: float = 0.15
    """Chance that a recording stops at a random frame of its second half."""
    p_pause: float = 0.25
    """Chance that the hand leaves a part loose on the board for a while in the middle of the work."""
    p_hover: float = 0.5
    """Chance that an idle move ends above a part, which is not picked, and not at a random point."""
    p_drawer: float = 0.0
    """Chance that a step puts its part, of which there is a stock, into a drawer: a completed one cannot be seen."""
    p_fixture: float = 0.0
    """Chance that a step is a press on a fixture of the board: a completed one leaves no trace."""
    p_twin: float = 0.0
    """Chance that a step's part looks like that of an earlier step: "the first red wheel", "the second red wheel"."""
    p_pan: float = 0.0
    """Chance, in each time between two actions, that the camera looks away from the board and comes back."""
    p_long_pause: float = 0.0
    """Chance, before the first action and between two, that a long time passes."""
    p_skip: float = 0.0
    """Chance that the person leaves out a step, but for the last one, for good."""
    p_repeat: float = 0.0
    """Chance, before each step, that the person does a completed one again."""
    p_unfinished: float = 0.0
    """Chance that the person leaves a step before it is completed and does not come back to it."""
    corrections: bool = False
    """Whether the assistant says so when a step is out of order, left out, repeated or left unfinished."""
    orders: int = 1
    """This many recordings in a row have the same parts and plan, each with a course of its own."""
    prelude: Range = (3, 12)
    """Frames before the first reach; the hand comes in, and the opening is said, somewhere in them."""
    idle: Range = (0, 5)
    """Frames of wandering between two actions."""
    reach: Range = (1, 4)
    """Frames from anywhere to the part."""
    carry: Range = (1, 4)
    """Frames in which the part is in the hand."""
    work: Range = (2, 8)
    """Frames in which the part is on the board, not yet fastened."""
    pan: Range = (2, 6)
    """Frames in which a camera that looks away does not show the board."""
    long_pause: Range = (16, 40)
    """Frames of a long pause."""
    trailing: Range = (2, 6)
    """Frames after the last event of a recording that was not cut."""
    jitter: float = 1.0
    """Standard deviation of the camera's smooth walk, in pixels of a 48-pixel picture; 0 is a fixed camera."""
    lighting: float = 0.15
    """Spread of brightness over recordings; its gradient, flicker and tint are fractions of it; 0 is even light."""
    noise: float = 3.0
    """Standard deviation of the sensor noise, in grey levels of 255."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.startswith("p_") and not 0 <= value <= 1:
                raise UsageError(f"scene.{field.name}={value}: a probability from 0 to 1 is needed.")
            if isinstance(value, tuple) and not (len(value) == 2 and 0 <= value[0] <= value[1]):
                raise UsageError(f"scene.{field.name}={value}: a range (low, high) with 0 <= low <= high is needed.")
        if not 1 <= self.steps[0] <= self.steps[1] <= SLOT_COUNT:
            raise UsageError(f"scene.steps={self.steps}: from 1 to {SLOT_COUNT} steps fit on the board.")
        if self.steps[1] + self.distractors[1] > WELL_COUNT:
            raise UsageError(f"scene.steps and scene.distractors: at most {WELL_COUNT} parts fit in the tray.")
        if self.prelude[0] < 3:
            raise UsageError(f"scene.prelude={self.prelude}: the opening needs at least 3 frames.")
        if min(self.reach[0], self.carry[0], self.work[0]) < 1:
            raise UsageError("scene.reach, scene.carry and scene.work need at least 1 frame each.")
        if self.p_drawer + self.p_fixture > 1:
            raise UsageError(
                f"scene.p_drawer={self.p_drawer} and scene.p_fixture={self.p_fixture}: a step is one of them or "
                "neither, so together they are at most 1."
            )
        if self.orders < 1:
            raise UsageError(f"scene.orders={self.orders}: give 1 or more.")
        if self.image_size < 16 or self.supersample < 1:
            raise UsageError("scene.image_size must be 16 or more and scene.supersample 1 or more.")
        if min(self.jitter, self.lighting, self.noise) < 0 or self.lighting >= 0.5:
            raise UsageError(
                "scene.jitter, scene.lighting and scene.noise may not be negative, lighting not above 0.5."
            )


@dataclass(frozen=True)
class Part:
    """A thing in the tray, or a fixture of the board.

    Args:
        name: in plan and utterances.
        kind: ``plain``, ``drawer`` or ``fixture``.
        colour, shape: its look.
        home: its place in the tray; of a fixture, its slot.
        slot, slot_index: its place on the board, ``None`` for a part that belongs to no step.
        twin: the earlier step whose part looks the same, ``None`` if there is none.
    """

    name: str
    kind: str
    colour: str
    shape: str
    home: Point
    slot: Point | None
    slot_index: int | None
    twin: int | None


@dataclass(frozen=True)
class Pose:
    """Where a part is (a key of ``STATE_OF``), its centre in units and its turn in degrees."""

    where: str
    at: Point
    angle: int


@dataclass(frozen=True)
class SceneState:
    """One frame.

    Args:
        hand: the fingertips, ``None`` while no hand is in view.
        closed: whether they hold on.
        poses: of every part.
        states: of every step, as the labels have them.
        pan: how far the camera looks away, in units; from ``UNITS`` on nothing of the scene is in view.
    """

    hand: Point | None
    closed: bool
    poses: tuple[Pose, ...]
    states: tuple[int, ...]
    pan: float = 0.0


@dataclass(frozen=True)
class StepEvent:
    """Step ``step`` (from 0) starts (``start``) or is completed (``complete``), first visible in ``frame``."""

    frame: int
    step: int
    transition: str


@dataclass(frozen=True)
class ScriptTurn:
    """Something said. ``frame`` is the turn's decision frame; ``progress`` is empty on user turns."""

    frame: int
    role: str
    content: str
    labels: str
    progress: str


@dataclass(frozen=True)
class Episode:
    """A whole recording. ``parts`` holds the plan's parts in plan order (step k is ``parts[k]``), then distractors."""

    source: str
    seed: int
    split: str
    index: int
    scene: SceneConfig
    user_type: str
    num_steps: int
    parts: tuple[Part, ...]
    wells: tuple[Point, ...]
    arm_base: Point
    frames: tuple[SceneState, ...]
    events: tuple[StepEvent, ...]
    turns: tuple[ScriptTurn, ...]
    has_mistake: bool

    @property
    def flavour(self) -> Flavour:
        """Wording and looks."""
        return flavour_of(self.source, self.scene)

    @property
    def plan(self) -> tuple[str, ...]:
        """The steps' texts in plan order."""
        return tuple(self.flavour.plan_step(part.name, part.kind == FIXTURE) for part in self.parts[: self.num_steps])

    def visible_states(self, frame: int) -> tuple[int | None, ...]:
        """The state of each step as the picture of ``frame`` alone shows it; ``None`` where it does not tell."""
        state = self.frames[frame]
        if state.pan:
            return (None,) * self.num_steps
        shown: list[int | None] = [STATE_OF[pose.where] for pose in state.poses[: self.num_steps]]
        for step, part in enumerate(self.parts[: self.num_steps]):
            if part.twin is not None and {shown[step], shown[part.twin]} == {1, 2}:
                # The first of two that look alike is done first, but either may have come loose again.
                shown[step] = shown[part.twin] = None
        return tuple(shown)

    def spans(self) -> list[tuple[int, float, float | None]]:
        """``(step, start, end)`` in seconds, by start; a re-opened step has two, an unfinished one no end."""
        spans: list[tuple[int, float, float | None]] = []
        opened: dict[int, int] = {}
        for event in self.events:
            if event.transition == "start":
                opened[event.step] = len(spans)
                spans.append((event.step, seconds(event.frame), None))
            else:
                position = opened.pop(event.step)
                spans[position] = (event.step, spans[position][1], seconds(event.frame))
        return spans


def flavour_of(source: str, scene: SceneConfig) -> Flavour:
    """The wording and looks of ``source``; where steps are also presses, completed steps are "done", not "fastened"."""
    flavour = FLAVOURS[source]
    return replace(flavour, done="done") if scene.p_fixture > 0 else flavour


def seconds(frame: int) -> float:
    """The end of the half second of ``frame``, in seconds: the time of what it is the first to show."""
    return (frame + 1) / FPS


def towards(start: Point, end: Point, distance: float) -> Point:
    """The point ``distance`` units from ``start`` on the way to ``end``."""
    length = math.dist(start, end)
    if length == 0:
        return start
    return (start[0] + (end[0] - start[0]) * distance / length, start[1] + (end[1] - start[1]) * distance / length)
