"""Compares two label sets video by video: what both have is measured, what cannot be is listed with the reason."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from prospect_hf.annotate.agreement import Agreement, agreement_figures, compare_spans, pooled
from prospect_hf.annotate.comparison.label_sets import Key, LabelSet, SetRecord
from prospect_hf.errors import DataError
from prospect_hf.labels.spans import Span, merge_spans
from prospect_hf.progress import Progress
from prospect_hf.sessions import FPS, Step
from prospect_hf.sources.proassist import check_length
from prospect_hf.timeline import FRAME_TOLERANCE, frame_at

ALL, NO_SOURCE = "all", "no source"
# Why a video is not compared.
ONLY_A, ONLY_B, UNUSABLE = "only in A", "only in B", "cannot be compared"

Figures = dict[str, float | None]


@dataclass(frozen=True)
class ComparedVideo:
    """A video whose labels of both sets are valid.

    Args:
        source, uid, goal: which it is.
        steps: the plan.
        annotation: the text of its annotation lines, or "".
        first_frame, num_frames: the frames that are compared, at ``FPS``.
        a, b: the labels.
        agreement, figures: how far they agree.
    """

    source: str
    uid: str
    goal: str
    steps: tuple[Step, ...]
    annotation: str
    first_frame: int
    num_frames: int
    a: tuple[Span, ...]
    b: tuple[Span, ...]
    agreement: Agreement
    figures: Figures


@dataclass(frozen=True)
class LeftVideo:
    """A video, or a record that is none, that is not compared: in which way, and why."""

    source: str
    uid: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """Two label sets side by side.

    Args:
        a, b: the sets.
        rule: the state rule by which spans of one step were joined.
        videos: those that were compared, worst first.
        left: those that were not.
        figures: ``all`` and each source -> the figures of its videos.
        agreements: the same with the counts.
        not_in_corpus: how many of the compared videos the corpus that was given does not know.
    """

    a: LabelSet
    b: LabelSet
    rule: str
    videos: Sequence[ComparedVideo]
    left: Sequence[LeftVideo]
    figures: Mapping[str, Figures]
    agreements: Mapping[str, Agreement]
    not_in_corpus: int = 0


def compare_sets(a: LabelSet, b: LabelSet, corpus: LabelSet | None, rule: str, progress: bool = False) -> Comparison:
    """Compare two label sets; ``corpus`` says of videos what the records of the sets leave out.

    Raises:
        DataError: no video can be compared.
    """
    videos: list[ComparedVideo] = []
    left = [LeftVideo("", "", UNUSABLE, f"{where}: {reason}") for one in (a, b) for where, reason in one.refused]
    pairs = list(_pairs(a, b))
    with Progress(len(pairs), "comparing", "video", show=progress) as bar:
        for ours, theirs in pairs:
            one = _compared(ours, theirs, corpus, (a.key, b.key), rule)
            if isinstance(one, ComparedVideo):
                videos.append(one)
            else:
                left.append(one)
            bar.update()
    if not videos:
        raise DataError(
            f"{a.name} and {b.name} have no video that can be compared; of {len(left)}, "
            + ", ".join(f"{count} {kind}" for kind, count in Counter(one.kind for one in left).most_common())
            + f". The first: {left[0].uid or 'a record'}: {left[0].reason}"
        )
    videos.sort(key=_badness)
    scopes: dict[str, list[Agreement]] = {ALL: []}
    for source in sorted({video.source for video in videos}):
        scopes[source or NO_SOURCE] = []
    for video in videos:
        scopes[ALL].append(video.agreement)
        scopes[video.source or NO_SOURCE].append(video.agreement)
    agreements = {scope: pooled(some) for scope, some in scopes.items()}
    figures = {scope: agreement_figures(one) for scope, one in agreements.items()}
    known = [corpus is None or _of_corpus(corpus, video.source, video.uid) is not None for video in videos]
    return Comparison(a, b, rule, videos, left, figures, agreements, known.count(False))


def _badness(video: ComparedVideo) -> tuple[float, float, str, str]:
    """Sort key, worst first: by joint state accuracy, then by boundary error."""
    joint, error = video.figures["joint_state_accuracy_mean"], video.figures["boundary_error_median_s"]
    return joint or 0.0, -math.inf if error is None else -error, video.source, video.uid


def _pairs(a: LabelSet, b: LabelSet) -> Iterator[tuple[SetRecord | None, SetRecord | None]]:
    """The records of each video in a and in b; None for a set that does not have it."""
    ours, theirs = _by_uid(a), _by_uid(b)
    paired: set[Key] = set()
    for key, record in a.records.items():
        partner = _partner(key, ours, theirs)
        if partner is not None:
            paired.add(partner)
        yield record, None if partner is None else b.records[partner]
    yield from ((None, record) for key, record in b.records.items() if key not in paired)


def _by_uid(labels: LabelSet) -> dict[str, list[Key]]:
    found: dict[str, list[Key]] = defaultdict(list)
    for key in labels.records:
        found[key[1]].append(key)
    return found


def _partner(key: Key, ours: Mapping[str, list[Key]], theirs: Mapping[str, list[Key]]) -> Key | None:
    """The key in another set of the same video: that of the same source and uid.

    Where one of two records has no source, the uid alone tells, if each set has one record of it.
    """
    source, uid = key
    others = theirs.get(uid, [])
    if key in others:
        return key
    alone = len(others) == len(ours.get(uid, [])) == 1
    return others[0] if alone and "" in (source, others[0][0]) else None


def _compared(
    ours: SetRecord | None, theirs: SetRecord | None, corpus: LabelSet | None, keys: tuple[str, str], rule: str
) -> ComparedVideo | LeftVideo:
    """The agreement on a video, or why there is none."""
    either = ours or theirs
    assert either is not None
    if ours is None or theirs is None:
        kind = ONLY_B if ours is None else ONLY_A
        return LeftVideo(either.source, either.uid, kind, either.fault or kind)
    source = ours.source or theirs.source
    try:
        known = None if corpus is None else _of_corpus(corpus, source, ours.uid)
        return _measured(ours, theirs, known, keys, rule)
    except DataError as error:
        return LeftVideo(source, ours.uid, UNUSABLE, str(error))


def _of_corpus(corpus: LabelSet, source: str, uid: str) -> SetRecord | None:
    if source:
        return corpus.records.get((source, uid))
    return next((record for (_, known), record in corpus.records.items() if known == uid), None)


def _measured(
    ours: SetRecord, theirs: SetRecord, known: SetRecord | None, keys: tuple[str, str], rule: str
) -> ComparedVideo:
    """The agreement on one video. Raises ``DataError`` where a label is invalid, or the plans differ."""
    for record in (known, ours, theirs):
        if record is not None and record.fault:
            raise DataError(record.fault)
    steps = _plan(ours, theirs, known)
    a, b = ours.spans(steps, keys[0]), theirs.spans(steps, keys[1])
    told = [record for record in (known, ours, theirs) if record is not None]
    start = next((record.start_s for record in told if record.end_s is not None), 0.0)
    end = next((record.end_s for record in told if record.end_s is not None), None)
    last = max(span.start if span.end is None else span.end for span in (*a, *b))
    check_length(last, end, ours.uid)
    first_frame = frame_at(start, FPS)
    num_frames = max(0 if end is None else math.ceil(end * FPS - FRAME_TOLERANCE), frame_at(last, FPS), first_frame + 1)
    agreement = compare_spans(
        a, b, steps=len(steps), num_frames=num_frames, first_frame=first_frame, rule=rule, where=ours.uid
    )
    return ComparedVideo(
        source=next((record.source for record in told if record.source), ""),
        uid=ours.uid,
        goal=next((record.goal for record in told if record.goal), ""),
        steps=steps,
        annotation=next((record.annotation for record in told if record.annotation), ""),
        first_frame=first_frame,
        num_frames=num_frames,
        a=merge_spans(a, rule)[0],
        b=merge_spans(b, rule)[0],
        agreement=agreement,
        figures=agreement_figures(agreement),
    )


def _plan(ours: SetRecord, theirs: SetRecord, known: SetRecord | None) -> tuple[Step, ...]:
    """The plan by which both records number their steps.

    It is that of the corpus, else that of a record; without any, the steps that the labels name. Raises ``DataError``
    where the records say that they follow different plans: labels of different plans cannot be compared by number.
    """
    told = {"the corpus": known, "A": ours, "B": theirs}
    plans = {name: record.plan for name, record in told.items() if record is not None and record.plan}
    for (one, plan), (other, another) in combinations(plans.items(), 2):
        if len(plan) != len(another):
            raise DataError(f"different plans: {one} has {len(plan)} steps, and {other} has {len(another)}.")
    names: dict[int, tuple[str, str]] = {}
    most = 0
    for name, record in told.items():
        for step, text in {} if record is None else record.names.items():
            most = max(most, step + 1)
            who, first = names.get(step, (name, ""))
            if not _same(first, text):
                raise DataError(
                    f"different plans: S{step + 1} is {first[:80]!r} in {who} and {text[:80]!r} in {name}; compare "
                    "labels of one plan."
                )
            if len(text) > len(first):
                names[step] = (name, text)
    if plans:
        return tuple(Step(f"S{n}", text) for n, text in enumerate(next(iter(plans.values())), start=1))
    return tuple(Step(f"S{n + 1}", names[n][1] if n in names else "") for n in range(most))


def _same(one: str, other: str) -> bool:
    """Whether two texts of a step may be one: equal, or the shorter one begins the longer one. No text may be any."""
    plain = sorted((" ".join(text.casefold().split()).rstrip(".") for text in (one, other)), key=len)
    return plain[1].startswith(plain[0])
