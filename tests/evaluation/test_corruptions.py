"""Contract of every corruption on real scans; a new one is tested by being listed."""

import numpy as np
import pytest

from ssl_pipeline.evaluation.corruptions import ALL_CORRUPTIONS
from ssl_pipeline.evaluation.corruptions.corruption import SEVERITIES, ScanImage
from ssl_pipeline.evaluation.corruptions.low_dose import FULL_DOSE_HU

each = pytest.mark.parametrize(
    "corruption", ALL_CORRUPTIONS, ids=lambda corruption: corruption.name
)
by_name = {corruption.name: corruption for corruption in ALL_CORRUPTIONS}


@pytest.fixture(scope="module")
def scan(anatomy):
    """A real scan, of spacing that differs along its axes."""
    image = anatomy.data.astype(np.float32).transpose(2, 1, 0)
    return ScanImage(image, np.ones(image.shape, bool), (3.0, 2.0, 2.0))


def corrupt_scan(corruption, scan, severity, seed=0):
    return corruption.apply(scan, severity, np.random.default_rng(seed))


def relative_change(corruption, scan, severity):
    """How much of a scan is another, over draws: invalid voxels count as wholly changed."""
    spread = scan.image.std()
    found = []
    for seed in range(5):
        after = corrupt_scan(corruption, scan, severity, seed)
        apart = np.abs(after.image - scan.image) / spread
        found.append(np.where(after.valid, apart, 1.0).mean())
    return np.mean(found)


@each
def test_a_severer_step_changes_more_and_the_first_one_little(corruption, scan):
    changes = [relative_change(corruption, scan, severity) for severity in SEVERITIES]
    assert 0 < changes[0] < changes[-1]
    assert np.all(np.diff(changes) > 0)


@each
def test_a_corrupted_scan_has_its_shape_and_is_a_function_of_the_draw(corruption, scan):
    before = scan.image.copy()
    first, again = (corrupt_scan(corruption, scan, 3) for _ in range(2))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.valid, again.valid)
    assert first.image.shape == scan.image.shape and first.image.dtype == np.float32
    assert first.spacing_mm == scan.spacing_mm
    assert np.isfinite(first.image).all()
    assert np.array_equal(scan.image, before)


@each
def test_there_are_five_levels(corruption):
    assert len(corruption.LEVELS) == len(SEVERITIES)


def test_noise_has_the_variance_that_the_dose_lacks():
    empty = np.zeros((40, 40, 40), np.float32)
    scan = ScanImage(empty, np.ones(empty.shape, bool), (1.0, 1.0, 1.0))
    noise = corrupt_scan(by_name["low_dose"], scan, 2).image
    assert noise.std() == pytest.approx(FULL_DOSE_HU * np.sqrt(3), rel=0.02)  # a quarter


def test_thick_slices_leave_what_changes_along_a_line_and_average_what_alternates():
    ramp = np.broadcast_to(np.arange(24, dtype=np.float32)[:, None, None], (24, 4, 4))
    scan = ScanImage(ramp, np.ones(ramp.shape, bool), (1.0, 1.0, 1.0))
    middle = corrupt_scan(by_name["thick_slices"], scan, 2).image[4:-4]
    assert np.allclose(middle, ramp[4:-4], atol=1e-4)
    stripes = np.where(ramp % 2 == 0, 1, -1).astype(np.float32)
    striped = ScanImage(stripes, scan.valid, scan.spacing_mm)
    assert np.abs(corrupt_scan(by_name["thick_slices"], striped, 1).image[2:-2]).max() < 1e-6


def test_a_cut_field_is_a_cylinder(scan):
    after = corrupt_scan(by_name["cut_field"], scan, 5)
    assert not after.valid[:, 0, 0].any()
    assert after.valid[:, scan.image.shape[1] // 2, scan.image.shape[2] // 2].all()
    assert np.array_equal(after.image, scan.image)


def test_metal_is_bright_and_its_streaks_fade(scan):
    after = corrupt_scan(by_name["metal_streak"], scan, 3)
    assert after.image.max() >= 3000
    apart = np.abs(after.image - scan.image)
    assert apart[0].max() < apart.max() / 2 or apart[-1].max() < apart.max() / 2
