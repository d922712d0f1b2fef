"""Simulated recordings in the style of the six sources: scenes drawn from a seed; only the pictures tell the states."""

from __future__ import annotations

from prospect_hf.simulator.corpus import CorpusReport, SplitCounts, corpus_is_current, write_corpus
from prospect_hf.simulator.flavours import FLAVOURS, Flavour
from prospect_hf.simulator.render import encode_jpeg, render
from prospect_hf.simulator.scene import Episode, Part, SceneConfig, SceneState, ScriptTurn, StepEvent
from prospect_hf.simulator.script import simulate

__all__ = [
    "FLAVOURS",
    "CorpusReport",
    "Episode",
    "Flavour",
    "Part",
    "SceneConfig",
    "SceneState",
    "ScriptTurn",
    "SplitCounts",
    "StepEvent",
    "corpus_is_current",
    "encode_jpeg",
    "render",
    "simulate",
    "write_corpus",
]
