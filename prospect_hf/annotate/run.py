"""A labelling run: which videos are there and which are missing, and what is written when they are labelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from prospect_hf.annotate.corpus import Corpus, Key, Unusable, Video
from prospect_hf.annotate.label_output import LabelOutput
from prospect_hf.annotate.labelling import Labelling
from prospect_hf.annotate.made import Made
from prospect_hf.annotate.records import Failure
from prospect_hf.annotate.report import SourceReport, counts_table, reason_counts
from prospect_hf.annotate.staging import Index, Staging
from prospect_hf.checked_json import as_dict, load_json
from prospect_hf.errors import UsageError
from prospect_hf.files import sole_writer, write_json
from prospect_hf.llm.ledger import LimitReached
from prospect_hf.progress import Progress
from prospect_hf.sessions import SOURCES
from prospect_hf.terminal import complain, say


@dataclass
class Scan:
    """The videos of a run's part, and those that it has to label.

    Args:
        found: (key, hash of the inputs) of each video, in the order of the corpus.
        unusable: the records that cannot be labelled, by their place in ``found``.
        todo: the videos to label, with the hash of their inputs.
        failed_before: staged videos without labels, which stay as they are.
        changed: videos to label because their record is another one than when it was labelled.
    """

    found: list[tuple[Key, str]] = field(default_factory=list)
    unusable: dict[int, Failure] = field(default_factory=dict)
    todo: dict[Key, str] = field(default_factory=dict)
    failed_before: int = 0
    changed: int = 0


def scan(corpus: Corpus, output: LabelOutput, staged: Index, retry_failed: bool) -> Scan:
    """Read the corpus once, and find the videos that are to be labelled.

    Args:
        staged: the last line of each video.
        retry_failed: only videos that have failed are to be labelled; else only those that have no line.

    Raises:
        DataError: as in ``Corpus.videos``.
    """
    result = Scan()
    for number, video in enumerate(corpus.videos()):
        if number % output.count != output.number:
            continue
        if isinstance(video, Unusable):
            result.unusable[len(result.found)] = Failure(*video.key, reason=video.reason)
            result.found.append((video.key, ""))
            continue
        result.found.append((video.key, video.inputs))
        known = staged.get(video.key)
        fresh = known is None or known.inputs != video.inputs
        failed = known is not None and not fresh and known.failed
        if failed if retry_failed else fresh:
            result.todo[video.key] = video.inputs
            result.changed += known is not None and fresh
        else:
            result.failed_before += failed
    return result


def plan_text(scanned: Scan) -> str:
    """What a run is about to do, and which records are of no use to it."""
    staged = len(scanned.found) - len(scanned.todo) - len(scanned.unusable)
    changed = f", {scanned.changed:,} of them since their record has changed" if scanned.changed else ""
    text = (
        f"{len(scanned.todo):,} of {len(scanned.found):,} videos are to be labelled{changed}; {staged:,} are done "
        f"({scanned.failed_before:,} of them without labels), {len(scanned.unusable):,} cannot be labelled."
    )
    if not scanned.unusable:
        return text
    counts = reason_counts(one.reason for one in scanned.unusable.values())
    return text + "\n" + counts_table("why they cannot be labelled", counts)


def missing_videos(corpus: Corpus, todo: Mapping[Key, str]) -> Iterator[Video]:
    """The videos to label, one by one."""
    for video in corpus.videos():
        if isinstance(video, Video) and todo.get(video.key) == video.inputs:
            yield video


def estimate(way: Labelling, corpus: Corpus, scanned: Scan) -> str:
    """What labelling the missing videos will cost, in words; nothing is asked."""
    with Progress(len(scanned.todo), "estimating", "video") as bar:

        def counted() -> Iterator[Video]:
            for video in missing_videos(corpus, scanned.todo):
                yield video
                bar.update()

        return way.prepare(counted(), None)


def label_missing(way: Labelling, corpus: Corpus, scanned: Scan, staging: Staging) -> int:
    """Label and stage the videos that are missing, and count them; a limit that is reached ends this and is told."""
    there = len(scanned.found) - len(scanned.todo)
    with Progress(len(scanned.found), "labelling", "video", initial=there) as bar:

        def emit(video: Video, made: Made) -> None:
            staging.add(video.key, video.inputs, made)
            del scanned.todo[video.key]
            bar.update()

        if told := way.prepare(missing_videos(corpus, scanned.todo), emit):
            say(told)
        try:
            way.label(missing_videos(corpus, scanned.todo), emit)
        except LimitReached as error:
            complain(f"stopped: {error}")
        return bar.done - there


def write_labels(output: LabelOutput, scanned: Scan, staging: Staging, tsv: bool) -> dict[str, SourceReport]:
    """Write the files of labels and failures of all staged videos, and report on them by source."""
    reports: dict[str, SourceReport] = {}

    def made(group: Iterator[tuple[int, tuple[Key, str]]], report: SourceReport) -> Iterator[Made]:
        for place, (key, inputs) in group:
            known = staging.index.get(key)
            one: Made | None = scanned.unusable.get(place)
            if one is None and known is not None and known.inputs == inputs:
                one = staging.read(known)
            report.add(one, inputs.partition("-")[0])
            if one is not None:
                yield one

    for (source, split), group in groupby(enumerate(scanned.found), key=lambda item: item[1][0][:2]):
        output.write(source, split, made(group, reports.setdefault(source, SourceReport())), tsv)
    return reports


def check_folder(output: LabelOutput, settings: Mapping[str, Any], corpus_root: Path) -> bool:
    """Whether the output folder has labels of these settings already; it holds the labels of one kind of run.

    Args:
        settings: all that labels follow from beside the records.
        corpus_root: the folder that holds ``processed_data``.

    Raises:
        UsageError: the folder holds labels of other settings, or files of another origin, or is the corpus's own.
    """
    folder, root = output.folder.resolve(), corpus_root.resolve()
    if folder == root or root / "processed_data" in (folder, *folder.parents):
        raise UsageError(f"{output.folder} is the folder of the corpus: give another labels.output_dir.")
    path = _settings_file(output)
    if not path.exists():
        for name in (*SOURCES, "failed"):
            if (output.folder / name).exists():
                raise UsageError(
                    f"{output.folder} holds {name}/, which this command has not written: give another "
                    "labels.output_dir, or move it away."
                )
        return False
    known = as_dict(load_json(path), str(path))
    other = [name for name in {**known, **settings} if known.get(name) != settings.get(name)]
    if other:
        told = ", ".join(f"{name} is {settings.get(name)} and was {known.get(name)}" for name in other)
        raise UsageError(
            f"{output.folder} holds labels of another run ({told}): give another labels.output_dir, or remove the "
            "folder to label everything anew."
        )
    return True


def claim(output: LabelOutput, settings: Mapping[str, Any], corpus_root: Path) -> None:
    """Make the output folder that of these settings. Errors as in ``check_folder``."""
    check_folder(output, settings, corpus_root)
    with sole_writer(output.folder, wait=True):
        if not check_folder(output, settings, corpus_root):
            write_json(_settings_file(output), dict(settings))


def _settings_file(output: LabelOutput) -> Path:
    return output.folder / "annotate" / "settings.json"
