"""From a scan to its stored volume: positions, values, masks, and refusals."""

import itertools
import json

import nibabel
import numpy as np
import pytest
from nibabel.testing import data_path
from pydantic import ValidationError

from ssl_pipeline.errors import UserError
from ssl_pipeline.preprocess.config import Ct, Mr, Preprocess
from ssl_pipeline.preprocess.prepare import (
    ANONYMISED,
    FOREGROUND,
    VALID,
    VolumeMeta,
    learnable_mask,
    model_input,
    prepare_volume,
)
from ssl_pipeline.volumes.geometry import shear_deg
from ssl_pipeline.volumes.volume import Volume

BLOB_MM = np.array((14.0, -23.0, 31.0))


def rotation(degrees):
    a, b = np.radians(degrees), np.radians(degrees / 2)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return about_z @ about_x


def scan_with_blob(
    axes=(0, 1, 2), flips=(1, 1, 1), degrees=0.0, spacing=(1.5, 1.7, 2.0), tilt_deg=0.0
):
    """A CT of air with one smooth blob at BLOB_MM, its axes in any order and direction.

    With a tilt the next slice of the last axis lies shifted along the second, as under a gantry.
    """
    shape = (70, 62, 58)
    matrix = rotation(degrees) @ np.diag(np.array(spacing) * flips)[:, list(axes)]
    column, step = matrix[:, 1], np.linalg.norm(matrix[:, 2]) * np.tan(np.radians(tilt_deg))
    matrix[:, 2] += column / np.linalg.norm(column) * step
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = BLOB_MM + np.array((3.0, -4.0, 5.0)) - matrix @ (np.array(shape) / 2)
    places = np.moveaxis(np.indices(shape), 0, -1) @ matrix.T + affine[:3, 3]
    squared = ((places - BLOB_MM) ** 2).sum(-1)
    data = np.rint(-1000 + 3000 * np.exp(-squared / (2 * 12.0**2))).astype(np.int16)
    return Volume(data, affine, "CT")


def centre_of_mass_mm(prepared):
    weight = np.clip(prepared.data[0].T.astype(np.float64) + 400, 0, None)
    index = [
        float((weight.sum(axis=other) * np.arange(n)).sum() / weight.sum())
        for n, other in zip(weight.shape, ((1, 2), (0, 2), (0, 1)), strict=True)
    ]
    return (np.array(prepared.meta.affine) @ [*index, 1])[:3]


@pytest.mark.parametrize("degrees", [8.0, 25.0])
def test_an_oblique_scan_is_straightened_where_the_study_asks(degrees):
    oblique = scan_with_blob(axes=(1, 2, 0), flips=(-1, 1, 1), degrees=degrees)
    kept = prepare_volume(oblique, "CT", Preprocess(foreground="all"))
    straight = prepare_volume(oblique, "CT", Preprocess(foreground="all", straighten=True))
    turned, axes = (np.array(each.meta.affine)[:3, :3] for each in (kept, straight))
    assert np.abs(turned - np.diag(np.diag(turned))).max() > 0.1
    assert np.array_equal(axes, np.diag(np.diag(axes)))
    assert np.allclose(sorted(straight.meta.spacing_mm), sorted(kept.meta.spacing_mm))
    assert np.allclose(centre_of_mass_mm(straight), BLOB_MM, atol=0.05)
    assert kept.meta.valid_share == 1 > straight.meta.valid_share  # corners hold nothing
    bits = straight.data[1] & VALID > 0
    assert straight.data[0].max() == pytest.approx(2000, abs=40)
    assert (straight.data[0][~bits] == -1024).all()


@pytest.mark.parametrize("along_ras", [False, True])
@pytest.mark.parametrize("degrees", [0.0, 12.0])
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0)])
def test_a_scan_of_a_tilted_gantry_is_straightened(axes, degrees, along_ras):
    spacing = (1.5, 1.7, 2.0) if axes == (0, 1, 2) else (2.0, 1.5, 1.7)
    tilted = scan_with_blob(axes, (-1, 1, 1), degrees, spacing, tilt_deg=20)
    made = prepare_volume(tilted, "CT", Preprocess(foreground="all", straighten=along_ras))
    assert shear_deg(np.array(made.meta.affine)) < 1e-6
    # Of slices it is that from plane to plane.
    assert made.meta.spacing_mm == pytest.approx(spacing[::-1])
    assert np.allclose(centre_of_mass_mm(made), BLOB_MM, atol=0.05)
    bits = made.data[1] & VALID > 0
    assert made.data[0].max() == pytest.approx(2000, abs=40)
    assert 0.3 < bits.mean() < 0.9 and (made.data[0][~bits] == -1024).all()


