"""Volume and VoxelGrid: one 3D image in memory, and the grid that its voxels lie on.

Every reader returns the same types, in NIfTI's convention, because it is the only one in which axis
order, direction and position are one matrix; formats with other conventions are converted once, in
their reader.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

NIFTI_INTENT = "INTENT "  # before what NIfTI's intent_code says, in place of an image type


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """Where voxels lie: `shape` in voxels, and a (4, 4) `affine` from voxel index to RAS+ mm."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class SliceSpacing:
    """How evenly the slices of a series lie: all in mm."""

    min_gap_mm: float
    median_gap_mm: float
    max_gap_mm: float
    max_offset_mm: float  # the largest distance of a slice from where an even stack would have it
    changes_mm: tuple[float, ...] = ()  # gaps of its parts, where it is made of several even stacks


@dataclass(frozen=True, eq=False)
class Volume:
    """One 3D image.

    `data` is (x, y, z) in the voxel order of `affine`, with the file's rescale slope applied;
    integers stay integers where that loses nothing (int8 to int32, uint8, uint16), all else is
    float32. The array may be read-only. `affine` is (4, 4), voxel index to RAS+ mm. `modality`,
    `image_type` (such as DERIVED, PRIMARY, MPR; INTENT LABEL of NIfTI) and `slice_spacing` come
    from the file's header; `repair` describes what the reader had to do, `note` what it had to
    assume. Voxels of value `missing_value` were not measured.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]
    modality: str | None = None
    image_type: tuple[str, ...] = ()
    slice_spacing: SliceSpacing | None = None
    repair: str = ""
    note: str = ""
    missing_value: float | None = None

    @property
    def grid(self) -> VoxelGrid:
        """The grid of the voxels."""
        x, y, z = self.data.shape
        return VoxelGrid((x, y, z), self.affine)

    def with_missing_value(self, value: float | None) -> "Volume":
        """The volume in which also voxels of `value` count as not measured; None changes nothing.

        A volume has one missing value: where its file names one too, voxels of `value` get that.
        """
        if value is None or value == self.missing_value:
            return self
        if self.missing_value is None:
            return replace(self, missing_value=value)
        data = self.data.copy()
        data[data == value] = self.missing_value
        return replace(self, data=data)
