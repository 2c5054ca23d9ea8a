"""Bring an oblique scan onto the axes of R, A and S, where a study asks for it.

Not the default, because it interpolates every voxel and adds corners that hold nothing; the token
geometry needs no straight axes. The new grid keeps the scan's spacing and holds all of its voxels;
what it adds is not valid. Three matrix products do not serve here, for a rotation mixes the axes.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ssl_pipeline.preprocess.resample import Order, Shape
from ssl_pipeline.volumes.geometry import spacing_mm

Affine = NDArray[np.float64]


def straight_grid(shape: Shape, affine: Affine) -> tuple[Shape, Affine]:
    """The smallest grid with axes R, A, S and the same spacing that holds a grid's voxel centres.

    `shape` is (x, y, z), as the affine (4, 4) has it.
    """
    corners = np.array([(*corner, 1) for corner in product(*((0, side - 1) for side in shape))])
    world = (corners @ affine.T)[:, :3]
    low, high = world.min(axis=0), world.max(axis=0)
    spacing = np.array(spacing_mm(affine))
    x, y, z = (int(side) for side in np.ceil((high - low) / spacing - 1e-6) + 1)
    straight = np.diag([*spacing, 1.0])
    straight[:3, 3] = low
    return (x, y, z), straight


def straightened(
    image: NDArray[np.int16],
    masks: tuple[NDArray[np.bool_], ...],
    affine: Affine,
    order: Order,
    limits: tuple[int, int],
) -> tuple[NDArray[np.int16], tuple[NDArray[np.bool_], ...], Affine]:
    """Image and masks (z, y, x) on the straight grid, and its affine of (x, y, z).

    The image takes a spline of `order` and repeats its edge; masks take the nearest voxel, and are
    not set where the scan does not reach.
    """
    z, y, x = image.shape
    shape, straight = straight_grid((x, y, z), affine)
    turn = np.linalg.inv(affine) @ straight  # straight voxel (x, y, z) -> the scan's voxel
    matrix, offset, size = turn[:3, :3][::-1, ::-1], turn[:3, 3][::-1], shape[::-1]
    moved = ndimage.affine_transform(image, matrix, offset, size, order=order, mode="nearest")
    placed = tuple(
        ndimage.affine_transform(mask.view(np.uint8), matrix, offset, size, order=0) > 0
        for mask in masks
    )
    return np.clip(moved, *limits), placed, straight
