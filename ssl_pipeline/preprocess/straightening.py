"""Resampling of oblique and sheared scans onto axes at right angles.

The axes are R, A and S where a study asks for it, else the scan's own.

An oblique scan is left as it is by default, because straightening interpolates every voxel and adds
empty corners; the token geometry needs no axes along R, A, S. It does need axes at right angles: a
sheared scan, as of a tilted gantry, is always straightened, on its own slices. The new grid keeps
the scan's spacing and holds all of its voxels; what it adds is not valid. Three matrix products do
not serve here, because a rotation mixes the axes.
"""

from itertools import product

import numpy as np
import scipy
from numpy.typing import NDArray

from ssl_pipeline.preprocess.resample import SplineOrder
from ssl_pipeline.types import Affine, Shape
from ssl_pipeline.volumes.geometry import deshear_affine, spacing_mm


def straight_grid(shape: Shape, affine: Affine, *, along_ras: bool) -> tuple[Shape, Affine]:
    """The smallest grid at right angles, with the same spacing, that holds a grid's voxel centres.

    `shape` is (x, y, z), as the affine (4, 4) has it. The axes are R, A, S or the scan's own.
    """
    straight = deshear_affine(affine)
    if along_ras:
        straight[:3, :3] = np.diag(spacing_mm(straight))
    corners = np.array([(*corner, 1) for corner in product(*((0, side - 1) for side in shape))])
    places = (corners @ affine.T @ np.linalg.inv(straight).T)[:, :3]  # in voxels of the new axes
    low, high = places.min(axis=0), places.max(axis=0)
    x, y, z = (int(side) for side in np.ceil(high - low - 1e-6) + 1)
    straight[:3, 3] += straight[:3, :3] @ low
    return (x, y, z), straight


def straighten_volume(
    image: NDArray[np.int16],
    masks: tuple[NDArray[np.bool_], ...],
    affine: Affine,
    order: SplineOrder,
    limits: tuple[int, int],
    *,
    along_ras: bool,
) -> tuple[NDArray[np.int16], tuple[NDArray[np.bool_], ...], Affine]:
    """Image and masks (z, y, x) on the straight grid, and its affine of (x, y, z).

    The image takes a spline of `order` and repeats its edge; masks take the nearest voxel, and are
    not set where the scan does not reach.
    """
    z, y, x = image.shape
    shape, straight = straight_grid((x, y, z), affine, along_ras=along_ras)
    turn = np.linalg.inv(affine) @ straight  # straight voxel (x, y, z) -> the scan's voxel
    matrix, offset, size = turn[:3, :3][::-1, ::-1], turn[:3, 3][::-1], shape[::-1]
    moved = scipy.ndimage.affine_transform(image, matrix, offset, size, order=order, mode="nearest")
    placed = tuple(
        scipy.ndimage.affine_transform(mask.view(np.uint8), matrix, offset, size, order=0) > 0
        for mask in masks
    )
    return np.clip(moved, *limits), placed, straight
