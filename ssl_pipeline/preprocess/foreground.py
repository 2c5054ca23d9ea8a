"""Foreground segmentation: a threshold, its largest component, and the holes in it.

CT has a threshold in HU, MR gets Otsu's, from the exact histogram. Holes are filled slice by slice,
because the lungs of a scan that ends in the chest are open towards its ends but closed in every
slice. Components are found on every k-th voxel of long axes, which puts the outline at most k/2
voxels off and makes the time of large scans bearable. A result that is nearly nothing or nearly
everything is no body (a crop of an organ has no air around it): then all stored voxels count.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ssl_pipeline.preprocess.intensity import INT16_VALUES, percentile

COMPONENT_AXIS_VOXELS = 96  # axes of twice this and more are thinned out for finding components
# shares of the stored voxels between which a foreground is accepted
MIN_FOREGROUND_SHARE, MAX_FOREGROUND_SHARE = 0.02, 0.95

Box = tuple[slice, slice, slice]


def otsu_threshold(counts: NDArray[np.int64], percentiles: tuple[float, float]) -> int:
    """Otsu's threshold of an int16 histogram (65536,): foreground is above it.

    Values beyond the percentiles count as the percentiles: single bright voxels do not decide.
    Source: Otsu 1979, IEEE Trans. SMC 9(1), 62-66.
    """
    low, high = (percentile(counts, share) + INT16_VALUES // 2 for share in percentiles)
    inside = counts[low : high + 1].astype(np.float64)
    inside[0] += counts[:low].sum()
    inside[-1] += counts[high + 1 :].sum()
    below = np.cumsum(inside)
    moment = np.cumsum(inside * np.arange(len(inside)))
    above = below[-1] - below
    difference = moment[-1] * below - moment * below[-1]
    between = np.divide(
        difference**2, below * above, out=np.zeros_like(below), where=(below * above) > 0
    )
    # The classes are equally apart for every threshold in a gap of the histogram: take its middle.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return low + int(best[len(best) // 2]) - INT16_VALUES // 2


def foreground_mask(
    image: NDArray[np.int16], valid: NDArray[np.bool_], threshold: float
) -> NDArray[np.bool_]:
    """The body (z, y, x): largest part above the threshold, filled; else all of `valid`."""
    body = _largest_component((image > threshold) & valid) & valid
    share = np.count_nonzero(body) / np.count_nonzero(valid)
    return body if MIN_FOREGROUND_SHARE <= share <= MAX_FOREGROUND_SHARE else valid


def bounding_box(mask: NDArray[np.bool_], margin: tuple[int, int, int]) -> Box:
    """The box of all set voxels and up to `margin` more on each side; axes as in the mask."""
    sides = []
    for axis, (size, extra) in enumerate(zip(mask.shape, margin, strict=True)):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        sides.append(slice(max(0, int(found[0]) - extra), min(size, int(found[-1]) + 1 + extra)))
    z, y, x = sides
    return z, y, x


def _largest_component(above: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Largest 6-connected component with the holes of its axial slices filled."""
    steps = [max(1, n // COMPONENT_AXIS_VOXELS) for n in above.shape]
    picks = [
        np.minimum(np.arange(0, n, step) + step // 2, n - 1)
        for n, step in zip(above.shape, steps, strict=True)
    ]
    found, count = ndimage.label(above[np.ix_(*picks)])
    if count == 0:
        return np.zeros(above.shape, np.bool_)
    sizes = np.bincount(found.ravel())
    sizes[0] = 0
    filled = _fill_holes(found == sizes.argmax())
    for axis, (n, step) in enumerate(zip(above.shape, steps, strict=True)):
        if step > 1:
            filled = np.repeat(filled, step, axis).take(range(n), axis)
    return filled


def _fill_holes(body: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill the holes of each axial slice of the body."""
    in_plane = np.zeros((3, 3, 3), np.bool_)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    gaps, _ = ndimage.label(~body, structure=in_plane)
    edges = np.zeros(body.shape, np.bool_)
    edges[:, [0, -1]] = edges[:, :, [0, -1]] = True
    open_gaps = np.zeros(int(gaps.max()) + 1, np.bool_)
    open_gaps[gaps[edges]] = True
    open_gaps[0] = False
    holes: NDArray[np.bool_] = ~open_gaps[gaps]
    return holes
