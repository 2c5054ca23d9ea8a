"""Gradient norms of losses at shared parameters, and of one loss at its voxels.

Losses of different units cannot be compared; the norms of their gradients at the parameters that
they share can. Nor does a loss show which voxels it depends on; its gradient at them does.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def gradient_norms(
    losses: Sequence[Float[Tensor, ""]], parameters: Iterable[Tensor]
) -> list[float]:
    """The norm of each loss's gradient at the parameters; 0 for a loss that does not reach them.

    The graph is kept, and no `.grad` is touched.
    """
    shared = [p for p in parameters if p.requires_grad]
    return [_norm(loss, shared) for loss in losses]


def gradient_ratio(
    ramped: Float[Tensor, ""], others: Float[Tensor, ""], parameters: Iterable[Tensor]
) -> float:
    """|gradient of the weighted losses that are ramped in| / |that of the others|.

    nan where the others have none, or where either is not finite.
    """
    above, below = gradient_norms((ramped, others), parameters)
    return above / below if below > 0 and math.isfinite(above + below) else math.nan


def gradient_share_outside(
    gradient: Float[Tensor, "*axes"], inside: Bool[Tensor, "*axes"]
) -> float:
    """Fraction of a gradient's absolute values that lies where `inside` is false.

    nan where the gradient is zero everywhere or not finite.
    """
    size = gradient.float().abs()
    return ((size * ~inside).sum() / size.sum()).item()


def _norm(loss: Tensor, parameters: list[Tensor]) -> float:
    if not loss.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    squares = [g.float().square().sum() for g in gradients if g is not None]
    return math.sqrt(torch.stack(squares).sum().item()) if squares else 0.0
