"""DICOM: series split into volumes, enhanced files, and what is refused."""

import itertools

import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread

from ssl_pipeline.volumes.readers import ReadError, Source, find_sources, read_volume
from ssl_pipeline.volumes.readers.dicom_split import MAX_VOLUMES
from tests.volumes.volume_writers import rotated_affine, save_dicom, save_enhanced


def test_slices_are_sorted_by_place_and_modality_is_read(brain, tmp_path):
    save_dicom(tmp_path, brain.data, rotated_affine((90, 0, 15)), modality="CT")
    (source,) = find_sources(tmp_path)
    volume = read_volume(source)
    assert volume.modality == "CT"
    np.testing.assert_allclose(volume.affine, rotated_affine((90, 0, 15)), atol=1e-5)


def test_dicom_geometry_agrees_with_simpleitk(brain, tmp_path):
    save_dicom(tmp_path, brain.data, rotated_affine((10, 20, 30)))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    volume = read_volume(find_sources(tmp_path)[0])
    for index in itertools.product((0, 32), (0, 40), (0, 24)):
        place = volume.affine @ [*index, 1]
        expected = np.array(image.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        np.testing.assert_allclose(place[:3], expected, atol=1e-3)
        assert volume.data[index] == image[index]


def test_two_series_in_one_folder_are_two_images(brain, tmp_path):
    save_dicom(tmp_path, brain.data, brain.affine, suffix=".dcm", uid="1.2.3")
    save_dicom(tmp_path, brain.data[:, :, :9], brain.affine, suffix="b.dcm", uid="1.2.4")
    first, second = find_sources(tmp_path)
    assert (first.series, second.series) == ("1.2.3", "1.2.4")
    assert read_volume(first).data.shape[2] == 25
    assert read_volume(second).data.shape[2] == 9
    with pytest.raises(ReadError, match="holds 2 DICOM volumes"):
        read_volume(Source(tmp_path))


def test_a_series_without_a_uid_is_one_image(brain, tmp_path):
    save_dicom(tmp_path, brain.data, brain.affine, uid="")
    assert find_sources(tmp_path) == [Source(tmp_path)]
    assert read_volume(Source(tmp_path)).data.shape == brain.data.shape


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"NumberOfFrames": 4}, "holds 4 frames and does not say where"),
        ({"SamplesPerPixel": 3}, "colours"),
        ({"ImagePositionPatient": None}, "has no ImagePositionPatient"),
        ({"PixelSpacing": [0.5]}, "PixelSpacing that is not 2 numbers"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.7, 0.7, 0]}, "no pair of right angled"),
        ({"Modality": "PT"}, "is of modality PT; only CT and MR are read"),
        ({"PixelSpacing": [-1, 1]}, "has a negative PixelSpacing"),
        ({"RescaleSlope": 0}, "a RescaleSlope of 0"),
        ({"RescaleSlope": "nan"}, "RescaleSlope that is not 1 number"),
        ({"Modality": "CT", "RescaleType": "Z_EFF"}, "no Hounsfield units, by its RescaleType"),
    ],
)
def test_what_is_no_stack_of_slices_is_reported(tags, sentence, brain, tmp_path):
    save_dicom(tmp_path, brain.data[:, :, :9], brain.affine, **tags)
    with pytest.raises(ReadError, match=sentence):
        read_volume(find_sources(tmp_path)[0])


def test_words_of_a_header_count_in_letters_of_any_size(brain, tmp_path):
    words = {"PhotometricInterpretation": "monochrome2", "RescaleType": "hu"}
    save_dicom(tmp_path, brain.data, brain.affine, "ct", **words)
    assert read_volume(find_sources(tmp_path)[0]).modality == "CT"


def test_a_single_slice_is_reported(brain, tmp_path):
    save_dicom(tmp_path, brain.data[:, :, :1], brain.affine)
    with pytest.raises(ReadError, match="one 2D image"):
        read_volume(find_sources(tmp_path)[0])


def test_a_slope_a_slice_is_applied_to_each(brain, tmp_path):
    save_dicom(tmp_path, brain.data[:, :, :5], rotated_affine(), suffix="a", uid="1.2.3")
    later = rotated_affine()
    later[:3, 3] += later[:3, 2] * 5
    save_dicom(tmp_path, brain.data[:, :, 5:], later, suffix="b", uid="1.2.3", RescaleSlope=0.25)
    expected = brain.data.astype(np.float32)
    expected[:, :, 5:] /= 4
    np.testing.assert_array_equal(read_volume(find_sources(tmp_path)[0]).data, expected)


