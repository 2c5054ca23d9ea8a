"""Strides, kernels, patches and crops by nnU-Net's rules, against its published plans."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_pipeline.models.topology import (
    MIN_EDGE,
    plan_crop,
    plan_patch,
    plan_topology,
    round_up,
)

THICK, FLAT, ALL = (1, 2, 2), (1, 3, 3), (3, 3, 3)
# Of the decathlon and of ACDC, as the supplement of Isensee et al. 2021 lists them: spacing, crop,
# strides after the first stage, kernels.
PUBLISHED = {
    "heart in short-axis slices": (
        (5.0, 1.5625, 1.5625), (20, 256, 224),
        [THICK, (2, 2, 2), (2, 2, 2), THICK, THICK], [FLAT, *[ALL] * 5],
    ),
    "prostate": (
        (3.6, 0.625, 0.625), (20, 320, 256),
        [THICK, THICK, (2, 2, 2), (2, 2, 2), THICK, THICK], [FLAT, FLAT, *[ALL] * 5],
    ),
    "hippocampus": ((1.0, 1.0, 1.0), (40, 56, 40), [(2, 2, 2)] * 3, [ALL] * 4),
}  # fmt: skip

spacings = st.tuples(*[st.floats(0.3, 10.0)] * 3)
sides = st.tuples(*[st.integers(1, 320)] * 3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_stages_are_those_of_published_plans(name):
    spacing, crop, strides, kernels = PUBLISHED[name]
    found = plan_topology(spacing, crop)
    assert found.strides == ((1, 1, 1), *strides)
    assert list(found.kernel_sizes) == kernels


@given(spacings, sides)
def test_a_crop_rounded_up_is_divided_down_to_no_less_than_the_smallest_edge(spacing, crop):
    topology = plan_topology(spacing, crop)
    padded = round_up(crop, topology.reduction)
    assert plan_topology(spacing, padded) == topology
    for side, given_side, step in zip(padded, crop, topology.reduction, strict=True):
        assert side % step == 0
        assert side // step >= min(MIN_EDGE, given_side)
    assert len(topology.strides) == len(topology.kernel_sizes)
    for fine, coarse in zip(topology.kernel_sizes, topology.kernel_sizes[1:], strict=False):
        assert all(a <= b for a, b in zip(fine, coarse, strict=True))


@pytest.mark.parametrize(
    ("spacing", "patch"),
    [
        ((1.5, 1.5, 1.5), (8, 8, 8)),
        ((10.0, 1.25, 1.25), (2, 16, 16)),
        ((3.0, 1.0, 1.0), (4, 8, 8)),
        ((1.0, 1.0, 4.0), (8, 8, 2)),
    ],
)
def test_a_patch_of_a_transformer_has_about_equal_sides_in_mm(spacing, patch):
    assert plan_patch(spacing) == patch


@given(spacings, sides, st.integers(13, 24))
def test_a_planned_crop_fits_or_is_as_small_as_the_rule_allows(spacing, shape, log_voxels):
    def multiple_of(crop):
        return plan_topology(spacing, crop).reduction

    crop = plan_crop(spacing, shape, multiple_of, lambda c: math.prod(c) <= 2**log_voxels)
    assert round_up(crop, multiple_of(crop)) == crop
    assert math.prod(crop) <= 2**log_voxels or all(
        side <= max(2 * MIN_EDGE, MIN_EDGE * step)
        for side, step in zip(crop, multiple_of(crop), strict=True)
    )


def test_a_crop_takes_the_whole_of_a_small_scan_and_keeps_the_shape_of_a_large_one():
    def is_small(crop):
        return math.prod(crop) <= 128**3

    def eighths(_):
        return (8, 8, 8)

    assert plan_crop((1.0, 1.0, 1.0), (36, 50, 35), eighths, is_small) == (40, 56, 40)
    z, y, x = plan_crop((1.0, 1.0, 1.0), (100, 400, 400), eighths, is_small)
    assert y == x > z and z / 100 < 1.0


def test_a_fixed_patch_keeps_four_of_it_along_each_axis():
    crop = plan_crop((1.0, 1.0, 1.0), (200, 200, 200), lambda _: (8, 16, 16), lambda _: False)
    assert crop == (32, 64, 64)
