"""Annotate: a corpus's plans and annotation lines become state labels, resumable, validated, with a report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prospect_hf.annotate.arguments import LabelsArguments
from prospect_hf.annotate.by_both import HybridLabelling
from prospect_hf.annotate.by_model import ModelLabelling
from prospect_hf.annotate.corpus import Corpus, Video
from prospect_hf.annotate.label_output import LabelOutput
from prospect_hf.annotate.labelling import Labelling, LocalLabelling
from prospect_hf.annotate.made import Made
from prospect_hf.annotate.parsing import annotation_table
from prospect_hf.annotate.report import SourceReport, tables
from prospect_hf.annotate.run import Scan, check_folder, claim, missing_videos, plan_text, scan, write_labels
from prospect_hf.annotate.staging import Staging, staged_lines
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.inputs import ready_corpus, rows_config
from prospect_hf.errors import UsageError
from prospect_hf.files import sole_writer, write_json
from prospect_hf.llm import LLMArguments
from prospect_hf.llm.ledger import LimitReached
from prospect_hf.progress import Progress, clock
from prospect_hf.sources.report import FILE_SPLITS
from prospect_hf.tables import table
from prospect_hf.terminal import complain, say

# Those parts of the provenance that are settings.
SOURCE_KEYS = ("aligner", "version", "model", "prompt")


def run(labels: LabelsArguments, data: DataArguments, llm: LLMArguments) -> int:
    """Label the videos that are missing, write the label files, and say what is there now; 1 where a video has none.

    Raises:
        UsageError: a setting or folder is wrong, or there is nothing to read.
        DataError: two records of one video contradict each other, or a file is none of records.
    """
    corpus = corpus_of(data)
    output = LabelOutput(Path(labels.output_dir), *labels.part())
    way = way_of(labels, llm, output)
    settings = settings_of(way, labels)
    staged = output.own / "staged.jsonl"
    if labels.dry_run:
        check_folder(output, settings, corpus.root)
        scanned = scan(corpus, output, staged_lines(staged)[0], labels.retry_failed)
        say(table(annotation_table(corpus.videos())) + "\n")
        say(plan_text(scanned))
        with Progress(len(scanned.todo), "estimating", "video") as bar:
            told = way.prepare(counted(missing_videos(corpus, scanned.todo), bar), None)
        if told:
            say(told)
        return 0
    way.begin()
    claim(output, settings, corpus.root)
    with sole_writer(output.own), Staging(staged) as staging:
        scanned = scan(corpus, output, staging.index, labels.retry_failed)
        say(plan_text(scanned))
        begun = time.monotonic()
        done = label(way, corpus, scanned, staging)
        seconds = time.monotonic() - begun
        reports = write_labels(output, scanned, staging, labels.tsv)
    this_run = {"videos": done, "seconds": round(seconds, 1), **way.spent()}
    sources = {name: one.facts() for name, one in reports.items()}
    write_json(output.own / "report.json", {"settings": settings, "sources": sources, "run": this_run})
    say(tables(reports) + "\n")
    say(summary(output, reports, this_run))
    return 0 if all(one.failed + one.missing == 0 for one in reports.values()) else 1


def corpus_of(data: DataArguments) -> Corpus:
    """The dialog files that the settings name; a simulated corpus is written where it is missing.

    Raises:
        UsageError: there are none, or the settings name something that has no annotation lines.
    """
    if data.name == "annotations" or data.rows is not None:
        what = "data.rows" if data.rows is not None else "data=annotations"
        raise UsageError(f"labels are made of ProAssist's records, which {what} does not read: leave it out.")
    root = ready_corpus(data)
    files = rows_config(data, "dialogs").input_files()
    order = [(source, split) for source in dict.fromkeys(data.sources) for split in FILE_SPLITS]
    return Corpus(root, {(source, split): files[split, source] for source, split in order if (split, source) in files})


def way_of(labels: LabelsArguments, llm: LLMArguments, output: LabelOutput) -> Labelling:
    """The way of labelling that the settings name.

    Raises:
        UsageError: there is no such encoder.
    """
    if labels.aligner == "llm":
        return ModelLabelling(llm, labels.policy(), output.own / "batch")
    if labels.aligner == "hybrid":
        folder = output.own / "batch"
        return HybridLabelling(labels.encoder, labels.processes, labels.ask_below, llm, labels.policy(), folder)
    return LocalLabelling(labels.aligner, labels.encoder, labels.processes, labels.policy())


def label(way: Labelling, corpus: Corpus, scanned: Scan, staging: Staging) -> int:
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


def counted(videos: Iterator[Video], bar: Progress) -> Iterator[Video]:
    """The same videos; ``bar`` counts them."""
    for video in videos:
        yield video
        bar.update()


def settings_of(way: Labelling, labels: LabelsArguments) -> dict[str, Any]:
    """What the labels of a run follow from, beside the records."""
    named = {key: value for key, value in asdict(way.source).items() if key in SOURCE_KEYS}
    return named | way.settings | asdict(labels.policy()) | {"parts": labels.part()[1]}


def summary(output: LabelOutput, reports: Mapping[str, SourceReport], run: Mapping[str, Any]) -> str:
    """What is there, what this run did and spent, and how to go on."""
    done, failed, missing = (
        sum(vars(one)[key] for one in reports.values()) for key in ("labelled", "failed", "missing")
    )
    rate = f" ({run['videos'] / run['seconds']:.1f} a second)" if run["videos"] and run["seconds"] else ""
    lines = [
        f"{done:,} videos have labels, {failed:,} have none, {missing:,} were not tried. "
        f"This run labelled {run['videos']:,} in {clock(run['seconds'])}{rate}."
    ]
    if "requests" in run:
        usd = "" if run["usd"] is None else f", ${run['usd']:.4f}"
        lines.append(
            f"It sent {run['requests']:,} requests: {run['input_tokens']:,} tokens in, {run['output_tokens']:,} out"
            f"{usd}. {run['cached']:,} answers were there already."
        )
    if "calls_of_all" in run:
        lines.append(f"Meaning was sure of the rest: {run['calls']:,} questions instead of {run['calls_of_all']:,}.")
    if failed:
        lines.append(f"Why: {output.folder / 'failed'}; labels.retry_failed=true tries those videos again.")
    lines.append(
        f"Report: {output.own / 'report.json'}. Read the labels with data.dst=files data.dst_root={output.folder}"
    )
    return "\n".join(lines)
