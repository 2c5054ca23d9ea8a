"""Cost of preprocessing: voxels, memory and time of a scan, from its header alone."""

import math
from dataclasses import dataclass

from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.resample import axis_orders, resampled_shape
from ssl_pipeline.types import Shape, Spacing

# share of the field of view that the box around the body keeps, where it is searched for
FOREGROUND_SHARE = 0.9
BASE_BYTES = 260e6  # a worker that has imported all it needs
READ_VOXEL_BYTES = 8  # a voxel as read: at most 4 bytes of it, int16, masks
STORED_VOXEL_BYTES = 8  # a stored voxel: int16, masks, and both once more as written
SECONDS_PER_SCAN, SECONDS_PER_VOXEL = 0.15, 0.15e-6  # of one core; of voxels as read


@dataclass(frozen=True)
class VoxelCounts:
    """Voxels of a scan before, during and after preprocessing."""

    source_voxels: int
    intermediate_voxels: int  # after two of three axes are resampled
    stored_voxels: float
    distinct_voxels: float  # of the stored ones, without those that repeat a thick slice


def voxel_counts(
    shape: Shape, spacing_mm: Spacing, orientation: str, modality: str, section: Preprocess
) -> VoxelCounts:
    """Voxel counts from the grid of a scan's file: shape, spacing, and axis codes such as "LPS"."""
    target = section.modality_settings(modality).spacing_mm
    order = [next(i for i, ends in enumerate(("IS", "PA", "LR")) if a in ends) for a in orientation]
    wanted = (target[order[0]], target[order[1]], target[order[2]]) if target else None
    new = resampled_shape(shape, spacing_mm, wanted)
    repeats = [
        max(1.0, after / before) if kind == 0 else 1.0
        for kind, before, after in zip(
            axis_orders(spacing_mm, section.interpolation_order, section.thick_slice_ratio),
            shape,
            new,
            strict=True,
        )
    ]
    kept = math.prod(new) * (FOREGROUND_SHARE if section.foreground == "auto" else 1.0)
    slices = order.index(0)
    between = math.prod(new) // new[slices] * max(shape[slices], new[slices])
    return VoxelCounts(math.prod(shape), between, kept, kept / math.prod(repeats))


def worker_bytes(counts: VoxelCounts) -> float:
    """Peak resident memory of a worker that preprocesses such a scan."""
    resampling = (
        4 * counts.intermediate_voxels + 32e6 if counts.stored_voxels != counts.source_voxels else 0
    )
    return (
        BASE_BYTES
        + READ_VOXEL_BYTES * counts.source_voxels
        + max(resampling, STORED_VOXEL_BYTES * counts.stored_voxels)
    )


def preprocess_seconds(counts: VoxelCounts) -> float:
    """Seconds of one core for such a scan."""
    return SECONDS_PER_SCAN + SECONDS_PER_VOXEL * counts.source_voxels
