"""Batches of crops of stored volumes as model input."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from ssl_pipeline.evaluation.data.labelled_crops import CropBox, LabelledCrop, Pose
from ssl_pipeline.preprocess.prepare import VALID, PreparedVolume, VolumeMeta, model_input
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.types import Triple, triple

VoxelType = TypeVar("VoxelType", bound=np.generic)


@dataclass(frozen=True)
class CropBatch:
    """A batch of crops."""

    images: NDArray[np.float32]  # (batch, z, y, x), model input
    valid: NDArray[np.float32]  # (batch, z, y, x), share of a voxel that was stored, 0 to 1
    spacing_mm: NDArray[np.float32]  # (batch, 3), (z, y, x)


class CropInput(NamedTuple):
    """One crop of it."""

    image: NDArray[np.float32]
    valid: NDArray[np.float32]
    spacing_mm: NDArray[np.float32]


@dataclass(frozen=True)
class StoredVolumes:
    """Stored volumes with their entries: the study's own, or the same corrupted."""

    reader: CropReader
    entries: Mapping[str, Entry]  # by scan id


def read_crops(
    reader: CropReader, locations: Sequence[tuple[Entry, Triple]], size: Triple
) -> CropBatch:
    """Read crops of `size` voxels at (scan, start); outside of a volume nothing is valid."""
    blocks = ((reader.read_crop(entry.id, start, size), entry.meta) for entry, start in locations)
    return _stack([_crop_input(block, meta, size) for block, meta in blocks])


def read_labelled_crops(
    volumes: StoredVolumes, crops: Sequence[LabelledCrop], size: Triple
) -> CropBatch:
    """Read labelled crops as crops of `size` voxels; those that span more are shrunk to it."""
    return _stack([_labelled_input(volumes, crop, size) for crop in crops])


def _labelled_input(volumes: StoredVolumes, crop: LabelledCrop, size: Triple) -> CropInput:
    entry = volumes.entries[crop.scan]
    if crop.pose is None:
        block = volumes.reader.read_crop(entry.id, crop.start, crop.extent)
        return _crop_input(block, entry.meta, size)
    margin = crop.pose.margin(size, entry.meta.spacing_mm)
    start = triple(at - more for at, more in zip(crop.start, margin, strict=True))
    extent = triple(side + 2 * more for side, more in zip(size, margin, strict=True))
    block = volumes.reader.read_crop(entry.id, start, extent)
    return _posed(_crop_input(block, entry.meta, extent), crop.pose, size)


def crops_of_volume(prepared: PreparedVolume, boxes: Sequence[CropBox], size: Triple) -> CropBatch:
    """Boxes of a volume that is not stored as crops of `size` voxels."""
    blocks = (padded_window(prepared.data, *box, 0) for box in boxes)
    return _stack([_crop_input(block, prepared.meta, size) for block in blocks])


def _stack(crops: Sequence[CropInput]) -> CropBatch:
    return CropBatch(*(np.stack(each) for each in zip(*crops, strict=True)))


def _crop_input(block: NDArray[np.int16], meta: VolumeMeta, size: Triple) -> CropInput:
    """A block (2, z, y, x) of a volume with this metadata as a crop of `size` voxels."""
    sides = zip(meta.spacing_mm, block.shape[1:], size, strict=True)
    return CropInput(
        _shrink(model_input(block, meta), size),
        _shrink((block[1] & VALID > 0).astype(np.float32), size),
        np.array([mm * old / new for mm, old, new in sides], np.float32),
    )


def _posed(block: CropInput, pose: Pose, size: Triple) -> CropInput:
    """The middle of a block in a pose: linear for intensities, nearest for valid voxels."""
    matrix = pose.voxel_matrix(block.spacing_mm.tolist())
    there, here = ((np.array(sides) - 1) / 2 for sides in (block.image.shape, size))
    resample = partial(affine_transform, matrix=matrix, offset=there - matrix @ here)
    return CropInput(
        resample(block.image, output_shape=size, order=1, mode="nearest"),
        resample(block.valid, output_shape=size, order=0, mode="constant"),
        block.spacing_mm * np.float32(pose.zoom),
    )


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
