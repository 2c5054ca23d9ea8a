"""Axes, spacing and position of a grid, read off its affine.

Axes are only swapped and flipped here, which loses nothing; a remaining rotation stays in the
affine, because resampling it away would blur every oblique scan for no gain.
"""

import math
from dataclasses import replace
from itertools import combinations

import nibabel
import numpy as np
from nibabel import orientations

from ssl_pipeline.types import Affine, Spacing
from ssl_pipeline.volumes.volume import Volume, VoxelGrid

SHEAR_TOLERANCE_DEG = 0.1  # axes that miss a right angle by less do so by the rounding of headers
GRID_TOLERANCE = 0.1  # of the smallest voxel side; headers round positions to about a thousandth


def to_canonical(volume: Volume) -> Volume:
    """The same image with its axes swapped and flipped to lie nearest to R, A and S.

    Each voxel keeps its value and its place in the body; nothing is resampled.
    """
    order = orientations.io_orientation(volume.affine)
    data = orientations.apply_orientation(volume.data, order)
    return replace(volume, data=data, affine=canonical_grid(volume.grid).affine)


def canonical_grid(grid: VoxelGrid) -> VoxelGrid:
    """The grid of a volume after `to_canonical`."""
    order = orientations.io_orientation(grid.affine)
    x, y, z = (grid.shape[int(axis)] for axis in np.argsort(order[:, 0]))
    affine = grid.affine @ orientations.inv_ornt_aff(order, grid.shape)
    return VoxelGrid((x, y, z), np.asarray(affine, dtype=np.float64))


def spacing_mm(affine: Affine) -> Spacing:
    """Length of a voxel's sides in mm, in the order of the voxel axes."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def axis_codes(affine: Affine) -> str:
    """Where each voxel axis points to, such as "RAS" or "LPS"."""
    return "".join(nibabel.aff2axcodes(affine))


def residual_rotation_deg(affine: Affine) -> float:
    """The angle by which the axes miss R, A and S after `to_canonical`, in degrees from 0."""
    straight = canonical_grid(VoxelGrid((1, 1, 1), affine)).affine[:3, :3]
    left, _, right = np.linalg.svd(straight / np.linalg.norm(straight, axis=0))
    cosine = (np.trace(left @ right) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def shear_deg(affine: Affine) -> float:
    """How far the two worst voxel axes are from a right angle, in degrees from 0."""
    return max(_off_right_angle_deg(affine[:3, :3], pair) for pair in combinations(range(3), 2))


def deshear_affine(affine: Affine) -> Affine:
    """The affine with its axes at right angles.

    The two finest axes that stand at a right angle stay, for they are the plane of the slices (the
    second finest is squared to the finest where no two do); the third becomes perpendicular to
    them, as long as slices are apart, so that the slices of a tilted gantry only slide in-plane.
    """
    sides = affine[:3, :3]
    order = np.argsort(np.linalg.norm(sides, axis=0), kind="stable")
    pairs = [(int(a), int(b)) for a, b in combinations(order, 2)]
    first, second = next(
        (p for p in pairs if _off_right_angle_deg(sides, p) <= SHEAR_TOLERANCE_DEG), pairs[0]
    )
    third = 3 - first - second
    one = sides[:, first] / np.linalg.norm(sides[:, first])
    other = sides[:, second] - one * (one @ sides[:, second])
    normal = np.cross(one, other / np.linalg.norm(other))
    squared = affine.copy()
    squared[:3, second] = other
    squared[:3, third] = normal * (normal @ sides[:, third])
    return squared


def _off_right_angle_deg(sides: Affine, pair: tuple[int, int]) -> float:
    """How far two axes are from a right angle, in degrees from 0."""
    one, other = sides[:, pair[0]], sides[:, pair[1]]
    cosine = abs(float(one @ other)) / float(np.linalg.norm(one) * np.linalg.norm(other))
    return math.degrees(math.asin(min(cosine, 1.0)))


def is_same_grid(first: VoxelGrid, second: VoxelGrid) -> bool:
    """Whether two grids of one shape have the same corner positions, axes in any order."""
    first, second = canonical_grid(first), canonical_grid(second)
    corners = np.stack(np.meshgrid(*[(0, side - 1) for side in first.shape], (1,)), -1).reshape(
        -1, 4
    )
    apart = (corners @ (first.affine - second.affine).T)[:, :3]
    return bool(np.abs(apart).max() <= GRID_TOLERANCE * min(spacing_mm(first.affine)))
