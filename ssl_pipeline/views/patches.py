"""Patches of crops: cutting, positions, pooling, and the choice of visible ones (masking).

Patches are ordered row-major over (z, y, x). A patch's position is the centre of its voxels in
millimetres, so positions are comparable between volumes of different spacing.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_pipeline.views.config import Triple


def patch_grid(size: Triple, patch: Triple) -> Triple:
    """Patches along (z, y, x) of a crop of `size` voxels, each side a multiple of the patch's."""
    z, y, x = (s // p for s, p in zip(size, patch, strict=True))
    return z, y, x


def patchify(
    volumes: Float[Tensor, "batch 1 z y x"], patch: Triple
) -> Float[Tensor, "batch tokens voxels"]:
    """Cut crops into flattened patches."""
    batch, _, *size = volumes.shape
    (gz, gy, gx), (pz, py, px) = patch_grid((size[0], size[1], size[2]), patch), patch
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
    (gz, gy, gx), (pz, py, px) = patch_grid((size[0], size[1], size[2]), patch), patch
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


def choose_visible(
    valid_share: Float[Tensor, "views tokens"],
    body_share: Float[Tensor, "views tokens"],
    order: Float[Tensor, "views tokens"],
    *,
    count: int,
    max_background: float,
) -> tuple[Int[Tensor, "views count"], Int[Tensor, "views rest"]]:
    """The `count` visible tokens of each crop, sorted, and the others in random order.

    `valid_share` and `body_share` hold the fraction of such voxels of each token, `order` random
    numbers. Tokens that are at least half valid come first, and of them at most the fraction
    `max_background` of `count` from outside the body, unless the body has too few: the number is
    fixed, so that shapes are.
    """
    by = order.argsort(dim=1)
    usable, inside = valid_share.gather(1, by) >= 0.5, body_share.gather(1, by) >= 0.5
    inside, outside = usable & inside, usable & ~inside
    there, here = outside.sum(1, keepdim=True), inside.sum(1, keepdim=True)
    # As many from outside as a uniform draw would give, but no more than the limit.
    share = there.double() / (there + here).clamp(min=1)
    wanted = (share * count).round().clamp(max=int(max_background * count)).long()
    turn = torch.full_like(by, 4)  # 0 is taken first, 4 last
    turn[outside] = 2
    turn[inside] = 3
    turn[outside & (outside.cumsum(1) <= wanted)] = 1
    turn[inside & (inside.cumsum(1) <= count - wanted)] = 0
    ranked = by.gather(1, turn.argsort(dim=1, stable=True))
    seen, rest = ranked.split([count, ranked.shape[1] - count], dim=1)
    # Random again: `rest` has those outside the body after those inside it.
    return seen.sort(dim=1).values, rest.gather(1, order.gather(1, rest).argsort(dim=1))