def test_a_garbled_slice_is_an_image_of_its_own_that_cannot_be_read(brain, tmp_path):
    save_dicom(tmp_path, brain.data, brain.affine, uid="1.2.3", suffix=".dcm")
    (tmp_path / "zz.dcm").write_bytes(b"no image at all")
    sources = find_sources(tmp_path)
    assert [source.path.name for source in sources] == [tmp_path.name, "zz.dcm"]
    with pytest.raises(ReadError, match="cannot be read as DICOM"):
        read_volume(sources[1])


# a series of several volumes


def test_echoes_are_volumes_of_their_own(brain, tmp_path):
    for name, echo, factor in (("a", 2.3, 1), ("b", 4.6, 2)):
        save_dicom(
            tmp_path, brain.data // factor, brain.affine, suffix=name, uid="1.2", EchoTime=echo
        )
    sources = find_sources(tmp_path)
    assert [source.series for source in sources] == ["1.2#echotime1", "1.2#echotime2"]
    for source, factor in zip(sources, (1, 2), strict=True):
        np.testing.assert_array_equal(on_grid(read_volume(source), brain), brain.data // factor)


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("EchoNumbers", (1, 2)),
        ("AcquisitionNumber", (3, 12)),
        ("AcquisitionTime", ("093015.5", "093112.25")),
        ("TemporalPositionIdentifier", (1, 2)),
        ("TriggerTime", (0, 450)),
        ("DiffusionBValue", (0, 1000)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
    ],
)
def test_what_may_part_a_series(tag, values, brain, tmp_path):
    for number, value in enumerate(values):
        save_dicom(
            tmp_path, brain.data + number, brain.affine, suffix=f"{number}", uid="1.2",
            **{tag: value},
        )  # fmt: skip
    for number, source in enumerate(find_sources(tmp_path)):
        assert on_grid(read_volume(source), brain)[0, 0, 0] == brain.data[0, 0, 0] + number
    assert len(find_sources(tmp_path)) == 2


def test_directions_and_sizes_are_parted(brain, tmp_path):
    other = rotated_affine((90, 0, 0), spacing=(2, 2, 2))
    save_dicom(tmp_path, brain.data, brain.affine, suffix="a", uid="1.2")
    save_dicom(tmp_path, brain.data, other, suffix="b", uid="1.2")
    save_dicom(tmp_path, brain.data[:20], other, suffix="c", uid="1.2")
    shapes = {source.series: read_volume(source).data.shape for source in find_sources(tmp_path)}
    assert shapes == {
        "1.2#size1": (20, 41, 25),
        "1.2#size2.direction1": (33, 41, 25),
        "1.2#size2.direction2": (33, 41, 25),
    }


def test_marks_that_count_the_slices_tear_no_volume_up(brain, tmp_path):
    for number in range(25):
        place = brain.affine.copy()
        place[:3, 3] += place[:3, 2] * number
        save_dicom(
            tmp_path, brain.data[:, :, number : number + 1], place, suffix=f"-{number}", uid="1.2",
            AcquisitionNumber=number, AcquisitionTime=f"09{number:02}00", InstanceNumber=number,
        )  # fmt: skip
    (source,) = find_sources(tmp_path)
    assert source.series == "1.2"
    np.testing.assert_array_equal(on_grid(read_volume(source), brain), brain.data)


def test_two_acquisitions_between_each_other_are_parted(brain, tmp_path):
    """Neither repeats a place, but together they lie unevenly."""
    shifted = brain.affine.copy()
    shifted[2, 3] += 0.6
    save_dicom(tmp_path, brain.data, brain.affine, suffix="a", uid="1.2", AcquisitionNumber=1)
    save_dicom(tmp_path, brain.data, shifted, suffix="b", uid="1.2", AcquisitionNumber=2)
    assert [read_volume(source).data.shape for source in find_sources(tmp_path)] == [
        (33, 41, 25)
    ] * 2


@pytest.mark.parametrize("count", [4, 25])
def test_slices_that_all_say_one_position_are_told_apart_from_a_4d_series(count, brain, tmp_path):
    for path in save_dicom(tmp_path, brain.data[:, :, :count], brain.affine, uid="1.2"):
        file = dcmread(path)
        file.ImagePositionPatient = [0, 0, 0]
        file.save_as(path)
    (source,) = find_sources(tmp_path)
    with pytest.raises(ReadError, match=f"says one position for all of its {count} slices"):
        read_volume(source)


def test_patients_who_share_a_series_uid_are_scans_of_their_own_with_a_note(brain, tmp_path):
    for name in ("ann", "ben"):
        save_dicom(tmp_path, brain.data, brain.affine, suffix=name, uid="1.2", PatientID=name)
    volumes = [read_volume(source) for source in find_sources(tmp_path)]
    note = "images of other patients have its SeriesInstanceUID"
    assert [(each.data.shape, each.note) for each in volumes] == [(brain.data.shape, note)] * 2


