"""Volumes for the viewer: the scan's values and shape, thinned when large, and nothing else."""

import nibabel as nib
import numpy as np
import pytest

from ssl_pipeline.review.pictures import ReviewVolume
from ssl_pipeline.review.viewer_volumes import MAX_VOXELS, overlay_nifti, scan_nifti, thinning

SPACING = (0.5, 1.0, 3.0)


def volume_of(data, window=(0.0, 100.0), **overlays):
    finders = {name: lambda classes=classes: classes for name, classes in overlays.items()}
    return ReviewVolume(data, SPACING, {"auto": window}, finders)


def read(content):
    return nib.Nifti1Image.from_bytes(content)


def test_a_small_scan_of_integers_arrives_as_it_is():
    data = np.arange(-60, 60, dtype=np.int16).reshape(6, 5, 4)
    image = read(scan_nifti(volume_of(data), "coarse"))
    assert np.array_equal(np.asarray(image.dataobj), data)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.header.get_zooms() == pytest.approx(SPACING)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint16])
def test_other_values_arrive_to_a_ten_thousandth_of_the_window(dtype):
    rng = np.random.default_rng(0)
    data = rng.uniform(0, 60000, (6, 5, 4)).astype(dtype)
    image = read(scan_nifti(volume_of(data, window=(5000.0, 50000.0)), "full"))
    assert np.abs(image.get_fdata() - data).max() < 45000 / 9000


def test_what_is_far_outside_of_the_window_or_no_number_stays_outside_of_it():
    data = np.array([np.nan, np.inf, -np.inf, 50, -1e30, 1e30], np.float32).reshape(6, 1, 1)
    values = read(scan_nifti(volume_of(data), "full")).get_fdata().ravel()
    assert np.isfinite(values).all() and values[3] == pytest.approx(50, abs=0.01)
    assert (values[[0, 2, 4]] < 0).all() and (values[[1, 5]] > 100).all()


@pytest.mark.parametrize("shape", [(512, 512, 800), (4000, 3, 3), (64, 64, 64), (700, 700, 1)])
@pytest.mark.parametrize("detail", list(MAX_VOXELS))
def test_no_volume_is_sent_beyond_its_bound_and_none_is_thinned_without_need(shape, detail):
    volume = volume_of(np.broadcast_to(np.uint8(1), shape))
    steps = thinning(volume, detail)
    sent = np.prod([-(-n // step) for n, step in zip(shape, steps, strict=True)])
    assert sent <= MAX_VOXELS[detail]
    assert np.prod(shape) > MAX_VOXELS[detail] or steps == (1, 1, 1)


def test_800_slices_are_sent_coarse_and_in_full_with_their_overlay_on_one_grid():
    data = np.zeros((512, 512, 800), np.uint8)
    data[256:, :, 400:] = 1
    volume = volume_of(data, labels=data)
    coarse = read(scan_nifti(volume, "coarse"))
    assert np.prod(coarse.shape) <= MAX_VOXELS["coarse"]
    full = read(scan_nifti(volume, "full"))
    assert MAX_VOXELS["full"] / 4 < np.prod(full.shape) <= MAX_VOXELS["full"]
    extent = np.array(full.shape) * full.header.get_zooms()
    assert extent == pytest.approx(np.array(data.shape) * SPACING, rel=0.01)
    over = read(overlay_nifti(volume, "labels", "coarse"))
    assert np.array_equal(over.affine, coarse.affine)
    assert np.array_equal(np.asarray(over.dataobj), np.asarray(coarse.dataobj))


def test_a_header_says_the_grid_alone():
    content = scan_nifti(volume_of(np.zeros((3, 3, 3), np.int16)), "coarse")
    header = read(content).header
    for field in ("descrip", "intent_name", "aux_file", "db_name"):
        assert header[field].tobytes().strip(b"\0") == b""
    assert len(content) == 352 + 54 and np.allclose(read(content).affine[:3, 3], 0)


def test_what_is_not_there_is_not_sent():
    volume = volume_of(np.zeros((3, 3, 3), np.int16))
    for asked in (lambda: overlay_nifti(volume, "labels", "full"), lambda: thinning(volume, "all")):
        with pytest.raises(KeyError):
            asked()
