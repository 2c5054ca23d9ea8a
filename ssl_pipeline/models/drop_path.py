"""Drop path drawn by counter: which residual branches a view of a sample skips.

Layers that draw for themselves take from torch's global generator, so that a mask would depend on
the batch, the rank and what was drawn before. Here it is a function of seed, sample and view, drawn
on the host, a few numbers a view, and given to the encoder's sparse pass.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from ssl_pipeline.views.randomness import generator

VIEWS = 2
PER_BLOCK = 2  # branches: attention, and the layers after it


def survival(
    rate: float, branches: int, seed: int, numbers: Sequence[int]
) -> Float32[np.ndarray, "views {branches}"]:
    """Factors of the branches, 0 or 1 / (1 - their rate): all first views, then all second ones.

    The rate grows linearly with depth, from 0 in the first block to `rate` (below 1) in the last;
    `numbers` are global sample numbers, as in a batch. Source: Huang et al. 2016
    (arXiv:1603.09382), with the factors of timm, which keep the mean.
    """
    rates = np.linspace(0, rate, branches // PER_BLOCK).repeat(PER_BLOCK)
    drawn = [
        generator(seed, number, f"drop path {view}").random(branches)
        for view in range(VIEWS)
        for number in numbers
    ]
    kept = np.reshape(drawn, (VIEWS * len(numbers), branches)) >= rates
    return (kept / (1 - rates)).astype(np.float32)
