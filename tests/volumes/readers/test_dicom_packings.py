"""DICOM: packed voxels of several makers, and what cannot be unpacked."""

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from ssl_pipeline.volumes.readers import ReadError, find_sources, read_volume
from tests.volumes.volume_writers import rotated_affine, save_dicom, save_enhanced


def packed_by_pydicom(paths, syntax):
    for path in paths:
        file = dcmread(path)
        if syntax == RLELossless:
            file.compress(RLELossless)
        elif syntax == ExplicitVRBigEndian:
            file.PixelData = file.pixel_array.astype(">i2").tobytes()
        written_as(file, syntax, path)


def written_as(file, syntax, path):
    """Save in any transfer syntax; a file that was read refuses to change its byte order."""
    fresh = Dataset(file)
    fresh.file_meta = file.file_meta
    fresh.file_meta.TransferSyntaxUID = syntax
    fresh.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless],
)
@pytest.mark.parametrize("write", [save_dicom, save_enhanced])
def test_what_pydicom_packs(write, syntax, brain, tmp_path):
    written = write(
        tmp_path / "a.dcm" if write is save_enhanced else tmp_path, brain.data, rotated_affine()
    )
    packed_by_pydicom(written if isinstance(written, list) else [written], syntax)
    np.testing.assert_array_equal(read_volume(find_sources(tmp_path)[0]).data, brain.data)


@pytest.mark.parametrize(("packing", "uid"), [("JPEG", "1.2.4.70"), ("JPEG2000", "1.2.4.90")])
def test_what_simpleitk_packs(packing, uid, brain, tmp_path):
    for path in save_dicom(tmp_path, brain.data, rotated_affine()):
        plain = dcmread(path)
        writer = SimpleITK.ImageFileWriter()
        writer.SetFileName(str(tmp_path / "packed.dcm"))
        writer.UseCompressionOn()
        writer.SetCompressor(packing)
        writer.Execute(SimpleITK.GetImageFromArray(plain.pixel_array[None]))
        packed = dcmread(tmp_path / "packed.dcm")
        assert packed.file_meta.TransferSyntaxUID == f"1.2.840.10008.{uid}"
        plain.PixelData, plain.file_meta.TransferSyntaxUID = (
            packed.PixelData,
            packed.file_meta.TransferSyntaxUID,
        )
        plain.save_as(path)
    (tmp_path / "packed.dcm").unlink()
    np.testing.assert_array_equal(read_volume(find_sources(tmp_path)[0]).data, brain.data)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
        ("JPGExtended.dcm", None),
        ("JPEG2000.dcm", None),
        ("JPEGLSNearLossless_16.dcm", None),
    ],
)
@pytest.mark.parametrize("enhanced", [False, True])
def test_packings_of_other_makers(enhanced, name, plain, tmp_path):
    """Nine slices of one file; where no plain one is at hand, SimpleITK's word counts."""
    file = dcmread(get_testdata_file(name))
    stored = (
        dcmread(get_testdata_file(plain)).pixel_array
        if plain
        else SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(get_testdata_file(name)))[0]
    )
    file.Modality, file.PixelSpacing, file.ImageOrientationPatient = (
        "MR",
        [1, 1],
        [1, 0, 0, 0, 1, 0],
    )
    for tag in ("RescaleSlope", "RescaleIntercept"):
        if tag in file:
            delattr(file, tag)
    if enhanced:
        save_enhanced(tmp_path / "a", np.zeros((*stored.T.shape, 9)), np.eye(4))
        whole = dcmread(tmp_path / "a")
        for tag in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
            setattr(whole, tag, file[tag].value)
        whole.PixelData = nine_times(file)
        written_as(whole, file.file_meta.TransferSyntaxUID, tmp_path / "a")
    for number in range(0 if enhanced else 9):
        file.ImagePositionPatient, file.SOPInstanceUID = [0, 0, number], f"1.2.{number}"
        file.save_as(tmp_path / f"{number}")
    volume = read_volume(find_sources(tmp_path)[0])
    np.testing.assert_array_equal(volume.data, np.repeat(stored.T[..., None], 9, axis=2))


def nine_times(file):
    if not file.file_meta.TransferSyntaxUID.is_encapsulated:
        return file.PixelData * 9
    (frame,) = generate_frames(file.PixelData, number_of_frames=1)
    return encapsulate([frame] * 9)


def test_a_packing_that_cannot_be_decoded_is_named(brain, tmp_path):
    for path in save_dicom(tmp_path, brain.data, rotated_affine()):
        slice_ = dcmread(path)
        slice_.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
        slice_.PixelData = encapsulate([slice_.PixelData])
        slice_.save_as(path)
    with pytest.raises(ReadError, match=r"High-Throughput JPEG 2000.*cannot be decoded here"):
        read_volume(find_sources(tmp_path)[0])
