"""The looks and the vocabulary of the simulated task for each of the six sources.

A flavour determines the texts of a source and how its bench looks. No wording is random: an utterance follows from the
flavour, the plan and the visible states, so that a model can learn to match it exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Colour = tuple[int, int, int]

SHAPES = ("disc", "square", "triangle", "cross")

# Far apart in hue, and all more saturated than any bench, board or hand, so that a tinted light cannot swap two.
COLOURS: dict[str, Colour] = {
    "red": (205, 30, 35),
    "orange": (255, 138, 0),
    "yellow": (250, 232, 40),
    "green": (30, 150, 45),
    "cyan": (60, 225, 235),
    "blue": (30, 60, 215),
    "pink": (250, 90, 205),
}


# What is pressed on a board, by shape: words that no source has for a part.
FIXTURES = {"disc": "button", "square": "switch", "triangle": "pedal", "cross": "tap"}


@dataclass(frozen=True)
class Flavour:
    """Wording, naming and looks of one source.

    ``verb`` and ``place`` make the plan ("Fasten the red wheel to the board."), ``done`` is the participle.
    ``tray_side`` is where the tray lies in the picture; ``texture`` names how the bench is painted.
    ``uid`` and ``frame_name`` are formats with the one field ``key``, ``{split}-{index}__view{view}``.
    """

    source: str
    dataset: str
    domain: str
    knowledge_type: str
    uid: str
    frame_name: str
    title: str
    goal: str
    nouns: dict[str, str]
    verb: str
    done: str
    place: str
    praise: str
    tray_side: str
    texture: str
    bench: Colour
    bench_mark: Colour
    board: Colour
    tray: Colour

    def part_name(self, colour: str, shape: str, fixture: bool = False) -> str:
        """The name of a part in plan and utterances, e.g. "red wheel", or of a fixture, e.g. "red button"."""
        return f"{colour} {FIXTURES[shape] if fixture else self.nouns[shape]}"

    def instruction(self, part: str, fixture: bool = False) -> str:
        """What is to be done with ``part``, as a clause."""
        return f"press the {part}" if fixture else f"{self.verb} the {part} {self.place}"

    def plan_step(self, part: str, fixture: bool = False) -> str:
        """The plan's line for ``part``, without its number."""
        return _sentence(self.instruction(part, fixture))

    def request(self) -> str:
        """The user's opening."""
        return f"I want to {self.goal}. Can you guide me?"

    def opening(self, instruction: str, asked: bool) -> str:
        """The assistant's opening: an answer if the user ``asked``, else unprompted."""
        return f"{'Sure. ' if asked else 'Hello. '}First, {instruction}."

    def completion(self, part: str, following: str | None) -> str:
        """The utterance when ``part`` is completed; ``following`` is what is next to be done, ``None`` at the end."""
        if following is None:
            return f"{self.praise} The {part} was the last. All is {self.done}."
        return f"{self.praise} Now {following}."

    def correction(self, wrong: str, right: str) -> str:
        """The utterance when the part ``wrong``, which belongs to no step, is picked."""
        return f"That is the {wrong}. You need the {right}."

    def too_early(self, part: str, missing: str) -> str:
        """The utterance when the step of ``part`` starts and the earlier one of ``missing`` is not started."""
        return f"That is the {part}. The {missing} comes first."

    def left_out(self, parts: Sequence[str], following: str) -> str:
        """The utterance when a step is completed and those of ``parts``, which come before it, are not started."""
        return f"You left out {_listed(parts)}. Now {following}."

    def again(self, part: str) -> str:
        """The utterance when a completed step is done again."""
        return f"The {part} is already {self.done}."

    def unfinished(self, part: str) -> str:
        """The utterance when the hand has left ``part`` and its step is not completed."""
        return f"The {part} is not {self.done} yet. Finish it."

    def loosening(self, part: str, fixture: bool = False) -> str:
        """The utterance when a completed step is undone."""
        return f"The {part} came loose. {'Press' if fixture else self.verb.capitalize()} it again."

    def answer_next(self, parts: Sequence[str], states: Sequence[int]) -> str:
        """The answer to "What is next?": the first step not started, else the first one in progress."""
        for part, state in zip(parts, states, strict=True):
            if state == 0:
                return f"The {part} is next."
        for part, state in zip(parts, states, strict=True):
            if state == 1:
                return f"Only the {part} is left."
        return f"Nothing. All is {self.done}."

    def answer_done(self, parts: Sequence[str], states: Sequence[int]) -> str:
        """The answer to "Which parts are ...?": the completed parts if they are at most three, else the others."""
        done = [part for part, state in zip(parts, states, strict=True) if state == 2]
        rest = [part for part, state in zip(parts, states, strict=True) if state != 2]
        if not rest:
            return "All of them."
        if not done:
            return "None yet."
        if len(done) <= 3:
            return _listed(done).capitalize() + "."
        return f"All but {_listed(rest)}."

    def question_next(self) -> str:
        """A question for the next step."""
        return "What is next?"

    def question_done(self) -> str:
        """A question for the completed steps."""
        return f"Which {'steps' if self.done == 'done' else 'parts'} are {self.done}?"

    def progress(self, parts: Sequence[str], states: Sequence[int]) -> str:
        """The running summary that goes with an assistant turn."""
        groups = [[p for p, s in zip(parts, states, strict=True) if s == state] for state in (2, 1, 0)]
        done, doing, left = (_listed(group) if group else "none" for group in groups)
        return f"The goal is to {self.goal}. {self.done.capitalize()}: {done}. In progress: {doing}. To do: {left}."


