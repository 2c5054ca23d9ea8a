"""Bodies of known shape are segmented, with their holes and without separate objects."""

import numpy as np
import pytest

from ssl_pipeline.preprocess.foreground import bounding_box, foreground_mask, otsu_threshold
from ssl_pipeline.preprocess.intensity import histogram

AIR, TISSUE = -1000, 40


def chest(shape):
    """A body with two lungs that are open at both ends, on a table; (z, y, x), and its truth."""
    _, y, x = shape
    iy, ix = np.ogrid[:y, :x]

    def disc(cy, cx, ry, rx):
        return ((iy / y - cy) / ry) ** 2 + ((ix / x - cx) / rx) ** 2 < 1

    body = np.broadcast_to(disc(0.45, 0.5, 0.3, 0.42), shape)
    lungs = np.broadcast_to(disc(0.45, 0.3, 0.2, 0.12) | disc(0.45, 0.7, 0.2, 0.12), shape)
    image = np.full(shape, AIR, np.int16)
    image[body] = TISSUE
    image[lungs] = AIR + 150
    image[:, int(0.9 * y) : int(0.93 * y)] = TISSUE
    return image, body


@pytest.mark.parametrize(("shape", "least"), [((24, 80, 96), 1.0), ((40, 260, 390), 0.98)])
def test_lungs_are_body_and_the_table_is_not(shape, least):
    image, body = chest(shape)
    found = foreground_mask(image, np.ones(shape, bool), -500.0)
    overlap = 2 * np.count_nonzero(found & body) / (found.sum() + body.sum())
    assert overlap >= least
    assert not found[:, int(0.9 * shape[1]) :].any()


def test_only_stored_voxels_are_foreground():
    image, _ = chest((24, 80, 96))
    valid = np.zeros(image.shape, bool)
    valid[:, :, :60] = True
    found = foreground_mask(image, valid, -500.0)
    assert found.any()
    assert not found[:, :, 60:].any()


@pytest.mark.parametrize("value", [AIR, TISSUE])
def test_nearly_nothing_or_everything_is_no_body(value):
    image = np.full((20, 20, 20), value, np.int16)
    valid = np.ones(image.shape, bool)
    valid[0] = False
    assert np.array_equal(foreground_mask(image, valid, -500.0), valid)


def test_otsu_parts_two_populations():
    rng = np.random.default_rng(0)
    image = np.rint(rng.normal(-20000, 500, (20, 40, 40))).astype(np.int16)
    image[5:15] = np.rint(rng.normal(5000, 2000, (10, 40, 40)))
    image[0, 0, 0] = 32000  # one bright voxel does not decide
    threshold = otsu_threshold(histogram(image, np.ones(image.shape, bool)), (0.5, 99.5))
    assert -18000 < threshold < -2000


def test_otsu_of_two_values_lies_between_them():
    image = np.array([100] * 6 + [900] * 3, np.int16).reshape(1, 3, 3)
    assert 100 <= otsu_threshold(histogram(image, np.ones(image.shape, bool)), (0.0, 100.0)) < 900


def test_the_box_keeps_its_margin_within_the_volume():
    mask = np.zeros((10, 20, 30), bool)
    mask[1:3, 8:12, 29] = True
    assert bounding_box(mask, (2, 3, 4)) == (slice(0, 5), slice(5, 15), slice(25, 30))
