"""Nearest-neighbour resampling of labels to the grids of the stored volume and of the scan.

It goes through the affines alone, so a label may have any orientation and spacing. Each axis
of one grid is nearly always an axis of the other: indices then are three vectors that broadcast,
and 15 million voxels take 0.1 s where scipy.ndimage.affine_transform takes 2 s; a rotated label
costs an index for each voxel, slab by slab.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.preprocess.chunking import slabs
from ssl_pipeline.preprocess.foreground import bounding_box
from ssl_pipeline.preprocess.intensity import VoxelArray
from ssl_pipeline.preprocess.prepare import VolumeMeta
from ssl_pipeline.types import Shape
from ssl_pipeline.volumes.label_matching import IGNORE_LABEL, class_values
from ssl_pipeline.volumes.volume import Volume

# a centre on an edge goes to the side that is up on its own grid, as masks do
TIE_BREAK_VOXELS = 1e-4
NEGLIGIBLE_VOXELS = 1e-3  # a shift below it, over the whole of an axis, is rounding of the affine


def label_on_grid(label: Volume, meta: VolumeMeta) -> NDArray[np.uint8] | NDArray[np.int16]:
    """The label at each voxel (z, y, x) of a stored volume; IGNORE_LABEL where the label does
    not reach.

    uint8 where every value fits, else int16. Raises UserError for values that are no classes.
    """
    values = class_values(label.data)
    stored_to_label = np.linalg.inv(label.affine) @ np.array(meta.affine)
    # (x, y, z) -> (z, y, x) on both sides.
    gathered = _gather_nearest(
        values.transpose(2, 1, 0), _reverse_axes(stored_to_label), meta.shape, IGNORE_LABEL
    )
    result: NDArray[np.uint8] | NDArray[np.int16] = gathered
    return result


def label_on_source_grid(label: Volume, meta: VolumeMeta) -> NDArray[np.uint8] | NDArray[np.int16]:
    """The label at each voxel (x, y, z) of the scan's own grid: its own voxels, for labels are
    drawn on that grid, in the scan's order of axes.

    Type, IGNORE_LABEL and errors as in `label_on_grid`.
    """
    result: NDArray[np.uint8] | NDArray[np.int16] = nearest_voxels(
        replace(label, data=class_values(label.data)),
        np.array(meta.source_affine),
        meta.source_shape,
        IGNORE_LABEL,
    )
    return result


def nearest_voxels(
    volume: Volume, affine: NDArray[np.float64], shape: Shape, outside: int
) -> NDArray[Any]:
    """The value of a volume at each voxel (x, y, z) of another grid, or `outside` of it."""
    to_volume = np.linalg.inv(volume.affine) @ affine
    values: NDArray[Any] = _gather_nearest(volume.data, to_volume, shape, outside)
    return values


def keeps_whole_scan(meta: VolumeMeta) -> bool:
    """Whether every voxel of the scan's own grid has its centre inside of the stored volume."""
    box = tuple(slice(0, side) for side in meta.source_shape)
    return not _is_outside(_corners(box), np.array(meta.source_affine), meta).any()


def share_outside(label: Volume, meta: VolumeMeta) -> float:
    """The share of a label's voxels whose centres lie outside of a stored volume, 0 to 1."""
    labelled = label.data > 0
    if not labelled.any():
        return 0.0
    corners = _corners(bounding_box(labelled, (0, 0, 0)))
    if not _is_outside(corners, label.affine, meta).any():
        return 0.0
    return float(_is_outside(np.array(np.nonzero(labelled)), label.affine, meta).mean())


def _corners(box: tuple[slice, ...]) -> NDArray[np.int64]:
    """The voxels at the corners of a box: (3, 8)."""
    ends = ((side.start, side.stop - 1) for side in box)
    return np.array(np.meshgrid(*ends)).reshape(3, -1)


def _is_outside(
    indices: NDArray[np.int64], affine: NDArray[np.float64], meta: VolumeMeta
) -> NDArray[np.bool_]:
    """Whether voxels (x, y, z) x n of an affine's grid lie outside of a stored volume: (n,)."""
    to_stored = np.linalg.inv(np.array(meta.affine)) @ affine
    x, y, z = to_stored[:3, :3] @ indices + to_stored[:3, 3:]
    beyond = np.zeros(indices.shape[1], np.bool_)
    for place, size in zip((z, y, x), meta.shape, strict=True):
        beyond |= (place < -0.5 - TIE_BREAK_VOXELS) | (place > size - 0.5 + TIE_BREAK_VOXELS)
    return beyond


def _reverse_axes(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same map between voxels (4, 4) with the order of the three axes turned round."""
    order = [2, 1, 0, 3]
    return matrix[np.ix_(order, order)]


def _gather_nearest(
    array: VoxelArray, to_array: NDArray[np.float64], shape: Shape, outside: int
) -> VoxelArray:
    """For each voxel of a grid the array's voxel that its centre lies in, or `outside`."""
    out = np.empty(shape, array.dtype)
    for part in slabs(shape[0], shape[1] * shape[2]):
        axes = [np.arange(part.start, part.stop), np.arange(shape[1]), np.arange(shape[2])]
        indices, inside = [], np.ones((1, 1, 1), np.bool_)
        for row, size in zip(to_array[:3], array.shape, strict=True):
            index = _index(row, np.ix_(*axes), shape)
            inside = inside & (index >= 0) & (index < size)
            indices.append(np.clip(index, 0, size - 1))
        out[part] = np.where(inside, array[tuple(indices)], np.array(outside, array.dtype))
    return out


def _index(
    row: NDArray[np.float64], axes: tuple[NDArray[np.int64], ...], shape: Shape
) -> NDArray[np.int64]:
    """Index along one axis of the array; of length 1 along the axes that do not change it."""
    place = np.full((1, 1, 1), row[3] + 0.5)
    for factor, axis, size in zip(row[:3], axes, shape, strict=True):
        if abs(factor) * size > NEGLIGIBLE_VOXELS:
            place = place + factor * (axis + TIE_BREAK_VOXELS)
    index: NDArray[np.int64] = np.floor(place).astype(np.int64)
    return index
