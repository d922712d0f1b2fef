"""What an epoch costs: frames, tokens, operations and time, from a traced step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prospect_hf.training.memory.cards import Card
from prospect_hf.training.memory.step import Setting, Traced

# ProAssist's training split, filtered, at 2 frames a second: videos, conversations, frames of a video on average.
PROASSIST = {
    "ego4d": (382, 3182, 2575),
    "holoassist": (1436, 7052, 536),
    "egoexolearn": (321, 3210, 1536),
    "assembly101": (756, 7492, 410),
    "epickitchens": (320, 6376, 765),
    "wtag": (40, 786, 1278),
}


@dataclass(frozen=True)
class Corpus:
    """What is trained on.

    Args:
        rows: frames that an epoch reads; a video has its frames once for each of its conversations.
        frames: frames of the videos, which are encoded once.
        name: for people.
    """

    rows: int
    frames: int
    name: str


def proassist(sources: Sequence[str]) -> Corpus:
    """ProAssist's training conversations of ``sources``."""
    chosen = [PROASSIST[source] for source in sources]
    return Corpus(
        rows=sum(conversations * frames for _, conversations, frames in chosen),
        frames=sum(videos * frames for videos, _, frames in chosen),
        name="ProAssist's training conversations",
    )


@dataclass(frozen=True)
class Cost:
    """What an epoch takes.

    Args:
        tokens: that the language model reads, padding left out.
        flops: operations of an epoch, with what is computed twice.
        seconds: at the assumed rate.
        encoding_flops, encoding_seconds: of encoding all frames once, before the first epoch.
    """

    tokens: float
    flops: float
    seconds: float
    encoding_flops: float
    encoding_seconds: float


def epoch_cost(setting: Setting, traced: Traced, corpus: Corpus, card: Card, utilisation: float) -> Cost:
    """The cost of an epoch over ``corpus`` in clips like the traced ones.

    Args:
        utilisation: assumed share of the card's peak rate.
    """
    rate = card.bf16_flops * utilisation
    batches = corpus.rows / traced.frames
    tokens = corpus.rows * (setting.config.stream_tokens + traced.size.text_tokens)
    flops = batches * traced.step_flops
    encoding = corpus.frames * traced.frame_flops
    return Cost(tokens, flops, flops / rate, encoding, encoding / rate)
