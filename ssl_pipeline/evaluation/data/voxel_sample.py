"""A random sample of a scan's voxels, about what its label shows: probabilities beside the truth.

Voxels are drawn alike from the box of all labelled voxels, widened on every side: background and
each class have the share that they have there, in which calibration errors are to be understood.
Far from every structure background is certain, and would hide errors where they matter.
"""

import math
from collections.abc import Iterable

import numpy as np
import scipy
from numpy.typing import NDArray

from ssl_pipeline.evaluation.data.label_maps import IGNORE_LABEL
from ssl_pipeline.evaluation.data.source_grid import Slab, interpolated_blocks
from ssl_pipeline.preprocess.prepare import VolumeMeta
from ssl_pipeline.types import Spacing

MAX_VOXELS = 10_000  # of a scan
SURROUNDINGS_MM = 10.0  # by which the box of the labelled voxels is widened


def draw_voxels(
    class_indices: NDArray[np.uint8], spacing_mm: Spacing, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which voxels of a scan's classes (x, y, z) are drawn, none of them ignored.

    Of a scan without any class, all voxels have their chance.
    """
    labelled = (class_indices > 0) & (class_indices != IGNORE_LABEL)
    whole = tuple(slice(0, size) for size in class_indices.shape)
    around = next(iter(scipy.ndimage.find_objects(labelled.view(np.int8))), whole)
    margins = [math.ceil(SURROUNDINGS_MM / side) for side in spacing_mm]
    box = tuple(
        slice(max(0, part.start - margin), part.stop + margin)
        for part, margin in zip(around, margins, strict=True)
    )
    there = class_indices[box]
    drawn = np.zeros(there.shape, np.bool_)
    drawn.flat[rng.choice(there.size, min(MAX_VOXELS, there.size), replace=False)] = True
    chosen = np.zeros(class_indices.shape, np.bool_)
    chosen[box] = drawn & (there != IGNORE_LABEL)
    return chosen


def sampled_probabilities(
    probabilities: Iterable[Slab],
    meta: VolumeMeta,
    class_indices: NDArray[np.uint8],
    chosen: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (n, classes) of chosen voxels of the scan's own grid (x, y, z), and the truth.

    `probabilities` are of the stored volume, background first. Voxels outside of it are left out,
    for no network sees them.
    """
    rows, targets = [], []
    for block in interpolated_blocks(probabilities, meta):
        wanted = chosen[block.box][block.inside]
        rows.append(block.values[:, wanted].T.astype(np.float64))
        targets.append(class_indices[block.box][block.inside][wanted].astype(np.int64))
    return np.concatenate(rows), np.concatenate(targets)
