"""A made-up evaluation: several runs over six sources, with everything in it that a report has to show."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise
from typing import Any

from prospect_hf.evaluation.report.sessions import PROBABILITY_UNITS, SESSION_FIGURES
from prospect_hf.metrics.catalogue import FIGURES

SOURCES = ["assembly101", "ego4d", "egoexolearn", "epickitchens", "holoassist", "wtag"]
STEPS = ["Fetch the chassis and lay it on the bench", "Screw the interior to the chassis with two short screws",
         "Attach the front bumper", "Attach the rear bumper and check that it sits flush", "Fit the cabin",
         "Put the wheels on and spin each of them once"]  # fmt: skip
NASTY = "</script><img src=x onerror=alert(1)> --> & <!-- \u2028 \U0001f6e0\ufe0f " + "Donaudampfschifffahrt" * 12
STRATEGIES = ["none", "drop_all", "drop_middle", "summarize_and_drop", "summarize_with_dst"]
FPS = 2.0
WEIGHTS = b"weights"  # content of the evaluated model.safetensors


def make_results(sessions: int = 12, frames: int = 160, *, seed: int = 0, text: str = "") -> dict[str, Any]:
    """Offline, five stream strategies, two controls, three baselines; ``text`` replaces all free text where given."""
    rng = random.Random(seed)
    runs = [_run("offline", "offline", 0.8, rng, sessions, frames, text)]
    for number, strategy in enumerate(STRATEGIES):
        runs.append(_run(f"stream, {strategy}", "stream", 0.6 + 0.05 * number, rng, sessions, frames, text))
        runs[-1]["stamp"]["context"] = {"strategy": strategy, "max_tokens": 288, "keep": [1, 2]}
    for name, skill, seen in (("window 8", 0.5, {"window": 8}), ("blind", 0.2, {"frames": "blank"})):
        runs.append(_run(f"control, {name}", "control", skill, rng, sessions, frames, text))
        runs[-1]["stamp"] |= seen
        if "window" in seen:
            _take_texts(runs[-1])
    for name, skill in (("silent", 0.1), ("majority", 0.3), ("oracle", 1.0)):
        runs.append(_run(f"baseline, {name}", "baseline", skill, rng, sessions, frames, text))
    return {"kind": "prospect_hf_evaluation", "version": 2, "written": "2026-11-25T17:40:00Z", "runs": runs}


def _run(
    name: str, mode: str, skill: float, rng: random.Random, sessions: int, frames: int, text: str
) -> dict[str, Any]:
    baseline, silent = mode == "baseline", name == "baseline, silent"
    stamp = {
        "mode": mode, "model": name.split(", ")[1] if baseline else text or "outputs/tiny",
        "model_revision": None if baseline else "3f2a90c1d4e5b677", "data": text or "outputs/simulated",
        "data_fingerprint": "0123456789abcdef", "split": "test", "sources": SOURCES, "frames": "rendered",
        "dst": "words", "fps": FPS, "speaking_threshold": None if baseline else 0.41,
        "dst_update_threshold": None if baseline else 0.37, "context": None, "tracking": None,
        "decoding": None if baseline else {"max_new_tokens": 48, "repetition_penalty": 1.1},
        "encoder": "all-MiniLM-L6-v2 @ 9f3c", "prospect_hf": "0.1.0", "torch": "2.13.0",
        "weights_sha256": None if baseline else hashlib.sha256(WEIGHTS).hexdigest(),
    }  # fmt: skip
    views = [_view(rng, number, skill, frames, baseline, silent, text) for number in range(sessions)]
    views.sort(key=lambda view: view["score"])
    return {
        "name": name,
        "stamp": stamp,
        "scores": {scope: _scores(rng, mode, skill, silent, scope) for scope in ["all", *SOURCES]},
        "sessions": [
            {name: view[name] for name in ("id", "source", "frames")}
            | {"recording": view["id"], "fingerprint": "0f", "counts": {"n": 1.0}, "score": view["score"]}
            | {"figures": dict.fromkeys(SESSION_FIGURES, None if silent else view["score"])}
            for view in views
        ],
        "curves": {} if baseline else {"speaking": _curve(skill), "dst_update": _curve(skill - 0.1)},
        "confusion": {} if silent else {key: _confusion(rng, skill) for key in ("head", "table")},
        "delays_s": {
            "transition": [round(rng.gauss(0.5, 4 - 3 * skill) * FPS) / FPS for _ in range(0 if silent else 400)],
            "speaking": [round(rng.gauss(-0.3, 2) * FPS) / FPS for _ in range(0 if silent else 250)],
        },
        "views": views,
        "ranked_by": "mean of joint state accuracy and stream-matching F1",
    }


def _take_texts(run: dict[str, Any]) -> None:
    """A run that decides when to speak and writes no texts."""
    for scores in run["scores"].values():
        for key in [
            key for key in scores if FIGURES[key].group.startswith(("Texts", "Stream matching", "All predicted"))
        ]:
            del scores[key]
    for view in run["views"]:
        view["said"] = [{"frame": one["frame"], "text": "", "verdict": None} for one in view["said"]]
        view["reference"] = [{"frame": one["frame"], "text": one["text"], "verdict": None} for one in view["reference"]]


def _scores(rng: random.Random, mode: str, skill: float, silent: bool, scope: str) -> dict[str, Any]:
    """No judge for baselines, no language model in a stream, no texts where nothing is said, ego4d without labels."""
    scores: dict[str, Any] = {}
    for key, figure in FIGURES.items():
        if (figure.group == "Judge" and mode in ("control", "baseline")) or (
            figure.group == "Language model" and mode != "offline"
        ):
            continue
        undefined = (silent and figure.group.startswith("Texts")) or (
            scope == "ego4d" and figure.group.startswith("Transitions")
        )
        top = {"": 1.0, "0-100": 100.0, "1-5": 5.0, "0-10": 10.0}.get(figure.unit, 8.0)
        good = (
            min(max(skill + rng.uniform(-0.05, 0.03), 0.0), 1.0) if figure.higher_is_better is not False else 1 - skill
        )
        value, half = round(top * good, 6), round(0.03 * top, 6)
        if key.endswith("transition_delay_s"):
            value = round(value - 7.5, 6)
        low, high = (
            round(value - half if key.endswith("transition_delay_s") else max(value - half, 0), 6),
            round(min(value + half, top), 6),
        )
        if undefined:
            scores[key] = {"value": None, "low": None, "high": None}
        elif figure.group == "Judge":
            scores[key] = {"value": value, "low": None, "high": None}
        else:
            scores[key] = {"value": value, "low": low, "high": high}
    return scores


def _curve(skill: float, points: int = 120) -> dict[str, Any]:
    at = [(n + 1) / points for n in range(points)]
    return {
        "precision": [round(1 - (1 - skill) * recall**2 - 0.4 * recall**12, 4) for recall in at],
        "recall": [round(recall, 4) for recall in at],
        "threshold": [round((1 - recall) ** 2, 4) for recall in at],
        "reliability": [[100, round(n / 15, 4), round((n / 15) ** (2 - skill), 4)] for n in range(1, 16)],
    }


def _confusion(rng: random.Random, skill: float) -> list[list[int]]:
    return [
        [round(rng.uniform(20_000, 40_000) * (skill if row == column else (1 - skill) / 2)) for column in range(3)]
        for row in range(3)
    ]


def _view(
    rng: random.Random, number: int, skill: float, frames: int, baseline: bool, silent: bool, text: str
) -> dict[str, Any]:
    source = SOURCES[number % len(SOURCES)]
    steps = [text or step for step in STEPS]
    begins = [round((step + 0.4) * frames / (len(steps) + 1)) for step in range(len(steps) + 1)]
    truth, predicted, said, reference = [], [], [], []
    p_speak = [round(rng.betavariate(1, 12) * PROBABILITY_UNITS) for _ in range(frames)]
    p_update = [round(rng.betavariate(1, 14) * PROBABILITY_UNITS) for _ in range(frames)]
    for step, (begin, end) in enumerate(pairwise(begins)):
        truth += [[begin, step, 1], [end, step, 2]]
        reference.append({"frame": begin, "text": text or f"Now: {steps[step].lower()}.", "verdict": "missed"})
        if silent:
            continue
        late = min(rng.choice([0, 0, 1, 3]), frames - 1 - begin)
        predicted += [[begin + late, step, 1], [min(end + late, frames - 1), step, 2]]
        p_update[begin + late] = 9 * PROBABILITY_UNITS // 10
        if rng.random() > skill:
            if step % 2:
                said.append(
                    {"frame": min(begin + 6, frames - 1), "text": text or "Well done, go on!", "verdict": "redundant"}
                )
            continue
        matched, exact = rng.random() < skill, not step
        pair = {"verdict": "matched" if matched else "different", "cosine": 0.8 if matched else 0.4, "exact": exact}
        words = f"{'Now:' if exact else 'Please'} {steps[step].lower()}."
        said.append({"frame": begin + late, "text": text or words, "partner": begin, **pair})
        reference[-1] |= {"partner": begin + late, **pair}
        p_speak[begin + late] = 8 * PROBABILITY_UNITS // 10
    return {
        "id": f"{source}.v{number}.talk_some_0", "source": source, "goal": text or "Assemble the toy dump truck",
        "score": round(min(1.0, skill * rng.uniform(0.8, 1)), 4), "frames": frames, "fps": FPS,
        "first_frame": 24 * (number % 3), "steps": steps,
        "reference_states": None if source == "ego4d" else truth, "predicted_states": predicted,
        "p_speak": p_speak, "p_update": p_update,
        "said": said, "reference": reference, "user": [{"frame": 2, "text": text or "What do I do first?"}],
    }  # fmt: skip
