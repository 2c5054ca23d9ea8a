"""Estimates of voxels, bytes and time from a header agree with preprocessing."""

import math

import nibabel as nib
import numpy as np
import pytest

from ssl_pipeline.preprocess.config import Mr, Preprocess
from ssl_pipeline.preprocess.cost import voxel_counts
from ssl_pipeline.preprocess.prepare import prepare_volume
from ssl_pipeline.store.cost import volume_bytes
from ssl_pipeline.store.layout import StoreSettings
from ssl_pipeline.store.writer import VOXEL_FILE, write_volume
from ssl_pipeline.volumes import geometry
from ssl_pipeline.volumes.volume import Volume
from tests.conftest import real_volume


def counts_of(volume, section):
    return voxel_counts(
        volume.grid.shape,
        geometry.spacing_mm(volume.affine),
        geometry.axis_codes(volume.affine),
        "MR",
        section,
    )


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SRA", "PIR"])
@pytest.mark.parametrize("spacing", [None, (4.0, 1.5, 3.0)])
def test_the_stored_shape_is_estimated_for_any_order_of_axes(axes, spacing):
    image = real_volume()
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
    )
    image = image.as_reoriented(turn)
    volume = Volume(np.asarray(image.dataobj), image.affine)
    section = Preprocess(mr=Mr(spacing_mm=spacing), foreground="all")
    assert counts_of(volume, section).stored_voxels == math.prod(
        prepare_volume(volume, "MR", section).data.shape[1:]
    )


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("thick", [1, 4])
def test_the_bytes_of_a_stored_volume_are_estimated_within_a_third(codec, thick, tmp_path):
    image = real_volume().slicer[30:98, 6:84]  # without the air around the head, which is no noise
    affine = image.affine @ np.diag([1, 1, thick, 1])
    volume = Volume(np.asarray(image.dataobj), affine)
    section = Preprocess(mr=Mr(spacing_mm=(2, 2, 2)), foreground="all")
    write_volume(
        tmp_path / "a.zarr",
        prepare_volume(volume, "MR", section),
        StoreSettings(codec=codec),
        "key",
    )
    becomes = counts_of(volume, section)
    expected = volume_bytes(
        becomes.stored_voxels, becomes.distinct_voxels, "MR", StoreSettings(codec=codec)
    )
    assert (tmp_path / "a.zarr" / VOXEL_FILE).stat().st_size == pytest.approx(expected, rel=1 / 3)
