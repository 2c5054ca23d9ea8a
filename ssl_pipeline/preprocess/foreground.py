"""Foreground segmentation: the body is what is not air.

Air is dark and reaches the edge of an axial slice: what is dark inside the body, such as a lung, a
vessel or the wall of the heart, is enclosed. Slices are examined one by one, because the lungs of a
scan that ends in the chest are open towards its ends. In CT a dark region is air where most of it
is darker than lungs are, so a lung at the edge of a small field of view is body. MR has no unit:
dark is what the noise of air explains (`air_noise`), and a scan without such noise, as a crop of an
organ, has no air. Parts that are thin beside the body, such as a table, are left out.

Regions are found on every k-th voxel of long axes, which puts the outline at most k/2 voxels off
and makes the time of large scans bearable.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from ssl_pipeline.types import Shape, triple

REGION_AXIS_VOXELS = 96  # longer axes are thinned out for finding regions
# Lungs are denser, except where emphysema destroyed them (Gevenois et al. 1996, AJRCCM 154:187).
CT_AIR_HU = -950
MIN_PART_DEPTH = 0.25  # depth of a part of the body, as a fraction of the deepest part's

# The noise of air has a mean of 1.9 standard deviations with one coil, of 3.9 with four that are
# summed in squares (Constantinides et al. 1997, MRM 38:852); tissue has more.
MAX_NOISE_MEAN = 4.2
MIN_CONTRAST = 10.0  # standard deviations from the mean of the noise to that of what is brighter
LOCAL_CEILING, VOXEL_CEILING = 2.0, 6.0  # the same to the brightest local mean and voxel of noise
DARKEST_PERCENT = 15.0  # of the edge, where the search for noise begins
ZERO_PERCENT = 0.5  # of voxels below the value of no signal, where values have been standardised
SEARCH_ROUNDS = 5
NOISE_LEVELS = 2  # zeros that a scanner fills the corners with, and the noise beside them

Box = tuple[slice, slice, slice]
Mask = NDArray[np.bool_]  # (z, y, x)
IN_PLANE = np.zeros((3, 3, 3), np.bool_)  # neighbours of a voxel that share a side in its slice
IN_PLANE[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]


@dataclass(frozen=True)
class Noise:
    """The noise of air in a scan, in the scan's values."""

    mean: float
    std: float  # 0: a constant

    def explains(self, values: NDArray[np.float32], local: NDArray[np.float32]) -> Mask:
        """Where values, and the means over their neighbours, are those of this noise."""
        if self.std == 0:
            constant: Mask = np.abs(values - self.mean) <= 1
            return constant
        return (local <= self.mean + LOCAL_CEILING * self.std) & (
            values <= self.mean + VOXEL_CEILING * self.std
        )


def ct_body(image: NDArray[np.int16], valid: Mask, threshold_hu: float) -> Mask:
    """The body of a CT in HU: what no dark region of air at the edge holds; (z, y, x)."""
    grid = _ThinnedGrid(triple(image.shape))
    hu, stored = grid.thin(image), grid.thin(valid)
    dark = (hu <= threshold_hu) | ~stored
    return valid & ~grid.restore(_outside(dark, (hu < CT_AIR_HU) & stored, stored))


def mr_body(image: NDArray[np.int16], valid: Mask, zero: float) -> Mask:
    """The body of an MR: what the noise of air does not explain; (z, y, x).

    `zero` is the stored value of no signal. All of `valid` where there is no air.
    """
    grid = _ThinnedGrid(triple(image.shape))
    values, stored = grid.thin(image).astype(np.float32), grid.thin(valid)
    if not stored.any():
        return valid
    lowest = float(values[stored].min())
    values = np.where(stored, values - lowest, np.float32(0))
    local = scipy.ndimage.uniform_filter(values, 3)
    zero -= lowest
    zeros = (zero, min(zero, float(np.percentile(values[stored], ZERO_PERCENT))))
    dark = ~stored
    for _ in range(NOISE_LEVELS):
        noise = air_noise(values, local, ~dark, zeros)
        if noise is None:
            break
        dark |= noise.explains(values, local)
        if noise.std > 0:
            break
    return valid & ~grid.restore(_outside(dark, dark & stored, stored))


