"""Calls of a stream with values of other types: a ``StreamError``, and the stream goes on as if undisturbed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import Target, assert_no_fault, survey
from model_fixtures import picture, small_processor
from mutations import ODD_NUMBERS, ODD_TEXTS, odd_value
from PIL import Image
from stream_fixtures import FIVE, PLAN, assert_same_events, talkative_model

from context_dst_smolvlm import Context, StreamError
from decoding_dst_smolvlm import Decoding
from streaming_dst_smolvlm import DSTStream, StreamBatch, StreamInput, Task
from tracking_dst_smolvlm import Tracking

HIDDEN = 32


class Strange:
    """Answers to everything with an error."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def odd_frame(rng: random.Random) -> Any:
    """Something in place of a picture, now and then one that is fine."""
    good = picture("odd", 3)
    return rng.choice([
        lambda: None, lambda: b"", lambda: "clip.mp4", lambda: 3, lambda: [1, "x"], lambda: {}, Strange,
        lambda: good.astype(np.float32), lambda: good[0], lambda: good[..., :2], lambda: good[None], lambda: good[:0],
        lambda: good.tolist(), lambda: np.array(good, object), lambda: Image.new("F", (9, 9)),
        lambda: Image.new("I", (9, 9)), lambda: Image.new("1", (9, 9)), lambda: Image.new("RGBA", (1, 500)),
        lambda: Image.new("RGB", (0, 5)), lambda: Image.new("RGB", (5, 1)), lambda: np.zeros((1, 30_000, 3), np.uint8),
        lambda: np.zeros((2, 1, 3), np.uint8), lambda: np.ma.masked_array(good), lambda: good[::-1, ::-1],
        lambda: torch.zeros(1, HIDDEN), lambda: torch.zeros(HIDDEN), lambda: torch.zeros(1, HIDDEN, dtype=torch.int64),
        lambda: torch.zeros(1, HIDDEN, dtype=torch.float64), lambda: torch.full((1, HIDDEN), math.nan),
        lambda: torch.zeros(1, HIDDEN + 1), lambda: torch.zeros(0, HIDDEN), lambda: torch.zeros(3, 24, 24),
        lambda: torch.zeros(1, HIDDEN, dtype=torch.complex64), lambda: torch.zeros(1, HIDDEN).to_sparse(),
        lambda: torch.zeros(1, HIDDEN, device="meta"), lambda: torch.full((1, HIDDEN), 1e38),
        lambda: torch.zeros(1, HIDDEN, requires_grad=True), lambda: torch.full((1, HIDDEN), 1e300, dtype=torch.float64),
        lambda: StreamInput(good), lambda: (good, "x"), lambda: odd_value(rng),
        lambda: torch.zeros(1, HIDDEN, dtype=torch.float8_e4m3fn),
    ])()  # fmt: skip


def odd_time(rng: random.Random) -> Any:
    return rng.choice([
        lambda: rng.choice(ODD_NUMBERS), lambda: rng.choice(ODD_TEXTS), lambda: [1.0], lambda: np.float64("nan"),
        lambda: np.float32(9e9), lambda: np.int64(10**6), lambda: np.array(7e5), lambda: np.array([7e5, 8e5]),
        lambda: torch.tensor(8e5), lambda: torch.tensor([1.0, 2.0]), lambda: 1j, Strange, lambda: odd_value(rng),
        lambda: np.datetime64("2026-11-27"), lambda: torch.zeros((), device="meta"), lambda: np.array("x"),
    ])()  # fmt: skip


def odd_text(rng: random.Random) -> Any:
    return rng.choice([
        lambda: rng.choice(ODD_TEXTS), lambda: rng.choice(ODD_TEXTS) * 50, lambda: b"x", lambda: ["x"], lambda: 0,
        lambda: math.nan, lambda: np.str_("two"), lambda: np.array("two"), lambda: np.array(["a", "b"]), Strange,
        lambda: torch.tensor([1, 2]), lambda: odd_value(rng), lambda: False, lambda: {},
    ])()  # fmt: skip


def calls() -> Target:
    model, processor = talkative_model(), small_processor()
    options: dict[str, Any] = {"context": Context("drop_middle", 330, 60), "decoding": Decoding(4, 1.1, seed=2)}

    def target(rng: random.Random, folder: Path) -> None:
        disturbed, calm = (DSTStream(model, processor, PLAN, "the wheel", **options) for _ in range(2))
        for frame in range(rng.choice([0, 1, 4])):
            assert_same_events([disturbed.step(picture("v", frame))], [calm.step(picture("v", frame))], 0.0)
        frame = calm.batch.rows[0].frame + 1
        kind = rng.randrange(6)
        arguments: list[Any] = [picture("v", frame), None, None]
        if kind < 3:
            arguments[kind] = (odd_frame, odd_text, odd_time)[kind](rng)
        made = 0
        try:
            if kind < 3:
                disturbed.step(*arguments)
            elif kind == 3:
                for _ in disturbed.run(
                    rng.choice(
                        [
                            lambda: 3,
                            lambda: None,
                            lambda: odd_value(rng),
                            Strange,
                            lambda: [odd_frame(rng)],
                            lambda: StreamInput(picture("v", 1)),
                        ]
                    )()
                ):
                    made += 1  # fmt: skip
            elif kind == 4:
                batch = disturbed.batch
                odd = [lambda: odd_value(rng), lambda: [odd_frame(rng)], lambda: np.zeros(3), lambda: torch.zeros(1)]
                batch.step(
                    rng.choice(odd)(),
                    rng.choice([None, "x", b"x", [odd_text(rng)]]),
                    rng.choice([None, 3, [odd_time(rng)]]),
                )
            else:
                list(
                    disturbed.batch.run(
                        rng.choice([lambda: 3, lambda: [[odd_frame(rng)]], lambda: [None], lambda: [[], []]])()
                    )
                )
        except StreamError as error:
            if disturbed.batch.rows[0].frame > calm.batch.rows[0].frame:
                return  # frames that were fine came before the odd one
            assert str(error).strip(), "an empty message"
        else:
            return
        for later in range(frame, frame + 2):
            shown = picture("v", later), "two" if later % 2 else None
            assert_same_events([disturbed.step(*shown)], [calm.step(*shown)], 0.0)
        raise StreamError("refused, and the stream went on")

    return target


