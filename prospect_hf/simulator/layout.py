"""The still scene of a simulated recording: which parts there are, how they look and where they lie."""

from __future__ import annotations

import random
from dataclasses import dataclass

from prospect_hf.simulator.flavours import COLOURS, SHAPES, Flavour
from prospect_hf.simulator.scene import (
    DRAWER,
    FIXTURE,
    PLAIN,
    SLOT_COUNT,
    UNITS,
    WELL_COUNT,
    Part,
    Point,
    SceneConfig,
)


@dataclass(frozen=True)
class Layout:
    """Parts (those of the plan first, in its order), the wells of the tray, and where the arm comes from."""

    num_steps: int
    parts: tuple[Part, ...]
    wells: tuple[Point, ...]
    arm_base: Point


def lay_out(rng: random.Random, kinds: random.Random, scene: SceneConfig, flavour: Flavour) -> Layout:
    """Draw a scene. ``kinds`` decides on drawers, fixtures and twins: the rest of a scene is the same without them."""
    num_steps = rng.randint(*scene.steps)
    count = num_steps + rng.randint(*scene.distractors)
    side = flavour.tray_side
    wells = [
        _place(side, 6 + 12 * (i % 4) + rng.uniform(-0.3, 0.3), 30.4 + 11.4 * (i // 4) + rng.uniform(-0.3, 0.3))
        for i in range(WELL_COUNT)
    ]
    slots = [
        _place(side, 6 + 12 * (i % 4) + rng.uniform(-0.4, 0.4), 6.2 + 11.6 * (i // 4) + rng.uniform(-0.4, 0.4))
        for i in range(SLOT_COUNT)
    ]
    # The arm comes from the side of the tray, so that a hand at rest covers no slot.
    low, high = {"bottom": (8, 40), "left": (3, 15), "right": (33, 45)}[side]
    base: Point = (rng.uniform(low, high), 55.0)
    looks = _looks(rng, count, scene.p_shared_colour)
    places = rng.sample(range(WELL_COUNT), count)
    slot_order = rng.sample(range(SLOT_COUNT), num_steps)
    kind_of = [_kind(kinds, scene) for _ in range(num_steps)] + [PLAIN] * (count - num_steps)
    twin_of = _twins(kinds, kind_of[:num_steps], scene.p_twin) | dict.fromkeys(range(num_steps, count))
    parts = []
    for i in range(count):
        twin = twin_of[i]
        colour, shape = looks[i] if twin is None else looks[twin]
        name = flavour.part_name(colour, shape, kind_of[i] == FIXTURE)
        if i in twin_of.values():
            name = f"first {name}"
        elif twin is not None:
            name = f"second {name}"
        slot = slots[slot_order[i]] if i < num_steps else None
        parts.append(
            Part(
                name=name,
                kind=kind_of[i],
                colour=colour,
                shape=shape,
                home=slot if slot is not None and kind_of[i] == FIXTURE else wells[places[i]],
                slot=slot,
                slot_index=slot_order[i] if i < num_steps else None,
                twin=twin,
            )
        )
    return Layout(num_steps, tuple(parts), tuple(wells), base)


def _looks(rng: random.Random, count: int, p_shared_colour: float) -> list[tuple[str, str]]:
    """Colour and shape of ``count`` parts, no pair twice; then mixed, so that plan and distractors are alike."""
    looks: list[tuple[str, str]] = []
    for _ in range(count):
        used = {colour for colour, _ in looks}
        fresh = [colour for colour in COLOURS if colour not in used]
        shared = [
            (colour, shape) for colour in COLOURS for shape in SHAPES if colour in used and (colour, shape) not in looks
        ]
        if shared and (not fresh or rng.random() < p_shared_colour):
            looks.append(rng.choice(shared))
        else:
            looks.append((rng.choice(fresh), rng.choice(SHAPES)))
    rng.shuffle(looks)
    return looks


def _kind(rng: random.Random, scene: SceneConfig) -> str:
    drawn = rng.random()
    if drawn < scene.p_drawer:
        return DRAWER
    return FIXTURE if drawn < scene.p_drawer + scene.p_fixture else PLAIN


def _twins(rng: random.Random, kinds: list[str], p_twin: float) -> dict[int, int | None]:
    """For each step the earlier one that it looks like, or ``None``; a step has at most one twin, of its own kind."""
    twin_of: dict[int, int | None] = {}
    for step, kind in enumerate(kinds):
        paired = {k for pair in twin_of.items() if pair[1] is not None for k in pair}
        free = [k for k in range(step) if kinds[k] == kind and k not in paired]
        twin_of[step] = rng.choice(free) if free and rng.random() < p_twin else None
    return twin_of


def _place(side: str, along: float, depth: float) -> Point:
    """A point given along the tray and away from the far edge of the board, for a tray at ``side`` of the picture."""
    if side == "bottom":
        return (along, depth)
    return (depth, along) if side == "right" else (UNITS - depth, along)
