"""Loss of segmentation from partial labels: cross entropy plus soft Dice.

Outside of a label's field (255) no voxel counts. Where a class is not annotated in a scan, its
voxels are among those labelled background, so there the target is "background or that class": the
probabilities of both are added before the logarithm, and the Dice of that class leaves the scan
out. How the two share their sum changes nothing.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

RESOLUTION_WEIGHT = 0.5  # of a resolution, by that of the next finer one
SMOOTH = 1.0  # voxels added to both sides of a Dice, so that an absent class can be learned


def deep_supervision_loss(
    logits: Sequence[Float[Tensor, "batch classes _ _ _"]],
    truth: Int[Tensor, "batch z y x"],
    annotated: Bool[Tensor, "batch foreground"],
    ignore_index: int,
) -> Float[Tensor, ""]:
    """Weighted mean of `segmentation_loss` at every resolution, the finest of which comes first.

    The truth of a coarse voxel is that of the voxel in its middle, as in nnU-Net.
    """
    weights = [RESOLUTION_WEIGHT**level for level in range(len(logits))]
    losses = [
        weight * segmentation_loss(each, _coarse_truth(truth, each), annotated, ignore_index)
        for weight, each in zip(weights, logits, strict=True)
    ]
    return torch.stack(losses).sum() / sum(weights)


def _coarse_truth(
    truth: Int[Tensor, "batch z y x"], logits: Float[Tensor, "batch classes _ _ _"]
) -> Int[Tensor, "batch _ _ _"]:
    for axis in (1, 2, 3):
        step = truth.shape[axis] // logits.shape[axis + 1]
        places = torch.arange(step // 2, truth.shape[axis], step, device=truth.device)
        truth = truth.index_select(axis, places)
    return truth


def segmentation_loss(
    logits: Float[Tensor, "batch classes z y x"],
    truth: Int[Tensor, "batch z y x"],
    annotated: Bool[Tensor, "batch foreground"],
    ignore_index: int,
) -> Float[Tensor, ""]:
    """Mean of the voxels' cross entropy plus 1 - mean soft Dice of the annotated classes.

    `truth` holds 0 for background, 1 for the first class, `ignore_index` for voxels that do not
    count; `annotated` says which classes, without background, are annotated in each scan.
    """
    counted = (truth != ignore_index).to(logits.dtype)
    log_p = torch.log_softmax(logits, dim=1)
    merged = torch.cat([torch.ones_like(annotated[:, :1]), ~annotated], dim=1)[
        :, :, None, None, None
    ]
    background = torch.where(merged, log_p, -torch.inf).logsumexp(dim=1, keepdim=True)
    log_p = torch.cat([background, log_p[:, 1:]], dim=1)
    target = torch.where(truth == ignore_index, 0, truth)
    entropy = -log_p.gather(1, target[:, None])[:, 0]
    cross = (entropy * counted).sum() / counted.sum().clamp(min=1)
    return cross + 1 - _soft_dice(log_p[:, 1:].exp(), target, counted, annotated)


def _soft_dice(
    probability: Float[Tensor, "batch foreground z y x"],
    target: Int[Tensor, "batch z y x"],
    counted: Float[Tensor, "batch z y x"],
    annotated: Bool[Tensor, "batch foreground"],
) -> Float[Tensor, ""]:
    """Mean over classes of the Dice over all scans of the batch that annotate the class."""
    classes = torch.arange(1, probability.shape[1] + 1, device=target.device)
    truth = (target[:, None] == classes[None, :, None, None, None]).to(probability.dtype)
    weight = counted[:, None] * annotated[:, :, None, None, None].to(probability.dtype)
    both = (probability * truth * weight).sum(dim=(0, 2, 3, 4))
    sizes = ((probability + truth) * weight).sum(dim=(0, 2, 3, 4))
    used = annotated.any(dim=0).to(probability.dtype)
    return ((2 * both + SMOOTH) / (sizes + SMOOTH) * used).sum() / used.sum().clamp(min=1)
