"""Labelled crops: a box of a scan with its class or number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.types import Shape, Triple, triple


class CropBox(NamedTuple):
    """The voxels (z, y, x) of a stored volume that a crop shows; it may reach out of the volume."""

    start: Triple
    extent: Triple  # more than the crop's size where it is shrunk


@dataclass(frozen=True)
class Pose:
    """Rotation and zoom of a crop about its middle."""

    zoom: float
    matrix: tuple[tuple[float, ...], ...]  # 3 x 3 (z, y, x): offsets in mm to those in the volume

    def voxel_matrix(self, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
        """The same (3, 3) for offsets in voxels of this size."""
        spacing = np.asarray(spacing_mm, float)
        found: NDArray[np.float64] = np.array(self.matrix) * spacing / spacing[:, None]
        return found

    def margin(self, size: Triple, spacing_mm: Sequence[float]) -> Triple:
        """Voxels around a box of `size` that the crop reaches into."""
        half = np.array(size) / 2
        reach = np.abs(self.voxel_matrix(spacing_mm)) @ half
        return triple(math.ceil(side) for side in np.maximum(reach - half, 0))


@dataclass(frozen=True)
class LabelledCrop:
    """Box and target of a labelled crop; it is read as a crop of the size of its task's."""

    scan: str  # id in the catalog
    subject: str
    split: str
    start: Triple  # (z, y, x), voxels of the stored grid; may lie outside the volume
    extent: Triple  # (z, y, x), stored voxels that it spans: more than its size where it is shrunk
    target: int | float  # index into the task's classes, or the number where it has none
    pose: Pose | None = None  # in which it is read; None is that of the volume


def labelled_crop(entry: Entry, box: CropBox, target: int | float) -> LabelledCrop:
    """A box of a scan with its target."""
    return LabelledCrop(entry.id, entry.subject, entry.split, *box, target)


def box_about(centre: NDArray[Any] | tuple[float, float, float], size: Triple) -> CropBox:
    """The box whose middle is nearest to a voxel position (z, y, x)."""
    start = triple(math.ceil(at - side / 2) for at, side in zip(centre, size, strict=True))
    return CropBox(start, size)


def middle_box(shape: Shape, size: Triple) -> CropBox:
    """The box in the middle of a volume (z, y, x)."""
    start = triple((whole - side) // 2 for whole, side in zip(shape, size, strict=True))
    return CropBox(start, size)


def whole_box(shape: Shape, size: Triple) -> CropBox:
    """The box of a whole volume (z, y, x) in its middle, to be shrunk to `size` by the same factor
    along all axes; a volume that fits is not enlarged.
    """
    shrink = max(1.0, *(whole / side for whole, side in zip(shape, size, strict=True)))
    return middle_box(shape, triple(math.ceil(side * shrink - 1e-6) for side in size))
