"""WTaG (Watch, Talk and Guide): the recipes ``recipe_*.txt``, and a folder for each recording.

A recording's folder ``T1`` holds ``StepDetection/StepDetection.txt``, ``TextASR/InstructorAnnotations_intent.txt``,
``TextASR/UserAnnotations_intent.txt`` and ``Video/VideoMpegTiming.txt``. Rows are divided by tabs: start, end, text;
times are ticks of 100 ns of a clock that the first line of the timing file starts and its second line ends.

Plan: a recipe's numbered list, ProAssist's plan too, word for word. A recording follows the recipe that most of its
annotated steps are words of.
Steps: the rows of the step detection, matched with the plan in order (``align.by_words``); one that matches no step is
counted. Where no recipe matches, the annotated steps are the plan. "start" and "Done" are no steps.
Turns: the instructor is the assistant and speaks at the start of an utterance; the words of the user are known at their
end. Turns stand in the order of their starts.
Mistakes: none are annotated.
Split: ProAssist takes the first 40 recordings by name to train and the others to validate and test; the release itself
states none, so it is a hash of the recording.

A recipe alone has no times, so it labels nothing: a folder without recordings has no video. ProAssist's
``processed_data`` for WTaG holds the same annotation, in its dialogs and prepared rows.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prospect_hf.align.by_words import assign
from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.segments import NO_TEXT, NO_VALID_TIME, START_OR_DONE, WITHOUT_WORDS
from prospect_hf.sessions import Step, Turn
from prospect_hf.sources.annotations.fields import read_text
from prospect_hf.sources.annotations.video import DIALOGUE, AnnotatedSegment, AnnotatedVideo, VideoRecord, by_start
from prospect_hf.sources.knowledge import parse_steps

TICKS_PER_SECOND = 10_000_000
STEPS, TIMING = "StepDetection/StepDetection.txt", "Video/VideoMpegTiming.txt"
SPEECH = {"assistant": "TextASR/InstructorAnnotations_intent.txt", "user": "TextASR/UserAnnotations_intent.txt"}
GOAL = "Follow a recipe"
_TICKS = re.compile(r"[0-9]{1,20}")

NO_RECIPE = "steps match no recipe: they are the plan themselves"
NO_SPEECH = "no file of what a speaker said: no turns of that speaker"
SPEECH_UNSORTED = "speech starts before the utterance above it: sorted by time"
TOO_SHORT = "row with fewer than 3 columns"


@dataclass(frozen=True)
class Recipe:
    """The title of a recipe, and its numbered steps."""

    title: str
    steps: tuple[Step, ...]


def recipes(folder: Path) -> list[Recipe]:
    """The recipes ``recipe_*.txt`` in ``folder``, by file name. Raises ``DataError`` where one has no numbered list."""
    found = []
    for path in sorted(folder.glob("recipe_*.txt")):
        text = read_text(path)
        steps = parse_steps(text, str(path))
        found.append(Recipe(next(line.strip() for line in text.splitlines() if line.strip()), steps))
    return found


def videos(folder: Path) -> Iterator[VideoRecord]:
    """The recordings in ``folder``: its subfolders with a step detection."""
    plans = recipes(folder)
    recordings = sorted(path for path in folder.iterdir() if (path / "StepDetection").is_dir())
    if not plans and not recordings:
        raise UsageError(f"{folder}: no recipe_*.txt and no recording such as T1/{STEPS}; they are WTaG's annotation.")
    for path in recordings:
        yield VideoRecord(path.name, str(path), partial(_recording, path, plans))


def _recording(path: Path, plans: Sequence[Recipe]) -> AnnotatedVideo:
    left_out: Counter[str] = Counter()
    repairs: Counter[str] = Counter()
    begin, duration = _clock(path / TIMING)
    segments = []
    for start, end, text in _rows(path / STEPS, begin, left_out):
        if text.casefold() in ("start", "done"):
            left_out[START_OR_DONE] += 1
        else:
            segments.append(AnnotatedSegment(start, end, text))
    recipe, segments = _follow(segments, plans, repairs, left_out)
    return AnnotatedVideo(
        video_uid=path.name,
        goal=GOAL if recipe is None else recipe.title,
        segments=segments,
        plan=() if recipe is None else tuple(step.text for step in recipe.steps),
        turns=_turns(path, begin, repairs, left_out),
        duration=duration,
        user_type=DIALOGUE,
        origin=str(path),
        repairs=repairs,
        left_out=left_out,
    )


def _clock(path: Path) -> tuple[int, float]:
    """The ticks at the start of the video, and its length in seconds."""
    lines = [line.strip() for line in _text(path).split("\n")[:2]]
    if len(lines) < 2 or not all(_TICKS.fullmatch(line) for line in lines) or int(lines[0]) >= int(lines[1]):
        raise DataError(f"{path}: expected the ticks at the start and at the end of the video, a line each.")
    return int(lines[0]), (int(lines[1]) - int(lines[0])) / TICKS_PER_SECOND


def _seconds(ticks: str, begin: int) -> float:
    """Seconds of the video; NaN for no ticks. A float has too few digits for ticks since the year 1."""
    return (int(ticks) - begin) / TICKS_PER_SECOND if _TICKS.fullmatch(ticks) else math.nan


def _text(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path}: no such file; it is a part of the recording's annotation.")
    return read_text(path)


def _rows(path: Path, begin: int, left_out: Counter[str]) -> Iterator[tuple[float, float, str]]:
    """(start, end, text) of each row, in seconds of the video."""
    for line in _text(path).split("\n"):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) >= 3:
            yield _seconds(cells[0], begin), _seconds(cells[1], begin), cells[2]
        elif any(cells):
            left_out[TOO_SHORT] += 1


def _follow(
    segments: list[AnnotatedSegment], plans: Sequence[Recipe], repairs: Counter[str], left_out: Counter[str]
) -> tuple[Recipe | None, list[AnnotatedSegment]]:
    """The recipe that most segments mean a step of, and those segments with their places in it."""
    ordered = sorted(segments, key=by_start)
    texts = [one.text for one in ordered]
    best: tuple[Recipe, list[int | None], list[str]] | None = None
    for recipe in plans:
        assigned, why = assign(texts, recipe.steps, [False] * len(texts))
        abstained = [reason for reason in why if reason is not None]
        if best is None or len(abstained) < len(best[2]):
            best = recipe, assigned, abstained
    if best is None or len(best[2]) == len(texts):
        repairs[NO_RECIPE] += 1
        return None, segments
    recipe, assigned, abstained = best
    left_out.update(abstained)
    place = {id(one): step for one, step in zip(ordered, assigned, strict=True)}
    return recipe, [
        AnnotatedSegment(one.start, one.end, one.text, place[id(one)]) for one in segments if place[id(one)] is not None
    ]


def _turns(path: Path, begin: int, repairs: Counter[str], left_out: Counter[str]) -> list[Turn]:
    """What both said, by the starts of the utterances."""
    said: list[tuple[float, Turn]] = []
    for role, name in SPEECH.items():
        if not (path / name).is_file():
            repairs[NO_SPEECH] += 1
            continue
        above = 0.0
        for start, end, text in _rows(path / name, begin, left_out):
            if not text:
                left_out[NO_TEXT] += 1
            elif not any(character.isalnum() for character in text):
                left_out[WITHOUT_WORDS] += 1
            elif not (math.isfinite(start) and start >= 0):
                left_out[NO_VALID_TIME] += 1
            else:
                repairs[SPEECH_UNSORTED] += start < above
                above = start
                known = end if role == "user" and start < end < math.inf else start
                said.append((start, Turn(role, known, text)))
    return [turn for _, turn in sorted(said, key=lambda one: one[0])]
