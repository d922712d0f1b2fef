"""Synthetic traces: a stream as it could have happened, with everything in it that a reader has to show."""

from __future__ import annotations

import math
import random
from dataclasses import asdict
from typing import Any

from prospect_hf.streaming.trace import Trace
from tracking_dst_smolvlm import Deviations

STEPS = [
    "Fetch the chassis and lay it on the bench",
    "Screw the interior to the chassis with two short screws",
    "Attach the front bumper",
    "Attach the rear bumper and check that it sits flush with the frame",
    "Fit the cabin",
    "Put the wheels on and spin each of them once",
]
HOSTILE = "</script><img src=x onerror=alert(1)> --> & \u2028 {\\an8}<!--\x00\n\n99\n00:00:01,000 --> 00:00:02,000"


def make_trace(frames: int = 40, steps: int = 3, *, reference: bool = True, seed: int = 0, text: str = "") -> Trace:
    """A trace of ``frames`` events over ``steps`` steps; ``text`` takes the place of all free text where given."""
    rng = random.Random(seed)
    plan = [text or f"{STEPS[i % len(STEPS)]}{f' (round {i // len(STEPS) + 1})' if steps > 6 else ''}"
            for i in range(steps)]  # fmt: skip
    # The true table: step i runs from begins[i] to begins[i + 1]. The tracker follows two frames later.
    begins = [round((i + 0.4) * frames / (steps + 1)) for i in range(steps + 1)]
    truth: list[list[Any]] = []
    turns: list[dict[str, Any]] = []
    for i in range(steps):
        truth += [[begins[i], i, 1], [begins[i + 1], i, 2]]
        turns.append({"frame": begins[i], "text": text or f"Now: {plan[i].lower()}."})
    moves: dict[int, list[dict[str, int]]] = {}
    for i in range(steps):
        late = rng.choice([0, 1, 2, 3])
        moves.setdefault(min(begins[i] + late, frames - 1), []).append({"step": i, "before": 0, "after": 1})
        moves.setdefault(min(begins[i + 1] + 2, frames - 1), []).append({"step": i, "before": 1, "after": 2})
    speaks = {min(begin + rng.choice([0, 1, 4]), frames - 1): i for i, begin in enumerate(begins[:-1])}
    if frames > 30:
        speaks[begins[1] // 2 + 9] = -1  # one too many
    states = [0] * steps
    rule = Deviations(states)
    cache = 60 + 12 * steps
    events: list[dict[str, Any]] = []
    for frame in range(frames):
        applied = [m for m in moves.get(frame, []) if states[m["step"]] == m["before"]]
        for move in applied:
            states[move["step"]] = move["after"]
        spoken = None
        if frame in speaks:
            i = speaks[frame]
            spoken = text or ("You are doing well." if i < 0 else f"Well done. Next, {plan[i].lower()}.")
        user = ""
        if frame and frame % max(7, frames // 4) == 0:
            user = text or "Which screw do I take for this one?"
        nearest = min((abs(frame - at) for at in speaks), default=99)
        p_speak = 0.55 + 0.44 * rng.random() if spoken is not None else 0.45 * math.exp(-nearest / 2) * rng.random()
        near_move = min((abs(frame - at) for at in moves), default=99)
        p_update = 0.6 + 0.39 * rng.random() if applied else 0.5 * math.exp(-near_move / 3) * rng.random()
        rows = []
        for i in range(steps):
            doubt = 0.02 + 0.45 * math.exp(-min(abs(frame - begins[i]), abs(frame - begins[i + 1])) / 3) * rng.random()
            row = [doubt / 2] * 3
            seen = states[i]
            if begins[i] - 2 <= frame < begins[i] + 4 and seen == 0:
                seen = 1  # the head sees it before the table moves
            row[seen] = 1 - doubt
            rows.append(tuple(row))
        context = None
        cache += 9 + (20 if spoken else 0)
        if cache > 1500:
            context = {
                "strategy": "summarize_with_dst",
                "tokens_before": cache,
                "tokens_after": 330,
                "summary": text or f"{states.count(2)} of {steps} steps are completed; the bumper lies on the bench.",
            }
            cache = 330
        latency = {"vision": 0.018 + 0.004 * rng.random(), "decide": 0.025 + 0.01 * rng.random(),
                   "write": 0.3 * (spoken is not None), "context": 0.4 * (context is not None)}  # fmt: skip
        events.append({
            "frame": frame, "time": frame / 2, "p_speak": p_speak, "p_update": p_update, "text": spoken,
            "user_text": user, "transitions": applied, "states": list(states), "probabilities": rows,
            "rejected": int(rng.random() < 0.02), "cache_length": cache, "latency": latency, "context": context,
            "deviations": [asdict(one) for one in rule.see(states)],
        })  # fmt: skip
    header = {
        "kind": "dst_stream", "version": 2, "goal": text or "Assemble the toy excavator", "plan": plan, "fps": 2.0,
        "speaking_threshold": 0.5, "dst_update_threshold": 0.5, "source": text or "assembly101_nusar-2021_a17.mp4",
        "model": text or "outputs/tiny-dst", "context": {"strategy": "summarize_with_dst", "max_tokens": 1500},
        "reference": {"utterances": turns, "states": truth} if reference else None,
    }  # fmt: skip
    return Trace(header, events, end=[asdict(one) for one in rule.at_end()])


def with_plan_change(
    trace: Trace, at: int, plan: list[str], kept: list[int | None], goal: str = "Another toy"
) -> Trace:
    """The trace with another plan from event ``at`` on; its new steps never start."""
    before = trace.plans()[at]
    events, rule = list(trace.events[:at]), None
    for event in trace.events[at:]:
        sure = [(1.0, 0.0, 0.0) if old is None else event["probabilities"][old] for old in kept]
        states = [0 if old is None else event["states"][old] for old in kept]
        moves = [{**move, "step": kept.index(move["step"])} for move in event["transitions"] if move["step"] in kept]
        rule = rule or Deviations(states)
        found = [asdict(one) for one in rule.see(states)]
        changed = {"states": states, "probabilities": sure, "transitions": moves, "deviations": found}
        events.append({**event, **changed, "plan_change": None})
    events[at]["plan_change"] = {"before": before, "plan": plan, "goal": goal, "kept": kept}
    assert rule is not None
    return Trace(trace.header, events, end=[asdict(one) for one in rule.at_end()])
