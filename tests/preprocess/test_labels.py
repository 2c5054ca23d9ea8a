"""Labels on the stored grid, by the affines alone."""

import numpy as np
import pytest
from scipy import ndimage

from ssl_pipeline.errors import UserError
from ssl_pipeline.preprocess.config import Ct, Preprocess
from ssl_pipeline.preprocess.labels import keeps_whole_scan, label_on_grid, share_outside
from ssl_pipeline.preprocess.prepare import prepare_volume
from ssl_pipeline.volumes.label_matching import IGNORE_LABEL
from ssl_pipeline.volumes.volume import Volume

SHAPE = (40, 36, 30)


def grid(degrees=0.0):
    angle = np.radians(degrees)
    return np.array(
        [
            [-1.2 * np.cos(angle), -1.4 * np.sin(angle), 0, 20],
            [1.2 * np.sin(angle), -1.4 * np.cos(angle), 0, 31],
            [0, 0, 2.5, -40],
            [0, 0, 0, 1.0],
        ]
    )


@pytest.fixture(scope="module")
def classes():
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(4, *SHAPE)), (0, 3, 3, 3))
    return noise.argmax(0).astype(np.uint8)


@pytest.fixture(scope="module")
def scan():
    values = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=SHAPE), 3)
    return Volume((values * 3000).astype(np.int16), grid())


@pytest.mark.parametrize("spacing", [None, (0.6, 0.6, 0.6), (1.1, 0.5, 0.7)])
@pytest.mark.parametrize("foreground", ["all", "auto"])
def test_a_label_keeps_its_classes_on_the_grid(scan, classes, spacing, foreground):
    section = Preprocess(ct=Ct(spacing_mm=spacing), foreground=foreground)
    meta = prepare_volume(scan, "CT", section).meta
    drawn = label_on_grid(Volume(classes, scan.affine), meta)
    assert drawn.shape == meta.shape
    assert drawn.dtype == np.uint8
    assert drawn.max() <= 3  # the stored grid lies inside the label's field, up to its edges
    shares = [np.bincount(each.ravel(), minlength=4) / each.size for each in (drawn, classes)]
    if foreground == "all":
        assert np.abs(shares[0] - shares[1]).max() < 0.01


def test_a_label_lines_up_with_the_mask_of_its_own_image(scan):
    section = Preprocess(ct=Ct(spacing_mm=(3.1, 1.0, 0.8)), foreground="all")
    marked = np.where(scan.data > 100, 0, scan.data)
    prepared = prepare_volume(Volume(marked, scan.affine), "CT", section, missing_value=0.0)
    label = Volume((marked != 0).astype(np.uint8), scan.affine)
    assert np.array_equal(label_on_grid(label, prepared.meta), prepared.data[1] & 1)


def test_a_label_of_other_axes_and_spacing_lands_at_its_millimetre(scan):
    meta = prepare_volume(scan, "CT", Preprocess(foreground="all")).meta
    fine = np.array([[0, 0.3, 0, -30], [0, 0, 0.5, -20], [-0.4, 0, 0, 35], [0, 0, 0, 1.0]])
    drawn = label_on_grid(Volume(np.zeros((50, 110, 90), np.int16), fine), meta)
    index = np.moveaxis(np.indices(meta.shape[::-1]), 0, -1)
    places = index @ np.array(meta.affine)[:3, :3].T + np.array(meta.affine)[:3, 3]
    in_label = (places - fine[:3, 3]) @ np.linalg.inv(fine[:3, :3]).T
    reached = np.all((in_label > -0.5) & (in_label < np.array((50, 110, 90)) - 0.5), axis=-1)
    assert 0.02 < reached.mean() < 0.98
    assert np.array_equal(drawn.T == IGNORE_LABEL, ~reached)


def test_a_rotated_label_lands_at_its_millimetre(scan):
    meta = prepare_volume(scan, "CT", Preprocess(foreground="all")).meta
    affine = grid(degrees=20.0)
    ball_mm = np.array((0.0, 8.0, -5.0))
    places = np.moveaxis(np.indices((60, 60, 40)), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    ball = (((places - ball_mm) ** 2).sum(-1) < 8.0**2).astype(np.float32)
    drawn = label_on_grid(Volume(ball, affine), meta)
    found = np.argwhere(drawn == 1)[:, ::-1].mean(0)
    assert np.abs((np.array(meta.affine) @ [*found, 1])[:3] - ball_mm).max() < 0.25


def test_many_classes_need_int16(scan):
    meta = prepare_volume(scan, "CT", Preprocess()).meta
    label = np.full(SHAPE, 2035, np.int32)
    assert label_on_grid(Volume(label, scan.affine), meta).dtype == np.int16


@pytest.mark.parametrize(
    ("value", "reason"), [(-1, "whole numbers"), (0.5, "fractions"), (255, "not annotated")]
)
def test_values_that_are_no_classes_are_refused(scan, value, reason):
    meta = prepare_volume(scan, "CT", Preprocess()).meta
    label = np.zeros(SHAPE, np.float32)
    label[5:9, 5:9, 5:9] = value
    with pytest.raises(UserError, match=reason):
        label_on_grid(Volume(label, scan.affine), meta)


@pytest.mark.parametrize("spacing", [None, (3.1, 0.7, 0.6)])
def test_what_a_crop_cuts_off_a_label_is_counted(scan, spacing):
    drawn, label = (np.zeros(SHAPE, np.uint8) for _ in range(2))
    drawn[10:20, 10:20, 10:20] = 1
    label[12:20, 12:16, 12] = 2  # all inside
    section = Preprocess(ct=Ct(spacing_mm=spacing), margin_voxels=0)
    masks = {"foreground": Volume(drawn, scan.affine)}
    meta = prepare_volume(scan, "CT", section, label_masks=masks).meta
    assert share_outside(Volume(label, scan.affine), meta) == 0
    label[20:24, 12:16, 12] = 2  # a third is outside
    assert share_outside(Volume(label, scan.affine), meta) == pytest.approx(1 / 3)
    whole = prepare_volume(scan, "CT", Preprocess(ct=section.ct, foreground="all")).meta
    assert share_outside(Volume(np.ones_like(label), scan.affine), whole) == 0
    assert keeps_whole_scan(whole) and not keeps_whole_scan(meta)
