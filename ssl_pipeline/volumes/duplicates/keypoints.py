"""Keypoints of a scan after 3D SIFT-Rank, by which near duplicates are recognised.

A few dozen positions per scan. As in Toews and Wells (2013, doi:10.1016/j.media.2012.11.002), with
which Chauvin et al. (2020, doi:10.1016/j.neuroimage.2019.116208) found scans that were twice in
public archives: extrema of a difference of Gaussians, each described by the ranks of gradients
about it, which no rising change of grey values alters much. Unlike there, the scale is in mm and
the axes are the body's, so a keypoint needs neither a scale nor a direction of its own, and a
mirrored copy permutes the description.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy
from numpy.typing import NDArray

from ssl_pipeline.io import atomic
from ssl_pipeline.io.parquet import read_table
from ssl_pipeline.volumes.geometry import spacing_mm
from ssl_pipeline.volumes.value_statistics import valid_mask
from ssl_pipeline.volumes.volume import Volume

KEYPOINTS_FILE = "keypoints.parquet"
STEPS_MM = (1.0, 2.0, 4.0, 8.0)  # finest grid: the first on which the scan has few enough voxels
MAX_GRID_VOXELS = 2.5e6
OCTAVES = 3  # grids, each twice as coarse as the one before
MAX_OCTAVE_KEYPOINTS = 64  # keypoints of an octave, the strongest
MIN_RELATIVE_CONTRAST = 0.01  # of the strongest's contrast
MIN_MEASURED_SHARE = 0.9  # share of what is about a keypoint that must have been measured
ROUNDING_CONTRAST = 1e-5  # of the largest value: contrast that may be no more than rounding
BLUR_STEPS = (0.8, 1.6)  # of the difference, in steps of the grid
DESCRIPTOR_RADIUS = 4  # of what is described, in steps
MIN_AXIS_VOXELS = 6  # voxels of a grid, along its shortest axis, of which more are needed
SLAB_SLICES = 16  # slices that are converted at a time
DESCRIPTOR_SIZE = 64  # of a description: 8 octants in space by 8 octants of gradient

KEYPOINT_DTYPE = np.dtype(
    [
        ("position", "<f4", (3,)),
        ("ranks", "u1", (DESCRIPTOR_SIZE,)),
        ("step", "u1"),
        ("bright", "?"),
    ]
)
SCHEMA = pa.schema({"id": pa.string(), "extent_mm": pa.list_(pa.float64()), "points": pa.binary()})

_AROUND = np.stack(
    np.meshgrid(*[np.arange(-DESCRIPTOR_RADIUS, DESCRIPTOR_RADIUS + 1)] * 3, indexing="ij")
).reshape(3, -1)


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Keypoints of one scan: an array of KEYPOINT_DTYPE, positions in mm.

    Positions count from the first voxel's corner. `step` is the grid's, mm; `bright` distinguishes
    a maximum from a minimum. Axes are R, A, S, and the scan reaches to `extent_mm` along them.
    """

    points: NDArray[Any]
    extent_mm: tuple[float, float, float]


def detect_keypoints(volume: Volume, missing_value: float | None) -> Keypoints:
    """The keypoints of a volume whose axes are in canonical order.

    Nothing is a keypoint where a tenth of what is about it is missing: the outline of what was
    measured is no anatomy. Work memory is that of the finest grid and a slab. Of a large scan only
    the coarser grids are searched: a piece that is smaller than about a hundredth of it has other
    grids, and is not recognised.
    """
    spacing = spacing_mm(volume.affine)
    x, y, z = (side * mm for side, mm in zip(volume.data.shape, spacing, strict=True))
    mm = _finest_step(x * y * z)
    valid = valid_mask(volume.data, missing_value)
    finite = volume.data if valid.all() else np.where(np.isfinite(volume.data), volume.data, 0)
    grid = _resample_to_grid(finite, spacing, mm)
    known = None if valid.all() else _resample_to_grid(valid, spacing, mm)
    found = []
    for octave in range(OCTAVES):
        if octave:
            grid = _coarsen(grid, mm, 2 * mm)
            known = None if known is None else _coarsen(known, mm, 2 * mm)
            mm *= 2
        if min(grid.shape) > MIN_AXIS_VOXELS:
            found.append(_octave_keypoints(grid, known, mm))
    return Keypoints(np.concatenate([np.empty(0, KEYPOINT_DTYPE), *found]), (x, y, z))


def write(path: Path, keypoints: Mapping[str, Keypoints]) -> None:
    """Write keypoints by the id of their scan."""
    rows = [
        {"id": name, "extent_mm": list(each.extent_mm), "points": each.points.tobytes()}
        for name, each in sorted(keypoints.items())
    ]
    with atomic.atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary, compression="zstd")


def read(path: Path) -> dict[str, Keypoints]:
    """Read keypoints; empty where there is no such file."""
    if not path.exists():
        return {}
    remedy = "remove it, and run the stage inventory again"
    table = read_table(path, remedy, SCHEMA.names).to_pydict()
    return {
        name: Keypoints(np.frombuffer(points, KEYPOINT_DTYPE), tuple(extent))
        for name, extent, points in zip(
            table["id"], table["extent_mm"], table["points"], strict=True
        )
    }


def _finest_step(volume_mm3: float) -> float:
    fit = (mm for mm in STEPS_MM if volume_mm3 / mm**3 <= MAX_GRID_VOXELS)
    return next(fit, STEPS_MM[-1])


