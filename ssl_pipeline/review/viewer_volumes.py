"""Volumes of a scan for the viewer: NIfTI that says nothing of the patient, bounded in size.

Axes are canonical and straight, and the grid begins at zero, so no position of a scanner is sent.
A large volume is sent thinned to every k-th voxel: coarse first, so that it is drawn at once, and
in full on demand, which is bounded by what a browser can hold as a texture. Slices
(`ssl_pipeline/review/pictures.py`) show every voxel.
"""

import math
from types import MappingProxyType

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.review.pictures import AUTO, ReviewVolume

# A texture takes 4 bytes a voxel. In software WebGL 2 million are drawn in a tenth of a second.
MAX_VOXELS = MappingProxyType({"coarse": 2**21, "full": 2**26})
CLIP_WIDTHS = 3  # values are sent to so many widths of the window "auto" beyond it
INT16 = np.iinfo(np.int16)
DATA_OFFSET = 352  # bytes before the voxels: header, and an empty list of extensions


def thinning(volume: ReviewVolume, detail: str) -> tuple[int, int, int]:
    """Every how manyth voxel (x, y, z) is sent, the finest axis thinned first.

    Raises KeyError for a detail other than "coarse" and "full".
    """
    limit, shape = MAX_VOXELS[detail], volume.data.shape
    steps = [1, 1, 1]
    while math.prod(-(-n // step) for n, step in zip(shape, steps, strict=True)) > limit:
        long = [axis for axis in range(3) if steps[axis] < shape[axis]]
        steps[min(long, key=lambda axis: steps[axis] * volume.spacing_mm[axis])] += 1
    return steps[0], steps[1], steps[2]


def scan_nifti(volume: ReviewVolume, detail: str) -> bytes:
    """The scan as NIfTI of int16. Raises KeyError as `thinning` does."""
    steps = thinning(volume, detail)
    values = volume.data[tuple(slice(None, None, step) for step in steps)]
    low, high = volume.windows[AUTO]
    if np.can_cast(values.dtype, np.int16):
        return _nifti(values.astype(np.int16), volume, steps)
    margin = CLIP_WIDTHS * max(high - low, 1e-6)
    bottom, top = low - margin, high + margin
    scale = (top - bottom) / (INT16.max - INT16.min)
    clipped = np.clip(np.nan_to_num(values, nan=bottom, posinf=top, neginf=bottom), bottom, top)
    stored = np.rint((clipped - bottom) / scale + INT16.min).astype(np.int16)
    return _nifti(stored, volume, steps, scale, bottom - INT16.min * scale)


def overlay_nifti(volume: ReviewVolume, overlay: str, detail: str) -> bytes:
    """An overlay as NIfTI of uint8. Raises KeyError for one that is not there, or as `thinning`."""
    steps = thinning(volume, detail)
    classes = volume.overlays[overlay]()
    return _nifti(classes[tuple(slice(None, None, step) for step in steps)], volume, steps)


def _nifti(
    data: NDArray[np.int16] | NDArray[np.uint8],
    volume: ReviewVolume,
    steps: tuple[int, int, int],
    scale: float = 1.0,
    offset: float = 0.0,
) -> bytes:
    """A NIfTI-1 file of (x, y, z); a value is stored * scale + offset."""
    header = nib.Nifti1Header()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    spacing = [step * mm for step, mm in zip(steps, volume.spacing_mm, strict=True)]
    header.set_sform(np.diag([*spacing, 1.0]), code="scanner")
    header.set_zooms(spacing)
    header.set_xyzt_units("mm")
    header.set_slope_inter(scale, offset)
    header["vox_offset"] = DATA_OFFSET
    return bytes(header.binaryblock.ljust(DATA_OFFSET, b"\0")) + data.tobytes(order="F")
