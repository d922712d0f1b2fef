"""Writes the card of a published dataset: what the Hub reads of it, and a text for people.

Everything in it comes from the manifest and the report. The front matter is dumped from a dict and every text is
escaped, so that no name of a corpus changes what the card is made of.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import DatasetCardData

from prospect_hf.dataset.input_files import FORMS
from prospect_hf.dataset.layout import FRAMES_FILE, SAMPLE, SPLITS, Manifest, configurations
from prospect_hf.dataset.licenses import NON_COMMERCIAL, ORIGINS
from prospect_hf.dataset.report import leak_lines, left_out
from prospect_hf.dataset.row_maker import FEATURES
from prospect_hf.errors import DataError
from prospect_hf.files import write_text
from prospect_hf.hub.front_matter import with_front_matter
from prospect_hf.hub.markdown import Markdown, fenced_json, rendered
from prospect_hf.sessions import FPS, SOURCES

CARD_FILE = "README.md"
TAGS = ["dialog-state-tracking", "egocentric-video", "proactive-assistant", "procedural-video", "streaming"]
# The Hub's size categories: up to how many rows, and the name.
SIZES = (
    (1e3, "n<1K"),
    (1e4, "1K<n<10K"),
    (1e5, "10K<n<100K"),
    (1e6, "100K<n<1M"),
    (1e7, "1M<n<10M"),
    (1e8, "10M<n<100M"),
    (1e9, "100M<n<1B"),
)
COLUMNS = {
    "source": "one of the six sources",
    "video_uid": "id of the video in its source",
    "session_id": "id of the session: one conversation over one video",
    "recording": "id of the recording, which several videos (camera views, parts) can share",
    "user_type": "how much the user talks",
    "frame_index": "number of the frame in its frame file, from 0",
    "timestamp": "end of the frame's interval in the video, in seconds",
    "fps": "frames per second of the session",
    "frames_file": "the frame file, relative to the folder of the source",
    "goal": "what the person wants to do",
    "steps": "the plan",
    "user_text": "what the user says after this frame, empty where nothing",
    "speaking": "1 the assistant speaks here, 0 it does not, -100 ignored: the user speaks, or speech is not annotated",
    "response": "what the assistant says, empty where nothing",
    "dst_update": "1 the state of a step changes on this frame, 0 it does not, -100 no state labels",
    "transitions": "the changes: number of the step from 0, and `start` or `complete`",
    "states_before": "state of every step before the frame: the model's input",
    "states_after": "state of every step after the frame: the model's target",
    "deviations": "where the states leave the plan: `out_of_order`, `skipped`, `repeated` or `unfinished`, the step "
    "from 0, and the other step that shows it, -1 where none does; see Labels",
    "state_rule": "`reopen` or `monotone`, see Labels",
    "mistake": "what is done wrongly on this frame, as annotated; empty where nothing",
    "progress": "summary of what has happened so far, on turns that have one",
    "license": "licence of the annotations that the row derives from",
    "image": "the frame",
}
STATE_LABELS = {
    "files": "from label files, which give each step its start and end in the video.",
    "semantic": "annotated time spans of the video are matched with the steps of the plan by meaning, words, order, "
    "pauses and lengths; a span that matches no step labels nothing.",
    "words": "annotated time spans of the video are matched with the steps of the plan by their words and order; a "
    "span that matches no step in order labels nothing.",
    "none": "there are none in this dataset.",
}
OF_ANNOTATIONS = "the annotated time spans of the video are the steps."
# What becomes steps, turns and mistakes where the sources' own annotations are read.
ANNOTATIONS = {
    "assembly101": "steps: actions marked as correct; mistakes: those marked as mistakes",
    "ego4d": "steps: top-level segments that are relevant to the goal",
    "egoexolearn": "steps: segments, by their description",
    "epickitchens": "steps: narrations, by their text",
    "holoassist": "steps: coarse actions; turns: speech of the instructor (assistant) and the student (user); "
    "mistakes: fine actions that are not marked as correct",
    "wtag": "steps: those of the recipe, matched with the annotated ones; turns: speech of the instructor (assistant) "
    "and the user",
}


def write_card(folder: Path, manifest: Manifest, report: Mapping[str, Any]) -> Path:
    """Write ``README.md`` of a dataset in the published layout.

    Args:
        folder: the dataset's folder.
        manifest: of the dataset, complete.
        report: the content of its ``report.json``.
    """
    body = rendered(_template(), **_facts(manifest, report))
    write_text(folder / CARD_FILE, with_front_matter(front_matter(manifest), body))
    return folder / CARD_FILE


def check_stated(folder: Path, manifest: Manifest) -> None:
    """Raise ``DataError`` where a loaded manifest lacks what a card says, or states something that no build does."""
    settings = manifest.settings
    known: dict[str, tuple[Any, ...]] = {"images": (False, True), "simulated": (False, True), "form": FORMS}
    if settings.get("form") != "annotations":
        known["dst"] = tuple(STATE_LABELS)
    for name, values in known.items():
        if settings.get(name) not in values:
            raise DataError(f"{folder}: manifest.json states no known {name} in its settings; build the dataset again.")
    for source in _sources(manifest):
        if not isinstance(manifest.licenses.get(source), str):
            raise DataError(f"{folder}: manifest.json states no licence of {source}; build the dataset again.")


def front_matter(manifest: Manifest) -> dict[str, Any]:
    """What the Hub, its viewer and ``load_dataset`` read of the card.

    Features and sizes are not repeated here: each Parquet file has them.
    """
    data = DatasetCardData(
        pretty_name="DST frames",
        language=["en"],
        **_license(manifest),
        task_categories=["video-text-to-text"],
        size_categories=[next((name for most, name in SIZES if manifest.rows < most), "n>1B")],
        tags=TAGS,
        configs=[
            {
                "config_name": name,
                **({"default": True} if name == "all" else {}),
                "data_files": [{"split": split, "path": pattern} for split, pattern in patterns.items()],
            }
            for name, patterns in configurations(manifest)
        ],
    )
    return data.to_dict()


def _license(manifest: Manifest) -> dict[str, Any]:
    """The licence keys. The Hub takes a list of its identifiers, and another name with ``license: other``."""
    if manifest.settings["images"]:
        return {"license": "other", "license_name": "frames-under-the-terms-of-each-source"}
    of_sources = sorted({manifest.licenses[source].lower() for source in _sources(manifest)})
    return {"license": of_sources[0] if len(of_sources) == 1 else of_sources}


def _sources(manifest: Manifest) -> list[str]:
    return [source for source in SOURCES if any(shard.source == source for shard in manifest.shards)]


def _facts(manifest: Manifest, report: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows."""
    sources = _sources(manifest)
    with_rows = [(source, split) for source in sources for split in SPLITS if manifest.of_split(split, source)]
    licences = {source: manifest.licenses[source] for source in sources}
    columns = [*FEATURES.items(), *([("image", datasets.Image())] if manifest.settings["images"] else [])]
    settings = manifest.settings
    return {
        "fps": f"{FPS:g}",
        "images": settings["images"],
        "sources": sources,
        "example_source": with_rows[0][0],
        "example_split": with_rows[0][1],
        "all_split": next(split for split in SPLITS if manifest.of_split(split)),
        "has_sample": any(name == SAMPLE for name, _ in configurations(manifest)),
        "has_prints": FRAMES_FILE in manifest.files,
        "mixed_licences": len({licence in NON_COMMERCIAL for licence in licences.values()}) == 2,
        "non_commercial": Markdown(json.dumps(NON_COMMERCIAL)),
        "columns": [(name, _kind(feature), Markdown(COLUMNS[name])) for name, feature in columns],
        "counts": [_count_row(manifest, report, source, split) for source, split in with_rows],
        "state_labels": OF_ANNOTATIONS if settings["form"] == "annotations" else STATE_LABELS[settings["dst"]],
        "labelled_by": _labelled_by(report),
        "state_rules": [
            (source, ", ".join(_state_rules(report, source)), _annotations(settings, source)) for source in sources
        ],
        "left_out": [
            (source, split, [f"{of_split[source]['sessions']} sessions read", *left_out(of_split[source])])
            for source in SOURCES
            for split, of_split in report["splits"].items()
            if source in of_split
        ],
        "leaks": leak_lines(report["leaks"]),
        "absent": report["absent"],
        "frames": report.get("frames"),
        "licences": [
            (source, ORIGINS[source][0], ORIGINS[source][2], licence, "no" if licence in NON_COMMERCIAL else "yes")
            for source, licence in licences.items()
        ],
        "papers": [ORIGINS[source] for source in sources],
        "with_proassist": settings["form"] != "annotations" and not settings["simulated"],
        "simulated": settings["simulated"],
        "tool_version": manifest.tool_version,
        "label_version": manifest.label_version,
        "fingerprint": manifest.fingerprint,
        "settings": Markdown(fenced_json(settings)),
    }


