"""A drawn label carried over to the place where it was found: a first proposal to correct.

It is shifted as it is. On a parotid of one validation CT of the neck that gave a Dice of .59, and
voxels that vote by the similarity of their features gave .63, which is no reason for a method more.
"""

import gzip
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.preprocess.labels import label_on_source_grid
from ssl_pipeline.preprocess.prepare import VolumeMeta
from ssl_pipeline.types import Spacing
from ssl_pipeline.volumes.label_matching import IGNORE_LABEL
from ssl_pipeline.volumes.readers import ReadError, Source, read_volume
from ssl_pipeline.volumes.volume import Volume


@dataclass(frozen=True)
class SourceLabel:
    """A label map that was drawn on the clicked scan."""

    volume: Volume

    @property
    def centre(self) -> NDArray[np.float64]:
        """The centre of mass of what is drawn, (R, A, S) in mm."""
        voxel = np.mean(np.nonzero(self.volume.data > 0), axis=1)
        centre: NDArray[np.float64] = nib.affines.apply_affine(self.volume.affine, voxel)
        return centre

    def carried(self, start: NDArray[np.float64], end: Spacing, meta: VolumeMeta) -> bytes:
        """A packed NIfTI of the label in another scan's own grid, shifted from `start` to `end`.

        Both are (R, A, S) in mm. Raises UserError for values that are no classes.
        """
        moved = self.volume.affine.copy()
        moved[:3, 3] += np.array(end) - start
        classes = label_on_source_grid(replace(self.volume, affine=moved), meta)
        proposal = np.where(classes == IGNORE_LABEL, 0, classes).astype(np.int16)
        image = nib.Nifti1Image(proposal, np.array(meta.source_affine))
        return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def read_label(path: Path) -> SourceLabel:
    """A label map of a file. Raises UserError where it cannot be read, or shows nothing."""
    try:
        drawn = SourceLabel(read_volume(Source(path)))
    except ReadError as error:
        raise UserError(f"{path} {error.reason}") from None
    if not (drawn.volume.data > 0).any():
        raise UserError(f"--label {path} is empty: draw the structure, or give --at alone.")
    return drawn
