"""The language half of the small model learns to copy, before the model learns anything else.

"Now fasten the red" goes on as "the red" went on in the plan. To find that place is what a language model that was
trained on texts does well ("induction": Olsson et al., "In-context Learning and Induction Heads", 2022). One from
scratch finds it late from the few texts of a corpus, and within seconds from random tokens that are written twice:
nothing but the first half helps to predict the second. The second half begins anywhere in the first and goes round, or
the model would learn a distance in place of the token before.
"""

from __future__ import annotations

import logging
import time
from statistics import fmean

import torch
from torch import nn

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.progress import Progress
from prospect_hf.sessions import IGNORE

logger = logging.getLogger(__name__)

# Sequences of a step, and the random tokens of a sequence, which are written twice.
SEQUENCES, TOKENS = 32, 32
# AdamW finds it in fewer steps than Muon. The rate rises over the first steps, and then falls evenly.
LEARNING_RATE, WARMUP_STEPS = 5e-3, 30
BETAS = (0.9, 0.99)
LARGEST_NORM = 1.0  # of the gradients
LAST_STEPS = 50  # over which the loss that is told is averaged


def learn_to_copy(
    model: DSTSmolVLMForConditionalGeneration, special_ids: set[int], steps: int, progress: bool = True
) -> float:
    """Train the language half of ``model`` for ``steps`` steps on random tokens that are written twice.

    The heads and the vision tower stay as they are. The tokens are torch's next random numbers.

    Args:
        model: with fresh weights.
        special_ids: tokens that are left out: frames, ends of turns and the like.
        progress: show it.

    Returns:
        The mean cross-entropy of the copies in the last ``LAST_STEPS`` steps, in nats a token.
    """
    started = time.perf_counter()
    words = torch.tensor([token for token in range(model.config.text_config.vocab_size) if token not in special_ids])
    places = torch.arange(TOKENS)
    weights = list(nn.ModuleList([model.model.text_model, model.lm_head]).parameters())
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP_STEPS) * (1 - step / steps)
    )
    model.train()
    losses: list[float] = []
    with Progress(steps, "learning to copy", "step", show=progress) as bar:
        for _ in range(steps):
            once = words[torch.randint(len(words), (SEQUENCES, TOKENS))]
            first = torch.randint(TOKENS, (SEQUENCES, 1))
            again = once.gather(1, (places + first) % TOKENS)
            # Two copied tokens cannot be known: the first, and the one that begins the first half.
            learned = again.masked_fill((places == 0) | (places + first == TOKENS), IGNORE)
            ids = torch.cat([once, again], dim=1).to(model.device)
            labels = torch.cat([torch.full_like(once, IGNORE), learned], dim=1).to(model.device)
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
            loss.backward()
            nn.utils.clip_grad_norm_(weights, LARGEST_NORM)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            bar.update()
    loss_at_end = fmean(losses[-LAST_STEPS:])
    seconds = time.perf_counter() - started
    logger.info("The language half copies with loss %.3f after %d steps (%.0f s).", loss_at_end, steps, seconds)
    return loss_at_end
