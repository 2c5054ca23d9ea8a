"""Every field of a NIfTI header that is used: what it may say, and the sentence if it says else."""

import nibabel
import numpy as np
import pytest

from ssl_pipeline.volumes.readers import ReadError, Source, read_grid, read_volume
from ssl_pipeline.volumes.readers.reader import LONGER_NOTE, ORIENTATION_NOTE
from tests.volumes.volume_writers import rotated_affine

VOXELS = np.arange(12 * 10 * 9, dtype="i2").reshape(12, 10, 9) - 500
AFFINE = rotated_affine((5, -8, 12))


def write(path, kind=nibabel.Nifti1Header, order="<", **fields):
    """A whole file of VOXELS, whose header has these fields beside sound ones."""
    header = kind(endianness=order)
    header.set_data_shape(VOXELS.shape)
    header.set_data_dtype(np.int16)
    header.set_qform(AFFINE, 1)
    header.set_sform(AFFINE, 1)
    header["magic"] = {348: b"n+1", 540: b"n+2"}[header.sizeof_hdr]
    header["vox_offset"], header["xyzt_units"] = header.sizeof_hdr + 4, 2
    for name, value in fields.items():
        name, _, index = name.partition("__")
        if index:
            header[name][int(index)] = value
        else:
            header[name] = value
    voxels = VOXELS.astype(np.dtype("i2").newbyteorder(order)).tobytes(order="F")
    path.write_bytes(header.binaryblock + bytes(4) + voxels)
    return Source(path)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Header, nibabel.Nifti2Header])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"vox_offset": 0},
        {"bitpix": 0},
        {"scl_slope": 0, "scl_inter": np.nan},
        {"scl_slope": np.nan, "scl_inter": np.nan},
        {"sform_code": 0},
        {"sform_code": 0, "pixdim__0": 0},
        {"xyzt_units": 0},
    ],
)
def test_sound_headers_give_the_voxels_in_their_places(fields, order, kind, tmp_path):
    volume = read_volume(write(tmp_path / "a.nii", kind, order, **fields))
    np.testing.assert_array_equal(volume.data, VOXELS)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"vox_offset": 100}, "the voxels begin at byte 100 (vox_offset)"),
        ({"vox_offset": 352.5}, "the voxels begin at byte 352.5 (vox_offset)"),
        ({"vox_offset": np.nan}, "the voxels begin at byte nan (vox_offset)"),
        ({"vox_offset": -8}, "the voxels begin at byte -8 (vox_offset)"),
        ({"datatype": 77}, "a type of number that is not known, 77 (datatype)"),
        ({"datatype": 0}, "a type of number that is not known, 0 (datatype)"),
        ({"bitpix": 32}, "two sizes of a voxel: 32 bits (bitpix) and 16 (datatype)"),
        ({"scl_slope": 1, "scl_inter": np.nan}, "values are scaled by nan (scl_inter)"),
        ({"scl_slope": np.inf}, "values are scaled by inf (scl_slope)"),
        ({"magic": b"ni1"}, "the voxels are in an .img file beside it."),
        ({"magic": b""}, "does not say that it is NIfTI, and may be ANALYZE"),
    ],
)
def test_a_field_of_the_voxels_that_cannot_be_is_named(fields, sentence, tmp_path):
    with pytest.raises(ReadError) as caught:
        read_volume(write(tmp_path / "a.nii", **fields))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"dim__0": 9}, "that it has 9 axes (dim)"),
        ({"dim__0": 0}, "that it has 0 axes (dim)"),
        ({"dim__2": -10}, "that it has -10 voxels along an axis (dim)"),
        ({"dim__2": 0}, "that it has 0 voxels along an axis (dim)"),
        ({"sform_code": 0, "pixdim__2": -3}, "a voxel spacing of -3 mm (pixdim)"),
        ({"sform_code": 0, "pixdim__0": 3}, "its third axis is turned by 3 (pixdim[0])"),
        ({"sform_code": 0, "quatern_b": 1.5}, "a rotation that is none (quatern_b, c, d)"),
        ({"sform_code": 0, "quatern_b": np.nan}, "a position or spacing that is not a number"),
        ({"srow_x": np.nan}, "a position or spacing that is not a number"),
        ({"xyzt_units": 5}, "the unit of length 5, which is none (xyzt_units)"),
    ],
)
def test_a_field_of_the_grid_that_cannot_be_is_named(fields, sentence, tmp_path):
    with pytest.raises(ReadError) as caught:
        read_grid(write(tmp_path / "a.nii", **fields))
    assert sentence in str(caught.value)


def test_without_orientation_axes_are_right_anterior_superior_and_a_note_says_so(tmp_path):
    volume = read_volume(write(tmp_path / "a.nii", sform_code=0, qform_code=0))
    np.testing.assert_allclose(volume.affine, np.diag([1, 1.5, 2, 1]), atol=1e-6)
    assert volume.note == ORIENTATION_NOTE
    assert read_volume(write(tmp_path / "b.nii")).note == ""


@pytest.mark.parametrize(("unit", "factor"), [(1, 1000), (3, 0.001)])
def test_metres_and_micrometres_become_millimetres(unit, factor, tmp_path):
    grid = read_grid(write(tmp_path / "a.nii", xyzt_units=unit))
    np.testing.assert_allclose(grid.affine[:3], AFFINE[:3] * factor, atol=1e-5 * factor)


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"dim__3": 5}, LONGER_NOTE),
        (
            {"pixdim__1": 4},
            "its header says two voxel sizes, 1 x 1.5 x 2 (sform, which counts) and 4 x 1.5 x 2",
        ),
        (
            {"quatern_b": 0, "quatern_c": 1, "quatern_d": 0},
            "its header says two orientations, RAS (sform, which counts) and LAI (qform)",
        ),
        ({"quatern_b": 3}, ""),  # no rotation, and sform counts
    ],
)
def test_what_a_header_says_twice_and_otherwise_is_noted(fields, note, tmp_path):
    assert read_volume(write(tmp_path / "a.nii", **fields)).note == note


@pytest.mark.parametrize(
    ("words", "modality"),
    [
        (b"CT", "CT"),
        (b"mri", "MR"),
        (b"TE=2.9;Time=113251.000;phase=1", "MR"),
        (b"TE=0;Time=113251.000", None),
        (b"CT to MR", None),
        (b"FSL5.0", None),
    ],
)
def test_the_modality_that_the_description_says(words, modality, tmp_path):
    assert read_volume(write(tmp_path / "a.nii", descrip=words)).modality == modality
