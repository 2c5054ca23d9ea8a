"""Batches of crops of stored volumes as model input."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.data.labelled_crops import CropBox, LabelledCrop
from ssl_pipeline.preprocess.prepare import VALID, PreparedVolume, VolumeMeta, model_input
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.types import Triple

VoxelType = TypeVar("VoxelType", bound=np.generic)


@dataclass(frozen=True)
class CropBatch:
    """A batch of crops."""

    images: NDArray[np.float32]  # (batch, z, y, x), model input
    valid: NDArray[np.float32]  # (batch, z, y, x), share of a voxel that was stored, 0 to 1
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
    blocks = [(reader.read_crop(entry.id, start, size), entry.meta) for entry, start in locations]
    return _crop_batch(blocks, size)


def read_labelled_crops(
    volumes: StoredVolumes, crops: Sequence[LabelledCrop], size: Triple
) -> CropBatch:
    """Read labelled crops as crops of `size` voxels; those that span more are shrunk to it."""
    entries = [volumes.entries[crop.scan] for crop in crops]
    return _crop_batch(
        [
            (volumes.reader.read_crop(entry.id, crop.start, crop.extent), entry.meta)
            for entry, crop in zip(entries, crops, strict=True)
        ],
        size,
    )


def crops_of_volume(prepared: PreparedVolume, boxes: Sequence[CropBox], size: Triple) -> CropBatch:
    """Boxes of a volume that is not stored as crops of `size` voxels."""
    return _crop_batch(
        [(padded_window(prepared.data, *box, 0), prepared.meta) for box in boxes], size
    )


def _crop_batch(blocks: Sequence[tuple[NDArray[np.int16], VolumeMeta]], size: Triple) -> CropBatch:
    """Blocks (2, z, y, x) of volumes with this metadata as crops of `size` voxels."""
    images, valid, spacing = [], [], []
    for block, meta in blocks:
        images.append(_shrink(model_input(block, meta), size))
        valid.append(_shrink((block[1] & VALID > 0).astype(np.float32), size))
        sides = zip(meta.spacing_mm, block.shape[1:], size, strict=True)
        spacing.append([mm * old / new for mm, old, new in sides])
    return CropBatch(np.stack(images), np.stack(valid), np.array(spacing, np.float32))


def _shrink(voxels: NDArray[np.float32], size: Triple) -> NDArray[np.float32]:
    """The means of the boxes (z, y, x) that voxels of a coarser grid of the same extent cover."""
    for axis, (old, new) in enumerate(zip(voxels.shape, size, strict=True)):
        if old != new:
            voxels = np.moveaxis(np.moveaxis(voxels, axis, -1) @ _mean_weights(old, new), -1, axis)
    return voxels


@lru_cache(maxsize=64)
def _mean_weights(old: int, new: int) -> NDArray[np.float32]:
    """Matrix (old, new): the share of each voxel of an axis in each of `new` larger ones."""
    edges = np.linspace(0, old, new + 1)
    starts = np.arange(old)[:, None]
    covered = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)
    weights: NDArray[np.float32] = (covered.clip(min=0) * new / old).astype(np.float32)
    return weights


def load_crop_batches(
    volumes: StoredVolumes, crops: Sequence[LabelledCrop], size: Triple, batch_size: int
) -> Iterator[CropBatch]:
    """Read labelled crops in their order, `batch_size` at a time."""
    for first in range(0, len(crops), batch_size):
        yield read_labelled_crops(volumes, crops[first : first + batch_size], size)


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
