"""Values survive int16, and the exact histogram gives numpy's statistics."""

import numpy as np
import pytest

from ssl_pipeline.preprocess.intensity import (
    ct_to_int16,
    histogram,
    intensity_statistics,
    mr_to_int16,
    percentile,
)
from ssl_pipeline.volumes.value_statistics import valid_mask


@pytest.fixture
def values():
    rng = np.random.default_rng(1)
    return rng.normal(300, 120, (30, 31, 32)).astype(np.float32)


def test_hu_are_rounded_and_clipped_and_nothing_else():
    raw = np.array([-3024, -1024, -1000, 40, 3071, 9000], np.int32).reshape(1, 1, 6)
    image = ct_to_int16(raw, np.ones(raw.shape, bool), 0.0, (-1024, 3071))
    assert image.ravel().tolist() == [-1024, -1024, -1000, 40, 3071, 3071]


def test_the_offset_comes_after_the_missing_value():
    raw = np.array([0, 1, 1024, 1064], np.int16).reshape(1, 1, 4)
    valid = valid_mask(raw, 0.0)
    assert valid.ravel().tolist() == [False, True, True, True]
    assert ct_to_int16(raw, valid, -1024.0, (-1024, 3071)).ravel().tolist() == [-1024, -1023, 0, 40]


def test_what_is_not_finite_is_not_valid(values):
    values[3, 4, 5], values[6, 7, 8] = np.nan, np.inf
    valid = valid_mask(values, None)
    assert np.argwhere(~valid).tolist() == [[3, 4, 5], [6, 7, 8]]
    image, scale, offset = mr_to_int16(values, valid, 0.0)
    assert image[3, 4, 5] == image.min() == -32000
    assert np.abs(image * scale + offset - values)[valid].max() <= 0.51 * scale


@pytest.mark.parametrize("factor", [1.0, 1e-6, 3000.0])
def test_mr_of_any_scale_keeps_its_values(values, factor):
    raw = values * np.float32(factor)
    image, scale, offset = mr_to_int16(raw, np.ones(raw.shape, bool), 0.0)
    assert image.min() == -32000
    assert image.max() == 32000
    assert np.abs(image * scale + offset - raw).max() <= 0.51 * scale


def test_a_constant_scan_is_kept():
    image, scale, offset = mr_to_int16(np.full((2, 3, 4), 7.0), np.ones((2, 3, 4), bool), 0.0)
    assert np.all(image * scale + offset == 7)


def test_statistics_are_numpys(values):
    image, scale, offset = mr_to_int16(values, np.ones(values.shape, bool), 0.0)
    mask = values > 200
    counts = histogram(image, mask)
    assert counts.sum() == mask.sum()
    found = intensity_statistics(counts, (0.5, 99.5), scale, offset)
    picked = image[mask] * scale + offset
    low, high = np.percentile(picked, (0.5, 99.5), method="inverted_cdf")
    clipped = np.clip(picked, low, high)
    assert np.allclose((found.low, found.high), (low, high))
    assert np.allclose((found.mean, found.std), (clipped.mean(), clipped.std()))


def test_the_ends_of_the_range_are_percentiles_0_and_100():
    image = np.array([-32768, -5, 9, 32767], np.int16).reshape(1, 2, 2)
    counts = histogram(image, np.ones(image.shape, bool))
    assert [percentile(counts, p) for p in (0.0, 25.0, 50.0, 75.0, 100.0)] == [
        -32768,
        -32768,
        -5,
        9,
        32767,
    ]
