"""Points that lie in both views of a sample, and what the maps of a view are there.

Points are a regular grid over the box that both crops share: crops begin at random voxels, so that
a place of a patch is as likely as any other, and no random number has to be drawn or resumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample

from ssl_pipeline.objectives.losses import TokenMatches
from ssl_pipeline.objectives.term_inputs import Crops
from ssl_pipeline.types import Triple
from ssl_pipeline.views.patches import patch_grid


@dataclass(frozen=True)
class SharedPoints:
    """Points of samples, in the order of their places along (z, y, x)."""

    places: Float[Tensor, "views points 3"]  # from the middle of a crop, in halves of its side
    distance: Float[Tensor, "samples points points"]  # Chebyshev's, in patches
    is_usable: Bool[Tensor, "samples points"]  # whether both views show the body there

    def matches(self, negative_patches: float) -> TokenMatches:
        """Each usable point with itself, against usable ones that are farther than this."""
        number = torch.arange(self.distance.shape[1], device=self.distance.device)
        negative = (self.distance > negative_patches) & self.is_usable[:, None]
        return TokenMatches(
            number.expand(self.is_usable.shape), negative, self.is_usable & negative.any(dim=2)
        )


def shared_points(crops: Crops, per_axis: int) -> SharedPoints:
    """`per_axis` points along each axis of the box that the two crops of a sample share."""
    spacing, start = crops.batch.spacing_mm, crops.batch.start_mm
    size_mm = spacing * spacing.new_tensor(crops.size)
    low = torch.maximum(*start.chunk(2))
    high = torch.minimum(*(start + size_mm).chunk(2))
    steps = (torch.arange(per_axis, dtype=torch.float32, device=spacing.device) + 0.5) / per_axis
    share = torch.cartesian_prod(steps, steps, steps)
    points_mm = low[:, None] + share * (high - low)[:, None]
    places = 2 * (points_mm.repeat(2, 1, 1) - start[:, None]) / size_mm[:, None] - 1
    first, second = _shows_body(crops, places).chunk(2)
    relative = points_mm / crops.patch_mm()[:, None]
    return SharedPoints(
        places,
        (relative[:, :, None] - relative[:, None]).abs().amax(dim=-1),
        first
        & second
        & (high > low).all(dim=1, keepdim=True)
        & crops.batch.meta.shares_place[:, None],
    )


def sample_maps(
    maps: Sequence[Float[Tensor, "views _ _ _ _"]], places: Float[Tensor, "views points 3"]
) -> Float[Tensor, "views points channels"]:
    """The channels of all maps at places of their crops, by linear interpolation."""
    grid = places.flip(-1)[:, :, None, None]  # grid_sample's order is (x, y, z)
    sampled = [
        grid_sample(each.float(), grid, padding_mode="border", align_corners=False) for each in maps
    ]
    return torch.cat(sampled, dim=1)[..., 0, 0].transpose(1, 2)


def _shows_body(
    crops: Crops, places: Float[Tensor, "views points 3"]
) -> Bool[Tensor, "views points"]:
    """Whether the patch of a place is mostly measured, and mostly inside the body."""
    patch = _patch_numbers(places, patch_grid(crops.size, crops.patch))
    return crops.is_body(patch) & (crops.batch.valid_share.gather(1, patch) >= 0.5)


def _patch_numbers(places: Float[Tensor, "views points 3"], grid: Triple) -> Tensor:
    """The patches that places lie in, by their numbers; the nearest one for those outside."""
    count = places.new_tensor(grid)
    z, y, x = ((places + 1) / 2 * count).long().clamp(min=0).unbind(-1)
    z, y, x = z.clamp(max=grid[0] - 1), y.clamp(max=grid[1] - 1), x.clamp(max=grid[2] - 1)
    return (z * grid[1] + y) * grid[2] + x
