"""Evaluation: the predictions of a model on a corpus, their scores, and the report.

The metrics are in ``prospect_hf.metrics``; this package re-exports them under their earlier names.
"""

from prospect_hf.metrics import decisions, events, states, texts
from prospect_hf.metrics import stream_matching as matching

__all__ = ["decisions", "events", "matching", "states", "texts"]