def test_slices_of_a_tilted_gantry_only_slide_in_their_plane():
    tilted = scan_with_blob(tilt_deg=20)
    made = prepare_volume(tilted, "CT", Preprocess(foreground="all", interpolation_order=1))
    assert made.meta.shape[0] == tilted.data.shape[2]
    for before, after in zip(tilted.data.transpose(2, 1, 0), made.data[0], strict=True):
        assert after.max() == pytest.approx(before.max(), abs=40)
        blob, same = (np.clip(each + 1000, 0, None).sum() for each in (after, before))
        assert blob == pytest.approx(same, rel=0.01)


def test_a_straight_scan_is_not_touched_by_straightening():
    scan = scan_with_blob()
    plain, asked = (prepare_volume(scan, "CT", Preprocess(straighten=on)) for on in (False, True))
    assert np.array_equal(plain.data, asked.data) and plain.meta == asked.meta


@pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 2.0), (1.3, 3.0, 1.0)])
@pytest.mark.parametrize("degrees", [0.0, 11.0])
def test_a_blob_stays_at_its_millimetre(spacing, degrees):
    section = Preprocess(ct=Ct(spacing_mm=spacing))
    for axes, flips in (
        ((0, 1, 2), (1, 1, 1)),
        ((0, 1, 2), (-1, -1, 1)),
        ((2, 0, 1), (1, -1, 1)),
    ):
        prepared = prepare_volume(scan_with_blob(axes, flips, degrees), "CT", section)
        assert np.abs(centre_of_mass_mm(prepared) - BLOB_MM).max() < 0.01


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_spacing_has_the_order_of_the_stored_array(axes):
    """[3, 2, 1] is 3 mm from feet to head, 2 mm to the front, 1 mm to the right."""
    scan = scan_with_blob(axes, (1, -1, 1))
    made = prepare_volume(scan, "CT", Preprocess(ct=Ct(spacing_mm=(3.0, 2.0, 1.0))))
    assert made.meta.spacing_mm == pytest.approx((3, 2, 1), rel=0.02)
    assert np.diag(made.meta.affine)[:3] == pytest.approx((1, 2, 3), rel=0.02)  # along R, A and S
    widths = [np.ptp(np.flatnonzero((made.data[0] > 0).any(axis=others))) + 1
              for others in ((1, 2), (0, 2), (0, 1))]  # fmt: skip
    assert widths == pytest.approx([35.6 / 3, 35.6 / 2, 35.6], abs=1.1)  # of a ball in voxels


def test_axes_of_every_order_give_the_same_volume():
    first = prepare_volume(scan_with_blob(spacing=(1.5, 1.5, 1.5)), "CT", Preprocess())
    for axes in itertools.permutations(range(3)):
        other = prepare_volume(
            scan_with_blob(axes, (1, -1, -1), 0, (1.5, 1.5, 1.5)), "CT", Preprocess()
        )
        assert np.all(np.diag(other.meta.affine)[:3] > 0)
        assert np.abs(centre_of_mass_mm(other) - centre_of_mass_mm(first)).max() < 0.01


def test_hu_are_unchanged_where_nothing_is_resampled():
    scan = scan_with_blob()
    prepared = prepare_volume(scan, "CT", Preprocess(foreground="all"))
    assert np.array_equal(prepared.data[0], scan.data.T)
    assert prepared.meta.source_affine == prepared.meta.affine
    assert (prepared.meta.scale, prepared.meta.offset) == (1, 0)
    assert prepared.meta.shape == prepared.data.shape[1:] == scan.data.shape[::-1]
    assert prepared.meta.source_shape == scan.data.shape


