"""The course of a simulated recording: the hand's actions frame by frame, and the utterances."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from prospect_hf.errors import UsageError
from prospect_hf.simulator.flavours import FLAVOURS, Flavour
from prospect_hf.simulator.layout import Layout, lay_out
from prospect_hf.simulator.scene import (
    FAST,
    FIXTURE,
    GENERATOR_VERSION,
    HELD,
    LOOSE,
    PLAIN,
    SHUT,
    TRAY,
    UNITS,
    Episode,
    Point,
    Pose,
    SceneConfig,
    SceneState,
    ScriptTurn,
    StepEvent,
    flavour_of,
    towards,
)
from tracking_dst_smolvlm import REPEATED, Deviation, Deviations

USER_TYPES = ("no_talk", "talk_some", "talk_more")
# A picked part is at least this far from its place in the tray, a completed one this far from the fingertips.
LIFT = 5.5
MOVE_OFF = 12.0
# Idle frames after which it is clear that a loose part was left: a pause in the middle of the work is shorter.
LEFT_FOR = 6


def simulate(source: str, seed: int, split: str, index: int, scene: SceneConfig | None = None) -> Episode:
    """Simulate recording ``index`` of ``split``; it depends on these arguments alone, not on the number of recordings.

    Raises ``UsageError`` for a source that has no flavour.
    """
    if source not in FLAVOURS:
        raise UsageError(f"simulator source '{source}': unknown, use one of {', '.join(FLAVOURS)}.")
    scene = SceneConfig() if scene is None else scene
    recording = f"{GENERATOR_VERSION}/{seed}/{source}/{split}"
    key = f"{recording}/{index}"
    # Recordings that share a scene take it from the first of them.
    first = f"{recording}/{index - index % scene.orders}"
    rng = random.Random(f"{first}/scene")
    layout = lay_out(rng, random.Random(f"{first}/kinds"), scene, flavour_of(source, scene))
    if first != key:
        rng = random.Random(f"{key}/course")
    # Talk has a stream of its own: the user type changes what is asked, never what is done.
    talk = random.Random(f"{key}/talk")
    user_type = USER_TYPES[index % len(USER_TYPES)]
    pace, whim = random.Random(f"{key}/pace"), random.Random(f"{key}/whim")
    take = _Take(rng, pace, whim, layout, scene, flavour_of(source, scene), asked=user_type != "no_talk")
    take.play()
    if rng.random() < scene.p_truncated:
        length = len(take.frames)
        # At least one step has begun: a recording without state labels could not be trained on.
        take.cut(rng.randint(max(take.opening + 2, length // 2, take.events[0].frame + 1), length))
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
        num_steps=layout.num_steps,
        parts=layout.parts,
        wells=layout.wells,
        arm_base=layout.arm_base,
        frames=tuple(take.frames),
        events=tuple(take.events),
        turns=tuple(sorted(take.turns, key=lambda turn: turn.frame)),
        has_mistake=any("correction" in turn.labels for turn in take.turns),
    )


class _Take:
    """The recording while it is played: each action appends frames and notes its events and turns."""

    def __init__(
        self,
        rng: random.Random,
        pace: random.Random,
        whim: random.Random,
        layout: Layout,
        scene: SceneConfig,
        flavour: Flavour,
        asked: bool,
    ) -> None:
        self.rng = rng
        self.pace = pace
        self.whim = whim
        self.scene = scene
        self.flavour = flavour
        self.asked = asked
        self.frames: list[SceneState] = []
        self.events: list[StepEvent] = []
        self.turns: list[ScriptTurn] = []
        # Frames at which a user may ask: nothing happens in them, the hand idles or works.
        self.quiet: list[int] = []
        self.opening = 0
        self.num_steps, self.parts, self.base = layout.num_steps, layout.parts, layout.arm_base
        self.names = [part.name for part in self.parts[: self.num_steps]]
        self.states = [0] * self.num_steps
        self.deviations = Deviations(self.states)
        # Steps that were left unfinished, of which the assistant has said nothing yet.
        self.left: list[int] = []
        self.poses = [Pose(TRAY if part.kind == PLAIN else SHUT, part.home, 0) for part in self.parts]
        self.hand = self._rest()

    # -- frames, events, words

    def _shoot(self, hand: Point | None, closed: bool = False, pan: float = 0.0) -> int:
        """Take one frame and return its index."""
        if hand is not None:
            self.hand = (min(max(hand[0], 1.0), UNITS - 1.0), min(max(hand[1], 1.0), UNITS - 1.0))
        hand = None if hand is None else self.hand
        self.frames.append(SceneState(hand, closed, tuple(self.poses), tuple(self.states), pan))
        return len(self.frames) - 1

    def _next_step(self) -> int | None:
        """The first step in plan order that is not completed."""
        return next((step for step, state in enumerate(self.states) if state != 2), None)

    def _instruction(self, step: int) -> str:
        return self.flavour.instruction(self.names[step], self.parts[step].kind == FIXTURE)

    def _say(self, frame: int, content: str, labels: str) -> None:
        progress = self.flavour.progress(self.names, self.frames[frame].states)
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
        remaining = self._steps_that_are_done()
        loosening: list[tuple[int, int]] = []
        reopened: set[int] = set()
        turn = 0
        while remaining or loosening:
            turn += 1
            self._between()
            for due, step in list(loosening):
                if due <= turn or not remaining:
                    loosening.remove((due, step))
                    self._loosen(step)
                    remaining = sorted([*remaining, step])
                    self._idle(self.rng.randint(1, 3))
            if self.rng.random() < self.scene.p_mistake and len(self.parts) > self.num_steps:
                self._mistake()
                self._idle(self.rng.randint(0, 3))
            if self.whim.random() < self.scene.p_repeat and (again := self._steps_to_repeat()):
                self._do_step(self.whim.choice(again))
                self._idle(self.whim.randint(1, 3))
            step = remaining[0]
            if len(remaining) > 1 and self.rng.random() < self.scene.p_out_of_order:
                step = self._not_before_its_twin(self.rng.choice(remaining[1:]))
            leave = self.whim.random() < self.scene.p_unfinished
            self._do_step(step, leave)
            remaining.remove(step)
            if not leave and step not in reopened and self.rng.random() < self.scene.p_reopen:
                reopened.add(step)
                loosening.append((turn + self.rng.randint(1, 3), step))
        if self.left and self.scene.corrections:
            self._idle(LEFT_FOR)
            self._say_unfinished(len(self.frames) - 1)
        self._idle(self.rng.randint(*self.scene.trailing))

    def _steps_that_are_done(self) -> list[int]:
        """The plan without the steps that are left out. Of two that look alike, the first to be done is the first."""
        first = {part.twin for part in self.parts}
        spared = [step for step in range(self.num_steps - 1) if self.whim.random() < self.scene.p_skip]
        return [step for step in range(self.num_steps) if step not in spared or step in first]

    def _steps_to_repeat(self) -> list[int]:
        """Completed steps; not of two that look alike, where doing the first again may be doing the second."""
        first = {part.twin for part in self.parts}
        return [
            step
            for step, state in enumerate(self.states)
            if state == 2 and self.parts[step].twin is None and step not in first
        ]

    def _not_before_its_twin(self, step: int) -> int:
        """Of two steps whose parts look alike, the first to be begun is the first in the plan."""
        twin = self.parts[step].twin
        return step if twin is None or self.states[twin] != 0 else twin

    def _between(self) -> None:
        """The time between two actions: some wandering; now and then a long pause, and a look elsewhere."""
        self._idle(self.rng.randint(*self.scene.idle))
        if self.pace.random() < self.scene.p_long_pause:
            self._idle(self.pace.randint(*self.scene.long_pause))
        if self.pace.random() < self.scene.p_pan:
            self._look_away(self.pace.randint(*self.scene.pan))

    def _look_away(self, length: int) -> None:
        """The camera turns from the board and comes back; nothing happens meanwhile."""
        way = [UNITS / 3, 2 * UNITS / 3]
        side = self.pace.choice((-1, 1))
        for pan in [*way, *[float(UNITS)] * length, *reversed(way)]:
            self.quiet.append(self._shoot(self.hand, pan=side * pan))

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
        self._say(self.opening, self.flavour.opening(self._instruction(0), self.asked), labels)
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

    def _begin(self, step: int) -> tuple[Deviation, ...]:
        """The next frame is the first to show that ``step`` is in progress; returns how this deviates from the plan."""
        self.states[step] = 1
        self.events.append(StepEvent(len(self.frames), step, "start"))
        return self.deviations.see(self.states)

    def _hold(self, part: int, at: Point) -> int:
        self.poses[part] = Pose(HELD, at, self.rng.randint(-2, 2) * 6)
        return self._shoot(at, closed=True)

    def _do_step(self, step: int, leave: bool = False) -> None:
        """All of a step, or with ``leave`` all but its completion."""
        part = self.parts[step]
        slot = part.slot
        assert slot is not None
        begun, found = 0, tuple[Deviation, ...]()
        if self.states[step] == 1:  # it came loose
            self._reach(slot)
        else:
            fast = self.poses[step].where == FAST  # done again: it is on the board
            self._reach(slot if fast else part.home)
            begun, found = len(self.frames), self._begin(step)
            if part.kind != FIXTURE and not fast:
                for at in self._lift(step, slot, self.rng.randint(*self.scene.carry)):
                    self._hold(step, at)
        length = self.rng.randint(*self.scene.work)
        pause = self.rng.randrange(1, length) if length > 1 and self.rng.random() < self.scene.p_pause else -1
        for i in range(length):
            self.poses[step] = self._loose_pose(slot)
            grip = self._wobble(towards(slot, self.base, 4.5), 1.2)
            self.quiet.append(self._shoot(grip, closed=True))
            if i == pause:
                self._idle(self.rng.randint(1, 4))
        if begun and self.scene.corrections:
            self._correct(begun, step, found)
        if leave:
            self.left.append(step)
            self._shoot(towards(slot, self.base, MOVE_OFF))
            return
        self.poses[step] = self._done_pose(step)
        self.states[step] = 2
        frame = self._shoot(towards(slot, self.base, MOVE_OFF))
        self.events.append(StepEvent(frame, step, "complete"))
        skipped = [self.names[one.step] for one in self.deviations.see(self.states)]
        following = self._next_step()
        instruction = None if following is None else self._instruction(following)
        if skipped and instruction is not None and self.scene.corrections:
            self._say(frame, self.flavour.left_out(skipped, instruction), "initiative|correction,instruction")
            return
        labels = "initiative|feedback" if following is None else "initiative|feedback,instruction"
        self._say(frame, self.flavour.completion(self.names[step], instruction), labels)

    def _correct(self, frame: int, step: int, found: Sequence[Deviation]) -> None:
        """What the assistant says on the frame that shows the start of ``step``, if anything is wrong with it."""
        # A step that was said to be left out is not asked for at the start of each later one.
        missing = [k for k in range(step) if self.states[k] == 0 and k not in self.deviations.skipped]
        if any(one.kind == REPEATED for one in found):
            self._say(frame, self.flavour.again(self.names[step]), "initiative|correction")
        elif missing:
            text = self.flavour.too_early(self.names[step], self.names[missing[0]])
            self._say(frame, text, "initiative|correction")
        elif self.left:
            self._say_unfinished(frame)

    def _say_unfinished(self, frame: int) -> None:
        """Of the step that was left last; the earlier ones are not asked for any more."""
        self._say(frame, self.flavour.unfinished(self.names[self.left[-1]]), "initiative|correction")
        self.left.clear()

    def _done_pose(self, step: int) -> Pose:
        part = self.parts[step]
        assert part.slot is not None
        return Pose(FAST, part.slot, 0) if part.kind == PLAIN else Pose(SHUT, part.home, 0)

    def _loose_pose(self, slot: Point) -> Pose:
        angle = self.rng.choice((-1, 1)) * self.rng.randrange(18, 37, 6)
        return Pose(LOOSE, self._wobble(slot, 1.6), angle)

    def _loosen(self, step: int) -> None:
        slot = self.parts[step].slot
        assert slot is not None
        # The hand rests first: what comes loose must not be hidden by it at that frame.
        self.quiet.append(self._shoot(self._rest()))
        self.poses[step] = self._loose_pose(slot)
        self._begin(step)
        frame = self._shoot(self._rest())
        text = self.flavour.loosening(self.names[step], self.parts[step].kind == FIXTURE)
        self._say(frame, text, "initiative|info_sharing,instruction")

    def _mistake(self) -> None:
        part = self.rng.randrange(self.num_steps, len(self.parts))
        self._reach(self.parts[part].home)
        free = [p.slot for p in self.parts if p.slot is not None]
        path = self._lift(part, self.rng.choice(free), self.rng.randint(2, 4))
        frame = self._hold(part, path[0])
        needed = self._next_step()
        assert needed is not None
        text = self.flavour.correction(self.parts[part].name, self.names[needed])
        self._say(frame, text, "initiative|correction")
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
            states = self.frames[frame + 1].states
            if rng.random() < 0.5:
                self._user(frame, self.flavour.question_next())
                answer = self.flavour.answer_next(self.names, states)
            else:
                self._user(frame, self.flavour.question_done())
                answer = self.flavour.answer_done(self.names, states)
            self._say(frame + 1, answer, "responsive|info_sharing")
