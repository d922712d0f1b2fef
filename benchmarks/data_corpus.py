"""Writes a corpus of the size and statistics of the real one, for ``benchmarks/data.py``: dialogues without videos.

Per source: frames a video, conversations a video, share of frames with talk and of frames with a state change as
published for ProAssist's filtered corpus. Texts are random sentences over 2,000 words, 12 words on average.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

# Source -> (share of the rows, frames a video, conversations a video, share of frames with talk).
STATISTICS = {
    "ego4d": (0.33, 2575, 8, 0.025),
    "holoassist": (0.16, 536, 5, 0.135),
    "egoexolearn": (0.20, 1536, 10, 0.081),
    "assembly101": (0.13, 410, 10, 0.077),
    "epickitchens": (0.14, 765, 20, 0.100),
    "wtag": (0.04, 1278, 20, 0.063),
}
STEPS = (6, 18)  # of a plan
SPLIT_SHARES = {"train": 0.9, "val": 0.05, "test": 0.05}


def write_corpus(root: Path, rows: int, seed: int = 0) -> int:
    """Write ``generated_dialogs`` records with state labels that give about ``rows`` rows; returns the exact number."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 9))) for _ in range(2000)]
    written = 0
    for source, (share, frames, conversations, talk) in STATISTICS.items():
        number = 0
        for split, split_share in SPLIT_SHARES.items():
            records: list[dict[str, Any]] = []
            wanted = rows * share * split_share
            while wanted > 0:
                length = max(60, int(frames * rng.lognormal(-0.1, 0.5)))
                record = _record(source, f"{source}-{number:06d}", length, conversations, talk, words, rng)
                records.append(record)
                wanted -= length * len(record["conversations"])
                written += length * len(record["conversations"])
                number += 1
            path = root / "processed_data" / source / "generated_dialogs" / f"{split}_filtered.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(records), encoding="utf-8")
    return written


def _record(
    source: str, uid: str, frames: int, conversations: int, talk: float, words: list[str], rng: np.random.Generator
) -> dict[str, Any]:
    end = frames / 2

    def sentence(mean: int = 12) -> str:
        return " ".join(words[index] for index in rng.integers(0, len(words), max(2, rng.poisson(mean))))

    plan = [sentence(6) for _ in range(rng.integers(*STEPS))]
    cuts = np.sort(rng.uniform(0.02 * end, 0.98 * end, 2 * len(plan))).round(1)
    spans = [
        {"type": "step", "id": f"S{k + 1}", "name": text, "start_ts": cuts[2 * k], "end_ts": cuts[2 * k + 1] + 0.1}
        for k, text in enumerate(plan)
    ]

    def turns() -> list[dict[str, Any]]:
        count = max(1, int(frames * talk))
        times = [*np.sort(rng.uniform(1, end - 1, count - 1)).round(1).tolist(), end]
        return [
            {
                "role": "user" if rng.random() < 0.15 else "assistant",
                "time": time,
                "content": sentence(),
                "labels": "initiative|instruction",
            }
            for time in times
        ]

    count = max(1, int(rng.poisson(conversations)))
    return {
        "video_uid": uid,
        "inferred_goal": sentence(4),
        "inferred_knowledge": "Title\n" + "\n".join(f"{k + 1}. {text}" for k, text in enumerate(plan)),
        "video_labels": "",
        "conversations": [{"user_type": "talk_some", "conversation": turns()} for _ in range(count)],
        "parsed_video_anns": {
            "dataset": source,
            "domain": "",
            "goal_description": "",
            "all_step_descriptions": "\n".join(
                f"[{span['start_ts']}s-{span['end_ts']}s] {span['name']}" for span in spans
            ),
            "duration": end,
            "fps": 30,
        },
        "dst": spans,
    }
