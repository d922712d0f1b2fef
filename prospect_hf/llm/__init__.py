"""Client of language-model servers; all requests of this package to a language model go through it."""

from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.client import LLMClient, Question

__all__ = ["LLMArguments", "LLMClient", "Question"]
