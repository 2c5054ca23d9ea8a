"""The three matrix products are scipy's interpolation, and physical places stay where they were."""

import nibabel
import numpy as np
import pytest
from nibabel.testing import data_path
from scipy import ndimage

from ssl_pipeline.preprocess.resample import (
    axis_orders,
    nearest_indices,
    resample,
    resample_mask,
    resampled_affine,
    resampled_shape,
)

LIMITS = (-32768, 32767)


@pytest.fixture(scope="module")
def brain():
    image = nibabel.load(f"{data_path}/anatomical.nii")
    return np.ascontiguousarray(np.asarray(image.dataobj, np.float64).T).astype(np.int16)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("shape", [(50, 61, 20), (25, 30, 47), (13, 41, 33)])
def test_equal_to_scipy(brain, order, shape):
    factors = [m / n for m, n in zip(shape, brain.shape, strict=True)]
    expected = ndimage.zoom(
        brain.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True
    )
    ours = resample(brain, shape, (order, order, order), LIMITS)
    assert np.abs(ours - expected).max() < 0.51  # rounding to int16, and that of float32


def test_order_0_takes_the_voxel_that_the_centre_lies_in(brain):
    shape = (31, 64, 40)  # no centre lies on an edge between two voxels
    factors = [m / n for m, n in zip(shape, brain.shape, strict=True)]
    expected = ndimage.zoom(brain, factors, order=0, mode="nearest", grid_mode=True)
    ours = resample(brain, shape, (0, 0, 0), LIMITS)
    assert np.array_equal(ours, expected)
    above = brain > np.median(brain)
    assert np.array_equal(resample_mask(above, shape), ours > np.median(brain))


def test_nearest_has_no_rounding():
    assert nearest_indices(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert nearest_indices(6, 3).tolist() == [1, 3, 5]
    assert nearest_indices(4, 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("target", [(1.0, 2.0, 3.0), (3.1, 0.7, 1.3)])
def test_a_ramp_in_mm_stays_a_ramp_in_mm(order, target):
    spacing, shape = (1.5, 1.5, 2.5), (40, 44, 36)  # (x, y, z)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-31.0, 12.5, 7.0)
    slope = np.array((19.0, -31.0, 23.0))  # units a mm

    def ramp(grid, size):
        places = np.moveaxis(np.indices(size), 0, -1) @ grid[:3, :3].T + grid[:3, 3]
        return (places @ slope).T  # (z, y, x)

    new = resampled_shape(shape, spacing, target)
    ours = resample(np.rint(ramp(affine, shape)).astype(np.int16), new[::-1], (order,) * 3, LIMITS)
    difference = np.abs(ours - ramp(resampled_affine(affine, shape, new), new))
    edge = 12  # voxels of the old grid that the edge reaches: the spline's tail
    inner = tuple(
        slice(*(int(np.ceil(v * m / n)) for v in (edge, n - edge)))
        for m, n in zip(new[::-1], shape[::-1], strict=True)
    )
    assert difference[inner].size > 100
    assert difference[inner].max() < 0.01 * np.abs(slope).max() + 1.6  # 0.01 mm, and rounding


def test_the_field_of_view_is_kept():
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] @ np.diag((0.7, 0.7, 5.0))
    affine[:3, 3] = (11.0, -7.0, 300.0)
    old, new = (101, 83, 20), (71, 58, 100)
    changed = resampled_affine(affine, old, new)
    for corner in ((0, 0, 0), (1, 0, 1), (1, 1, 1)):
        before = affine @ [*(c * n - 0.5 for c, n in zip(corner, old, strict=True)), 1]
        after = changed @ [*(c * n - 0.5 for c, n in zip(corner, new, strict=True)), 1]
        assert np.allclose(before, after, atol=1e-9)


def test_thick_slices_are_repeated(brain):
    orders = axis_orders((5.0, 0.8, 0.8), 3, 3.0)
    assert orders == (0, 3, 3)
    assert axis_orders((2.0, 0.8, 0.8), 3, 3.0) == (3, 3, 3)
    thick = resample(brain, (70, *brain.shape[1:]), orders, LIMITS)
    assert np.array_equal(thick, brain[nearest_indices(len(brain), 70)])


def test_an_overshoot_is_clipped():
    step = np.zeros((20, 20, 20), np.int16)
    step[10:] = 1000
    ours = resample(step, (37, 20, 20), (3, 3, 3), (0, 1000))
    assert ours.min() == 0
    assert ours.max() == 1000


def test_a_spacing_that_changes_no_voxel_count_changes_nothing(brain):
    assert resampled_shape((35, 51, 35), (1.0, 1.0, 1.0), (1.01, 1.0, 0.99)) == (35, 51, 35)
    assert resample(brain, brain.shape, (3, 3, 3), LIMITS) is brain