def test_the_crop_keeps_the_body_and_its_margin():
    scan = scan_with_blob()
    prepared = prepare_volume(scan, "CT", Preprocess(margin_voxels=3))
    whole = scan.data.T
    body = np.argwhere(whole > -500)
    assert prepared.data.shape[1:] == tuple(body.max(0) - body.min(0) + 1 + 6)
    inside = (prepared.data[1] & FOREGROUND) > 0
    assert np.array_equal(inside, prepared.data[0] > -500)
    assert prepared.meta.foreground_share == pytest.approx(inside.mean(), abs=1e-6)


@pytest.mark.parametrize("spacing", [None, (2.3, 2.3, 2.3)])
def test_missing_voxels_are_invalid_and_do_not_bleed(spacing):
    scan = scan_with_blob()
    stored = scan.data + np.int16(1100)
    half = stored.shape[0] // 2
    stored[:half] = 0
    section = Preprocess(ct=Ct(spacing_mm=spacing), foreground="all", margin_voxels=4)
    options = {"intensity_offset": -1100.0, "missing_value": 0.0}
    prepared = prepare_volume(Volume(stored, scan.affine), "CT", section, **options)
    intensity, valid = prepared.data[0], (prepared.data[1] & VALID) > 0
    assert not (prepared.data[1][~valid] & FOREGROUND).any()
    assert np.all(intensity[~valid] == -1024)
    assert 0.8 < prepared.meta.valid_share < 1
    # The border of valid voxels is as smooth as the blob: no trace of -1100 or of ringing.
    column = np.argmax(valid.any(axis=(0, 1)))
    truth = prepare_volume(scan, "CT", Preprocess(ct=Ct(spacing_mm=spacing), foreground="all"))
    start = truth.data.shape[3] - prepared.data.shape[3]
    if spacing is None:
        expected = truth.data[0][:, :, start:]
        assert np.array_equal(intensity[valid], expected[valid])
    else:
        steps = np.abs(np.diff(intensity[:, :, column : column + 6].astype(int), axis=2)).max()
        assert steps < 400
        assert intensity[valid].min() > -1010


