"""Exponential moving average (EMA) of what a run exports, in place of the last weights.

Only for export: no loss uses it, so it costs a pass over the weights a step and nothing else.
"""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class EMA(Generic[Module]):
    """Follows the parameters of a module; `weights` are theirs, averaged over steps."""

    def __init__(self, module: Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.weights = [p.detach().clone() for p in module.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After `step` steps; early on the average forgets faster, or the start would remain."""
        factor = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.weights, list(self.module.parameters()), 1 - factor)

    @torch.no_grad()
    def averaged_module(self) -> Module:
        """A copy of the module with the average in place of its weights."""
        averaged = deepcopy(self.module)
        torch._foreach_copy_(list(averaged.parameters()), self.weights)
        return averaged

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Give the module the average in place of its weights."""
        torch._foreach_copy_(list(self.module.parameters()), self.weights)

    def load_weights(self, weights: list[Tensor]) -> None:
        """Continue from the weights of a checkpoint."""
        torch._foreach_copy_(self.weights, weights)
