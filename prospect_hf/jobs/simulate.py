"""Simulate: an example clip for the model of ``make train``, or a corpus."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from prospect_hf.simulator.arguments import SimulateArguments
from prospect_hf.simulator.clip import CLIP_SEED, ClipFacts, write_clip
from prospect_hf.simulator.corpus import telling_shares, telling_text, write_corpus
from prospect_hf.simulator.flavours import FLAVOURS
from prospect_hf.simulator.scene import SceneConfig
from prospect_hf.terminal import say

# Those of configs/data/simulated.yaml.
SCENE = SceneConfig(steps=(3, 5), p_shared_colour=0.0)
RECORDINGS = {"train": 300, "val": 6, "test": 8}


def run(simulate: SimulateArguments) -> None:
    """Write what is asked for and print what to do with it.

    Raises:
        UsageError: PyAV is missing for a clip, or the folder holds a corpus that was not simulated.
    """
    if simulate.clip is not None:
        seed = CLIP_SEED if simulate.seed is None else simulate.seed
        facts = write_clip(Path(simulate.clip), simulate.source or "wtag", seed)
        say(f"Wrote {facts.video} and {facts.plan_file}. Follow it with:\n\n{follow_command(facts)}")
        return
    sources = list(FLAVOURS) if simulate.source is None else [simulate.source]
    report = write_corpus(
        Path(str(simulate.root)), sources, simulate.recordings or RECORDINGS, simulate.seed or 0, SCENE
    )
    count = sum(split.recordings for by_split in report.counts.values() for split in by_split.values())
    say(f"Wrote {count} recordings of {', '.join(sources)} to {report.root}.")
    say(telling_text(telling_shares(report.root)))


def follow_command(facts: ClipFacts, model: str = "outputs/tiny") -> str:
    """The command line that follows a clip, for a POSIX shell."""
    texts = ", ".join(json.dumps(f"{second:g} {text}", ensure_ascii=False) for second, text in facts.user_texts)
    words = [
        "prospect",
        "stream",
        f"stream.model={model}",
        f"stream.source={facts.video}",
        f"stream.plan_file={facts.plan_file}",
        f"stream.goal={facts.goal}",
        *([f"stream.user_texts=[{texts}]"] if texts else []),
    ]
    return shlex.join(words)
