"""What single pictures of a simulated corpus tell at most, without any model: the reader that never errs.

It sees the state of each step where the picture shows it. For the other steps it answers with the most frequent states
of all training frames that show the same; where none does, they are not started.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import as_dict, get_dict, get_index, get_list, load_json
from prospect_hf.settings import parse
from prospect_hf.simulator import SceneConfig, simulate
from prospect_hf.simulator.corpus import MARKER

Shown = tuple[int | None, ...]


def perfect_reader(root: Path) -> float:
    """Joint state accuracy of the reader over all frames of the test split, 0 to 1.

    Args:
        root: the corpus; its scenes are simulated again from what ``simulator.json`` says, without drawing them.

    Raises:
        DataError: ``simulator.json`` does not say what the corpus was made from.
    """
    path = root / MARKER
    recipe = as_dict(load_json(path), str(path))
    answers: dict[Shown, Counter[tuple[int, ...]]] = defaultdict(Counter)
    for shown, states in _frames(recipe, "train", str(path)):
        answers[shown][states] += 1
    right = frames = 0
    for shown, states in _frames(recipe, "test", str(path)):
        best = answers[shown].most_common(1)
        right += states == (best[0][0] if best else tuple(state or 0 for state in shown))
        frames += 1
    return right / frames


def _frames(recipe: dict[str, Any], split: str, where: str) -> Iterator[tuple[Shown, tuple[int, ...]]]:
    """Of each frame, what its picture shows, and its states."""
    options = get_dict(recipe, "scene", where)
    ranges = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    scene = parse(SceneConfig, ranges, f"{where}: scene")
    count = get_index(get_dict(recipe, "recordings", where), split, f"{where}: recordings")
    for source in get_list(recipe, "sources", where):
        for index in range(count):
            episode = simulate(source, get_index(recipe, "seed", where), split, index, scene)
            for frame, state in enumerate(episode.frames):
                yield episode.visible_states(frame), state.states
