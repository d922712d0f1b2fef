"""Evaluation: a model's predictions on a corpus, their scores, and the report.

The metrics are in ``prospect_hf.metrics``; here they can be imported under their earlier names.
"""

from prospect_hf.metrics import decisions, events, states, texts
from prospect_hf.metrics import stream_matching as matching

__all__ = ["decisions", "events", "matching", "states", "texts"]
