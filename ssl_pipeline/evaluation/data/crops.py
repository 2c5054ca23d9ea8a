"""Batches of crops of stored volumes as model input."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.data.labelled_crops import LabelledCrop
from ssl_pipeline.preprocess.prepare import VALID, model_input
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.types import Triple

VoxelType = TypeVar("VoxelType", bound=np.generic)


@dataclass(frozen=True)
class CropBatch:
    """A batch of crops."""

    images: NDArray[np.float32]  # (batch, z, y, x), model input
    valid: NDArray[np.float32]  # (batch, z, y, x), 1 where a voxel was stored
    spacing_mm: NDArray[np.float32]  # (batch, 3), (z, y, x)


@dataclass(frozen=True)
class StoredVolumes:
    """Stored volumes with their entries: the study's own, or the same corrupted."""

    reader: CropReader
    entries: Mapping[str, Entry]  # by scan id


def read_crops(
    reader: CropReader, locations: Sequence[tuple[Entry, Triple]], size: Triple
) -> CropBatch:
    """Read crops of `size` voxels at (scan, start); outside of a volume nothing is valid."""
    images, valid = [], []
    for entry, start in locations:
        block = reader.read_crop(entry.id, start, size)
        images.append(model_input(block, entry.meta))
        valid.append((block[1] & VALID > 0).astype(np.float32))
    spacing = [entry.meta.spacing_mm[::-1] for entry, _ in locations]
    return CropBatch(np.stack(images), np.stack(valid), np.array(spacing, np.float32))


def load_crop_batches(
    volumes: StoredVolumes, crops: Sequence[LabelledCrop], size: Triple, batch_size: int
) -> Iterator[CropBatch]:
    """Read labelled crops in their order, `batch_size` at a time."""
    for first in range(0, len(crops), batch_size):
        chosen = crops[first : first + batch_size]
        places = [(volumes.entries[crop.scan], crop.start) for crop in chosen]
        yield read_crops(volumes.reader, places, size)


def padded_window(
    volume: NDArray[VoxelType], start: Triple, size: Triple, fill_value: int
) -> NDArray[VoxelType]:
    """A box of a volume (..., z, y, x), with `fill_value` where it reaches out."""
    whole = volume.shape[-3:]
    out = np.full((*volume.shape[:-3], *size), fill_value, volume.dtype)
    low = [max(0, at) for at in start]
    high = [min(at + side, most) for at, side, most in zip(start, size, whole, strict=True)]
    if all(a < b for a, b in zip(low, high, strict=True)):
        (z, y, x), (dz, dy, dx) = (
            [slice(a - s, b - s) for a, b, s in zip(low, high, at, strict=True)]
            for at in ((0, 0, 0), start)
        )
        out[..., dz, dy, dx] = volume[..., z, y, x]
    return out
