"""DICOM files as archives have them: bare data sets, and UIDs that say nothing."""

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from ssl_pipeline.volumes.readers import ReadError, find_sources, read_volume
from tests.volumes.volume_writers import rotated_affine, save_dicom


@pytest.mark.parametrize("uid", ["", "1.2"])
@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("PatientID", ("A", "B")),
        ("PatientName", ("A^B", "C^D")),
        ("PatientBirthDate", ("19500101", "19600101")),
        ("StudyInstanceUID", ("1.3", "1.4")),
        ("StudyDate", ("20200101", "20210101")),
        ("AccessionNumber", ("1", "2")),
        ("SeriesNumber", (1, 2)),
        ("FrameOfReferenceUID", ("1.5", "1.6")),
        ("Modality", ("CT", "MR")),
    ],
)
def test_a_series_uid_that_was_wiped_or_is_constant_joins_nothing(
    tag, values, uid, brain, tmp_path
):
    """Two scans at adjoining heights, which would make one stack."""
    above = brain.affine.copy()
    above[:3, 3] += above[:3, 2] * brain.data.shape[2]
    for value, affine in zip(values, (brain.affine, above), strict=True):
        save_dicom(tmp_path, brain.data, affine, suffix=f"-{value}", uid=uid, **{tag: value})
    shapes = [read_volume(source).data.shape for source in find_sources(tmp_path)]
    assert shapes == [brain.data.shape] * 2


@pytest.mark.parametrize("tag", ["PatientID", "StudyInstanceUID", "FrameOfReferenceUID"])
def test_a_value_that_an_anonymiser_gave_to_each_file_tears_no_series_up(tag, brain, tmp_path):
    for number, path in enumerate(save_dicom(tmp_path, brain.data, brain.affine)):
        file = dcmread(path)
        setattr(file, tag, f"1.2.{number}")
        file.save_as(path)
    (source,) = find_sources(tmp_path)
    assert read_volume(source).data.shape == brain.data.shape


def test_pixel_sides_that_differ_by_a_hair_are_of_one_volume(brain, tmp_path):
    for number, path in enumerate(save_dicom(tmp_path, brain.data, brain.affine)):
        file = dcmread(path)
        file.PixelSpacing = ["0.78125" if number % 2 else "0.7812501"] * 2
        file.save_as(path)
    (source,) = find_sources(tmp_path)
    assert read_volume(source).data.shape == brain.data.shape


def test_a_constant_uid_of_images_makes_none_a_copy(brain, tmp_path):
    for number, echo in enumerate((2.3, 4.6)):
        save_dicom(
            tmp_path, brain.data + number, brain.affine, suffix=f"{number}", uid="1.2",
            EchoTime=echo, SOPInstanceUID="1.2.9",
        )  # fmt: skip
    volumes = [read_volume(source) for source in find_sources(tmp_path)]
    assert [volume.data.shape for volume in volumes] == [brain.data.shape] * 2
    assert not any(volume.repair for volume in volumes)


# without preamble, file meta or transfer syntax


def without_file_meta(path, implicit=True, little=True):
    """Write the bare data set of a file in its place."""
    file = dcmread(path)
    bare = Dataset({element.tag: element for element in file})
    if not little:
        bare.PixelData = file.pixel_array.astype(">i2").tobytes()
    bare.save_as(path, implicit_vr=implicit, little_endian=little, enforce_file_format=False)


def without_transfer_syntax(path):
    file = dcmread(path)
    del file.file_meta.TransferSyntaxUID
    file.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=False)


@pytest.mark.parametrize("suffix", ["", ".dcm"])
@pytest.mark.parametrize("encoding", [(True, True), (False, True), (False, False)])
def test_a_series_without_preamble_is_read(encoding, suffix, brain, tmp_path):
    for path in save_dicom(tmp_path, brain.data, rotated_affine(), suffix=suffix):
        without_file_meta(path, *encoding)
    (source,) = find_sources(tmp_path)
    assert len(source.files) == brain.data.shape[2]
    np.testing.assert_array_equal(read_volume(source).data, brain.data)


def test_slices_without_preamble_belong_to_their_series(brain, tmp_path):
    for path in save_dicom(tmp_path, brain.data, rotated_affine(), uid="1.2")[20:]:
        without_file_meta(path)
    (source,) = find_sources(tmp_path)
    np.testing.assert_array_equal(read_volume(source).data, brain.data)