def air_noise(
    values: NDArray[np.float32],
    local: NDArray[np.float32],
    stored: Mask,
    zeros: tuple[float, float],
) -> Noise | None:
    """The noise at the edge of axial slices; None where what is dark there is no noise.

    `local` are the means of `values` (z, y, x) over neighbours, and `zeros` are values that may be
    the one of no signal. The search begins with what is darkest at the edge, and takes in what is
    as dark.
    """
    edge = _edge_of_slices(stored)
    at_edge, local_at_edge = values[edge], local[edge]
    if at_edge.size == 0:
        return None
    ceiling = float(np.percentile(local_at_edge, DARKEST_PERCENT))
    for _ in range(SEARCH_ROUNDS):
        chosen = at_edge[local_at_edge <= ceiling]
        noise = Noise(float(chosen.mean()), float(chosen.std()))
        ceiling = max(ceiling, noise.mean + LOCAL_CEILING * noise.std)
    from_zero = min(abs(noise.mean - zero) for zero in zeros)
    if noise.std <= 1:  # the step of stored values
        return Noise(noise.mean, 0.0) if from_zero <= 1 else None
    brighter = local[stored & (local > ceiling)]
    is_air = (
        from_zero <= MAX_NOISE_MEAN * noise.std
        and brighter.size > 0
        and float(np.median(brighter)) - noise.mean >= MIN_CONTRAST * noise.std
    )
    return noise if is_air else None


def bounding_box(mask: Mask, margin: tuple[int, int, int]) -> Box:
    """The box of all set voxels and up to `margin` more on each side; axes as in the mask."""
    sides = []
    for axis, (size, extra) in enumerate(zip(mask.shape, margin, strict=True)):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        sides.append(slice(max(0, int(found[0]) - extra), min(size, int(found[-1]) + 1 + extra)))
    z, y, x = sides
    return z, y, x


class _ThinnedGrid:
    """Every k-th voxel of the long axes of an array (z, y, x), and the way back."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.steps = [-(-n // REGION_AXIS_VOXELS) for n in shape]
        self.index = np.ix_(
            *(
                np.minimum(np.arange(0, n, step) + step // 2, n - 1)
                for n, step in zip(shape, self.steps, strict=True)
            )
        )

    def thin(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array at the voxels of the thinned grid."""
        return array[self.index]

    def restore(self, mask: Mask) -> Mask:
        """A mask on the thinned grid on the whole one."""
        for axis, (n, step) in enumerate(zip(self.shape, self.steps, strict=True)):
            if step > 1:
                mask = np.repeat(mask, step, axis).take(range(n), axis)
        return mask


def _outside(dark: Mask, air: Mask, stored: Mask) -> Mask:
    """What is stored and is air, or thin beside the body; nothing where all of it would be."""
    body = _deep_parts(stored & ~_air_regions(dark, air, stored), stored)
    return stored & ~body if body.any() else np.zeros_like(stored)


def _air_regions(dark: Mask, air: Mask, stored: Mask) -> Mask:
    """Dark regions of axial slices that reach the edge and are air in most of what is stored.

    Channels of up to two voxels, such as a nostril, are closed: the search does not enter them.
    """
    wide = dark & ~_edge_of_slices(dark, beyond=True)
    regions, count = scipy.ndimage.label(wide, structure=IN_PLANE)
    known = np.bincount(regions[stored], minlength=count + 1)
    airy = np.bincount(regions[air], minlength=count + 1)
    at_edge = np.zeros(count + 1, np.bool_)
    at_edge[regions[:, [0, -1]]] = at_edge[regions[:, :, [0, -1]]] = True
    is_air = at_edge & (2 * airy >= known)
    is_air[0] = False
    found: Mask = scipy.ndimage.binary_dilation(is_air[regions], IN_PLANE, iterations=2, mask=dark)
    return found


def _edge_of_slices(mask: Mask, *, beyond: bool = False) -> Mask:
    """Voxels of a mask (z, y, x) with a neighbour in their axial slice that is not in it.

    `beyond` says whether what lies outside of the array is in it.
    """
    wide = np.pad(mask, ((0, 0), (1, 1), (1, 1)), constant_values=beyond)
    inside = wide[:, :-2, 1:-1] & wide[:, 2:, 1:-1] & wide[:, 1:-1, :-2] & wide[:, 1:-1, 2:]
    found: Mask = mask & ~inside
    return found


def _deep_parts(body: Mask, stored: Mask) -> Mask:
    """The parts of a body that are not thin beside its deepest part.

    What is not stored may be body: a part that reaches it may go on there.
    """
    possible = body | ~stored
    parts, count = scipy.ndimage.label(possible)
    if count < 2 or not body.any():
        return body
    depth = scipy.ndimage.distance_transform_cdt(possible) * body
    is_deep = np.zeros(count + 1, np.bool_)
    is_deep[parts[depth >= max(1.0, MIN_PART_DEPTH * float(depth.max()))]] = True
    found: Mask = body & is_deep[parts]
    return found
