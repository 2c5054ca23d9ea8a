"""Baseline of correspondence: the same relative place in the box about the body."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.correspondence.describer import Places
from ssl_pipeline.evaluation.correspondence.search import ClickedScan, mean_over_scans
from ssl_pipeline.preprocess.foreground import bounding_box
from ssl_pipeline.preprocess.prepare import FOREGROUND, PreparedVolume


def relative_places(clicked: Sequence[ClickedScan]) -> Places:
    """Mean places (landmarks, 3) of the clicks in the boxes about the bodies, 0 to 1.

    nan where a landmark was not clicked.
    """
    return mean_over_scans([_relative(each) for each in clicked])


def places_in_box(relative: Places, scan: PreparedVolume) -> Places:
    """Relative places as voxels (z, y, x) of a scan."""
    low, size = _box(scan)
    return low + relative * size


def _relative(clicked: ClickedScan) -> Places:
    low, size = _box(clicked.scan)
    return (clicked.places - low) / size


def _box(scan: PreparedVolume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First voxel and extent of the box about the body."""
    box = bounding_box(scan.data[1] & FOREGROUND > 0, (0, 0, 0))
    low = np.array([side.start for side in box], np.float64)
    return low, np.array([side.stop - side.start for side in box]) - 1.0