def test_a_missing_transfer_syntax_is_found_out(brain, tmp_path):
    for path in save_dicom(tmp_path, brain.data, rotated_affine()):
        without_transfer_syntax(path)
    volume = read_volume(find_sources(tmp_path)[0])
    np.testing.assert_array_equal(volume.data, brain.data)


def test_packed_voxels_without_a_transfer_syntax_are_refused(tmp_path):
    for number in range(3):
        file = dcmread(get_testdata_file("MR_small_RLE.dcm"))
        file.ImagePositionPatient = [0, 0, number]
        file.SOPInstanceUID = f"1.2.{number}"
        file.save_as(tmp_path / f"{number}")
        without_transfer_syntax(tmp_path / f"{number}")
    with pytest.raises(ReadError, match="its TransferSyntaxUID is missing"):
        read_volume(find_sources(tmp_path)[0])


@pytest.mark.parametrize(
    "content",
    [
        np.full(5000, 8, "<i2").tobytes(),
        b"\x08\x00\x05\x00CS" + bytes(5000),
        b"\x08\x00",
        b"subject,age\n1,2\n",
    ],
)
def test_what_begins_like_dicom_and_is_none(content, tmp_path):
    (tmp_path / "data").write_bytes(content)
    assert find_sources(tmp_path) == []


@pytest.mark.parametrize(
    ("stated", "of_class", "modality"),
    [("", "4", "MR"), ("OT", "2.1", "CT"), ("OT", "7", None), ("MR", "2", "MR")],
)
def test_the_class_says_what_modality_leaves_open(stated, of_class, modality, brain, tmp_path):
    uid = f"1.2.840.10008.5.1.4.1.1.{of_class}"
    save_dicom(tmp_path, brain.data[:, :, :3], brain.affine, stated, SOPClassUID=uid)
    assert read_volume(find_sources(tmp_path)[0]).modality == modality


# padding, and values that are no intensities


def say_padding(path, *values):
    """Add PixelPaddingValue, and PixelPaddingRangeLimit where a second value is given."""
    file = dcmread(path)
    for tag, value in zip(("PixelPaddingValue", "PixelPaddingRangeLimit"), values, strict=False):
        file.add_new(tag, "US" if value > 32767 else "SS", value)
    file.save_as(path)


@pytest.mark.parametrize("slopes", [(1, 1), (1, 2)])
@pytest.mark.parametrize(
    ("stored", "padding"),
    [
        ((-2000,), (-2000,)),
        ((-2000,), (63536,)),
        ((30000,), (30000,)),
        ((-2000, -1990), (-2000, -1990)),
        ((-2000, -1990), (-1990, -2000)),
    ],
)
def test_padding_is_no_measured_value(stored, padding, slopes, brain, tmp_path):
    data, affine = brain.data.astype("i2") % 3000, rotated_affine()
    data[:5, :4], data[:5, 4:8] = stored[0], stored[-1]
    above = affine.copy()
    above[:3, 3] += above[:3, 2] * 12
    parts = ((data[:, :, :12], affine, slopes[0]), (data[:, :, 12:], above, slopes[1]))
    for number, (part, place, slope) in enumerate(parts):
        paths = save_dicom(
            tmp_path, part, place, suffix=f"{number}", uid="1.2",
            RescaleSlope=slope, RescaleIntercept=-1000,
        )  # fmt: skip
        for path in paths:
            say_padding(path, *padding)
    volume = read_volume(find_sources(tmp_path)[0])
    outside = np.zeros(data.shape, bool)
    outside[:5, :8] = True
    np.testing.assert_array_equal(volume.data == volume.missing_value, outside)
    factors = np.repeat(slopes, (12, 13))
    np.testing.assert_array_equal(volume.data[~outside], (data * factors - 1000)[~outside])


def test_padding_that_no_voxel_has_changes_nothing(brain, tmp_path):
    save_dicom(tmp_path, brain.data, rotated_affine(), PixelPaddingValue=-2000)
    volume = read_volume(find_sources(tmp_path)[0])
    assert volume.missing_value is None and volume.data.dtype == np.int16


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        *(
            ({"PhotometricInterpretation": name}, "holds colours")
            for name in ("PALETTE COLOR", "RGB", "YBR_FULL_422")
        ),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "inverted values"),
        ({"ModalityLUTSequence": [Dataset()]}, "holds places in a table"),
    ],
)
def test_stored_values_that_are_no_intensities_are_refused(tags, reason, brain, tmp_path):
    save_dicom(tmp_path, brain.data[:, :, :3], brain.affine, **tags)
    with pytest.raises(ReadError, match=reason):
        read_volume(find_sources(tmp_path)[0])
