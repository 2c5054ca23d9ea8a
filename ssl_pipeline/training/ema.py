"""Exponential moving average (EMA) of the encoder's weights, exported in place of the last ones.

Only for export: no loss uses it, so it costs a pass over the weights a step and nothing else.
"""

import torch
from torch import Tensor, nn


class EMA:
    """Follows the parameters of a module; `weights` are theirs, averaged over steps."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.weights = [p.detach().clone() for p in module.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After `step` steps; early on the average forgets faster, or the start would remain."""
        factor = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.weights, list(self.module.parameters()), 1 - factor)

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Put the average in place of the module's own weights."""
        torch._foreach_copy_(list(self.module.parameters()), self.weights)

    def load_weights(self, weights: list[Tensor]) -> None:
        """Continue from the weights of a checkpoint."""
        torch._foreach_copy_(self.weights, weights)
