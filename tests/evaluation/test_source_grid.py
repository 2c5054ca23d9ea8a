"""Predictions go back to the scan's own grid, where they are compared with the label as drawn."""

import numpy as np
import pytest
from scipy import ndimage

from ssl_pipeline.evaluation.data.source_grid import (
    Slab,
    classes_on_source_grid,
    interpolated_blocks,
)
from ssl_pipeline.evaluation.metrics.segmentation import dice
from ssl_pipeline.preprocess.config import Ct, Preprocess
from ssl_pipeline.preprocess.labels import label_on_grid, label_on_source_grid
from ssl_pipeline.preprocess.prepare import prepare_volume
from ssl_pipeline.volumes.geometry import to_canonical
from ssl_pipeline.volumes.volume import Volume

SHAPE = (40, 36, 30)


def affine(degrees=0.0, shear=0.0):
    """Voxels of 1.2 x 1.4 x 2.5 mm that run to L, P and S, turned about S and sheared along it."""
    angle = np.radians(degrees)
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    sides = np.diag([-1.2, -1.4, 2.5, 1.0])
    sides[1, 2] = shear
    return turned @ sides


@pytest.fixture(scope="module")
def classes():
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(4, *SHAPE)), (0, 3, 3, 3))
    return noise.argmax(0).astype(np.uint8)


@pytest.fixture(scope="module")
def values():
    smooth = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=SHAPE), 3)
    return (smooth * 3000).astype(np.int16)


def one_hot_slabs(stored, count, planes=7):
    """Certain probabilities of the classes of a stored volume (z, y, x), some planes at a time."""
    certain = np.moveaxis(np.eye(count, dtype=np.float32)[stored], -1, 0)
    for first in range(0, len(stored), planes):
        yield Slab(first, certain[:, first : first + planes])


def back_on_its_grid(scan, label, section):
    """The label, taken to the stored grid and back as a prediction that is right there."""
    meta = prepare_volume(scan, "CT", section).meta
    stored = label_on_grid(Volume(label, scan.affine), meta)
    return classes_on_source_grid(one_hot_slabs(np.where(stored == 255, 0, stored), 4), meta)


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("planes", [1, 7, 100])
def test_on_an_unchanged_grid_every_voxel_comes_back(values, classes, degrees, planes):
    scan = Volume(values, affine(degrees))
    meta = prepare_volume(scan, "CT", Preprocess(foreground="all")).meta
    stored = label_on_grid(Volume(classes, scan.affine), meta)
    back = classes_on_source_grid(one_hot_slabs(stored, 4, planes), meta)
    assert np.array_equal(back, classes)


@pytest.mark.parametrize(
    ("degrees", "shear", "straighten", "spacing", "least"),
    [
        (0, 0, False, (0.6, 0.6, 0.6), 0.999),
        (20, 0, False, (1.1, 0.7, 0.6), 0.999),
        (0, 0, False, (2.0, 1.5, 1.5), 0.96),
        (20, 0, True, (0.6, 0.6, 0.6), 0.999),
        (0, 0.4, False, None, 0.999),
    ],
)
def test_a_right_prediction_loses_only_what_resampling_does(
    values, classes, degrees, shear, straighten, spacing, least
):
    section = Preprocess(ct=Ct(spacing_mm=spacing), foreground="all", straighten=straighten)
    back = back_on_its_grid(Volume(values, affine(degrees, shear)), classes, section)
    assert min(dice(back, classes, (True,) * 3, 255)) > least


def test_what_the_crop_cuts_off_is_missed(values):
    """A truth of 10 slices, of which the crop keeps 6, has a Dice of 12 / 16."""
    scan, drawn, label = Volume(values, affine()), np.zeros(SHAPE, bool), np.zeros(SHAPE, np.uint8)
    drawn[10:30, 8:28, 5:20] = True
    label[12:20, 10:20, 14:24] = 1
    mask = {"foreground": Volume(drawn.astype(np.uint8), scan.affine)}
    meta = prepare_volume(scan, "CT", Preprocess(margin_voxels=0), label_masks=mask).meta
    stored = label_on_grid(Volume(label, scan.affine), meta)
    back = classes_on_source_grid(one_hot_slabs(stored, 2), meta)
    assert dice(back, label, (True,), 255) == [pytest.approx(12 / 16)]
    assert np.array_equal(back > 0, (label > 0) & drawn)


def test_probabilities_are_interpolated_before_a_class_is_chosen(values):
    """Between two stored centres, .9 beside .4 is .65: the first class; nearest would say .4."""
    scan = Volume(values, np.diag([1.0, 1.0, 1.0, 1.0]))
    section = Preprocess(ct=Ct(spacing_mm=(2.0, 2.0, 2.0)), foreground="all")
    meta = prepare_volume(scan, "CT", section).meta
    class_one = np.full(meta.shape, 0.9, np.float32)
    class_one[:, :, 10:] = 0.4
    probabilities = np.stack([1 - class_one, class_one])
    back = classes_on_source_grid([Slab(0, probabilities)], meta)
    edge = [int(np.flatnonzero(back[:, 5, 5] == 0)[0])]
    assert edge == [21]  # voxel 20 lies a quarter of the way from .9 to .4, and 21 past the half


def test_linear_values_come_back_exactly_from_another_spacing(values):
    scan = Volume(values, affine(20))
    section = Preprocess(ct=Ct(spacing_mm=(3.2, 0.9, 1.0)), foreground="all")
    meta = prepare_volume(scan, "CT", section).meta
    z, y, x = np.indices(meta.shape)
    to_mm = np.array(meta.affine)
    mm = np.einsum("ij,j...->i...", to_mm[:3, :3], np.stack([x, y, z])).astype(np.float32)
    slabs = [Slab(first, mm[:, first : first + 5]) for first in range(0, len(z), 5)]
    count = 0
    for block in interpolated_blocks(slabs, meta):
        source = np.argwhere(block.inside) + [part.start for part in block.box]
        places = source @ scan.affine[:3, :3].T + scan.affine[:3, 3] - to_mm[:3, 3]
        voxels = places @ np.linalg.inv(to_mm[:3, :3]).T
        between_centres = ((voxels >= 0) & (voxels <= np.array(meta.shape[::-1]) - 1)).all(axis=1)
        assert np.abs(block.values.T - places)[between_centres].max() < 1e-3
        count += len(source)
    assert count == np.prod(SHAPE)  # each voxel once


def test_a_label_in_another_order_of_axes_is_read_on_the_scans_own(values, classes):
    meta = prepare_volume(Volume(values, affine()), "CT", Preprocess()).meta
    turned = to_canonical(Volume(classes, affine()))
    assert not np.array_equal(turned.data, classes)
    assert np.array_equal(label_on_source_grid(turned, meta), classes)