def test_a_long_4d_series_is_one_image_and_refused(brain, tmp_path):
    for number in range(MAX_VOLUMES + 1):
        save_dicom(
            tmp_path, brain.data[:, :, :4], brain.affine, suffix=f"-{number}", uid="1.2",
            TemporalPositionIdentifier=number,
        )  # fmt: skip
    (source,) = find_sources(tmp_path)
    with pytest.raises(ReadError, match="is a 4D series with up to 9 images in one place"):
        read_volume(source)


def test_images_in_one_place_that_nothing_tells_apart(brain, tmp_path):
    save_dicom(tmp_path, brain.data, brain.affine, suffix="a", uid="1.2")
    save_dicom(tmp_path, brain.data, brain.affine, suffix="b", uid="1.2")
    (source,) = find_sources(tmp_path)
    with pytest.raises(ReadError, match="nothing in their headers tells them apart"):
        read_volume(source)


def test_copies_of_slices_are_left_out(brain, tmp_path):
    for path in save_dicom(tmp_path, brain.data, brain.affine, uid="1.2")[:3]:
        path.with_name(f"{path.name} 2").write_bytes(path.read_bytes())
    (source,) = find_sources(tmp_path)
    volume = read_volume(source)
    np.testing.assert_array_equal(on_grid(volume, brain), brain.data)
    assert volume.repair == "3 copies of its slices were left out"


def test_an_image_without_a_place_leaves_its_series_whole(brain, tmp_path):
    save_dicom(tmp_path, brain.data, brain.affine, uid="1.2")
    save_dicom(
        tmp_path, brain.data[:, :, :1], brain.affine, uid="1.2", suffix="x",
        ImagePositionPatient=None,
    )  # fmt: skip
    whole, stray = find_sources(tmp_path)
    assert (whole.series, stray.series) == ("1.2", "1.2#unplaced")
    assert read_volume(whole).data.shape == brain.data.shape
    with pytest.raises(ReadError, match="has no ImagePositionPatient"):
        read_volume(stray)


def test_slices_that_are_missing_are_reported_with_the_volume(brain, tmp_path):
    save_dicom(tmp_path, brain.data, brain.affine)[11].unlink()
    slices = read_volume(find_sources(tmp_path)[0]).slice_spacing
    assert (slices.min_gap_mm, slices.median_gap_mm, slices.max_gap_mm) == (2, 2, 4)
    assert slices.max_offset_mm == pytest.approx(1, abs=0.1)


# enhanced files


def test_an_enhanced_file_is_a_volume(brain, tmp_path):
    save_enhanced(tmp_path / "a.dcm", brain.data, rotated_affine((10, 20, 30)))
    volume = read_volume(find_sources(tmp_path)[0])
    np.testing.assert_array_equal(volume.data, brain.data)
    np.testing.assert_allclose(volume.affine, rotated_affine((10, 20, 30)), atol=1e-5)
    assert volume.modality == "MR"


@pytest.mark.parametrize(
    "mark",
    [
        ("MREchoSequence", "EffectiveEchoTime"),
        ("MRDiffusionSequence", "DiffusionBValue"),
        ("FrameContentSequence", "TemporalPositionIndex"),
        ("FrameContentSequence", "FrameAcquisitionNumber"),
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ],
)
def test_an_enhanced_file_is_parted_by_its_groups(mark, brain, tmp_path):
    data = brain.data // 4
    save_enhanced(tmp_path / "a.dcm", data, rotated_affine(), repeats=[(*mark, 1), (*mark, 10)])
    first, second = find_sources(tmp_path)
    np.testing.assert_array_equal(read_volume(first).data, data)
    np.testing.assert_array_equal(read_volume(second).data, data * 2)


def test_an_enhanced_slope_a_frame_is_applied_to_each(brain, tmp_path):
    slopes = [(1 + number / 4, number) for number in range(25)]
    save_enhanced(tmp_path / "a.dcm", brain.data, rotated_affine(), slopes=slopes)
    expected = brain.data * [slope for slope, _ in slopes] + np.arange(25)
    np.testing.assert_allclose(read_volume(find_sources(tmp_path)[0]).data, expected, rtol=1e-6)


def test_an_enhanced_file_that_describes_other_frames_than_it_holds(brain, tmp_path):
    save_enhanced(tmp_path / "a.dcm", brain.data, rotated_affine(), NumberOfFrames=26)
    with pytest.raises(ReadError, match="says that it holds 26 frames, and describes 25"):
        read_volume(find_sources(tmp_path)[0])


def on_grid(volume, like):
    """The voxels with the last axis in the direction of another volume's."""
    along = volume.affine[:3, 2] @ like.affine[:3, 2]
    return volume.data if along > 0 else volume.data[:, :, ::-1]
