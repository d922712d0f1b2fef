"""How a text is written, token by token: greedily or by sampling.

Remote code of the Hub: plain Python at import time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# A generator takes 64 bits; half of them are left for the numbers that are added to a seed.
LARGEST_SEED = 2**62


@dataclass(frozen=True)
class Decoding:
    """How a text is written: greedily, unless a temperature is given.

    Args:
        max_new_tokens: tokens at most, the end token not counted.
        temperature: 0 takes the most likely token; above it, tokens are sampled at that temperature.
        top_p: sample from the most likely tokens that together have this probability.
        no_repeat_ngram_size: no sequence of this many tokens occurs twice in a text; 0 allows repetition.
        seed: of the sampling.

    Raises:
        ValueError: a value of another type or outside its range.
    """

    max_new_tokens: int = 40
    temperature: float = 0.0
    top_p: float = 1.0
    no_repeat_ngram_size: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("no_repeat_ngram_size", 0), ("seed", -LARGEST_SEED)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= LARGEST_SEED:
                asked = "of 62 bits" if name == "seed" else f"of {least} or more"
                raise ValueError(f"{name} must be a whole number {asked}, not {value!r}.")
        # A softmax at a higher temperature is flat: 1000 is beyond any use and far from an overflow.
        if type(self.temperature) not in (int, float) or not 0 <= self.temperature <= 1000:
            raise ValueError(f"temperature must lie in [0, 1000], not {self.temperature!r}.")
        if type(self.top_p) not in (int, float) or not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p!r}.")

    def pick(
        self, logits: torch.Tensor, written: Sequence[int], banned: Sequence[int], generator: torch.Generator | None
    ) -> int:
        """Choose the next token.

        Args:
            logits: ``[vocab]``, the LM's.
            written: ids of the text so far.
            banned: ids that are never chosen.
            generator: of the sampling, on the logits' device.
        """
        import torch  # here, and not at import time: a command reads its settings before it loads torch
        from transformers.generation.logits_process import (
            NoRepeatNGramLogitsProcessor,
            TemperatureLogitsWarper,
            TopPLogitsWarper,
        )

        scores = logits.float().clone()[None]
        scores[:, list(banned)] = -torch.inf
        ids = torch.tensor([written], dtype=torch.long, device=logits.device)
        if self.no_repeat_ngram_size and len(written) >= self.no_repeat_ngram_size:
            scores = NoRepeatNGramLogitsProcessor(self.no_repeat_ngram_size)(ids, scores)
        if self.temperature == 0:
            return int(scores.argmax())
        scores = TemperatureLogitsWarper(float(self.temperature))(ids, scores)
        if self.top_p < 1:
            scores = TopPLogitsWarper(self.top_p)(ids, scores)
        return int(torch.multinomial(scores.softmax(-1)[0], 1, generator=generator))

    def next_token(
        self,
        logits: torch.Tensor,
        written: Sequence[int],
        limit: int,
        end_token_id: int,
        forbidden: Sequence[int],
        generator: torch.Generator | None,
    ) -> int:
        """Choose the next token of a text that has at least one token and at most ``limit``.

        Args:
            logits: ``[vocab]``, the LM's.
            written: ids of the text so far.
            limit: tokens at most; after them comes the end token.
            end_token_id: ends the text; it is not chosen first.
            forbidden: ids that a text never contains.
            generator: of the sampling, on the logits' device.
        """
        if len(written) >= limit:
            return end_token_id
        return self.pick(logits, written, forbidden if written else [*forbidden, end_token_id], generator)


__all__ = ["Decoding"]
