"""Statistics of a scan's values by which quality control tells images from what is none."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE_VOXELS = 1 << 20  # voxels that percentiles are taken of
NEIGHBOUR_VOXELS = 1 << 15  # voxels that are compared with their next ones
PADDING_GAP = 100.0  # HU from padding to the next value: air, noise and tissue leave no such gap
MIN_PADDING_SHARE = 0.005  # of the voxels; a percentile of 1 would otherwise be one of padding


def valid_mask(raw: NDArray[Any], missing_value: float | None) -> NDArray[np.bool_]:
    """Where a scan has a value: finite, and not the missing value. Shape of `raw`."""
    is_float = np.issubdtype(raw.dtype, np.floating)
    valid = np.isfinite(raw) if is_float else np.ones(raw.shape, np.bool_)
    if missing_value is not None:
        valid &= raw != missing_value
    return valid


def sample_values(values: NDArray[Any]) -> NDArray[Any]:
    """About SAMPLE_VOXELS of the values, evenly spread: (n,)."""
    return values.ravel(order="K")[:: max(1, values.size // SAMPLE_VOXELS)]


def without_padding(sample: NDArray[Any]) -> NDArray[Any]:
    """The values (n,) of a CT less the lowest one, where many voxels have it and none is near it.

    An image of two values is left as it is: one of them must be the image.
    """
    low = sample.min()
    rest: NDArray[Any] = sample[sample != low]
    many = sample.size - rest.size > MIN_PADDING_SHARE * sample.size
    if many and rest.size and rest.min() - float(low) > PADDING_GAP and rest.min() != rest.max():
        return rest
    return sample


def flat_share(data: NDArray[Any]) -> float:
    """The share of voxels whose next one along an axis has the same value; of data (x, y, z).

    It is the median over values, without the commonest, which may be background. In images that are
    quantised to 8 bits it is below 0.1; in maps of labels, whatever their number, it is near 1. It
    is 0 where there are not three values.
    """
    step = math.ceil(math.sqrt(3 * data.size / NEIGHBOUR_VOXELS))
    firsts, seconds = [], []
    for axis in range(3):
        lines = np.moveaxis(data, axis, 0)[:, ::step, ::step]
        firsts.append(lines[:-1].ravel())
        seconds.append(lines[1:].ravel())
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    values, counts = np.unique(first, return_counts=True)
    common = values[counts.argmax()]
    inside = (first != common) & (second != common) & np.isfinite(first) & np.isfinite(second)
    values, index = np.unique(first[inside], return_inverse=True)
    if len(values) < 2:
        return 0.0
    same = np.bincount(index, weights=first[inside] == second[inside])
    return float(np.median(same / np.bincount(index)))
