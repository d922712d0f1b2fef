"""Assembly101, mistake detection: ``mistake_annots/*.csv``, one file a sequence, named after it.

A row has no header and reads: first frame and last frame (of 30 a second), verb, this, that, label, remark.

Steps: the rows whose label is "correct", as "attach wheel to chassis".
Turns: none; nobody speaks, and nothing says when an assistant should.
Mistakes: the rows whose label is "mistake", with their remark. A "correction" takes a mistake back; it is no step of
the plan, and is counted.
Video: the release names the sequence, not one of its camera views, so ``video_uid`` is "assembly_" and the sequence.
Split: the release states none; a hash of the sequence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from prospect_hf.errors import UsageError
from prospect_hf.labels.segments import CORRECTION, NO_TEXT, NOT_AFTER_START
from prospect_hf.sessions import Mistake
from prospect_hf.sources.annotations.fields import csv_rows, number
from prospect_hf.sources.annotations.video import AnnotatedSegment, AnnotatedVideo, VideoRecord

GOAL = "Assemble the toy vehicle"
FRAMES_PER_SECOND = 30.0
COLUMNS = 7
PREPOSITIONS = {"attach": "to", "detach": "from", "position": "on"}

NO_REMARK = "row without its last column: no remark"
MORE_COLUMNS = "row with more columns: they belong to the remark"
TOO_SHORT = "row with fewer than 6 columns"
OTHER_LABEL = "row whose label is not correct, mistake or correction"


def videos(folder: Path) -> Iterator[VideoRecord]:
    """The sequences in ``mistake_annots`` in ``folder``."""
    paths = sorted((folder / "mistake_annots").glob("*.csv"))
    if not paths:
        raise UsageError(f"{folder / 'mistake_annots'}: no csv files; they are the mistake annotations of Assembly101.")
    for path in paths:
        uid = f"assembly_{path.stem}"
        yield VideoRecord(uid, str(path), partial(_video, path, uid))


def _video(path: Path, uid: str) -> AnnotatedVideo:
    repairs: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    segments: list[AnnotatedSegment] = []
    mistakes: list[Mistake] = []
    for _, cells in csv_rows(path):
        if len(cells) < COLUMNS - 1:
            left_out[TOO_SHORT] += 1
            continue
        repairs[NO_REMARK] += len(cells) == COLUMNS - 1
        repairs[MORE_COLUMNS] += len(cells) > COLUMNS
        start, end = number(cells[0]) / FRAMES_PER_SECOND, number(cells[1]) / FRAMES_PER_SECOND
        label, remark = cells[5].lower(), ", ".join(cell for cell in cells[6:] if cell)
        if not all(cells[2:5]):
            left_out[NO_TEXT] += 1
        elif label == "correct":
            segments.append(AnnotatedSegment(start, end, _action(*cells[2:5])))
        elif label == "mistake":
            text = _action(*cells[2:5])
            mistakes.append(Mistake(start, end, f"{text}: {remark}" if remark else text))
        elif label == "correction":
            left_out[CORRECTION if end > start else NOT_AFTER_START] += 1
        else:
            left_out[OTHER_LABEL] += 1
    return AnnotatedVideo(
        video_uid=uid,
        goal=GOAL,
        segments=segments,
        mistakes=mistakes,
        origin=str(path),
        repairs=repairs,
        left_out=left_out,
    )


def _action(verb: str, this: str, that: str) -> str:
    return f"{verb} {this} {PREPOSITIONS.get(verb.lower(), 'and')} {that}"
