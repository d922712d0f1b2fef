"""The course of a simulated recording: the hand's actions frame by frame, and the utterances."""

from __future__ import annotations

import math
import random

from prospect_hf.errors import UsageError
from prospect_hf.simulator.flavours import COLOURS, FLAVOURS, SHAPES, Flavour
from prospect_hf.simulator.scene import (
    FAST,
    GENERATOR_VERSION,
    HELD,
    LOOSE,
    SLOT_COUNT,
    STATE_OF,
    TRAY,
    UNITS,
    WELL_COUNT,
    Episode,
    Part,
    Point,
    Pose,
    SceneConfig,
    SceneState,
    ScriptTurn,
    StepEvent,
    towards,
)

USER_TYPES = ("no_talk", "talk_some", "talk_more")
# A picked part is at least this far from its place in the tray, a completed one this far from the fingertips.
LIFT = 5.5
MOVE_OFF = 12.0


def simulate(source: str, seed: int, split: str, index: int, scene: SceneConfig | None = None) -> Episode:
    """Simulate recording ``index`` of ``split``; it depends on these arguments alone, not on the number of recordings.

    Raises ``UsageError`` for a source that has no flavour.
    """
    if source not in FLAVOURS:
        raise UsageError(f"simulator source '{source}': unknown, use one of {', '.join(FLAVOURS)}.")
    scene = SceneConfig() if scene is None else scene
    key = f"{GENERATOR_VERSION}/{seed}/{source}/{split}/{index}"
    rng = random.Random(f"{key}/scene")
    # Talk has a stream of its own: the user type changes what is asked, never what is done.
    talk = random.Random(f"{key}/talk")
    user_type = USER_TYPES[index % len(USER_TYPES)]
    take = _Take(rng, scene, FLAVOURS[source], asked=user_type != "no_talk")
    take.play()
    if rng.random() < scene.p_truncated:
        length = len(take.frames)
        take.cut(rng.randint(max(take.opening + 2, length // 2), length))
    if user_type == "talk_some":
        take.ask(talk, talk.randint(0, 1))
    elif user_type == "talk_more":
        take.ask(talk, talk.randint(1, 3))
    return Episode(
        source=source,
        seed=seed,
        split=split,
        index=index,
        scene=scene,
        user_type=user_type,
        num_steps=take.num_steps,
        parts=tuple(take.parts),
        wells=tuple(take.wells),
        arm_base=take.base,
        frames=tuple(take.frames),
        events=tuple(take.events),
        turns=tuple(sorted(take.turns, key=lambda turn: turn.frame)),
        has_mistake=any("correction" in turn.labels for turn in take.turns),
    )


class _Take:
    """The recording while it is played: each action appends frames and notes its events and turns."""

    def __init__(self, rng: random.Random, scene: SceneConfig, flavour: Flavour, asked: bool) -> None:
        self.rng = rng
        self.scene = scene
        self.flavour = flavour
        self.asked = asked
        self.frames: list[SceneState] = []
        self.events: list[StepEvent] = []
        self.turns: list[ScriptTurn] = []
        # Frames at which a user may ask: nothing happens in them, the hand idles or works.
        self.quiet: list[int] = []
        self.opening = 0
        self.num_steps = rng.randint(*scene.steps)
        self._lay_out()
        self.names = [part.name for part in self.parts[: self.num_steps]]
        self.poses = [Pose(TRAY, part.home, 0) for part in self.parts]
        self.hand = self._rest()

    # -- the still scene

    def _lay_out(self) -> None:
        rng, side = self.rng, self.flavour.tray_side
        count = self.num_steps + rng.randint(*self.scene.distractors)
        self.wells = [
            _place(side, 6 + 12 * (i % 4) + rng.uniform(-0.3, 0.3), 30.4 + 11.4 * (i // 4) + rng.uniform(-0.3, 0.3))
            for i in range(WELL_COUNT)
        ]
        slots = [
            _place(side, 6 + 12 * (i % 4) + rng.uniform(-0.4, 0.4), 6.2 + 11.6 * (i // 4) + rng.uniform(-0.4, 0.4))
            for i in range(SLOT_COUNT)
        ]
        # The arm comes from the side of the tray, so that a hand at rest covers no slot.
        low, high = {"bottom": (8, 40), "left": (3, 15), "right": (33, 45)}[side]
        self.base: Point = (rng.uniform(low, high), 55.0)
        looks = self._looks(count)
        wells = rng.sample(range(WELL_COUNT), count)
        slot_order = rng.sample(range(SLOT_COUNT), self.num_steps)
        self.parts = [
            Part(
                name=self.flavour.part_name(colour, shape),
                colour=colour,
                shape=shape,
                home=self.wells[wells[i]],
                slot=slots[slot_order[i]] if i < self.num_steps else None,
                slot_index=slot_order[i] if i < self.num_steps else None,
            )
            for i, (colour, shape) in enumerate(looks)
        ]

    def _looks(self, count: int) -> list[tuple[str, str]]:
        """Colour and shape of ``count`` parts, no pair twice; then mixed, so that plan and distractors are alike."""
        looks: list[tuple[str, str]] = []
        for _ in range(count):
            used = {colour for colour, _ in looks}
            fresh = [colour for colour in COLOURS if colour not in used]
            shared = [
                (colour, shape)
                for colour in COLOURS
                for shape in SHAPES
                if colour in used and (colour, shape) not in looks
            ]
            if shared and (not fresh or self.rng.random() < self.scene.p_shared_colour):
                looks.append(self.rng.choice(shared))
            else:
                looks.append((self.rng.choice(fresh), self.rng.choice(SHAPES)))
        self.rng.shuffle(looks)
        return looks

    # -- frames, events, words

    def _shoot(self, hand: Point | None, closed: bool = False) -> int:
        """Take one frame and return its index."""
        if hand is not None:
            self.hand = (min(max(hand[0], 1.0), UNITS - 1.0), min(max(hand[1], 1.0), UNITS - 1.0))
        self.frames.append(SceneState(None if hand is None else self.hand, closed, tuple(self.poses)))
        return len(self.frames) - 1

    def _states(self, frame: int) -> list[int]:
        return [STATE_OF[pose.where] for pose in self.frames[frame].poses[: self.num_steps]]

    def _next_name(self, frame: int) -> str | None:
        """The first step in plan order that is not completed."""
        return next((n for n, s in zip(self.names, self._states(frame), strict=True) if s != 2), None)

    def _say(self, frame: int, content: str, labels: str) -> None:
        progress = self.flavour.progress(self.names, self._states(frame))
        self.turns.append(ScriptTurn(frame, "assistant", content, labels, progress))

    def _user(self, frame: int, content: str) -> None:
        self.turns.append(ScriptTurn(frame, "user", content, "", ""))

    def _rest(self) -> Point:
        """Low in the picture, clear of every slot."""
        return (self.base[0], self.base[1] - 13 + self.rng.uniform(-1, 1))

    def _wobble(self, point: Point, spread: float) -> Point:
        return (point[0] + self.rng.uniform(-spread, spread), point[1] + self.rng.uniform(-spread, spread))

    # -- what the person does

    def play(self) -> None:
        """Everything from the first frame to the last, uncut."""
        self._prelude()
        remaining = list(range(self.num_steps))
        loosening: list[tuple[int, int]] = []
        reopened: set[int] = set()
        turn = 0
        while remaining or loosening:
            turn += 1
            self._idle(self.rng.randint(*self.scene.idle))
            for due, step in list(loosening):
                if due <= turn or not remaining:
                    loosening.remove((due, step))
                    self._loosen(step)
                    remaining = sorted([*remaining, step])
                    self._idle(self.rng.randint(1, 3))
            if self.rng.random() < self.scene.p_mistake and len(self.parts) > self.num_steps:
                self._mistake()
                self._idle(self.rng.randint(0, 3))
            step = remaining[0]
            if len(remaining) > 1 and self.rng.random() < self.scene.p_out_of_order:
                step = self.rng.choice(remaining[1:])
            self._do_step(step)
            remaining.remove(step)
            if step not in reopened and self.rng.random() < self.scene.p_reopen:
                reopened.add(step)
                loosening.append((turn + self.rng.randint(1, 3), step))
        self._idle(self.rng.randint(*self.scene.trailing))

    def _prelude(self) -> None:
        """An empty bench, then the hand comes in: the visible cue at which the assistant opens."""
        length = self.rng.randint(*self.scene.prelude)
        self.opening = self.rng.randint(1, length - 1)
        for _ in range(self.opening):
            self._shoot(None)
        self._shoot((self.base[0], self.base[1] - 19))
        if self.asked:
            self._user(self.opening - 1, self.flavour.request())
        labels = "responsive|instruction" if self.asked else "initiative|instruction"
        self._say(self.opening, self.flavour.opening(self.names[0], self.asked), labels)
        self._idle(length - self.opening - 1)

    def _idle(self, length: int) -> None:
        """Wander with an open hand, also to parts that are then not picked."""
        target, stay = self.hand, 0
        for _ in range(length):
            if stay == 0:
                if self.rng.random() < self.scene.p_hover:
                    target, stay = self.rng.choice(self.poses).at, self.rng.randint(1, 3)
                else:
                    target, stay = (self.rng.uniform(4, 44), self.rng.uniform(14, 46)), self.rng.randint(1, 2)
            near = math.dist(self.hand, target) <= 14
            stay -= near
            self.quiet.append(self._shoot(self._wobble(target if near else towards(self.hand, target, 14), 0.8)))

    def _reach(self, target: Point) -> None:
        start, length = self.hand, self.rng.randint(*self.scene.reach)
        for i in range(1, length + 1):
            way = math.dist(start, target) * i / length
            self._shoot(self._wobble(towards(start, target, way), 0.5))

    def _lift(self, part: int, target: Point, length: int) -> list[Point]:
        """Where a part goes, frame by frame: out of the tray at once, then evenly on to ``target``, not reaching it."""
        home = self.parts[part].home
        distance = math.dist(home, target)
        first = min(LIFT, distance)
        return [towards(home, target, first + (distance - first) * i / length) for i in range(length)]

    def _hold(self, part: int, at: Point) -> int:
        self.poses[part] = Pose(HELD, at, self.rng.randint(-2, 2) * 6)
        return self._shoot(at, closed=True)

    def _do_step(self, step: int) -> None:
        slot = self.parts[step].slot
        assert slot is not None
        if self.poses[step].where == TRAY:
            self._reach(self.parts[step].home)
            path = self._lift(step, slot, self.rng.randint(*self.scene.carry))
            self.events.append(StepEvent(self._hold(step, path[0]), step, "start"))
            for at in path[1:]:
                self._hold(step, at)
        else:
            self._reach(slot)
        length = self.rng.randint(*self.scene.work)
        pause = self.rng.randrange(1, length) if length > 1 and self.rng.random() < self.scene.p_pause else -1
        for i in range(length):
            self.poses[step] = self._loose_pose(slot)
            grip = self._wobble(towards(slot, self.base, 4.5), 1.2)
            self.quiet.append(self._shoot(grip, closed=True))
            if i == pause:
                self._idle(self.rng.randint(1, 4))
        self.poses[step] = Pose(FAST, slot, 0)
        frame = self._shoot(towards(slot, self.base, MOVE_OFF))
        self.events.append(StepEvent(frame, step, "complete"))
        following = self._next_name(frame)
        labels = "initiative|feedback" if following is None else "initiative|feedback,instruction"
        self._say(frame, self.flavour.completion(self.names[step], following), labels)

    def _loose_pose(self, slot: Point) -> Pose:
        angle = self.rng.choice((-1, 1)) * self.rng.randrange(18, 37, 6)
        return Pose(LOOSE, self._wobble(slot, 1.6), angle)

    def _loosen(self, step: int) -> None:
        slot = self.parts[step].slot
        assert slot is not None
        # The hand rests first: what comes loose must not be hidden by it at that frame.
        self.quiet.append(self._shoot(self._rest()))
        self.poses[step] = self._loose_pose(slot)
        frame = self._shoot(self._rest())
        self.events.append(StepEvent(frame, step, "start"))
        self._say(frame, self.flavour.loosening(self.names[step]), "initiative|info_sharing,instruction")

    def _mistake(self) -> None:
        part = self.rng.randrange(self.num_steps, len(self.parts))
        self._reach(self.parts[part].home)
        free = [p.slot for p in self.parts if p.slot is not None]
        path = self._lift(part, self.rng.choice(free), self.rng.randint(2, 4))
        frame = self._hold(part, path[0])
        needed = self._next_name(frame)
        assert needed is not None
        self._say(frame, self.flavour.correction(self.parts[part].name, needed), "initiative|correction")
        for at in [*path[1:], *reversed(path[:-1])]:
            self._hold(part, at)
        self.poses[part] = Pose(TRAY, self.parts[part].home, 0)
        self._shoot(towards(self.parts[part].home, self.base, 6))

    # -- afterwards

    def cut(self, length: int) -> None:
        """Keep the first ``length`` frames and what falls in them."""
        self.frames = self.frames[:length]
        self.events = [event for event in self.events if event.frame < length]
        self.turns = [turn for turn in self.turns if turn.frame < length]

    def ask(self, rng: random.Random, count: int) -> None:
        """Let the user ask up to ``count`` questions, each at a quiet frame and answered at the next one."""
        for _ in range(count):
            taken = {turn.frame for turn in self.turns} | {event.frame for event in self.events}
            free = [
                frame
                for frame in self.quiet
                if frame > self.opening + 1
                and frame + 1 < len(self.frames)
                and taken.isdisjoint((frame - 1, frame, frame + 1))
            ]
            if not free:
                return
            frame = rng.choice(free)
            states = self._states(frame + 1)
            if rng.random() < 0.5:
                self._user(frame, self.flavour.question_next())
                answer = self.flavour.answer_next(self.names, states)
            else:
                self._user(frame, self.flavour.question_done())
                answer = self.flavour.answer_done(self.names, states)
            self._say(frame + 1, answer, "responsive|info_sharing")


def _place(side: str, along: float, depth: float) -> Point:
    """A point given along the tray and away from the far edge of the board, for a tray at ``side`` of the picture."""
    if side == "bottom":
        return (along, depth)
    return (depth, along) if side == "right" else (UNITS - depth, along)
