"""Slabs of a volume: work arrays stay small however large the volume is."""

from collections.abc import Iterator

SLAB_VOXELS = 1 << 22  # 16 MiB of float32: larger is no faster, smaller costs calls


def slabs(length: int, voxels_per_item: int) -> Iterator[slice]:
    """Slices of about SLAB_VOXELS voxels that cover `length` items of `voxels_per_item`."""
    step = max(1, SLAB_VOXELS // max(1, voxels_per_item))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
