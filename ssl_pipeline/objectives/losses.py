"""The losses, each a plain function of tensors with its equation and source.

lightly has decoupled contrastive losses too, but none that leaves out negatives of the same
subject; the test holds ours against lightly's where all subjects differ.

A mean is a sum divided by a count. Where ranks share a batch, `summed` adds both over the ranks
before they are divided, so that the mean is that of the whole batch.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import huber_loss, normalize

Summed = Callable[[Tensor], Tensor]


def _alone(values: Tensor) -> Tensor:
    return values


def _mean(total: Tensor, count: Tensor, summed: Summed) -> Tensor:
    total, count = summed(torch.stack([total, count.to(total.dtype)])).unbind()
    return total / count.clamp(min=1)


def masked_huber(
    pred: Float[Tensor, "batch patches voxels"],
    target: Float[Tensor, "batch patches voxels"],
    weight: Float[Tensor, "batch patches voxels"],
    delta: float = 1.0,
    summed: Summed = _alone,
) -> Float[Tensor, ""]:
    """Weighted mean Huber loss; weight is 0 where a voxel was seen, padded or anonymised.

    Intensities in units of the model's input. Source: He et al. 2022 (arXiv:2111.06377), sec. 3,
    with Huber for the squared error and raw targets for normalised ones.
    """
    loss = huber_loss(pred, target, reduction="none", delta=delta)
    return _mean((loss * weight).sum(), weight.sum(), summed)


def subject_contrast(
    first: Float[Tensor, "pairs dim"],
    second: Float[Tensor, "pairs dim"],
    subject: Int[Tensor, " pairs"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Decoupled InfoNCE between views, with other subjects alone as negatives.

    L = mean over views z of  -<z, z+>/t + log sum_{n of another subject} exp(<z, n>/t); a view with
    no negative at all counts nothing. Source: Yeh et al. 2022 (arXiv:2110.06848), eq. 6.
    """
    both = normalize(torch.cat([first, second]).float(), dim=1)
    who = torch.cat([subject, subject])
    similar = both @ both.T / temperature
    negative = who[:, None] != who[None, :]
    positive = torch.cat([similar.diagonal(len(first)), similar.diagonal(-len(first))])
    against = similar.masked_fill(~negative, -torch.inf).logsumexp(dim=1)
    usable = negative.any(dim=1)
    each = torch.where(usable, against.masked_fill(~usable, 0) - positive, 0)
    return each.sum() / usable.sum().clamp(min=1)


def place_contrast(
    anchor: Float[Tensor, "pairs kept dim"],
    other: Float[Tensor, "pairs kept dim"],
    distance: Float[Tensor, "pairs kept kept"],
    *,
    positive: float,
    negative: float,
    temperature: float,
    summed: Summed = _alone,
) -> Float[Tensor, ""]:
    """InfoNCE between the tokens of two views of one scan.

    The positive of an anchor is the nearest token of the other view within `positive` patches
    (Chebyshev, `distance` in patches); its negatives are those farther than `negative`. Anchors
    without a positive or without a negative count nothing. Negatives of the same scan need no large
    batch and share scanner and contrast, so intensity is no shortcut (after Pai et al. 2025, CT-FM,
    whose negatives are crops of one scan).
    """
    similar = torch.einsum(
        "pad,pbd->pab", normalize(anchor.float(), dim=-1), normalize(other.float(), dim=-1)
    )
    similar = similar / temperature
    nearest, match = distance.min(dim=2)
    far = distance > negative
    usable: Bool[Tensor, "pairs kept"] = (nearest <= positive) & far.any(dim=2)
    hit = similar.gather(2, match[..., None])
    against = torch.cat([hit, similar.masked_fill(~far, -torch.inf)], dim=2).logsumexp(dim=2)
    each = torch.where(usable, against - hit[..., 0], 0)
    return _mean(each.sum(), usable.sum(), summed)