def _count_row(manifest: Manifest, report: Mapping[str, Any], source: str, split: str) -> list[str]:
    """The cells of one source and split in the table of splits."""
    balance = manifest.balance[split][source]
    states = [balance[f"states_{state}"] for state in ("not_started", "in_progress", "completed")]
    return [
        source,
        split,
        f"{report['splits'][split][source]['recordings']:,}",
        f"{balance['videos']:,}",
        f"{balance['sessions']:,}",
        f"{balance['rows']:,}",
        _share(balance["speaking_1"], balance["rows"]),
        _share(balance["dst_update_1"], balance["rows"]),
        " / ".join(_share(count, sum(states)) for count in states),
    ]


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %" if total else "none"


def _state_rules(report: Mapping[str, Any], source: str) -> list[str]:
    """The state rules of a source's sessions, over its splits."""
    splits = report["splits"].values()
    return sorted({rule for of_split in splits if source in of_split for rule in of_split[source]["state_rules"]})


def _labelled_by(report: Mapping[str, Any]) -> list[tuple[str, int]]:
    """What made the state labels, and of how many records."""
    counts: Counter[str] = Counter()
    for of_split in report["splits"].values():
        for of_source in of_split.values():
            counts.update(of_source["labelled_by"])
    return sorted(counts.items())


def _annotations(settings: Mapping[str, Any], source: str) -> str:
    """What was read of a source: the same in all sources where ProAssist's corpus, or a simulated one, was read."""
    if settings["form"] == "annotations":
        return ANNOTATIONS[source]
    return "plan and turns: simulated" if settings["simulated"] else "plan and turns: ProAssist's"


def _kind(feature: Any) -> str:
    """The type of a column in a word or three: ``int8``, ``list of int8``, ``list of step and transition``."""
    if isinstance(feature, datasets.List):
        return f"list of {_kind(feature.feature)}"
    if isinstance(feature, dict):
        return " and ".join(feature)
    return feature.dtype if isinstance(feature, datasets.Value) else "picture"


def _template() -> str:
    return (files("prospect_hf.dataset") / "dataset_card.md").read_text(encoding="utf-8")
