"""What questions to a language model will cost, before the first of them is asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from prospect_hf.align.alignment import Task
from prospect_hf.annotate.corpus import reason_of
from prospect_hf.annotate.model_questions import estimate, questions
from prospect_hf.annotate.report import counts_table
from prospect_hf.errors import DataError
from prospect_hf.llm.batch import BATCH_PRICE


@dataclass
class Cost:
    """The cost of questions, were each of them asked once, and none answered from the cache.

    Args:
        prices: dollars per million tokens of input and output; None where they are not set.
        videos, requests: that a language model is asked about, and its questions.
        input_tokens, output_tokens: what is likely.
        most_input_tokens, most_output_tokens: what is possible without a second try.
        without: videos about which nothing can be asked, by reason.
    """

    prices: tuple[float, float] | None
    videos: int = 0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    most_input_tokens: int = 0
    most_output_tokens: int = 0
    without: Counter[str] = field(default_factory=Counter)

    def add(self, task: Task) -> int:
        """Count the questions about a video, and return their number."""
        try:
            asked = questions(task)
        except DataError as error:
            self.without[reason_of(error, task.origin)] += 1
            return 0
        tokens = estimate(asked)
        self.videos += 1
        self.requests += len(asked)
        self.input_tokens += tokens.input_tokens
        self.output_tokens += tokens.output_tokens
        self.most_input_tokens += tokens.most_input_tokens
        self.most_output_tokens += tokens.most_output_tokens
        return len(asked)

    def text(self) -> str:
        """Such as "1,240 requests about 1,234 videos: ..."."""
        parts = [counts_table("why nothing can be asked", self.without)] if self.without else []
        text = (
            f"{self.requests:,} requests about {self.videos:,} videos: about {self.input_tokens:,} tokens in and "
            f"{self.output_tokens:,} out (without a second try at most {self.most_input_tokens:,} and "
            f"{self.most_output_tokens:,})"
        )
        if self.prices is None:
            unpriced = "; set llm.usd_per_million_input and llm.usd_per_million_output to see dollars."
            return "\n".join([*parts, text + unpriced])
        usd = self.usd(self.input_tokens, self.output_tokens)
        most = self.usd(self.most_input_tokens, self.most_output_tokens)
        priced = f", ${usd:.2f} (at most ${most:.2f}); as a batch ${BATCH_PRICE * usd:.2f}."
        return "\n".join([*parts, text + priced])

    def usd(self, input_tokens: int, output_tokens: int) -> float:
        """The full price of tokens in dollars; 0 without prices."""
        prices = self.prices or (0.0, 0.0)
        return (input_tokens * prices[0] + output_tokens * prices[1]) / 1e6
