"""Strides, kernels, patches and crops that suit a spacing: nnU-Net's rules; imports no torch.

An axis is halved while enough of it is left and its spacing is within a factor of two of the
finest, so that voxels become isotropic before an axis of thick slices is touched; until then it is
not convolved either (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; the presets with residual
encoders of 2024, arXiv:2404.09556, have the same rules and differ in memory).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from ssl_pipeline.types import Shape, Spacing, Triple, triple

MIN_EDGE = 4  # voxels of the coarsest stage along an axis that is halved
LAST_AXIS_EDGE = 3 * MIN_EDGE  # voxels from which on an axis is halved that no other is with
SIMILAR = 2.0  # factor of the finest spacing below which an axis is treated as it
PATCH_VOXELS = 8**3  # of a transformer's patch, at most
CROP_VOXELS = 256**3  # of the crop from which the search for one that fits begins


class Topology(NamedTuple):
    """Stages from full resolution down; triples are (z, y, x)."""

    strides: tuple[Triple, ...]
    kernel_sizes: tuple[Triple, ...]

    @property
    def reduction(self) -> Triple:
        """Voxels of the crop for one of the last stage: the sides of a crop are multiples."""
        return triple(math.prod(stride[axis] for stride in self.strides) for axis in range(3))


def plan_topology(spacing_mm: Spacing, crop: Shape) -> Topology:
    """The stages of a convolutional network for crops of about this size."""
    spacing, size = list(spacing_mm), list(crop)
    strides: list[Triple] = [(1, 1, 1)]
    kernels: list[Triple] = []
    while halved := _halved_axes(spacing, size):
        kernels.append(_kernel(spacing, kernels))
        strides.append(triple(2 if axis in halved else 1 for axis in range(3)))
        for axis in halved:
            spacing[axis], size[axis] = 2 * spacing[axis], math.ceil(size[axis] / 2)
    return Topology(tuple(strides), (*kernels, (3, 3, 3)))


def plan_patch(spacing_mm: Spacing) -> Triple:
    """The patch of a transformer: doubled as strides are, up to 512 voxels."""
    patch, spacing = [1, 1, 1], list(spacing_mm)
    while True:
        finest = min(spacing)
        doubled = [axis for axis in range(3) if spacing[axis] < SIMILAR * finest]
        if math.prod(patch) * 2 ** len(doubled) > PATCH_VOXELS:
            return triple(patch)
        for axis in doubled:
            patch[axis], spacing[axis] = 2 * patch[axis], 2 * spacing[axis]


def upsampling_factors(patch: Triple) -> list[Triple]:
    """Factors by stage, whose product is the patch: 2 where even, else all at once."""
    left, stages = patch, []
    while max(left) > 1:
        step = triple(2 if side % 2 == 0 else side for side in left)
        stages.append(step)
        left = triple(side // factor for side, factor in zip(left, step, strict=True))
    return stages


def plan_crop(
    spacing_mm: Spacing,
    shape: Shape,
    multiple_of: Callable[[Shape], Triple],
    fits: Callable[[Shape], bool],
) -> Shape:
    """The largest crop that fits: of equal sides in mm where the median scan `shape` allows it.

    Where it does not fit, the axis that shows most of the scan is shortened, down to MIN_EDGE
    voxels of the coarsest stage. `multiple_of` gives what the sides of such a crop are multiples
    of. Where nothing fits, the smallest one is returned.
    """
    side = (CROP_VOXELS * math.prod(spacing_mm)) ** (1 / 3)  # in mm
    wanted = triple(min(round(side / mm), n) for mm, n in zip(spacing_mm, shape, strict=True))
    crop = round_up(wanted, multiple_of(wanted))
    while not fits(crop):
        smaller = _shortened(crop, shape, multiple_of)
        if smaller == crop:
            return crop
        crop = smaller
    return crop


def round_up(crop: Shape, step: Triple) -> Shape:
    """The smallest crop that is no smaller, and whose sides are multiples of `step`."""
    return triple(math.ceil(n / each) * each for n, each in zip(crop, step, strict=True))


def _shortened(crop: Shape, shape: Shape, multiple_of: Callable[[Shape], Triple]) -> Shape:
    """The crop with one side shorter; the same where each is as short as it may be."""
    for axis in sorted(range(3), key=lambda each: crop[each] / shape[each], reverse=True):
        step = multiple_of(crop)[axis]
        if crop[axis] < (MIN_EDGE + 1) * step or crop[axis] <= 2 * MIN_EDGE:
            continue
        shorter = triple(n - step * (at == axis) for at, n in enumerate(crop))
        found = round_up(shorter, multiple_of(shorter))
        if math.prod(found) < math.prod(crop):
            return found
    return crop


def _halved_axes(spacing: list[float], size: list[int]) -> list[int]:
    """The axes that the next stage halves; none where the network ends."""
    able = [axis for axis in range(3) if size[axis] >= 2 * MIN_EDGE]
    finest = min((spacing[axis] for axis in able), default=0.0)
    halved = [axis for axis in able if spacing[axis] < SIMILAR * finest]
    if len(halved) == 1 and size[halved[0]] < LAST_AXIS_EDGE:
        return []
    return halved


def _kernel(spacing: list[float], before: list[Triple]) -> Triple:
    """The kernel at a resolution; an axis that has been convolved once always is."""
    once = before[-1] if before else (1, 1, 1)
    finest = min(spacing)
    return triple(
        3 if side == 3 or mm < SIMILAR * finest else 1
        for side, mm in zip(once, spacing, strict=True)
    )
