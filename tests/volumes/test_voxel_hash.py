"""Equal values have equal hashes, whatever type of number they are stored as; others have not."""

import numpy as np
import pytest

from ssl_pipeline.volumes.scan_check import voxel_hash
from tests.volumes.inventory_helpers import build, by_name, data_of, subject_name
from tests.volumes.volume_writers import save_nifti

VALUES = np.arange(-60, 60).reshape(4, 5, 6)


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "f4"])
def test_the_type_of_number_does_not_count(kind):
    assert voxel_hash(VALUES.astype(kind)) == voxel_hash(VALUES.astype("i2"))


def test_values_count_after_the_offset_that_gives_hounsfield_units():
    assert voxel_hash((VALUES + 1024).astype("u2"), -1024.0) == voxel_hash(VALUES.astype("i2"))
    halves = VALUES.astype("f4") + np.float32(0.5)
    assert voxel_hash(VALUES.astype("i2"), 0.5) == voxel_hash(halves)


def test_one_zero_and_one_nan():
    values = VALUES.astype("f4") / 7
    values[0, 0, 0], values[1, 1, 1] = 0, np.nan
    other = values.copy()
    other[0, 0, 0] = -0.0
    other.view("u4")[1, 1, 1] ^= 1  # another NaN
    assert voxel_hash(other) == voxel_hash(values)


@pytest.mark.parametrize(
    "other", [VALUES + 1, VALUES / 7, VALUES * 1e20, VALUES.reshape(5, 4, 6), VALUES * 3**17]
)
def test_other_values_and_shapes_have_other_hashes(other):
    kind = "i4" if other.dtype.kind == "i" else "f4"
    assert voxel_hash(other.astype(kind)) != voxel_hash(VALUES.astype("i2"))


def test_a_copy_as_another_type_of_number_is_a_duplicate_of_one_subject(folder, brain):
    save_nifti(folder / "raw" / "a_11.nii", brain.data, brain.affine)
    save_nifti(folder / "raw" / "b_13.nii.gz", brain.data.astype("f4"), brain.affine)
    scans = by_name(folder, build(data_of(folder), folder))
    first, copy = scans["a_11.nii"], scans["b_13.nii.gz"]
    assert copy.reason == f"duplicate of {first.id}: their voxels are equal"
    assert copy.subject == first.subject
    assert subject_name(folder, first) != subject_name(folder, copy)
