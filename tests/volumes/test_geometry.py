"""Axes are swapped and flipped without moving anything in the body."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_pipeline.volumes import geometry
from ssl_pipeline.volumes.volume import Volume, VoxelGrid
from tests.volumes.volume_writers import rotated_affine

DATA = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
ORIENTATIONS = [
    np.eye(3)[list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def places(volume):
    """Each voxel's value and where it lies in the body, by value."""
    index = np.stack(np.meshgrid(*map(np.arange, volume.data.shape), indexing="ij"), -1)
    world = index.reshape(-1, 3) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return world[np.argsort(volume.data.ravel(), kind="stable")]


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_all_48_orientations_become_ras_and_move_nothing(axes):
    affine = np.eye(4)
    affine[:3, :3] = axes * (1.0, 1.5, 2.5)
    affine[:3, 3] = 7, -3, 11
    volume = Volume(DATA, affine, "MR")
    straight = geometry.to_canonical(volume)
    assert geometry.axis_codes(straight.affine) == "RAS"
    assert straight.modality == "MR"
    np.testing.assert_allclose(places(straight), places(volume))
    assert geometry.residual_rotation_deg(affine) == pytest.approx(0, abs=1e-5)
    assert geometry.canonical_grid(volume.grid).shape == straight.data.shape
    np.testing.assert_allclose(geometry.canonical_grid(volume.grid).affine, straight.affine)
    np.testing.assert_array_equal(geometry.to_canonical(straight).data, straight.data)


angle = st.floats(-180, 180)
side = st.floats(0.3, 6)
coordinate = st.floats(-400, 400)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(angle, angle, angle),
    st.tuples(side, side, side),
    st.tuples(coordinate, coordinate, coordinate),
)
def test_an_oblique_scan_keeps_its_places(degrees, spacing, origin):
    volume = Volume(DATA, rotated_affine(degrees, spacing, origin))
    straight = geometry.to_canonical(volume)
    np.testing.assert_allclose(places(straight), places(volume), atol=0.01)
    assert sorted(geometry.spacing_mm(straight.affine)) == pytest.approx(sorted(spacing))
    assert geometry.shear_deg(straight.affine) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("degrees", [0, 5, 30, -44])
def test_residual_rotation_is_the_angle(degrees):
    flipped = rotated_affine((0, 0, degrees)) @ np.diag([-1, 1, -1, 1])
    assert geometry.residual_rotation_deg(flipped) == pytest.approx(abs(degrees), abs=1e-4)


def test_shear_is_the_angle():
    tilted = np.eye(4)
    tilted[1, 2] = np.tan(np.radians(14))
    assert geometry.shear_deg(tilted) == pytest.approx(14)


def test_same_place_knows_flips_and_shifts():
    grid = VoxelGrid((4, 5, 6), rotated_affine())
    flipped = geometry.canonical_grid(
        VoxelGrid((4, 5, 6), rotated_affine() @ np.diag([1, 1, -1, 1]))
    )
    shifted = grid.affine.copy()
    shifted[0, 3] += 1
    assert geometry.is_same_grid(grid, grid)
    assert not geometry.is_same_grid(grid, flipped)
    assert not geometry.is_same_grid(grid, VoxelGrid(grid.shape, shifted))
