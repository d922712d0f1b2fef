"""Client of language-model servers; all requests of this package to a language model go through it."""

from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.client import LLMClient
from prospect_hf.llm.questions import Answered, Question

__all__ = ["Answered", "LLMArguments", "LLMClient", "Question"]
