"""Reconstruction skill: the error of the decoder against that of smooth in-painting.

A reconstruction loss alone means little, for smooth tissue and air are easy to guess. In-painting
takes the same visible voxels and knows only smoothness: a decoder that reconstructs the body no
better has learned padding and air. Holes are filled by averages of what is known at ever coarser
scales, brought back trilinearly (a pull-push pyramid), batched on any device. On crops of two CTs
and an MR (32 voxels, patches of 8, a quarter visible) it takes off 0.22 to 0.30 of the error of a
constant; linear interpolation between the scattered patches, which takes seconds on the host, 0.21
to 0.25. Twenty rounds of diffusion on top would reach 0.34 to 0.40, but are more than trilinear.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d, interpolate

from ssl_pipeline.types import Triple, triple
from ssl_pipeline.views.patches import unpatchify


def visible_mask(
    visible: Int[Tensor, "batch visible"], token_count: int
) -> Bool[Tensor, "batch tokens"]:
    """True for the tokens of `visible`, of `token_count` per crop."""
    seen = torch.zeros(len(visible), token_count, dtype=torch.bool, device=visible.device)
    return seen.scatter(1, visible, True)


def voxel_mask(
    token_mask: Bool[Tensor, "batch tokens"], size: Triple, patch: Triple
) -> Float[Tensor, "batch 1 z y x"]:
    """1 in the voxels of the patches that `token_mask` marks, in crops of `size` voxels."""
    return unpatchify(token_mask[..., None].expand(-1, -1, math.prod(patch)).float(), size, patch)


def inpaint(
    crops: Float[Tensor, "batch 1 z y x"],
    visible: Bool[Tensor, "batch tokens"],
    valid: Float[Tensor, "batch z y x"],
    patch: Triple,
) -> Float[Tensor, "batch 1 z y x"]:
    """Crops whose visible, valid voxels are kept and whose others are filled in smoothly.

    A crop without any visible, valid voxel is filled with 0. Source: the pull-push algorithm of
    Gortler et al. 1996 (The Lumigraph), in 3D with trilinear interpolation.
    """
    size = triple(crops.shape[2:])
    known = voxel_mask(visible, size, patch) * valid[:, None]
    return _pull_push(crops * known, known)


def _pull_push(values: Tensor, known: Tensor) -> Tensor:
    """`values` (0 where not known) with the holes taken from the same at half the resolution."""
    z, y, x = values.shape[2:]
    if max(z, y, x) == 1:
        return values
    half = ((z + 1) // 2, (y + 1) // 2, (x + 1) // 2)
    share = adaptive_avg_pool3d(known, half)
    means = adaptive_avg_pool3d(values, half) / torch.where(share > 0, share, 1)
    coarse = _pull_push(means, (share > 0).to(values.dtype))
    smooth = interpolate(coarse, size=(z, y, x), mode="trilinear", align_corners=False)
    return torch.where(known > 0, values, smooth)
