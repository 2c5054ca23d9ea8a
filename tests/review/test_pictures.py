"""Pictures of scans: the right way round, windowed, with labels and planted defects to be seen."""

import io
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import find_foreground
from ssl_pipeline.review.pictures import (
    FOREGROUND,
    LABELS,
    PREDICTION,
    ReviewVolume,
    draw_slice,
    open_volume,
    with_moved_overlay,
    with_stripes,
)
from ssl_pipeline.volumes.readers import Source
from tests.volumes.volume_writers import save_nifti


def drawn(volume, plane="axial", index=2, window="auto", overlay=""):
    png = draw_slice(volume, plane, index, volume.windows[window], overlay)
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


def open_scan(path, label_maps, modality="CT", missing_value=None, intensity_offset=0.0):
    """A scan as the page opens it."""
    find = partial(
        find_foreground, modality=modality, section=Preprocess(), intensity_offset=intensity_offset
    )
    return open_volume(
        Source(path),
        label_maps,
        missing_value=missing_value,
        intensity_offset=intensity_offset,
        modality=modality,
        find_foreground=find,
    )


@pytest.fixture
def opened(tmp_path):
    """A scan stored with x to the left: bright at the left, half bright at the right in front."""
    data = np.zeros((12, 10, 6), np.int16)
    data[-3:], data[:4, -3:] = 1000, 500
    affine = np.diag([-1.0, 1, 2, 1])
    image = save_nifti(tmp_path / "scan.nii", data, affine)
    label = save_nifti(tmp_path / "label.nii", (data == 1000).astype(np.uint8), affine)
    return open_scan(image, {LABELS: [label]}, intensity_offset=-100.0)


def test_the_patients_right_is_on_the_left_and_the_front_is_up(opened):
    axial = drawn(opened)
    height, width = axial.shape
    assert axial[:, -width // 6 :].min() > 250 and axial[height // 2 :, : width // 2].max() == 0
    assert 100 < axial[: height // 6, : width // 6].mean() < 150


def test_a_pixel_is_square_in_millimetres(opened):
    coronal = drawn(opened, "coronal")
    assert coronal.shape == pytest.approx((640, 640), abs=1)  # 12 voxels of 1 mm, 6 of 2 mm
    assert drawn(opened).shape == pytest.approx((533, 640), abs=1)


def test_windows_of_ct_are_in_hounsfield_units(opened):
    assert opened.windows["bone"] == (-350, 1150)  # stored values; 100 are added to what is given
    assert drawn(opened, window="bone").max() == pytest.approx(255 * 1350 / 1500, abs=2)
    assert drawn(opened, window="soft_tissue").max() == 255


def test_labels_are_coloured_where_they_are_and_nowhere_else(opened):
    plain, tinted = drawn(opened), drawn(opened, overlay=LABELS)
    is_coloured = np.ptp(tinted, axis=2) > 40
    assert is_coloured[:, -plain.shape[1] // 6 :].all()
    assert not is_coloured[:, : plain.shape[1] // 2].any()


def test_labels_of_other_grids_lie_where_their_affine_says(tmp_path):
    image = save_nifti(tmp_path / "scan.nii", np.ones((6, 6, 6), np.int16), np.eye(4))
    moved, thick = np.eye(4), np.diag([2.0, 2, 2, 1])
    moved[:3, 3] = (4, 0, 0)
    labels = [
        save_nifti(tmp_path / f"{name}.nii", np.full((3, 3, 3), value, np.uint8), affine)
        for name, value, affine in (("thick", 2, thick), ("moved", 1, moved))
    ]
    found = open_scan(image, {LABELS: labels[1:], PREDICTION: labels[:1]}, "MR")
    assert list(found.overlays) == [LABELS, PREDICTION, FOREGROUND]
    expected = np.zeros((6, 6, 6))
    expected[4:, :3, :3] = 1  # what reaches out of the scan is cut
    assert np.array_equal(found.overlays[LABELS](), expected)
    assert (found.overlays[PREDICTION]()[:5, :5, :5] == 2).all()


def test_a_moved_overlay_lies_a_third_of_its_extent_off(opened):
    before = opened.overlays[LABELS]()
    after = with_moved_overlay(opened, LABELS).overlays[LABELS]()
    assert np.array_equal(after[1:, 3:, 2:], before[:-1, :-3, :-2])
    assert not after[:1].any() and not after[:, :3].any() and not after[:, :, :2].any()
    assert 0 < after.sum() < before.sum()


def test_the_foreground_is_the_body_that_preprocessing_finds(tmp_path):
    data = np.full((40, 30, 20), -1000, np.int16)
    data[10:30, 8:22] = 40
    image = save_nifti(tmp_path / "body.nii", data, np.diag([-1.0, 1, 1, 1]))
    body = open_scan(image, {}).overlays[FOREGROUND]()
    assert np.array_equal(body, data[::-1] == 40)


def test_a_planted_defect_is_seen_in_every_plane(opened):
    rng = np.random.default_rng(0)
    scan = replace(opened, data=rng.normal(100, 10, (40, 40, 40)), windows={"auto": (70.0, 130.0)})
    spoilt = with_stripes(scan)
    for plane in ("axial", "coronal", "sagittal"):
        before, after = drawn(scan, plane), drawn(spoilt, plane)
        assert (
            np.abs(np.fft.fft2(after - after.mean())).max()
            > 3 * np.abs(np.fft.fft2(before - before.mean())).max()
        )


def test_missing_values_are_black_and_do_not_widen_the_window(tmp_path):
    data = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    data[0] = -30000
    image = save_nifti(tmp_path / "scan.nii", data, np.eye(4))
    found = open_scan(image, {}, "MR", missing_value=-30000.0)
    assert found.windows["auto"][0] > 0
    assert drawn(found, "sagittal", 0).max() == 0


def test_what_is_not_there_cannot_be_drawn():
    volume = ReviewVolume(np.zeros((3, 3, 3)), (1.0, 1.0, 1.0), {"auto": (0.0, 1.0)})
    for plane, index, overlay in (("axial", 3, ""), ("axial", -1, ""), ("x", 0, ""),
                                  ("axial", 0, LABELS)):  # fmt: skip
        with pytest.raises((KeyError, IndexError)):
            drawn(volume, plane, index, overlay=overlay)
