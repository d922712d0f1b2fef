"""Random generators that are left as they were: what is measured during a run must not change its later steps."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def kept_random_states() -> Iterator[None]:
    """After the block, the generators of Python, numpy and torch (the present CUDA device's too) are as before.

    A data loader draws a seed from torch's generator whenever it is iterated, also in an evaluation.
    """
    of_python, of_numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
