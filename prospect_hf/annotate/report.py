"""What is said of the labels that are there: counts, balance, repairs, confidence, cost; each by source."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prospect_hf.annotate.label_output import LabelOutput
from prospect_hf.annotate.made import Made
from prospect_hf.annotate.records import LabelRecord, Provenance
from prospect_hf.annotate.seconds import seconds_of
from prospect_hf.progress import clock
from prospect_hf.tables import table

# Upper ends of the classes in which confidences are counted.
CLASSES = (0.2, 0.4, 0.6, 0.8, 1.0)
# Reasons that are shown; the report file has all of them.
SHOWN_REASONS = 8
# What differs between equal reasons: numbers, and a model's words at the end.
_VARYING = re.compile(r"(?<=: )(['\"]).{30,}\1|\d+(?:\.\d+)?")
LONGEST_REASON = 200


@dataclass
class SourceReport:
    """Sums over the videos of one source.

    Args:
        labelled, failed, missing: videos with labels, without, and not yet tried.
        repaired: labelled videos with at least one repair.
        repairs: repairs by rule.
        notes: what the rules noted, by rule.
        reasons: failures by reason, without quotations and numbers.
        steps, labelled_steps: steps of the plans of labelled videos, and those with a span.
        spans: spans of all steps.
        step_seconds: seconds x steps by state: not started, in progress, completed.
        seconds, covered_seconds: of labelled videos, and those on which a step is in progress.
        unexplained_seconds: annotated ones outside all spans.
        confidences: videos by the class of their confidence.
        tries, input_tokens, output_tokens, usd: what the labels have cost, whichever run paid.
    """

    labelled: int = 0
    failed: int = 0
    missing: int = 0
    repaired: int = 0
    repairs: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    labelled_steps: int = 0
    spans: int = 0
    step_seconds: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    seconds: float = 0.0
    covered_seconds: float = 0.0
    unexplained_seconds: float = 0.0
    confidences: list[int] = field(default_factory=lambda: [0] * len(CLASSES))
    tries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = None
    _asked: set[str] = field(default_factory=set, repr=False)

    def add(self, made: Made | None, question: str) -> None:
        """Count one video; None: not yet tried.

        Args:
            question: equal for videos with the same plan and annotation, which a language model is asked about once.
        """
        if made is None:
            self.missing += 1
            return
        if isinstance(made, LabelRecord):
            self._add_labels(made)
        else:
            self.failed += 1
            self.reasons += reason_counts([made.reason])
        if made.provenance is not None and question not in self._asked:
            self._asked.add(question)
            self._add_cost(made.provenance)

    def _add_labels(self, record: LabelRecord) -> None:
        self.labelled += 1
        self.repaired += bool(record.repairs)
        self.repairs.update(one.rule for one in record.repairs)
        self.notes.update(record.notes)
        self.unexplained_seconds += record.unexplained_s
        self.steps += len(record.steps)
        self.labelled_steps += len({span.step for span in record.spans})
        self.spans += len(record.spans)
        self.confidences[next(i for i, top in enumerate(CLASSES) if record.confidence <= top)] += 1
        start, end = record.start_s, record.last_s
        self.seconds += end - start
        self.covered_seconds += seconds_of(
            [(span.start, end if span.end is None else span.end) for span in record.spans]
        )
        for step in range(len(record.steps)):
            own = [(span.start, end if span.end is None else span.end) for span in record.spans if span.step == step]
            in_progress = seconds_of(own)
            before = min((first for first, _ in own), default=end) - start
            for state, seconds in enumerate((before, in_progress, end - start - before - in_progress)):
                self.step_seconds[state] += seconds

    def _add_cost(self, paid: Provenance) -> None:
        self.tries += paid.tries
        self.input_tokens += paid.input_tokens
        self.output_tokens += paid.output_tokens
        if paid.usd is not None:
            self.usd = (self.usd or 0.0) + paid.usd

    def facts(self) -> dict[str, Any]:
        """For the report file."""
        total = sum(self.step_seconds) or 1.0
        return {
            "labelled": self.labelled,
            "repaired": self.repaired,
            "failed": self.failed,
            "missing": self.missing,
            "repairs": dict(sorted(self.repairs.items())),
            "notes": dict(sorted(self.notes.items())),
            "reasons": dict(sorted(self.reasons.items())),
            "steps": self.steps,
            "labelled_steps": self.labelled_steps,
            "spans": self.spans,
            "state_shares": [seconds / total for seconds in self.step_seconds],
            "seconds": self.seconds,
            "covered_seconds": self.covered_seconds,
            "unexplained_seconds": self.unexplained_seconds,
            "confidences": {f"<= {top}": count for top, count in zip(CLASSES, self.confidences, strict=True)},
            "tries": self.tries,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "usd": self.usd,
        }


def tables(reports: Mapping[str, SourceReport]) -> str:
    """The report as text: videos and cost, label balance, confidence, and where there are any, what the rules found."""
    parts = [table(_videos(reports)), table(_balance(reports)), table(_confidences(reports))]
    repairs, notes, reasons = Counter[str](), Counter[str](), Counter[str]()
    for report in reports.values():
        repairs += report.repairs
        notes += report.notes
        reasons += report.reasons
    titles = {"repairs": repairs, "noted, and left as it is": notes, "why there are no labels": reasons}
    parts += [counts_table(title, counts) for title, counts in titles.items() if counts]
    return "\n\n".join(parts)


def reason_counts(messages: Iterable[str]) -> Counter[str]:
    """Equal reasons counted together: what differs between them, quotations and numbers, is left out."""
    return Counter(_VARYING.sub("…", message)[:LONGEST_REASON] for message in messages)


def counts_table(title: str, counts: Counter[str]) -> str:
    """The most frequent of ``counts``, and how many others there are."""
    shown = counts.most_common(SHOWN_REASONS)
    rest = counts.total() - sum(count for _, count in shown)
    rows = [[title, "count"], *([name, f"{count:,}"] for name, count in shown)]
    return table([*rows, ["others", f"{rest:,}"]] if rest else rows)


def run_text(output: LabelOutput, reports: Mapping[str, SourceReport], run: Mapping[str, Any]) -> str:
    """What is there, what this run did and spent, and how to go on."""
    done, failed, missing = (
        sum(vars(one)[key] for one in reports.values()) for key in ("labelled", "failed", "missing")
    )
    rate = f" ({run['videos'] / run['seconds']:.1f} a second)" if run["videos"] and run["seconds"] else ""
    lines = [
        f"{done:,} videos have labels, {failed:,} have none, {missing:,} were not tried. "
        f"This run tried {run['videos']:,} in {clock(run['seconds'])}{rate}."
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


def _videos(reports: Mapping[str, SourceReport]) -> list[list[str]]:
    paid = any(report.tries for report in reports.values())
    head = ["source", "labelled", "repaired", "failed", "not tried"]
    rows = [[*head, *(["requests", "tokens in", "tokens out", "dollars"] if paid else [])]]
    for source, one in reports.items():
        counts = [one.labelled, one.repaired, one.failed, one.missing]
        counts += [one.tries, one.input_tokens, one.output_tokens] if paid else []
        dollars = ["-" if one.usd is None else f"{one.usd:.4f}"] if paid else []
        rows.append([source, *(f"{count:,}" for count in counts), *dollars])
    return rows


def _balance(reports: Mapping[str, SourceReport]) -> list[list[str]]:
    rows = [
        ["label balance", "steps", "with spans", "spans/step", "not started", "in progress", "completed", "covered"]
    ]
    for source, one in reports.items():
        total = sum(one.step_seconds)
        rows.append(
            [
                source,
                f"{one.steps:,}",
                _share(one.labelled_steps, one.steps),
                f"{one.spans / one.labelled_steps:.2f}" if one.labelled_steps else "-",
                *(_share(seconds, total) for seconds in one.step_seconds),
                _share(one.covered_seconds, one.seconds),
            ]
        )
    return rows


def _confidences(reports: Mapping[str, SourceReport]) -> list[list[str]]:
    bottoms = (0.0, *CLASSES)
    head = [f"{bottom:g} to {top:g}" for bottom, top in zip(bottoms, CLASSES, strict=False)]
    return [["confidence", *head], *([name, *(f"{n:,}" for n in one.confidences)] for name, one in reports.items())]


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"
