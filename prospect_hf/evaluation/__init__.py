"""Evaluation: scores of decisions against references. Knows nothing of how the decisions were made."""
