"""Bodies of known shape are separated from air, with all that is dark in them, without a table."""

import numpy as np
import pytest

from ssl_pipeline.preprocess.foreground import bounding_box, ct_body, mr_body
from ssl_pipeline.preprocess.intensity import mr_to_int16

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
    found = ct_body(image, np.ones(shape, bool), -500.0)
    overlap = 2 * np.count_nonzero(found & body) / (found.sum() + body.sum())
    assert overlap >= least
    assert not found[:, int(0.9 * shape[1]) :].any()


def test_only_stored_voxels_are_foreground():
    image, _ = chest((24, 80, 96))
    valid = np.zeros(image.shape, bool)
    valid[:, :, :60] = True
    found = ct_body(image, valid, -500.0)
    assert found.any()
    assert not found[:, :, 60:].any()


@pytest.mark.parametrize("value", [AIR, TISSUE])
def test_nearly_nothing_or_everything_is_no_body(value):
    image = np.full((20, 20, 20), value, np.int16)
    valid = np.ones(image.shape, bool)
    valid[0] = False
    assert np.array_equal(ct_body(image, valid, -500.0), valid)


def test_a_lung_at_the_edge_of_a_small_field_of_view_is_body():
    image, _ = chest((24, 80, 96))
    image = image[:, 20:52, 20:76]  # from the middle of one lung to that of the other
    valid = np.ones(image.shape, bool)
    assert ct_body(image, valid, -500.0).all()


def test_both_legs_are_body():
    image = np.full((20, 60, 90), AIR, np.int16)
    image[:, 15:45, 8:38] = image[:, 20:45, 55:80] = TISSUE
    found = ct_body(image, np.ones(image.shape, bool), -500.0)
    assert np.array_equal(found, image == TISSUE)


def test_a_part_that_reaches_what_is_not_stored_is_body():
    image = np.full((12, 60, 60), TISSUE, np.int16)
    valid = np.zeros(image.shape, bool)
    valid[:, 10:40, 10:40] = valid[:, 50:53, 20:30] = True
    assert np.array_equal(ct_body(image, valid, -500.0), valid)


FAT, BLOOD, WALL = 1000.0, 800.0, 150.0  # signal in an MR of a heart


def heart(shape=(10, 90, 100)):
    """An MR of a chest in air: (z, y, x) without noise, where the body is, and the dark wall."""
    _, y, x = shape
    iy, ix = np.ogrid[:y, :x]
    distance = np.hypot((iy / y - 0.5) / 0.36, (ix / x - 0.5) / 0.4)
    from_heart = np.hypot(iy / y - 0.5, ix / x - 0.4)
    plane = np.where(distance < 1, FAT, 0.0)
    plane[distance < 0.8] = 40.0  # lung, hardly above noise
    wall = from_heart < 0.14
    plane[wall] = WALL
    plane[from_heart < 0.08] = BLOOD
    every_slice = (np.broadcast_to(each, shape) for each in (plane, distance < 1, wall))
    signal, body, all_of_heart = every_slice
    return signal, body, all_of_heart


def noisy(signal, std, coils=1):
    """The magnitude of a signal that `coils` receive with noise, summed in squares."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, std, (coils, 2, *signal.shape))
    noise[:, 0] += signal / np.sqrt(coils)
    return np.sqrt((noise**2).sum(axis=(0, 1)))


def body_of(raw):
    """The body of an MR in any unit."""
    valid = np.ones(raw.shape, bool)
    image, scale, offset = mr_to_int16(raw, valid, 0.0)
    return mr_body(image, valid, -offset / scale)


def zeros_in_corners(raw):
    raw[:, :20, :20] = raw[:, -20:, -20:] = 0
    return raw


@pytest.mark.parametrize(
    "raw",
    [
        noisy(heart()[0], 20.0),
        noisy(heart()[0], 5.0),
        noisy(heart()[0], 20.0, coils=4),
        np.rint(noisy(heart()[0], 20.0) / 5).astype(np.uint8),
        (noisy(heart()[0], 20.0) - 400) / 300,
        zeros_in_corners(noisy(heart()[0], 20.0)),
        heart()[0],
    ],
    ids=["noisy", "clear", "four coils", "uint8", "standardised", "zeros beside noise", "zeros"],
)
def test_air_is_cut_off_an_mr_and_no_dark_tissue(raw):
    _, body, all_of_heart = heart()
    found = body_of(raw)
    assert found[all_of_heart].all()
    assert np.mean(found[body]) > 0.99
    assert np.mean(found[~body]) < 0.15


@pytest.mark.parametrize("std", [2.0, 5.0, 40.0])
def test_a_crop_of_an_organ_has_no_air(std):
    raw = noisy(heart()[0], std)[:, 28:62, 25:56]  # the heart, and lung around it
    raw_in_fat = noisy(np.where(heart()[0] == BLOOD, BLOOD, FAT), std)
    assert body_of(raw_in_fat).all()
    found = body_of(raw)
    assert found[heart()[2][:, 28:62, 25:56]].all()
    assert bounding_box(found, (0, 3, 3)) == (slice(0, 10), slice(0, 34), slice(0, 31))


def test_an_mr_of_one_value_or_of_noise_alone_is_all_body():
    assert body_of(np.full((6, 20, 30), 7.0)).all()
    assert body_of(noisy(np.zeros((6, 40, 50)), 10.0)).all()


def test_the_box_keeps_its_margin_within_the_volume():
    mask = np.zeros((10, 20, 30), bool)
    mask[1:3, 8:12, 29] = True
    assert bounding_box(mask, (2, 3, 4)) == (slice(0, 5), slice(5, 15), slice(25, 30))
