"""Drop path drawn by counter: which residual branches a view of a sample skips.

Layers that draw for themselves take from torch's global generator, so that a mask would depend on
the batch, the rank and what was drawn before. Here it is a function of seed, sample and view, drawn
on the host, a few numbers a view, and given to the encoder's sparse pass.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32

from ssl_pipeline.views.rng import generator

VIEWS_PER_SAMPLE = 2
BRANCHES_PER_BLOCK = 2  # branches: attention, and the layers after it


@torch.compiler.disable  # type: ignore[untyped-decorator]  # hashes are no tensors
def draw_branch_factors(
    rate: float, branches: int, seed: int, sample_numbers: Sequence[int]
) -> Float32[np.ndarray, "views {branches}"]:
    """Factors of the branches, 0 or 1 / (1 - their rate): all first views, then all second ones.

    The rate grows linearly with depth, from 0 in the first block to `rate` (below 1) in the last;
    `sample_numbers` are those of the run, as in a batch. Source: Huang et al. 2016
    (arXiv:1603.09382), with the factors of timm, which keep the mean.
    """
    rates = np.linspace(0, rate, branches // BRANCHES_PER_BLOCK).repeat(BRANCHES_PER_BLOCK)
    drawn = [
        generator(seed, number, f"drop path {view}").random(branches)
        for view in range(VIEWS_PER_SAMPLE)
        for number in sample_numbers
    ]
    kept = np.reshape(drawn, (VIEWS_PER_SAMPLE * len(sample_numbers), branches)) >= rates
    return (kept / (1 - rates)).astype(np.float32)
