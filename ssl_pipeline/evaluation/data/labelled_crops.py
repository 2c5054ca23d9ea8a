"""Labelled crops: a box of a scan with its class or number."""

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.types import Triple, triple


@dataclass(frozen=True)
class LabelledCrop:
    """Box and target of a labelled crop; it is read as a crop of the size of its task's."""

    scan: str  # id in the catalog
    subject: str
    split: str
    start: Triple  # (z, y, x), voxels of the stored grid; may lie outside the volume
    extent: Triple  # (z, y, x), stored voxels that it spans: more than its size where it is shrunk
    target: int | float  # index into the task's classes, or the number where it has none


def crop_about(
    entry: Entry,
    centre: NDArray[Any] | tuple[float, float, float],
    size: Triple,
    target: int | float,
) -> LabelledCrop:
    """The crop whose middle is nearest to a voxel position (z, y, x) of a scan's volume."""
    start = triple(math.ceil(at - side / 2) for at, side in zip(centre, size, strict=True))
    return LabelledCrop(entry.id, entry.subject, entry.split, start, size, target)


def centre_crop(entry: Entry, size: Triple, target: int | float) -> LabelledCrop:
    """The crop in the middle of a scan's volume."""
    start = triple((whole - side) // 2 for whole, side in zip(entry.shape, size, strict=True))
    return LabelledCrop(entry.id, entry.subject, entry.split, start, size, target)


def whole_crop(entry: Entry, size: Triple, target: int | float) -> LabelledCrop:
    """The crop that shows a scan's whole volume in its middle, shrunk by the same factor along
    all axes until it fits; a volume that fits is not enlarged.
    """
    shrink = max(1.0, *(whole / side for whole, side in zip(entry.shape, size, strict=True)))
    extent = triple(math.ceil(side * shrink - 1e-6) for side in size)
    start = triple((whole - side) // 2 for whole, side in zip(entry.shape, extent, strict=True))
    return LabelledCrop(entry.id, entry.subject, entry.split, start, extent, target)