def _sentence(clause: str) -> str:
    return f"{clause[0].upper()}{clause[1:]}."


def _listed(names: Sequence[str]) -> str:
    """``a``, ``a and b`` or ``a, b and c``, each with its article."""
    with_article = [f"the {name}" for name in names]
    if len(with_article) == 1:
        return with_article[0]
    return ", ".join(with_article[:-1]) + " and " + with_article[-1]


def _nouns(disc: str, square: str, triangle: str, cross: str) -> dict[str, str]:
    return dict(zip(SHAPES, (disc, square, triangle, cross), strict=True))


FLAVOURS: dict[str, Flavour] = {
    flavour.source: flavour
    for flavour in (
        Flavour(
            source="assembly101",
            dataset="assembly101",
            domain="assembly/disassembly",
            knowledge_type="assembly steps",
            uid="assembly_sim-{key}",
            frame_name="sim-{key}",
            title="Assembling the Toy",
            goal="assemble the toy",
            nouns=_nouns("wheel", "panel", "roof", "axle"),
            verb="fasten",
            done="fastened",
            place="to the board",
            praise="Well done.",
            tray_side="bottom",
            texture="plain",
            bench=(108, 112, 118),
            bench_mark=(98, 102, 108),
            board=(176, 178, 180),
            tray=(66, 70, 78),
        ),
        Flavour(
            source="ego4d",
            dataset="ego4d-goalstep",
            domain="construction",
            knowledge_type="building steps",
            uid="grp-sim-{key}",
            frame_name="sim-{key}",
            title="Building the Bird House",
            goal="build the bird house",
            nouns=_nouns("knob", "tile", "wedge", "joint"),
            verb="screw",
            done="screwed on",
            place="onto the wall",
            praise="Good.",
            tray_side="right",
            texture="planks",
            bench=(126, 100, 76),
            bench_mark=(104, 80, 60),
            board=(196, 172, 140),
            tray=(82, 64, 50),
        ),
        Flavour(
            source="egoexolearn",
            dataset="egoexolearn",
            domain="lab task",
            knowledge_type="lab task steps",
            uid="sim-{key}",
            frame_name="sim-{key}",
            title="Loading the Reaction Rack",
            goal="load the reaction rack",
            nouns=_nouns("dish", "cartridge", "funnel", "valve"),
            verb="lock",
            done="locked",
            place="into the rack",
            praise="That is right.",
            tray_side="bottom",
            texture="tiles",
            bench=(184, 190, 190),
            bench_mark=(150, 158, 160),
            board=(84, 98, 104),
            tray=(224, 228, 228),
        ),
        Flavour(
            source="epickitchens",
            dataset="epickitchens",
            domain="cooking",
            knowledge_type="cooking recipe",
            uid="S01_{key}",
            frame_name="S01_{key}",
            title="Packing the Kitchen Rack",
            goal="pack the kitchen rack",
            nouns=_nouns("lid", "box", "grater", "whisk"),
            verb="clip",
            done="clipped on",
            place="onto the rack",
            praise="Nice.",
            tray_side="left",
            texture="speckles",
            bench=(62, 66, 64),
            bench_mark=(104, 108, 104),
            board=(150, 160, 146),
            tray=(112, 96, 84),
        ),
        Flavour(
            source="holoassist",
            dataset="holoassist",
            domain="object manipulation",
            knowledge_type="operation manual",
            uid="S001-sim-{key}",
            frame_name="S001-sim-{key}",
            title="Setting up the Control Unit",
            goal="set up the control unit",
            nouns=_nouns("dial", "chip", "antenna", "fan"),
            verb="insert",
            done="inserted",
            place="into the unit",
            praise="Correct.",
            tray_side="bottom",
            texture="grid",
            bench=(58, 74, 84),
            bench_mark=(84, 100, 110),
            board=(38, 42, 46),
            tray=(120, 134, 142),
        ),
        Flavour(
            source="wtag",
            dataset="wtag",
            domain="cooking",
            knowledge_type="cooking recipe",
            uid="T-sim-{key}",
            frame_name="T-sim-{key}",
            title="Making the Snack Plate",
            goal="make the snack plate",
            nouns=_nouns("cookie", "cracker", "nacho", "pretzel"),
            verb="pin",
            done="pinned",
            place="onto the plate",
            praise="Perfect.",
            tray_side="bottom",
            texture="checks",
            bench=(186, 160, 158),
            bench_mark=(206, 190, 184),
            board=(204, 200, 190),
            tray=(134, 108, 92),
        ),
    )
}