def test_a_real_mr_gets_statistics_of_its_foreground():
    image = nibabel.load(f"{data_path}/anatomical.nii")
    data = np.asarray(image.dataobj, np.float32)
    prepared = prepare_volume(Volume(data, image.affine), "MR", Preprocess())
    shown = model_input(prepared.data, prepared.meta)
    body = (prepared.data[1] & FOREGROUND) > 0
    assert shown.dtype == np.float32
    assert shown.shape == prepared.data.shape[1:]
    assert shown[body].mean() == pytest.approx(0, abs=1e-3)
    assert shown[body].std() == pytest.approx(1, abs=1e-3)
    assert 0.02 <= prepared.meta.foreground_share <= 1
    # Each stored value is the scan's own at the same place, to a 64000th of its range.
    to_scan = np.linalg.inv(image.affine) @ np.array(prepared.meta.affine)
    z, y, x = np.argwhere(body)[:: max(1, body.sum() // 500)].T
    i, j, k, _ = np.rint(to_scan @ np.stack([x, y, z, np.ones_like(x)])).astype(int)
    physical = prepared.data[0][z, y, x] * prepared.meta.scale + prepared.meta.offset
    assert np.abs(physical - data[i, j, k]).max() <= 0.51 * prepared.meta.scale


def test_model_input_of_ct_is_its_window():
    meta = prepare_volume(scan_with_blob(), "CT", Preprocess()).meta
    block = np.array([[-1024, -1000, 0, 500, 3000, 500], [1, 1, 1, 3, 1, 0]], np.int16)
    shown = model_input(block.reshape(2, 1, 1, 6), meta)
    assert shown.ravel().tolist() == pytest.approx([-2, -2, 0, 1, 2, -2])


def test_the_meta_survives_json():
    meta = prepare_volume(scan_with_blob(degrees=7.0), "CT", Preprocess()).meta
    assert VolumeMeta.from_json(json.loads(json.dumps(meta.to_json()))) == meta


def test_a_volume_beyond_the_memory_is_refused_in_one_sentence():
    section = Preprocess(ct=Ct(spacing_mm=(0.05, 0.05, 0.05)), max_gib=0.5)
    with pytest.raises(UserError, match=r"preprocess\.max_gib, 0\.5: set a larger spacing_mm"):
        prepare_volume(scan_with_blob(), "CT", section)


def test_what_cannot_be_prepared_says_why():
    scan = scan_with_blob()
    with pytest.raises(UserError, match="set it to CT or MR"):
        prepare_volume(scan, "PT", Preprocess())
    with pytest.raises(UserError, match="No voxel holds a value"):
        empty = Volume(np.zeros((4, 5, 6), np.int16), np.eye(4))
        prepare_volume(empty, "CT", Preprocess(), missing_value=0.0)


def test_settings_that_make_no_sense_are_refused():
    for wrong in (
        lambda: Ct(spacing_mm=(1, 0, 1)),
        lambda: Ct(clip_hu=(100, -100)),
        lambda: Ct(clip_hu=(-40000, 0)),
        lambda: Ct(window_hu=(5, 5)),
        lambda: Mr(percentiles=(-1, 99)),
    ):
        with pytest.raises(ValidationError):
            wrong()


def ball_mask(scan, radius=15, dtype=np.uint8):
    """A mask about the blob, on the scan's own grid."""
    places = np.moveaxis(np.indices(scan.data.shape), 0, -1) @ scan.affine[:3, :3].T
    apart = places + scan.affine[:3, 3] - BLOB_MM
    return Volume(((apart**2).sum(-1) < radius**2).astype(dtype), scan.affine)


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_a_drawn_foreground_takes_the_place_of_the_found_one(degrees):
    scan = scan_with_blob((1, 2, 0), (-1, 1, 1), degrees)
    section = Preprocess(ct=Ct(spacing_mm=(2, 2, 2)), straighten=degrees > 0, margin_voxels=2)
    made = prepare_volume(scan, "CT", section, label_masks={"foreground": ball_mask(scan)})
    sphere = 4 / 3 * np.pi * 15**3 / 8
    assert np.count_nonzero(made.data[1] & FOREGROUND) == pytest.approx(sphere, rel=0.1)
    assert max(made.meta.shape) <= 21 + 2
    assert np.allclose(centre_of_mass_mm(made), BLOB_MM, atol=1.0)


def test_what_was_anonymised_is_marked_and_shown_to_nobody():
    scan = scan_with_blob()
    mask = ball_mask(scan)
    made = prepare_volume(
        scan, "CT", Preprocess(foreground="all"), label_masks={"anonymised": mask}
    )
    # The same mask in another axis order.
    other = nibabel.Nifti1Image(mask.data, mask.affine).as_reoriented(
        nibabel.orientations.axcodes2ornt("SPL")
    )
    again = Volume(np.asarray(other.dataobj), other.affine)
    equal = prepare_volume(
        scan, "CT", Preprocess(foreground="all"), label_masks={"anonymised": again}
    )
    assert np.array_equal(made.data, equal.data)
    hidden = made.data[1] & ANONYMISED > 0
    assert np.array_equal(hidden, mask.data.T > 0)
    assert (made.data[1] & VALID > 0).all()
    assert np.array_equal(learnable_mask(made.data[1]), ~hidden)


def test_masks_that_say_nothing_or_do_not_fit_are_refused():
    scan = scan_with_blob()
    with pytest.raises(UserError, match="foreground mask is empty"):
        prepare_volume(scan, "CT", Preprocess(), label_masks={"foreground": ball_mask(scan, 0)})
    small = Volume(np.ones((9, 9, 9), np.uint8), scan.affine)
    with pytest.raises(UserError, match="anonymised mask has another shape"):
        prepare_volume(scan, "CT", Preprocess(), label_masks={"anonymised": small})


def test_a_foreground_that_no_stored_voxel_shows_is_refused():
    scan = scan_with_blob()
    one = np.zeros(scan.data.shape, np.uint8)
    one[31, 31, 31] = 1
    coarse = Preprocess(ct=Ct(spacing_mm=(6, 6, 6)))
    with pytest.raises(UserError, match="vanishes on the stored grid"):
        prepare_volume(scan, "CT", coarse, label_masks={"foreground": Volume(one, scan.affine)})