def _resample_to_grid(
    data: NDArray[Any], spacing: tuple[float, float, float], mm: float
) -> NDArray[np.float32]:
    """The data on a cubic grid and smoothed to it; a few slices at a time."""
    slabs = []
    for first in range(0, data.shape[2], SLAB_SLICES):
        slab = data[:, :, first : first + SLAB_SLICES].astype(np.float32)
        slabs.append(_resample_axis(_resample_axis(slab, 0, spacing[0], mm), 1, spacing[1], mm))
    return _resample_axis(np.concatenate(slabs, axis=2), 2, spacing[2], mm)


def _coarsen(grid: NDArray[np.float32], old_mm: float, mm: float) -> NDArray[np.float32]:
    for axis in range(3):
        grid = _resample_axis(grid, axis, old_mm, mm)
    return grid


def _resample_axis(
    data: NDArray[np.float32], axis: int, spacing: float, mm: float
) -> NDArray[np.float32]:
    """One axis resampled to steps of `mm` by Gaussian weights that suit the coarser of the two."""
    old = data.shape[axis]
    new = max(1, int(old * spacing / mm))
    at, of = (np.arange(new) + 0.5) * mm, (np.arange(old) + 0.5) * spacing
    width = max(BLUR_STEPS[0] * mm, spacing / 3)
    weights = np.exp(-0.5 * ((at[:, None] - of) / width) ** 2)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    moved = np.tensordot(weights, data, (1, axis))
    return np.ascontiguousarray(np.moveaxis(moved, 0, axis))


def _octave_keypoints(
    grid: NDArray[np.float32], measured: NDArray[np.float32] | None, mm: float
) -> NDArray[Any]:
    smooth, smoother = (
        scipy.ndimage.gaussian_filter(grid, blur, mode="nearest") for blur in BLUR_STEPS
    )
    contrast = smooth - smoother
    peak = (scipy.ndimage.maximum_filter(contrast, 3) == contrast) & (contrast > 0)
    pit = (scipy.ndimage.minimum_filter(contrast, 3) == contrast) & (contrast < 0)
    found = peak | pit
    if measured is not None:
        found &= (
            scipy.ndimage.gaussian_filter(measured, BLUR_STEPS[1], mode="nearest")
            > MIN_MEASURED_SHARE
        )
    rim = 2  # at the edge of the field of view everything looks the same
    inside = (slice(rim, -rim),) * 3
    at = np.argwhere(found[inside]) + rim
    strength = np.abs(contrast[tuple(at.T)])
    best = np.argsort(-strength, kind="stable")[:MAX_OCTAVE_KEYPOINTS]
    floor = max(
        MIN_RELATIVE_CONTRAST * strength.max(initial=0),
        ROUNDING_CONTRAST * float(np.abs(grid).max()),
    )
    at = at[best[strength[best] > floor]]
    points = np.empty(len(at), KEYPOINT_DTYPE)
    points["position"] = (at + 0.5 + _subvoxel_offsets(contrast, at)) * mm
    points["ranks"] = _descriptors(smooth, at)
    points["step"] = mm
    points["bright"] = contrast[tuple(at.T)] > 0
    return points


def _subvoxel_offsets(contrast: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.float32]:
    """How far from its voxel each extremum lies (n, 3), by a parabola along each axis."""
    offsets = []
    for axis in range(3):
        one = np.eye(3, dtype=np.int64)[axis]
        before, here, after = (contrast[tuple((at + way * one).T)] for way in (-1, 0, 1))
        bend = before - 2 * here + after
        shift = np.divide(0.5 * (before - after), bend, out=np.zeros_like(bend), where=bend != 0)
        offsets.append(np.clip(shift, -0.5, 0.5))
    return np.stack(offsets, axis=1)


def _descriptors(smooth: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Ranks (n, DESCRIPTOR_SIZE) of the gradient's size, by octant in space and of direction."""
    padded = np.pad(smooth, DESCRIPTOR_RADIUS + 1, mode="edge")
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    around = ((at + DESCRIPTOR_RADIUS + 1) @ strides)[:, None] + strides @ _AROUND
    values = padded.ravel()
    slopes = [values[around + stride] - values[around - stride] for stride in strides]
    size = np.sqrt(sum(slope**2 for slope in slopes))
    octant = sum((slope > 0) * bit for slope, bit in zip(slopes, (4, 2, 1), strict=True))
    sums = np.stack([(size * (octant == each)) @ _OCTANT_WEIGHTS for each in range(8)], axis=-1)
    ranks = (
        sums.reshape(len(at), DESCRIPTOR_SIZE).argsort(1, kind="stable").argsort(1, kind="stable")
    )
    return ranks.astype(np.uint8)


def _octant_weights() -> NDArray[np.float32]:
    """Weight of each place around a keypoint in each octant (places, 8); a half on its borders."""
    weights = np.exp(-0.5 * (_AROUND**2).sum(0) / (0.6 * DESCRIPTOR_RADIUS) ** 2)
    share = np.ones((8, _AROUND.shape[1]))
    for octant in range(8):
        for axis, bit in enumerate((4, 2, 1)):
            side = _AROUND[axis] > 0 if octant & bit else _AROUND[axis] < 0
            share[octant] *= np.where(_AROUND[axis] == 0, 0.5, side)
    return np.asarray((share * weights).T, np.float32)


_OCTANT_WEIGHTS = _octant_weights()
