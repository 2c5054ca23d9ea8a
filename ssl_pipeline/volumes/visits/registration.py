"""Rigid registration of two scans of one frame, by mutual information at low resolution.

Mattes' mutual information (Mattes et al. 2003, doi:10.1109/TMI.2003.809072) fits any two sequences.
Each pair is registered both ways: two results that do not undo each other are a failure, which the
metric alone does not show. Voxels are averaged to about COARSE_MM first; the result is one matrix,
and nothing is resampled.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from ssl_pipeline.types import Affine
from ssl_pipeline.volumes import geometry
from ssl_pipeline.volumes.value_statistics import sample_values, valid_mask
from ssl_pipeline.volumes.volume import Volume

COARSE_MM = 3.0  # side of the voxels that are compared, or the scan's own where it is longer
PERCENTILES = (1.0, 99.0)  # of the values that are compared; a few bright vessels are none
HISTOGRAM_BINS = 32
PYRAMID = (3, 1)  # factors by which the coarse voxels are shrunk, one level after the other
LEARNING_RATE_MM, MIN_STEP_MM, MAX_ITERATIONS = 2.0, 0.005, 200
DECIMALS = 6  # of a matrix; the last digits differ from run to run, with where memory lies


@dataclass(frozen=True)
class CoarseScan:
    """A scan at low resolution: the image in RAS+ mm, and the corners of its field of view."""

    image: SimpleITK.Image
    corners: NDArray[np.float64]  # (8, 3) RAS+ mm


@dataclass(frozen=True)
class Registration:
    """The rigid motion of a scan against a reference, and how good its estimate is."""

    matrix: Affine  # from RAS+ mm of the scan to RAS+ mm of the reference
    motion_mm: float  # root mean square of how far it moves the corners of the reference
    consistency_mm: float  # the same of registering there and back: 0 is perfect


def coarse_scan(volume: Volume) -> CoarseScan:
    """The scan at low resolution. Voxels that were not measured get the lowest value."""
    valid = valid_mask(volume.data, volume.missing_value)
    low, high = np.percentile(sample_values(volume.data[valid]), PERCENTILES)
    values = np.where(valid, np.clip(volume.data, low, high), low).astype(np.float32)
    sides = geometry.spacing_mm(volume.affine)
    factors = [
        min(max(1, round(COARSE_MM / side)), length)
        for side, length in zip(sides, values.shape, strict=True)
    ]
    coarse = _block_mean(values, factors)
    affine = volume.affine @ np.diag([*factors, 1.0])
    affine[:3, 3] += volume.affine[:3, :3] @ (np.array(factors) - 1) / 2
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(coarse.T))
    spacing = np.array(geometry.spacing_mm(affine))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    ends = product(*((0, length - 1) for length in volume.data.shape))
    corners = np.array([(volume.affine @ [*end, 1])[:3] for end in ends])
    return CoarseScan(image, corners)


def register(reference: CoarseScan, scan: CoarseScan) -> Registration | None:
    """The motion of a scan against the reference; None where they share too little to tell."""
    there, back = _estimate(reference, scan), _estimate(scan, reference)
    if there is None or back is None:
        return None
    return Registration(
        matrix=back,
        motion_mm=displacement_mm(back, reference.corners),
        consistency_mm=displacement_mm(back @ there, reference.corners),
    )


def displacement_mm(matrix: Affine, points: NDArray[np.float64]) -> float:
    """Root mean square of how far a matrix moves points (n, 3), in mm."""
    moved = points @ matrix[:3, :3].T + matrix[:3, 3]
    return float(np.sqrt(((moved - points) ** 2).sum(1).mean()))


def _block_mean(values: NDArray[np.float32], factors: list[int]) -> NDArray[np.float32]:
    """Means of blocks of voxels; what does not fill a block at the far end is left out."""
    whole = tuple(slice(n // f * f) for n, f in zip(values.shape, factors, strict=True))
    sides = [n // f for n, f in zip(values.shape, factors, strict=True)]
    split = [part for pair in zip(sides, factors, strict=True) for part in pair]
    means: NDArray[np.float32] = values[whole].reshape(split).mean(axis=(1, 3, 5))
    return means


def _estimate(fixed: CoarseScan, moving: CoarseScan) -> Affine | None:
    """The rigid matrix from mm of `fixed` to mm of `moving`; None where they hardly overlap."""
    start = SimpleITK.Euler3DTransform()
    start.SetCenter(fixed.corners.mean(0).tolist())
    method = SimpleITK.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # sums of several threads differ from run to run
    method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(LEARNING_RATE_MM, MIN_STEP_MM, MAX_ITERATIONS)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(PYRAMID)
    method.SetSmoothingSigmasPerLevel([COARSE_MM * (factor - 1) for factor in PYRAMID])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=True)
    try:
        method.Execute(fixed.image, moving.image)
    except RuntimeError:
        return None
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(start.GetMatrix(), (3, 3))
    centre = np.array(start.GetCenter())
    matrix[:3, 3] = centre + start.GetTranslation() - matrix[:3, :3] @ centre
    return matrix.round(DECIMALS)
