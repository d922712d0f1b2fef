"""Asking a language model: the one place that does."""

from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.client import LLMClient, Question

__all__ = ["LLMArguments", "LLMClient", "Question"]
