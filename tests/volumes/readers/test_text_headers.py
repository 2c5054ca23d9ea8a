"""Headers of NRRD and MetaImage: what ITK does not read, or reads wrongly, is read or refused."""

import zlib

import numpy as np
import pytest

from ssl_pipeline.volumes.geometry import axis_codes, spacing_mm
from ssl_pipeline.volumes.readers import ReadError, Source, read_grid, read_volume
from ssl_pipeline.volumes.readers.reader import LONGER_NOTE

METAIMAGE = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0",
    "ElementSpacing": "2 2 3", "DimSize": "33 41 25", "ElementType": "MET_SHORT",
}  # fmt: skip
NRRD = {
    "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "33 41 25",
    "space directions": "(2,0,0) (0,2,0) (0,0,3)", "endian": "little", "encoding": "raw",
}  # fmt: skip
NO_DIRECTIONS = {"space": None, "space directions": None}


def save_metaimage(folder, data, voxels=None, **fields):
    lines = [f"{name} = {value}\n" for name, value in (METAIMAGE | fields).items() if value]
    raw = data.astype("<i2").tobytes(order="F") if voxels is None else voxels
    path = folder / "a.mha"
    path.write_bytes("".join([*lines, "ElementDataFile = LOCAL\n"]).encode() + raw)
    return path


def save_nrrd(folder, data, fields, pairs=""):
    lines = [f"{name}: {value}\n" for name, value in (NRRD | fields).items() if value]
    path = folder / "a.nrrd"
    head = f"NRRD0005\n{''.join(lines)}{pairs}\n"
    path.write_bytes(head.encode() + data.astype("<i2").tobytes(order="F"))
    return path


@pytest.mark.parametrize(
    ("fields", "spacing", "axes"),
    [
        ({}, (2, 2, 3), "LPS"),
        ({"ElementSpacing": "2000 2000 3000", "DistanceUnits": "um"}, (2, 2, 3), "LPS"),
        ({"ElementSpacing": ".2 .2 .3", "DistanceUnits": "cm"}, (2, 2, 3), "LPS"),
        ({"ElementSpacing": None, "ElementSize": "2 2 3"}, (2, 2, 3), "LPS"),
        ({"TransformMatrix": None, "AnatomicalOrientation": "RAI"}, (2, 2, 3), "LPS"),
        ({"TransformMatrix": None, "AnatomicalOrientation": "LPI"}, (2, 2, 3), "RAS"),
        ({"TransformMatrix": None, "AnatomicalOrientation": "ASL"}, (2, 2, 3), "PIR"),
    ],
)
def test_metaimage_is_read_as_its_header_says(fields, spacing, axes, brain, tmp_path):
    volume = read_volume(Source(save_metaimage(tmp_path, brain.data, **fields)))
    np.testing.assert_allclose(spacing_mm(volume.affine), spacing)
    assert (axis_codes(volume.affine), volume.note) == (axes, "")
    np.testing.assert_array_equal(volume.data, brain.data)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ElementSpacing": "2 2 -3"}, "a negative voxel spacing"),
        ({"ElementSpacing": "2 2 nan"}, "no numbers in ElementSpacing"),
        ({"ElementSpacing": None}, "does not say how far its voxels are apart"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0 nan"}, "no numbers in TransformMatrix"),
        ({"ElementToIntensityFunctionSlope": "2"}, "scales values"),
        ({"HeaderSize": "100"}, "where its voxels begin"),
        ({"Modality": "MET_MOD_PET"}, "of another modality"),
        ({"DistanceUnits": "furlong"}, "a unit of length that is none"),
    ],
)
def test_metaimage_whose_header_cannot_be_meant_is_refused(fields, reason, brain, tmp_path):
    path = save_metaimage(tmp_path, brain.data, **fields)
    with pytest.raises(ReadError, match=reason):
        read_volume(Source(path))


def test_a_modality_counts_in_letters_of_any_size(brain, tmp_path):
    path = save_metaimage(tmp_path, brain.data, Modality="met_mod_ct")
    assert read_volume(Source(path)).modality == "CT"


def test_packed_voxels_of_metaimage_are_whole_or_refused(brain, tmp_path):
    packed = zlib.compress(brain.data.astype("<i2").tobytes(order="F"))
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 255

    def read(voxels, size):
        fields = {"CompressedData": "True", "CompressedDataSize": str(size)}
        return read_volume(Source(save_metaimage(tmp_path, brain.data, voxels, **fields)))

    np.testing.assert_array_equal(read(packed, len(packed)).data, brain.data)
    for voxels in (bytes(damaged), packed[:-2], packed[: len(packed) // 2]):
        with pytest.raises(ReadError, match="damaged; is the file complete"):
            read(voxels, len(voxels))
    with pytest.raises(ReadError, match="damaged"):
        read(packed, len(packed) // 2)
    with pytest.raises(ReadError, match="does not say the size of the packed voxels"):
        read(packed, 0)
    fewer = zlib.compress(bytes(1000))
    with pytest.raises(ReadError, match="fewer voxels than its header says"):
        read(fewer, len(fewer))


@pytest.mark.parametrize(
    "fields",
    [
        {"space directions": "(.2,0,0) (0,.2,0) (0,0,.3)", "space units": '"cm" "cm" "cm"'},
        {"space directions": "(2e3,0,0) (0,2e3,0) (0,0,3e3)", "space units": '"um" "um" "um"'},
        NO_DIRECTIONS | {"spacings": ".002 .002 .003", "units": '"m" "m" "m"'},
    ],
)
def test_the_unit_of_nrrd_counts(fields, brain, tmp_path):
    path = save_nrrd(tmp_path, brain.data, fields)
    for grid in (read_grid(Source(path)), read_volume(Source(path)).grid):
        np.testing.assert_allclose(spacing_mm(grid.affine), (2, 2, 3))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (NO_DIRECTIONS, "does not say how far its voxels are apart"),
        (NO_DIRECTIONS | {"spacings": "2 2 nan"}, "a spacing that is not a number"),
        (NO_DIRECTIONS | {"spacings": "2 2 -3"}, "a negative voxel spacing"),
        ({"space directions": "(2,0,0) (0,2,0) none"}, "does not say how far"),
        ({"space units": '"mm" "mm" "cm"'}, "units of length that are unknown or differ"),
        ({"kinds": "space space time"}, "has an axis of time"),
        ({"encoding": "ascii"}, "has its voxels as text"),
        ({"old min": "-1024", "old max": "3071"}, "was quantised"),
    ],
)
def test_nrrd_whose_header_cannot_be_meant_is_refused(fields, reason, brain, tmp_path):
    path = save_nrrd(tmp_path, brain.data, fields)
    with pytest.raises(ReadError, match=reason):
        read_volume(Source(path))


@pytest.mark.parametrize("pair", ["modality:=CT\n", "DICOM_0008_0060:=CT\n"])
def test_the_modality_of_nrrd_is_its_header_s(pair, brain, tmp_path):
    assert read_volume(Source(save_nrrd(tmp_path, brain.data, {}, pair))).modality == "CT"


def test_voxels_that_the_header_does_not_tell_of_are_noted(brain, tmp_path):
    for path in (
        save_nrrd(tmp_path, brain.data, {"sizes": "33 41 12"}),
        save_metaimage(tmp_path, brain.data, DimSize="33 41 12"),
    ):
        assert read_volume(Source(path)).note == LONGER_NOTE
