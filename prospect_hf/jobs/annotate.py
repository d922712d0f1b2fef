"""Annotate: a corpus's plans and annotation lines become state labels, resumable, validated, with a report."""

from __future__ import annotations

import time
from pathlib import Path

from prospect_hf.annotate.arguments import LabelsArguments
from prospect_hf.annotate.by_both import HybridLabelling
from prospect_hf.annotate.by_model import ModelLabelling
from prospect_hf.annotate.corpus import Corpus
from prospect_hf.annotate.label_output import LabelOutput
from prospect_hf.annotate.labelling import Labelling, LocalLabelling
from prospect_hf.annotate.parsing import annotation_table
from prospect_hf.annotate.report import run_text, tables
from prospect_hf.annotate.run import check_folder, claim, estimate, label_missing, plan_text, scan, write_labels
from prospect_hf.annotate.staging import Staging, staged_lines
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.inputs import ready_corpus, rows_config
from prospect_hf.errors import UsageError
from prospect_hf.files import sole_writer, write_json
from prospect_hf.llm import LLMArguments
from prospect_hf.sources.report import FILE_SPLITS
from prospect_hf.tables import table
from prospect_hf.terminal import say


def run(labels: LabelsArguments, data: DataArguments, llm: LLMArguments) -> int:
    """Label the videos that are missing, write the label files, and say what is there now; 1 where a video has none.

    Raises:
        UsageError: a setting or folder is wrong, or there is nothing to read.
        DataError: two records of one video contradict each other, or a file is none of records.
    """
    corpus = corpus_of(data)
    output = LabelOutput(Path(labels.output_dir), *labels.part())
    way = way_of(labels, llm, output)
    settings = way.facts() | {"parts": output.count}
    staged = output.own / "staged.jsonl"
    if labels.dry_run:
        check_folder(output, settings, corpus.root)
        scanned = scan(corpus, output, staged_lines(staged)[0], labels.retry_failed)
        say(table(annotation_table(corpus.videos())) + "\n")
        say(plan_text(scanned))
        if told := estimate(way, corpus, scanned):
            say(told)
        return 0
    way.begin()
    claim(output, settings, corpus.root)
    with sole_writer(output.own), Staging(staged) as staging:
        scanned = scan(corpus, output, staging.index, labels.retry_failed)
        say(plan_text(scanned))
        begun = time.monotonic()
        done = label_missing(way, corpus, scanned, staging)
        seconds = time.monotonic() - begun
        reports = write_labels(output, scanned, staging, labels.tsv)
    this_run = {"videos": done, "seconds": round(seconds, 1), **way.spent()}
    sources = {name: one.facts() for name, one in reports.items()}
    write_json(output.own / "report.json", {"settings": settings, "sources": sources, "run": this_run})
    say(tables(reports) + "\n")
    say(run_text(output, reports, this_run))
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