def plan_changes() -> Target:
    model, processor = talkative_model(), small_processor()

    def target(rng: random.Random, folder: Path) -> None:
        options: dict[str, Any] = {"context": Context("drop_middle", 330, 60), "decoding": FIVE}
        stream, calm = (DSTStream(model, processor, PLAN, "the wheel", **options) for _ in range(2))
        for frame in range(rng.choice([0, 1, 3])):
            assert_same_events([stream.step(picture("v", frame))], [calm.step(picture("v", frame))], 0.0)
        steps = rng.choice([lambda: odd_value(rng), lambda: [odd_text(rng)], lambda: [*PLAN, odd_text(rng)], Strange,
                            lambda: np.array(PLAN), lambda: PLAN * 40, lambda: (n for n in PLAN), lambda: [],
                            lambda: tuple(PLAN[::-1])])()  # fmt: skip
        goal = rng.choice([lambda: None, lambda: None, lambda: odd_text(rng), lambda: odd_value(rng)])()
        frame = calm.batch.rows[0].frame + 1
        try:
            stream.batch.change_plan(rng.choice([0, 0, 0, 1, -1, None, "0", 0.0]), steps, goal)
        except StreamError:
            for later in range(frame, frame + 2):
                assert_same_events([stream.step(picture("v", later))], [calm.step(picture("v", later))], 0.0)
            raise
        event = stream.step(picture("v", frame), rng.choice([None, "two"]))
        assert len(event.states) == len(steps) and event.plan_change is not None

    return target


def beginnings() -> Target:
    model, processor = talkative_model(), small_processor()

    def target(rng: random.Random, folder: Path) -> None:
        def number() -> Any:
            return rng.choice([rng.choice(ODD_NUMBERS), np.int64(3), np.float32(0.5), torch.tensor(1), "3", None, 2.5])

        good: dict[str, Any] = {"plan": PLAN, "goal": "wheel", "states": [0, 0, 0], "decoding": FIVE}
        odd: dict[str, Callable[[], Any]] = {
            "plan": lambda: rng.choice([odd_value(rng), [odd_text(rng)], "x", [odd_value(rng)], np.array(PLAN),
                                        {"a": 1}, ["x"] * 2000, (n for n in PLAN), ["x" * 5000], [""], [" "]]),
            "goal": lambda: rng.choice([odd_text(rng), odd_value(rng), "x " * 9000]),
            "states": lambda: rng.choice([odd_value(rng), [odd_value(rng)] * 3, "012", np.array([0, 1, 2]),
                                          torch.tensor([0, 1, 2]), [0.0, 1.0, 2.0], [True, False, 0], [0, 1, 9],
                                          ["0", "1", "2"], [0.5, 0, 0]]),
            "context": lambda: rng.choice([odd_value(rng), "drop_all", b"none", 3, Context("none", 200)]),
            "tracking": lambda: odd_value(rng),
            "decoding": lambda: odd_value(rng),
            "on_text": lambda: rng.choice([3, "x", odd_value(rng)]),
            "speaking_threshold": number,
            "dst_update_threshold": number,
        }  # fmt: skip
        for name in rng.sample(sorted(odd), rng.choice([1, 1, 2])):
            good[name] = odd[name]()
        if rng.random() < 0.3:
            try:
                name = rng.choice(["strategy", "max_tokens", "keep_tokens", "summary_tokens"])
                good["context"] = replace(Context(), **{name: rng.choice([number(), odd_value(rng)])})
                name = rng.choice(["max_new_tokens", "temperature", "top_p", "no_repeat_ngram_size", "seed"])
                good["decoding"] = replace(FIVE, **{name: rng.choice([number(), odd_value(rng)])})
                name = rng.choice(["policy", "source", "debounce", "hysteresis", "filter"])
                good["tracking"] = replace(Tracking(), **{name: rng.choice([number(), odd_value(rng)])})
            except ValueError as error:
                raise StreamError(" ".join(str(error).split()) or "empty") from error
        if rng.random() < 0.2:
            task = Task(good.pop("plan"), good.pop("goal"), good.pop("states"), True, number())
            tasks: Any = rng.choice([[task], [task, task], [], odd_value(rng), [odd_value(rng)], task])
            batch = StreamBatch(model, processor, tasks, **good)
            batch.step([picture("v", 0)] * len(batch.rows), ["where"] * len(batch.rows))
            return
        if rng.random() < 0.5:
            stream = model.stream(processor, **good)
        else:
            stream = DSTStream(model, processor, **good)
        stream.step(picture("v", 0), "where")
        stream.step(picture("v", 1))

    return target


TARGETS: dict[str, tuple[Callable[[], Target], int]] = {
    "calls of a stream": (calls, 120),
    "changes of a plan": (plan_changes, 60),
    "beginnings": (beginnings, 120),
}


@pytest.mark.parametrize("name", TARGETS)
def test_odd_calls(name: str, tmp_path: Path) -> None:
    make, inputs = TARGETS[name]
    assert_no_fault(survey(name, make(), inputs, tmp_path))
