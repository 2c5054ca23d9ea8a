"""Labelled crops: a position in a scan with its class or number."""

from dataclasses import dataclass

from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.types import Triple


@dataclass(frozen=True)
class LabelledCrop:
    """Start and target of a labelled crop; its size is that of its task's crops."""

    scan: str  # id in the catalog
    subject: str
    split: str
    start: Triple  # (z, y, x), voxels of the stored grid; may lie outside the volume
    target: int | float  # index into the task's classes, or the number where it has none


def centre_crop(entry: Entry, size: Triple, target: int | float) -> LabelledCrop:
    """The crop at the centre of a scan's volume."""
    z, y, x = ((whole - side) // 2 for whole, side in zip(entry.shape, size, strict=True))
    return LabelledCrop(entry.id, entry.subject, entry.split, (z, y, x), target)
