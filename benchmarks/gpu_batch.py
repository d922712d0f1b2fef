"""The part of ``gpu.py`` that asks how many live streams of 2 frames a second one card follows in a ``StreamBatch``.

The caches are filled with noise, so that no time goes into reading a past. A number of streams can be followed live if
the frames of all of them are done before the next ones come:

* silent, from features: every stream gets a frame, nobody speaks; the median step takes less than 0.5 s.
* talking, from features: 7.5 % of the frames are answered by 16 tokens; ``run`` lets each stream move at its own pace,
  and the frames of all streams take less time than they last.
* silent, from pictures: as the first, with the preparation of the pictures (on the host) and the vision tower.

The largest number is found to within an eighth.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from gpu_records import Records, peak_gib, reset_peak
from gpu_streaming import NEVER, Bench
from shapes import GOAL, SMOLVLM2_2B, SMOLVLM2_256M, SMOLVLM2_500M, STEPS, TINY, Shape

from context_dst_smolvlm import Context
from decoding_dst_smolvlm import Decoding
from events_dst_smolvlm import StreamRow
from streaming_dst_smolvlm import StreamBatch, Task

PERIOD_S = 0.5  # 2 frames a second
TALK = 0.075  # of the frames
ANSWER = Decoding(max_new_tokens=16)
FRAMES = 8  # of each stream, when they talk
STEPS_TIMED = 3
HOPELESS = 3  # times the seconds that a frame has: no more is measured of such a trial
MOST = 4096  # streams that are tried
TOKENS = 900  # in each cache; with the texts of the trial fewer than 1,024, where the cache would grow


def filled_batch(bench: Bench, streams: int, tokens: int) -> StreamBatch:
    """Silent streams with ``tokens`` tokens of noise in each one's cache, warm."""
    batch = StreamBatch(
        bench.model,
        bench.processor,
        [Task(STEPS, GOAL)] * streams,
        Context(max_tokens=4096),
        decoding=ANSWER,
        speaking_threshold=NEVER,
        dst_update_threshold=NEVER,
    )
    batch.cache.lengths = [tokens] * streams
    for row in batch.rows:
        row.head_length = tokens
    batch.step([bench.features[0]] * streams)  # allocates the cache
    with torch.inference_mode():
        for layer in batch.cache.layers:
            layer.keys.normal_()
            layer.values.normal_()
    return batch


def silent_s(bench: Bench, batch: StreamBatch, frame: Any) -> float:
    """Median seconds of a step over all streams."""
    taken = []
    for _ in range(1 + STEPS_TIMED):
        began = time.perf_counter()
        batch.step([frame] * len(batch.rows))  # the decisions are read on the host, so the device is done
        taken.append(time.perf_counter() - began)
        if taken[-1] > HOPELESS * PERIOD_S:
            return taken[-1]
    return statistics.median(taken[1:])


def talking_s(bench: Bench, batch: StreamBatch) -> float:
    """Seconds for a frame of every stream, where some of them are answered; at least that many, if it is hopeless."""
    decide, draw = batch.turns.decide, random.Random(0)

    def by_chance(row: StreamRow, p_speak: float, p_update: float, states: Sequence[Sequence[float]]) -> None:
        batch.turns.speaking_threshold = -1.0 if draw.random() < TALK else NEVER
        decide(row, p_speak, p_update, states)

    batch.turns.decide = by_chance  # type: ignore[method-assign]

    def frames() -> Iterator[torch.Tensor]:
        for number in range(FRAMES):
            yield bench.features[number % len(bench.features)]

    began = time.perf_counter()
    for _ in batch.run([frames() for _ in batch.rows]):
        if time.perf_counter() - began > HOPELESS * PERIOD_S * FRAMES:
            break
    return (time.perf_counter() - began) / FRAMES


def largest(fits: Callable[[int], bool], most: int, time_left: Callable[[], bool]) -> tuple[int, bool]:
    """The largest number up to ``most`` that ``fits``, to within an eighth; and whether the search came to its end.

    Steps by a factor of 4 find a number that does not fit, halving the interval narrows it down.
    """
    good, bad, trial = 0, most + 1, 1
    while good < most and (bad > most or bad - good > max(1, good // 8)):
        if not time_left():
            return good, False
        if fits(trial):
            good = trial
        else:
            bad = trial
        trial = min(4 * good, most) if bad > most else (good + bad) // 2
    return good, True


def capacity_row(bench: Bench, how: str, tokens: int, most: int, seconds: float) -> dict[str, Any]:
    """How many streams are followed live, what limits them, and the memory of each."""
    deadline = time.monotonic() + seconds
    found: dict[int, tuple[float, float, float | None]] = {}
    limit = "the time of a frame"

    def fits(streams: int) -> bool:
        nonlocal limit
        reset_peak(bench.device)
        batch = None
        try:
            batch = filled_batch(bench, streams, tokens)
            if how == "talking":
                taken = talking_s(bench, batch)
            else:
                taken = silent_s(bench, batch, bench.pictures[0] if how == "pictures" else bench.features[0])
            found[streams] = taken, batch.cache.nbytes() / streams / 2**20, peak_gib(bench.device)[0]
        except torch.OutOfMemoryError:
            limit = "the memory of the card"
            return False
        finally:
            del batch
        if taken >= PERIOD_S:
            limit = "the time of a frame"
        return taken < PERIOD_S

    streams, ended = largest(fits, most, lambda: time.monotonic() < deadline)
    taken, mebibytes, peak = found.get(streams, (None, None, None))
    if streams == most:
        limit = f"more than {most:,} were not tried"
    elif not ended:
        limit = "more may do: the time of the measurement ended"
    return {
        "model": bench.shape.name,
        "frames": how,
        "cached tokens": tokens,
        "live streams": streams,
        "s a frame of all": taken,
        "limited by": limit,
        "cache of a stream, MiB": mebibytes,
        "peak, GiB": peak,
    }


def run(records: Records, device: str, tiny: bool, plan: dict[str, float]) -> None:
    """Record one row for each shape and kind of frames."""
    shapes: tuple[Shape, ...] = (TINY,) if tiny else (SMOLVLM2_256M, SMOLVLM2_500M, SMOLVLM2_2B)
    hows = ("silent", "talking", "pictures")
    for place, shape in enumerate(shapes):

        def measure(shape: Shape = shape, place: int = place) -> None:
            bench = Bench(shape, device)
            for number, how in enumerate(hows):
                cases = len(hows) - number + len(hows) * (len(shapes) - place - 1)
                seconds = 4.0 if tiny else records.budget.left() / (cases + 0.5)
                records.attempt(
                    f"{shape.name}, {how}",
                    1 if tiny else 4,
                    lambda how=how, seconds=seconds: capacity_row(
                        bench, how, 300 if tiny else TOKENS, 8 if tiny else MOST, seconds
                    ),
                )

        records.attempt(shape.name, 2 if tiny else 10, measure)
    records.add(
        "note",
        f"silent and talking: frames are features; talking: {100 * TALK:g} % of the frames are answered by "
        f"{ANSWER.max_new_tokens} tokens. pictures: prepared one by one on the host, then the vision tower.",
    )
