"""An inspection as one HTML file, as JSON and as text for the terminal.

All text of the dataset is data: it is embedded as JSON whose markup characters are escaped, and the page's script sets
it only as text.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from prospect_hf.dataset.inspection.findings import PROMISES
from prospect_hf.dataset.inspection.inspect import Inspection
from prospect_hf.dataset.inspection.statistics import Table, balance_table, length_table, source_table
from prospect_hf.dataset.inspection.views import ShownSession
from prospect_hf.dataset.layout import FORMAT
from prospect_hf.files import write_json
from prospect_hf.html import picture_uri, write_html
from prospect_hf.progress import clock
from prospect_hf.tables import table
from prospect_hf.terminal import visible

MOST_BROKEN, MOST_CHARACTERS = 200, 400  # lines of broken promises, characters of one text
THUMBNAIL = (240, 160)


def tables(found: Inspection) -> dict[str, Table]:
    """The figures of a source, the label balance, and the lengths where a tokenizer was given."""
    balance = {}
    for (split, source), counts in found.counts.items():
        stated = found.manifest.balance.get(split, {}).get(source, {})
        balance[split, source] = counts.balance(stated.get("turns_beyond_frames", 0))
    made = {"sources": source_table(found.counts), "balance": balance_table(balance)}
    return made | ({"lengths": length_table(found.lengths)} if found.lengths else {})


def write_page(path: Path, found: Inspection) -> None:
    """Write the report as one self-contained HTML file, beside its place and then renamed."""
    made = tables(found)
    data = {
        "name": _short(found.folder.resolve().name),
        "facts": _facts(found),
        "promises": PROMISES,
        "broken": [
            [one.promise, _short(one.where), f"{one.count:,}", _short(one.what)] for one in found.broken[:MOST_BROKEN]
        ],
        "more_broken": max(0, len(found.broken) - MOST_BROKEN),
        "sources": made["sources"],
        "balance": made["balance"],
        "lengths": made.get("lengths"),
        "sessions": [_session(session) for session in found.shown],
    }
    template = resources.files("prospect_hf.dataset.inspection").joinpath("inspection.html").read_text(encoding="utf-8")
    write_html(path, template, data)


def write_figures(path: Path, found: Inspection) -> None:
    """Write what was found as JSON, for other programs."""
    facts = {
        "format": FORMAT,
        "fingerprint": found.manifest.fingerprint,
        "broken": [asdict(one) | {"note": one.what} for one in found.broken],
        **tables(found),
        "videos_missing": found.videos_missing,
    }
    write_json(path, facts)


def text_report(found: Inspection) -> str:
    """The tables and the broken promises, for a terminal."""
    made = tables(found)
    parts = [table(made["sources"]), table(made["balance"])]
    if "lengths" in made:
        parts.append("Tokens of a whole session at 1, 4, 9 and 16 tokens a frame\n" + table(made["lengths"]))
    if found.videos_missing:
        parts.append(f"The frames of {found.videos_missing} videos are not at hand: their lengths were not compared.")
    lines = [_short(str(one)) for one in found.broken[:MOST_BROKEN]]
    if len(found.broken) > MOST_BROKEN:
        lines.append(f"and {len(found.broken) - MOST_BROKEN} more, in inspection.json")
    names = {one.promise for one in found.broken}
    if names:
        lines.append(
            f"{len(names)} of {len(PROMISES)} promises are broken: {', '.join(n for n in PROMISES if n in names)}."
        )
    else:
        lines.append(f"All {len(PROMISES)} promises are kept.")
    return "\n\n".join([*parts, "\n".join(lines)])


def _facts(found: Inspection) -> list[list[str]]:
    manifest = found.manifest
    built = ", ".join(f"{key} {json.dumps(value)}" for key, value in manifest.settings.items())
    return [
        ["rows", f"{manifest.rows:,}"],
        ["files", str(len(manifest.shards) + len(manifest.sample))],
        ["bytes", f"{sum(shard.bytes for shard in (*manifest.shards, *manifest.sample)):,}"],
        ["format", FORMAT],
        ["tool", _short(manifest.tool_version)],
        ["labels", _short(manifest.label_version[:12])],
        ["fingerprint", _short(manifest.fingerprint[:12])],
        ["built with", _short(built)],
    ]


def _short(text: str) -> str:
    text = visible(text[: MOST_CHARACTERS + 1])
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def _session(session: ShownSession) -> dict[str, Any]:
    view = session.view
    return {
        "goal": session.goal,
        "view": view,
        "labelled": session.labelled,
        "mistakes": session.mistakes,
        "left_out": session.left_out,
        "thumbnails": [[frame, picture_uri(picture, THUMBNAIL)] for frame, picture in session.pictures],
        "facts": [
            ["session", view["id"]],
            ["source", f"{session.source}, {session.split}"],
            ["file", _short(session.file)],
            ["duration", f"{clock(view['frames'] / view['fps'])} ({view['frames']:,} frames at {view['fps']:g} fps)"],
            ["user", session.user_type],
            ["turns", f"{session.turns[0]:,} of the assistant, {session.turns[1]:,} of the user"],
            ["state rule", session.state_rule],
        ],
    }
